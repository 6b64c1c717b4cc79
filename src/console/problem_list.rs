//! How problems are shown.

use super::{
    problems::OpenProblem,
    state::Console,
    words::{IN_A_TABLE, text},
};
use maud::{Markup, html};

/// Problems that are listed.
const PROBLEMS: usize = 15;
/// Characters of a problem.
pub(super) const PROBLEM_CHARS: usize = 500;

/// Each with what to do. `not_known` is what could not be read.
pub(super) fn problem_list(console: &Console, found: &[OpenProblem], not_known: &[String]) -> Markup {
    html! {
        @for text in not_known { p.notice role="status" { (text) } }
        ul.problems {
            @for problem in found.iter().take(PROBLEMS) {
                li {
                    p { strong { (text(&problem.what, PROBLEM_CHARS)) } }
                    @if let Some(remedy) = &problem.remedy { p { "What to do: " (text(remedy, PROBLEM_CHARS)) } }
                    @if let Some((path, name)) = &problem.page { p { a href=(console.link(path)) { (name) } } }
                    @if !problem.of.is_empty() { p.soft { "Reported by " (text(&problem.of.join(", "), IN_A_TABLE)) "." } }
                }
            }
        }
        @if found.len() > PROBLEMS { p { (found.len() - PROBLEMS) " more. " code { "session-invite doctor" } " lists all." } }
    }
}
