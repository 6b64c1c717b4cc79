//! How commands answer: a table for people, JSON for programs.

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, Width, presets::NOTHING};
use serde::Serialize;
use std::io::{self, Write};

/// Characters that a column keeps when it is cut.
const CUT_AT_LEAST: u16 = 24;

/// The `--json` of a command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Format {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

impl Format {
    /// Prints rows under a header, or an array of objects.
    pub fn list<T: Serialize, const N: usize>(
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
        table.add_rows(items.iter().map(row));
        print(&table.trim_fmt())
    }

    /// The same, on one line each: where they do not fit the terminal, the column `cut` is cut.
    pub fn lines<T: Serialize, const N: usize>(
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
            let mut line = Row::from(row(item));
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
    pub fn object<T: Serialize, N: Into<String>>(
        self,
        item: &T,
        rows: impl FnOnce(&T) -> Vec<(N, String)>,
    ) -> anyhow::Result<()> {
        if self.json {
            return print_json(item);
        }
        let mut table = plain_table();
        table.add_rows(rows(item).into_iter().map(|(name, value)| [name.into(), value]));
        print(&table.trim_fmt())
    }

    /// Says what was done, in a sentence or as an object.
    pub fn done<T: Serialize>(self, item: &T, sentence: &str) -> anyhow::Result<()> {
        if self.json { print_json(item) } else { print(sentence) }
    }
}

/// Without control characters: what senders wrote must not drive the terminal.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// One line to standard output. A reader that has seen enough (`| head`) is no fault.
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn print_json<T: Serialize + ?Sized>(item: &T) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(item)?)
}

/// Fits the terminal, if it is one.
fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}
