//! `docs/FAULTS.md` is the table of the faults. `UPDATE_FAULTS=1` writes it.

use super::{SeededFault, all};
use std::{collections::BTreeSet, fmt::Write, path::Path};

const LEAST_FAULTS: usize = 60;
/// Of 120.
const LEAST_POINTS: usize = 110;

const HEAD: &str = "# Faults

Which faults does session-invite name, and does the remedy help? Each line is a fault that a test puts
in, alone. It scores 2 points if its cause is named within 10 s and the remedy that is shown, typed,
clears it within 20 s. It scores 1 point if only the cause is named, and 0 otherwise. The 10 s begin
when the fault takes effect: with the statement or the signal that brings it about, with the first
invite that meets it, or with the start of the process that ends because of it.

The tests write this file: `UPDATE_FAULTS=1 cargo test --test it -- faults::document`. The tests
themselves are in `tests/it/operators/faults/`, and measure the points. Names in braces differ from
run to run.

";

/// Text as a cell of a table shows it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(number: usize, part: &str, fault: &SeededFault) -> String {
    let cause: Vec<_> = fault.cause.iter().map(|part| format!("`{}`", cell(part))).collect();
    format!(
        "| {number} | {} | {part} | {} | {} | `{}` | {} | {} |",
        fault.name.replace('_', " "),
        fault.seen_in.text(),
        cause.join(" "),
        cell(fault.remedy),
        fault.typed,
        fault.points
    )
}

fn document() -> String {
    let (count, points) = (all().count(), all().map(|(_, fault)| usize::from(fault.points)).sum::<usize>());
    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "{count} faults have {points} of {} points.\n", 2 * count);
    text.push_str(
        "| | fault | of | seen in | words of the cause | words of the remedy | what is typed | points |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for (number, (part, fault)) in (1..).zip(all()) {
        let _ = writeln!(text, "{}", line(number, part, fault));
    }
    text
}

#[test]
fn the_document_is_the_table_of_faults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FAULTS.md");
    let expected = document();
    if std::env::var_os("UPDATE_FAULTS").is_some() {
        std::fs::write(&file, &expected).expect("the document can be written");
    }
    let is = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(is, expected, "UPDATE_FAULTS=1 cargo test --test it -- faults::document writes it");
}

#[test]
fn at_least_110_of_120_points_are_reached() {
    let names: BTreeSet<_> = all().map(|(_, fault)| fault.name).collect();
    let count = all().count();
    assert_eq!(names.len(), count, "each fault has a name of its own");
    assert!(count >= LEAST_FAULTS, "{count} faults");
    let points: usize = all().map(|(_, fault)| usize::from(fault.points)).sum();
    assert!(points * 2 * LEAST_FAULTS >= LEAST_POINTS * 2 * count, "{points} points of {count} faults");
}
