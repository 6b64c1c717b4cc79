//! `session-invite doctor`, which gives each server two seconds.

use super::{run, until};
use serde_json::Value;

/// The findings of a run that ends with this code, if one is given, and whose checks have these verdicts. `doctor` changes
/// nothing, so it runs again until then: on a slow machine a server may not answer in time.
pub async fn doctor(
    environment: &[(String, String)],
    code: Option<i32>,
    verdicts: &[(&str, &str)],
) -> Vec<Value> {
    until(&format!("doctor ends with {code:?} and finds {verdicts:?}"), || async {
        let ran = run(environment, &["doctor", "--json"]);
        let findings: Vec<Value> =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let has_code = code.is_none() || ran.code == code;
        let is_expected =
            has_code && verdicts.iter().all(|(check, expected)| verdict(&findings, check) == *expected);
        if !is_expected {
            eprintln!("not expected of doctor: {ran:#?}");
        }
        is_expected.then_some(findings)
    })
    .await
}

/// The worst verdict of a check.
fn verdict<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let verdicts: Vec<_> = findings
        .iter()
        .filter(|finding| finding["check"] == check)
        .filter_map(|finding| finding["verdict"].as_str())
        .collect();
    let worst = ["failed", "warning", "skipped", "ok"].into_iter().find(|verdict| verdicts.contains(verdict));
    worst.unwrap_or("missing")
}
