//! docs/METRICS.md as data.

use std::collections::{BTreeMap, BTreeSet};

/// One metric: of the page, or of an exposition.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The values of each label, without groups' ids. Empty where the page names none.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics of the page, each with the process that shows it: `worker`, `gateway`, `both` or `textfile`.
///
/// # Panics
///
/// If a row has another number of cells.
pub fn documented(page: &str) -> BTreeMap<String, (String, Described)> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let read = |cells: Vec<&str>| {
        let [name, shown_by, kind, labels, _unit, _meaning, _purpose] = cells[..] else {
            panic!("{cells:?}")
        };
        let labels = labels.split(';').filter(|label| !label.is_empty()).map(|label| {
            let (label, values) = label.split_once(':').unwrap_or((label, ""));
            let values = values.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (label.trim().trim_matches('`').to_owned(), values)
        });
        let described = Described { kind: kind.to_owned(), labels: labels.collect() };
        (name.trim_matches('`').to_owned(), (shown_by.to_owned(), described))
    };
    cells.map(read).collect()
}
