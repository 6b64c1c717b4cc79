//! The log: JSON for machines, the end of each invite, and who is refused why.

use crate::support::{
    Message, SMS_INVITE, Setup, World, gkey, http_invite, now, run, send, until, with_gateway,
};
use serde_json::{Value, json};

/// The lines of a log as JSON. Each line has to be an object.
fn as_json(log: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(read).collect()
}

/// Waits for a line of the log that has this message, and these fields with these values.
async fn line(world: &World, message: &str, fields: &[(&str, Value)]) -> Value {
    until(&format!("a line {message:?} with {fields:?}"), || async {
        let lines = as_json(&world.running().log());
        lines.into_iter().find(|line| {
            line["message"] == message && fields.iter().all(|(name, value)| line[name] == *value)
        })
    })
    .await
}

#[tokio::test]
async fn every_line_is_json_and_the_end_of_an_invite_says_what_became_of_it() {
    let world =
        Setup::default().set("LOG_FORMAT", "json").set("RUST_LOG", "session_invite=debug").start().await;
    let id = "order-17 \"quoted\"";
    let sent = world.call(Message::json(&world.request()).id(id).timestamp(now())).await.sent();
    let found = line(&world, "an invite's delivery ends", &[("end", json!("sent"))]).await;
    assert_eq!(found["span"]["message_id"], id, "{found}");
    assert_eq!(found["session"], json!(sent.session_id.to_string()), "{found}");
    assert_eq!((&found["group"], &found["settled"]), (&json!(72), &json!(true)), "{found}");
    for number in ["decided_ms", "settled_ms", "age_ms"] {
        assert!(found[number].is_u64(), "{number}: {found}");
    }
    world.invite(&world.request_with(json!({"smsPhone": "x"}))).await.refused(
        "rejected",
        "phone_invalid",
        400,
    );
    let found = line(&world, "an invite's delivery ends", &[("end", json!("rejected"))]).await;
    assert_eq!(found["code"], "phone_invalid", "{found}");
    let log = world.running().log();
    assert!(!log.contains("Some("), "{log}");
}

#[tokio::test]
async fn the_fatal_line_of_a_start_is_json_too() {
    let environment = |format: &str| vec![("LOG_FORMAT".to_owned(), format.to_owned())];
    let failed = run(&environment("json"), &["worker"]).fails(2);
    let lines = as_json(&failed);
    let last = lines.last().expect("a line");
    assert_eq!((&last["level"], &last["fatal"]), (&json!("ERROR"), &json!(true)), "{last}");
    assert!(last["message"].as_str().unwrap().contains("DATABASE_URL"), "{last}");
    assert!(last["timestamp"].as_str().unwrap().ends_with('Z'), "{last}");
    let wrong = as_json(&run(&environment("json"), &["worker", "--no-such-flag"]).fails(2));
    assert!(wrong[0]["message"].as_str().unwrap().contains("--no-such-flag"), "{wrong:?}");
    assert!(run(&environment("text"), &["worker"]).fails(2).starts_with("error: "), "for people");
}

#[tokio::test]
async fn the_log_says_who_is_refused_why_and_shows_the_credential_as_a_hash() {
    let world = Setup::default().set("LOG_FORMAT", "json").start().await;
    let wrong = gkey(72, "12345", "another key");
    for _ in 0..3 {
        let request = world.request_with(json!({"authorization": wrong}));
        world.invite(&request).await.refused("rejected", "credential_invalid", 401);
    }
    let other = gkey(73, "12345", "another key").replace("Bearer GKEY", "bearer  gkey");
    let request = world.request_with(json!({"authorization": other}));
    world.invite(&request).await.refused("rejected", "credential_invalid", 401);
    let code = ("code", json!("credential_invalid"));
    line(&world, "refused", &[("group", json!(73)), code.clone()]).await;
    let found = line(&world, "refused", &[("group", json!(72)), code]).await;
    let hash = found["credential"].as_str().expect("a hash");
    assert!(hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{found}");
    assert_eq!((&found["authenticated"], &found["left_out"]), (&json!(false), &json!(0)), "{found}");
    assert!(found["why"].as_str().is_some_and(|why| !why.is_empty()), "{found}");
    let log = world.running().log();
    let of_group =
        as_json(&log).into_iter().filter(|line| line["message"] == "refused" && line["group"] == 72);
    assert_eq!(of_group.count(), 1, "one line in a minute:\n{log}");
    assert!(!log.contains(wrong.rsplit('$').next().unwrap()), "{log}");
}

#[tokio::test]
async fn the_gateway_logs_its_refusals_with_the_hash_that_a_worker_logs() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let wrong = gkey(72, "12345", "another key");
    let request = world.request_with(json!({"authorization": wrong}));
    world.invite(&request).await.refused("rejected", "credential_invalid", 401);
    let request = gateway.request("POST", SMS_INVITE).header("Content-Type", "application/json");
    let request = request.header("Authorization", &wrong).body(http_invite().to_string());
    send(request).await.problem(401, "credential_invalid");
    let refused = |log: String| {
        let line =
            log.lines().find(|line| line.contains("refused") && line.contains("credential_invalid"))?;
        Some(line.split_once("credential=\"")?.1.split_once('"')?.0.to_owned())
    };
    let by_gateway = until("the gateway logs it", || async { refused(gateway.process.log()) }).await;
    let by_worker = until("the worker logs it", || async { refused(world.running().log()) }).await;
    assert_eq!(by_gateway, by_worker);
    let by_command = world.run_with_input(&["tokens", "hash"], &format!("{wrong}\n")).ok();
    assert_eq!(by_command.trim(), by_worker);
    assert!(gateway.process.stop().success());
}
