//! The output of commands: a table for people, JSON for programs.

use crate::pasted::{is_double_quote, is_invisible};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, Width, presets::NOTHING};
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{self, Write},
};

/// Characters that a column keeps when it is cut.
const CUT_AT_LEAST: u16 = 24;

/// The `--json` of a command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Format {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

impl Format {
    /// Prints rows under a header, or an array of objects.
    pub(crate) fn list<T: Serialize, const N: usize>(
        self,
        header: [&str; N],
        items: &[T],
        row: impl Fn(&T) -> [String; N],
    ) -> anyhow::Result<()> {
        if self.json {
            return print_json(items);
        }
        let mut table = plain_table();
        table.set_header(header);
        table.add_rows(items.iter().map(|item| row(item).map(|cell| plain_cell(&cell))));
        print(&table.trim_fmt())
    }

    /// Prints rows whose columns depend on the command line, or the same as objects.
    pub(crate) fn table(
        self,
        header: Vec<String>,
        rows: Vec<Vec<String>>,
        objects: &[serde_json::Value],
    ) -> anyhow::Result<()> {
        if self.json {
            return print_json(objects);
        }
        let mut table = plain_table();
        table.set_header(header);
        table.add_rows(rows.into_iter().map(|row| row.into_iter().map(|cell| plain_cell(&cell))));
        print(&table.trim_fmt())
    }

    /// As [`Self::list`], with one line for each row. Where a row does not fit the terminal, the column `cut` is cut.
    pub(crate) fn lines<T: Serialize, const N: usize>(
        self,
        header: [&str; N],
        cut: usize,
        items: &[T],
        row: impl Fn(&T) -> [String; N],
    ) -> anyhow::Result<()> {
        if self.json {
            return print_json(items);
        }
        let mut table = plain_table();
        table.set_header(header);
        for item in items {
            let mut line = Row::from(row(item).map(|cell| plain_cell(&cell)));
            line.max_height(1);
            table.add_row(line);
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_constraint(if at == cut {
                ColumnConstraint::LowerBoundary(Width::Fixed(CUT_AT_LEAST))
            } else {
                ColumnConstraint::ContentWidth
            });
        }
        print(&table.trim_fmt())
    }

    /// Prints names and values, or one object.
    pub(crate) fn object<T: Serialize, N: Into<String>>(
        self,
        item: &T,
        rows: impl FnOnce(&T) -> Vec<(N, String)>,
    ) -> anyhow::Result<()> {
        if self.json {
            return print_json(item);
        }
        let mut table = plain_table();
        table.add_rows(rows(item).into_iter().map(|(name, value)| [name.into(), plain_cell(&value)]));
        print(&table.trim_fmt())
    }

    /// Prints what was done, as a sentence or as an object.
    pub(crate) fn done<T: Serialize>(self, item: &T, sentence: &str) -> anyhow::Result<()> {
        if self.json { print_json(item) } else { print(&plain_cell(sentence)) }
    }
}

/// The text with each character that controls or is not seen as an escape, such as `\u{200b}`: a sender's text must neither
/// control the terminal, nor make a line read differently from what it is, nor look like another text. Scripts and emoji that
/// need an invisible character show it too.
pub(crate) fn plain(text: &str) -> String {
    escaped(text, is_unseen)
}

/// The same for a cell of a table, which may have several lines.
fn plain_cell(text: &str) -> String {
    escaped(text, |c| c != '\n' && is_unseen(c))
}

/// The text in double quotes, for a sentence. Whatever it has in it, it cannot look like more than a text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text, |c| is_unseen(c) || c == '\\' || is_double_quote(c)))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Control characters, those of Unicode that are invisible, and those that are lines, annotations or blanks.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || is_invisible(c)
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' | '\u{2800}')
}

/// Prints a line to standard output. A closed pipe (`| head`) is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, for the person at the terminal. A work that is half done does not end because nobody reads
/// it, as it would by `eprintln!`.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The same without a line's end, for progress that is written over.
pub(crate) fn note_in_place(text: &str) {
    let mut error = io::stderr().lock();
    let _ = write!(error, "{text}").and_then(|()| error.flush());
}

fn print_json<T: Serialize + ?Sized>(item: &T) -> anyhow::Result<()> {
    print(&seen_json(&serde_json::to_string_pretty(item)?))
}

/// The same JSON with the escapes of JSON for what is not seen. Such a character is in a text, as all others are ASCII.
fn seen_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !is_unseen(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

/// A table that fits the terminal, if the output is one.
fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_controls_or_is_not_seen_is_shown_as_an_escape() {
        for hostile in [
            '\u{1b}',
            '\u{7}',
            '\u{9b}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2060}',
            '\u{feff}',
            '\u{ad}',
            '\u{2028}',
            '\u{2800}',
            '\u{fff9}',
            '\u{e0041}',
        ] {
            let (text, shown) = (format!("a{hostile}b"), format!("a\\u{{{:x}}}b", u32::from(hostile)));
            assert_eq!((plain(&text), plain_cell(&text)), (shown.clone(), shown.clone()));
            assert_eq!(quoted(&text), format!("\"{shown}\""));
        }
        assert_eq!((plain("a\r\nb"), plain_cell("a\nb")), ("a\\r\\nb".to_owned(), "a\nb".to_owned()));
        for harmless in ["مرحبا", "שלום", "👩🚀", "é", "e\u{301}", "C:\\x \"y\""] {
            assert_eq!(plain(harmless), harmless);
        }
    }

    #[test]
    fn json_has_no_character_that_is_not_seen_and_means_the_same() {
        let text = "a\u{200b}\u{e0041}\u{7f}\n\"\\é👩";
        let shown = seen_json(&serde_json::to_string_pretty(&[text]).unwrap());
        assert_eq!(shown, "[\n  \"a\\u200b\\udb40\\udc41\\u007f\\n\\\"\\\\é👩\"\n]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [text]);
    }

    #[test]
    fn a_text_in_quotes_does_not_end_before_its_last_one() {
        for (text, shown) in [
            ("Zoë O'Brien (x), [y]", "\"Zoë O'Brien (x), [y]\""),
            ("a\", as root", "\"a\\\", as root\""),
            ("a\\", "\"a\\\\\""),
            ("a\u{201d}b\u{ff02}", "\"a\\u{201d}b\\u{ff02}\""),
        ] {
            assert_eq!(quoted(text), shown);
        }
    }
}
