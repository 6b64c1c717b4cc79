//! A file of numbers. It is read whole before anything is written.

use crate::{config::from_number, output::note, pasted, phone::PhoneNumber};
use anyhow::{Context as _, bail};
use csv::{ReaderBuilder, StringRecord, Trim};
use std::{fs, io, path::Path};

/// Wrong lines that are named at most.
const NAMED_AT_MOST: usize = 20;
/// A cell with more digits than this may be a mistyped phone number.
const DIGITS_OF_A_NAME: usize = 4;
/// Numbers between two lines of progress.
const PROGRESS_EVERY: usize = 50_000;

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    let (bytes, name) = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::copy(&mut io::stdin(), &mut bytes).context("cannot read standard input")?;
        (bytes, "standard input".into())
    } else {
        let name = file.display().to_string();
        (fs::read(file).with_context(|| format!("cannot read {name}"))?, name)
    };
    let is_utf8 = |_| format!("{name} is not UTF-8; a spreadsheet saves it so as \"CSV UTF-8\"");
    String::from_utf8(bytes).map_err(|error| anyhow::anyhow!(is_utf8(error)))
}

/// The numbers of a file.
pub(super) struct ImportFile {
    /// Senders and numbers.
    pub rows: Vec<(String, String)>,
    /// Whether the first line was taken for the columns' names.
    pub has_header: bool,
}

/// Shows no numbers.
impl std::fmt::Debug for ImportFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportFile").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// Reads CSV (RFC 4180): numbers, and after a comma, a semicolon or a tab their senders, quoted or not. Errors show no more
/// of a number than its last two digits.
pub(super) fn parse(
    text: &str,
    sender: &str,
    number: impl Fn(&str) -> Result<PhoneNumber, String>,
) -> anyhow::Result<ImportFile> {
    let text = text.trim_start_matches('\u{feff}');
    let (separator, text) = separator_line(text);
    let above = usize::from(separator.is_some());
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .delimiter(separator.unwrap_or_else(|| delimiter(text)))
        .from_reader(text.as_bytes());
    let (mut rows, mut wrong, mut more, mut has_header) = (Vec::new(), Vec::new(), 0_usize, false);
    for (index, record) in reader.records().enumerate() {
        let record = record.context("the file cannot be read")?;
        if index == 0 && is_header(&record, &number) {
            has_header = true;
        } else if record.iter().any(|cell| !pasted::visible(cell).trim().is_empty()) {
            match row(&record, sender, &number) {
                Ok(row) => rows.push(row),
                Err(message) if wrong.len() < NAMED_AT_MOST => {
                    let (line, cell) = (above + line_of(text, &record), record.get(0).unwrap_or_default());
                    wrong.push(format!("  line {line}: {message} ({})", masked(cell)));
                }
                Err(_) => more += 1,
            }
        }
    }
    if wrong.is_empty() {
        return Ok(ImportFile { rows, has_header });
    }
    let count = wrong.len() + more;
    if more > 0 {
        wrong.push(format!("  and {more} more"));
    }
    let lines = if count == 1 { "line is" } else { "lines are" };
    bail!("nothing is imported, as {count} {lines} wrong:\n{}", wrong.join("\n"))
}

fn row(
    record: &StringRecord,
    sender: &str,
    number: impl Fn(&str) -> Result<PhoneNumber, String>,
) -> Result<(String, String), String> {
    if record.iter().skip(2).any(|cell| !cell.is_empty()) {
        return Err("it has more than a number and a sender".to_owned());
    }
    let phone = number(record.get(0).unwrap_or_default())?;
    let own = record.get(1).map(|own| pasted::unwrapped(&pasted::visible(own)).to_owned());
    let own = match own.filter(|own| !own.is_empty()) {
        None => sender.to_owned(),
        // If the columns were swapped, this is a visitor's number: the error masks it.
        Some(own) => from_number(&own)
            .map_err(|message| format!("the sender {}", message.replace(&own, &masked(&own))))?,
    };
    Ok((own, phone.into()))
}

/// The line that a record begins on, from 1. The record's position may be that of the line break before it.
fn line_of(text: &str, record: &StringRecord) -> usize {
    let at = record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or_default();
    let (before, rest) = text.as_bytes().split_at(at.min(text.len()));
    let breaks = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let before = &text.as_bytes()[..before.len() + breaks];
    let is_break = |(n, b): (usize, &u8)| *b == b'\n' || (*b == b'\r' && before.get(n + 1) != Some(&b'\n'));
    1 + before.iter().enumerate().filter(|pair| is_break(*pair)).count()
}

/// The separator of the cells: a comma, or else the semicolon of spreadsheets in some countries, or else a tab.
fn delimiter(text: &str) -> u8 {
    let candidates = [b',', b';', b'\t'];
    candidates.into_iter().find(|b| text.as_bytes().contains(b)).unwrap_or(b',')
}

/// The separator that a first line such as `sep=;` sets for spreadsheets, and the lines below that line.
fn separator_line(text: &str) -> (Option<u8>, &str) {
    let end = text.find(['\r', '\n']).unwrap_or(text.len());
    let (line, below) = text.split_at(end);
    let below = below.strip_prefix("\r\n").or_else(|| below.strip_prefix(['\r', '\n'])).unwrap_or(below);
    let line = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(line);
    let names = |name: &str| name.eq_ignore_ascii_case("sep=");
    match line.split_at_checked(4).filter(|(name, _)| names(name)).map(|(_, rest)| rest.as_bytes()) {
        Some(&[b]) if b != b'"' && b.is_ascii() && !b.is_ascii_alphanumeric() => (Some(b), below),
        _ => (None, text),
    }
}

/// Whether the record holds the columns' names: a cell has letters, and no cell is a phone number, or has so many digits that
/// it may be a mistyped one.
fn is_header(record: &StringRecord, number: impl Fn(&str) -> Result<PhoneNumber, String>) -> bool {
    let is_number = |cell: &str| {
        cell.chars().filter(|c| c.is_numeric()).count() > DIGITS_OF_A_NAME || number(cell).is_ok()
    };
    record.iter().any(|cell| cell.contains(char::is_alphabetic)) && !record.iter().any(is_number)
}

/// The last two digits, to find the line by.
fn masked(cell: &str) -> String {
    let digits: Vec<char> = cell.chars().filter(char::is_ascii_digit).collect();
    match digits.len() {
        0..=4 => "…".to_owned(),
        count => format!("…{}", digits[count - 2..].iter().collect::<String>()),
    }
}

/// Shows on standard error how far a long import is.
pub(super) fn show_progress(done: usize, all: usize) {
    if all > PROGRESS_EVERY && (done.is_multiple_of(PROGRESS_EVERY) || done == all) {
        note(&format!("{done} of {all}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone;

    fn file(text: &str) -> anyhow::Result<ImportFile> {
        let number = |text: &str| phone::parse_either_form(text, "US").map_err(|refusal| refusal.message);
        parse(text, "*", number)
    }

    fn rows(text: &str) -> Vec<(String, String)> {
        file(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).rows
    }

    #[test]
    fn numbers_are_read_in_any_format_with_a_sender_or_without() {
        let expected = [
            ("*", "+11110000000"),
            ("+15550001111", "+442079460958"),
            ("*", "+12015550100"),
            ("MG1", "+12015550101"),
        ];
        let expected = expected.map(|(sender, phone)| (sender.to_owned(), phone.to_owned()));
        for text in [
            "\u{feff}111-000-0000\r\n\n +442079460958 , +15550001111\n2015550100,\n2015550101,MG1\n",
            "\"111-000-0000\"\n\"+44 20 7946 0958\",\"+15550001111\"\r\n\"(201) 555-0100\"\n \"2015550101\" , \"MG1\"",
            "\u{feff}\"Phone\",\"Sender\"\r\n\"111-000-0000\",\"\"\r\n\"+442079460958\",\"+15550001111\"\r\n\"2015550100\",\r\n2015550101,MG1\r\n",
            "Phone;Sender\n111-000-0000;\n+442079460958;+15550001111\n2015550100;\n2015550101;MG1\n",
            "111-000-0000\t\n+442079460958\t+15550001111\n\u{202a}2015550100\u{202c}\n2015550101\tMG1\n",
            "phone\n\"\"\"111-000-0000\"\"\"\n+442079460958,+15550001111\n<2015550100>\n\u{201c}2015550101\u{201d},\u{201c}MG1\u{201d}\n\n,\n",
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
        for empty in ["", "\u{feff}", "\n\r\n", "Phone,Sender\n"] {
            assert!(rows(empty).is_empty(), "{empty:?}");
        }
        assert!(file("Phone\n2015550100").unwrap().has_header && !file("2015550100").unwrap().has_header);
    }

    #[test]
    fn a_first_line_without_a_number_holds_the_columns_names() {
        let expected = [("*".to_owned(), "+12015550100".to_owned())];
        for header in [
            "Phone,",
            ",Phone",
            "Phone 1 - Value",
            "Phone 1 - Value,Sender 2",
            "Téléphone",
            "\"Phone\",\"\"",
            "x1",
        ] {
            for end in ["\n", "\r\n"] {
                let read = file(&format!("{header}{end}2015550100{end}")).unwrap();
                assert!(read.has_header && read.rows == expected, "{header:?}");
            }
        }
        // A mistyped number, or one in the other column, is not skipped.
        for wrong in ["201-555-01O2", "Phone,2015550100", "MG1,2015550100", "12345", ",", "tel:20155501"] {
            let read = file(&format!("{wrong}\n2015550100\n"));
            assert!(read.is_err() || !read.unwrap().has_header, "{wrong:?}");
        }
    }

    #[test]
    fn a_first_line_that_sets_the_separator_is_obeyed() {
        let expected = [("MG1".to_owned(), "+12015550100".to_owned())];
        for (line, separator) in
            [("sep=;", ";"), ("SEP=,", ","), ("sep=\t", "\t"), ("\"sep=|\"", "|"), ("\u{feff}sep=;", ";")]
        {
            for end in ["\n", "\r\n", "\r"] {
                let body =
                    format!("{line}{end}Phone, mobile{separator}Sender{end}2015550100{separator}MG1{end}");
                let body = if separator == "," { body.replace(", mobile", "") } else { body };
                let read = file(&body).unwrap_or_else(|error| panic!("{body:?}: {error}"));
                assert!(read.has_header && read.rows == expected, "{body:?}");
                let wrong = file(&format!("{line}{end}2015550100{end}12345{end}")).unwrap_err().to_string();
                assert!(wrong.contains("  line 3: "), "{wrong}");
            }
        }
        assert!(rows("sep=;").is_empty());
    }

    #[test]
    fn errors_name_wrong_lines_and_do_not_quote_them() {
        let complaint = file(
            "2015550100\nphone\n2015550101,no such sender 2015550188\n12345\n\"201-555-01O2\"\n2015550103,MG1,x\n",
        );
        let complaint = complaint.unwrap_err().to_string();
        assert!(complaint.starts_with("nothing is imported, as 5 lines are wrong:"), "{complaint}");
        for named in
            ["line 2: the phone", "line 3: the sender", "line 4: ", "line 5: ", "line 6: it has more than"]
        {
            assert!(complaint.contains(named), "{named} {complaint}");
        }
        for named in ["(…)", "(…01)", "(…45)", "(…12)", "(…03)"] {
            assert!(complaint.contains(named), "{named} {complaint}");
        }
        for hidden in ["12345", "2015", "no such"] {
            assert!(!complaint.contains(hidden), "{complaint}");
        }
        // A cell over several lines is named by its first.
        let complaint = file("2015550100\n\"2015550101\n2015550102\"\n2015550103\n").unwrap_err().to_string();
        assert!(complaint.contains("1 line is wrong") && complaint.contains("line 2: "), "{complaint}");
        for (breaks, line) in [("\r\n", 3), ("\n", 3), ("\r", 3), ("\r\n\r\n", 5)] {
            let complaint =
                file(&["2015550100", "2015550101", "12345", "2015550102"].join(breaks)).unwrap_err();
            assert!(complaint.to_string().contains(&format!("  line {line}: ")), "{breaks:?} {complaint}");
        }
        let many = format!("2015550100\n{}", "x1\n".repeat(100));
        assert!(file(&many).unwrap_err().to_string().ends_with("and 80 more"));
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "(sep=)?[0-9+a-z\",; \t\r\n\u{feff}\u{200b}é]{0,80}") {
            let _ = file(&text);
        }
    }
}
