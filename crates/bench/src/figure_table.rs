//! A table of figures, for a terminal or a document.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use std::fmt::Write as _;

/// Its first column is text, the others are numbers.
pub(crate) struct FigureTable {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl FigureTable {
    pub(crate) fn plain(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(self.header.clone()).add_rows(self.rows.clone());
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let header: Vec<String> = self.header.iter().map(ToString::to_string).collect();
        let mut text = line(&header);
        let _ = writeln!(text, "|---|{}", "---:|".repeat(header.len() - 1));
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}
