//! docs/OPERATING.md has a command for each everyday question. Each is run here as it is written there.

use crate::support::{CommandResult, Message, Setup, World, run, until};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

/// The rows of the table: a question, and its command without `session-invite`.
fn questions() -> Vec<(String, String)> {
    let page = fs::read_to_string("docs/OPERATING.md").expect("the guide");
    let chapter = page.split("\n## Which command answers which question?").nth(1).expect("the chapter");
    let table = chapter.split("\n## ").next().expect("its end");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | `session-invite "));
    let rows = cells.map(|(question, rest)| {
        let (command, _) = rest.split_once('`').expect("the command's end");
        (question.to_owned(), command.to_owned())
    });
    rows.collect()
}

/// The words of a command. Those in capitals stand for an id of this world.
fn words(command: &str, ids: &BTreeMap<&str, String>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        words.extend(
            part.split_whitespace().map(|word| ids.get(word).cloned().unwrap_or_else(|| word.to_owned())),
        );
    }
    words
}

/// A world in which each question has an answer: a text that was sent, one that may have been sent, a refusal, an opt-out and a
/// dead letter.
async fn world_with_data() -> (World, BTreeMap<&'static str, String>) {
    let setup = Setup::default().short_waits().never_sends_again();
    let world = setup.group(&["--sms-from", "+15550001111"]).start().await;
    let sent = world.call(Message::json(&world.request()).id("order-17")).await.sent();
    world.run(&["optouts", "add", "201-555-0123", "--sender", "+15550001111"]).ok();
    let opted_out = world.request_with(json!({"smsPhone": "201-555-0123"}));
    world.invite(&opted_out).await.refused("rejected", "opted_out", 403);
    world.provider.next(&["cut_before"]).await;
    world.invite(&world.request_to_number(1)).await.refused("failed", "outcome_unknown", 504);
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&missing)).await;
    let dead = until("its reply is a dead letter", || async {
        let listed = world.run(&["dead", "list", "--json"]).json();
        listed[0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let ids = BTreeMap::from([
        ("SESSION", sent.session_id.to_string()),
        ("KEY", sent.session_key.clone()),
        ("DEAD", dead),
    ]);
    (world, ids)
}

/// What the command answers. `doctor` runs until it finds no fault: on a slow machine a server may not answer in time.
async fn answer_of(environment: &[(String, String)], args: &[&str]) -> CommandResult {
    if args.first() != Some(&"doctor") {
        return run(environment, args);
    }
    until("doctor finds no fault", || async {
        let ran = run(environment, args);
        (ran.code == Some(0)).then_some(ran)
    })
    .await
}

#[tokio::test]
async fn each_question_of_the_guide_is_answered_by_its_command() {
    let questions = questions();
    assert!(questions.len() >= 15, "{questions:?}");
    let (world, ids) = world_with_data().await;
    let environment = world.environment(&[("HTTP_ADDR", &world.running().address().await)]);
    for (question, command) in questions {
        let words = words(&command, &ids);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = answer_of(&environment, &args).await;
        assert_eq!(answer.code, Some(0), "{question} {args:?}: {answer:#?}");
        assert!(!answer.stdout.trim().is_empty(), "{question} {args:?} has no answer");
        if has_json(&args) {
            let json = answer_of(&environment, &[&args[..], &["--json"]].concat()).await.json();
            assert!(!is_empty(&json), "{question} {args:?} --json: {json}");
        }
    }
    world.broker.purge("dead").await;
}

/// Whether the command's help offers `--json`.
fn has_json(args: &[&str]) -> bool {
    let commands: Vec<&str> =
        args.iter().copied().take_while(|word| !word.starts_with('-')).take(2).collect();
    let help = run(&[], &[&commands[..], &["--help"]].concat());
    help.stdout.contains("--json") && !args.contains(&"--json")
}

fn is_empty(json: &Value) -> bool {
    match json {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        other => other.is_null(),
    }
}
