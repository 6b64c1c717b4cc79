//! What the provider answers.

use super::connections::RequestError;
use crate::metrics::{Metric, ShownBy};
use metrics::{Counter, counter};
use std::sync::LazyLock;

const ANSWERS: &str = "session_invite_provider_answers_total";

/// The busiest comes first.
const CLASSES: &[&str] = &["2xx", "3xx", "4xx", "429", "5xx", "time_out", "cut", "unreachable"];

pub(crate) const METRICS: &[Metric] = &[Metric::counter(
    ANSWERS,
    "The provider's answers to texts and to looks at its list, by class: of the status, or why there was no answer.",
)
.by(&["class"], CLASSES)
.shown_by(ShownBy::Worker)];

/// Looked up once.
static COUNTERS: LazyLock<Vec<Counter>> =
    LazyLock::new(|| CLASSES.iter().map(|class| counter!(ANSWERS, "class" => *class)).collect());

fn class(answer: Result<u16, &RequestError>) -> &'static str {
    match answer {
        Ok(429) => "429",
        Ok(500..) => "5xx",
        Ok(400..) => "4xx",
        Ok(300..) => "3xx",
        Ok(_) => "2xx",
        Err(RequestError::TooSlow) => "time_out",
        Err(RequestError::Cut | RequestError::TooLarge) => "cut",
        Err(RequestError::NotConnected { .. }) => "unreachable",
    }
}

/// Counts an answer, by its status.
pub(super) fn answered(answer: Result<u16, &RequestError>) {
    let class = class(answer);
    if let Some(index) = CLASSES.iter().position(|known| *known == class) {
        COUNTERS[index].increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_a_class() {
        let away = RequestError::NotConnected { why: "refused".to_owned(), no_files: false };
        for (answer, expected) in [
            (Ok(201), "2xx"),
            (Ok(302), "3xx"),
            (Ok(408), "4xx"),
            (Ok(429), "429"),
            (Ok(503), "5xx"),
            (Err(&RequestError::TooSlow), "time_out"),
            (Err(&RequestError::TooLarge), "cut"),
            (Err(&away), "unreachable"),
        ] {
            assert_eq!(class(answer), expected);
            assert!(CLASSES.contains(&class(answer)));
        }
    }
}
