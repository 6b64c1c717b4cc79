//! `session-invite reconcile` holds the sessions against the provider's list of texts.

use crate::support::{CommandResult, SessionStatus, TextState, World, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn reconcile(world: &World, more: &[&str]) -> CommandResult {
    world.run(&[&["reconcile", "--until", "0s", "--json"], more].concat())
}

/// The rows of the audit.
fn audit(world: &World) -> Value {
    world.run(&["audit", "list", "--action", "reconcile", "--json"]).json()
}

/// The counts that are not 0.
fn differences(report: &Value) -> Vec<(&str, u64)> {
    let all = report["differences"].as_object().expect("an object");
    all.iter()
        .filter_map(|(kind, count)| Some((kind.as_str(), count.as_u64()?)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

/// The names and types of the textfile's metrics.
fn described(textfile: &str) -> BTreeSet<(&str, &str)> {
    textfile.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Those that docs/METRICS.md has.
fn documented() -> BTreeSet<(&'static str, &'static str)> {
    let rows = include_str!("../../../docs/METRICS.md").lines();
    let of_textfile = rows.filter_map(|row| row.strip_prefix("| `")?.split_once("` | textfile | "));
    of_textfile.filter_map(|(name, rest)| Some((name, rest.split_once(' ')?.0))).collect()
}

#[track_caller]
fn report(ran: &CommandResult, code: i32) -> Value {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stdout).expect("a report")
}

#[tokio::test]
async fn sessions_that_agree_with_the_provider_have_no_difference() {
    let world = World::start().await;
    for number in 0..3 {
        world.invite(&world.request_to_number(number)).await.sent();
    }
    world.database.execute("update sessions set delivered_at = now(), status = 'delivered'").await;
    let found = report(&reconcile(&world, &[]), 0);
    assert_eq!((found["texts"].as_u64(), found["sessions"].as_u64()), (Some(3), Some(3)), "{found:#}");
    assert_eq!(differences(&found), [], "{found:#}");
    let table = world.run(&["reconcile", "--until", "0s"]).ok();
    assert!(table.contains("receipt_missing") && table.contains("texted_twice"), "{table}");
}

#[tokio::test]
async fn a_text_of_no_session_and_a_session_of_no_text_are_found() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    world.provider.take("+12015550188", "from another program").await;
    world
        .database
        .execute("update sessions set provider_message_id = 'SM00000000000000000000000000000000'")
        .await;
    let file = std::env::temp_dir().join(format!("session-invite-{}.prom", uuid::Uuid::new_v4()));
    let found = report(&reconcile(&world, &["--textfile", file.to_str().expect("a path")]), 1);
    let expected = [("session_without_text", 1), ("text_without_session", 1), ("texted_twice", 1)];
    assert_eq!(differences(&found), expected, "{found:#}");
    let twice = found["findings"].as_array().expect("findings");
    let twice = twice.iter().find(|finding| finding["difference"] == "texted_twice").expect("a finding");
    assert_eq!(twice["session"], world.database.session().await.id.to_string());
    let metrics = std::fs::read_to_string(&file).expect("metrics");
    std::fs::remove_file(&file).expect("a file");
    assert!(
        metrics.contains("session_invite_reconcile_differences{difference=\"texted_twice\"} 1\n"),
        "{metrics}"
    );
    assert_eq!(described(&metrics), documented());
    assert!(!found.to_string().contains("12015550188"), "the number is masked: {found:#}");
}

#[tokio::test]
async fn a_text_that_its_session_did_not_know_is_noted_unless_only_looked_for() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    world
        .database
        .execute(
            "update sessions set provider_message_id = null, status = 'unknown', text_state = 'unknown', sent_at = null",
        )
        .await;
    let found = report(&reconcile(&world, &["--dry-run"]), 1);
    assert_eq!(differences(&found), [("text_not_noted", 1)], "{found:#}");
    assert_eq!(world.database.session().await.status, SessionStatus::Unknown);
    assert_eq!(audit(&world), json!([]), "a dry run changes nothing");

    let found = report(&reconcile(&world, &[]), 1);
    assert_eq!((differences(&found), &found["noted"]), (vec![("text_not_noted", 1)], &1.into()), "{found:#}");
    let row = world.database.session().await;
    assert_eq!(row.text_state, Some(TextState::Accepted));
    assert_eq!(row.sid(), world.provider.text().await["sid"]);
    assert_eq!(world.provider.posts().await, 1);
    let rows = audit(&world);
    let [row] = &rows.as_array().expect("rows")[..] else { panic!("{rows:#}") };
    assert_eq!((&row["before"], &row["after"]["noted"]), (&Value::Null, &json!(1)), "{row:#}");
    assert_eq!(row["after"]["differences"], found["differences"], "{row:#}");
}

#[tokio::test]
async fn a_receipt_that_never_came_is_noted_from_the_list() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    // The sandbox counts a text as delivered after a moment, and no gateway takes its receipt.
    let found = until("the receipt is missing", || async {
        let ran = reconcile(&world, &[]);
        (ran.code == Some(1)).then(|| report(&ran, 1))
    })
    .await;
    assert_eq!(
        (differences(&found), &found["noted"]),
        (vec![("receipt_missing", 1)], &1.into()),
        "{found:#}"
    );
    assert_eq!(world.database.session().await.status, SessionStatus::Delivered);
    report(&reconcile(&world, &[]), 0);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_an_error_and_no_report() {
    let world = World::start().await;
    world.provider.set(json!({"list_status": 503})).await;
    let failed = reconcile(&world, &[]).fails(1);
    assert!(failed.contains("the provider answers 503"), "{failed}");
}
