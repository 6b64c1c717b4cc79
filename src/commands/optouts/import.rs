//! A file of numbers: read whole before anything is written.

use crate::{config::sender_name, phone::PhoneNumber};
use anyhow::{Context as _, bail};
use std::{fs, io, path::Path};

/// Wrong lines that are named at most.
const NAMED_AT_MOST: usize = 20;
/// Numbers between two lines of progress.
const TOLD_EVERY: usize = 50_000;

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return io::read_to_string(io::stdin()).context("cannot read standard input");
    }
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Senders and numbers, one a line. The numbers are not repeated in complaints.
pub(super) fn parse(
    text: &str,
    sender: &str,
    number: impl Fn(&str) -> Result<PhoneNumber, String>,
) -> anyhow::Result<Vec<(String, String)>> {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (phone, own) = match line.split_once(',') {
            Some((phone, own)) => (phone.trim(), Some(own.trim())),
            None => (line, None),
        };
        let own = own.filter(|own| !own.is_empty()).map_or(Ok(sender.to_owned()), sender_name);
        match (number(phone), own) {
            (Ok(phone), Ok(sender)) => rows.push((sender, phone.into())),
            (Err(message), _) => wrong.push(format!("  line {}: {message}", index + 1)),
            (_, Err(message)) => wrong.push(format!("  line {}: the sender {message}", index + 1)),
        }
    }
    if wrong.is_empty() {
        return Ok(rows);
    }
    let count = wrong.len();
    if count > NAMED_AT_MOST {
        wrong.truncate(NAMED_AT_MOST);
        wrong.push(format!("  and {} more", count - NAMED_AT_MOST));
    }
    let lines = if count == 1 { "line is" } else { "lines are" };
    bail!("nothing is imported, as {count} {lines} wrong:\n{}", wrong.join("\n"))
}

/// Says on standard error how far a long import is.
pub(super) fn tell(done: usize, all: usize) {
    if all > TOLD_EVERY && (done.is_multiple_of(TOLD_EVERY) || done == all) {
        eprintln!("{done} of {all}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::{self, PhoneCheck};

    fn rows(text: &str) -> anyhow::Result<Vec<(String, String)>> {
        let number = |text: &str| {
            phone::parse(text, "US", PhoneCheck::Possible, &[]).map_err(|refusal| refusal.message)
        };
        parse(text, "*", number)
    }

    #[test]
    fn numbers_are_read_in_any_format_with_a_sender_or_without() {
        let text = "\u{feff}111-000-0000\r\n\n +442079460958 , +15550001111\n2015550100,\n2015550101,MG1\n";
        let expected = [
            ("*", "+11110000000"),
            ("+15550001111", "+442079460958"),
            ("*", "+12015550100"),
            ("MG1", "+12015550101"),
        ];
        let expected = expected.map(|(sender, phone)| (sender.to_owned(), phone.to_owned()));
        assert_eq!(rows(text).unwrap(), expected);
        assert!(rows("").unwrap().is_empty());
    }

    #[test]
    fn wrong_lines_are_named_and_not_quoted() {
        let complaint = rows("2015550100\nphone\n2015550101,no such sender at all\n12345\n").unwrap_err();
        let complaint = complaint.to_string();
        assert!(complaint.starts_with("nothing is imported, as 3 lines are wrong:"), "{complaint}");
        assert!(complaint.contains("line 2: ") && complaint.contains("line 3: the sender"), "{complaint}");
        assert!(complaint.contains("line 4: ") && !complaint.contains("12345"), "{complaint}");
        let many = "x\n".repeat(100);
        assert!(rows(&many).unwrap_err().to_string().ends_with("and 80 more"));
    }
}
