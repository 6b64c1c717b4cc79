//! `session-invite doctor` reports what the worker lacks, and changes nothing.

use crate::support::{CommandResult, Message, Setup, World, run};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde_json::{Value, json};

/// The findings of a run with this exit code.
#[track_caller]
fn findings(ran: &CommandResult, code: i32) -> Vec<Value> {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    match serde_json::from_str(&ran.stdout) {
        Ok(Value::Array(findings)) => findings,
        other => panic!("{other:?}: {}", ran.stdout),
    }
}

/// The worst verdict of a check.
fn verdict<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let verdicts: Vec<_> = findings
        .iter()
        .filter(|finding| finding["check"] == check)
        .filter_map(|finding| finding["verdict"].as_str())
        .collect();
    let worst = ["failed", "warning", "skipped", "ok"].into_iter().find(|verdict| verdicts.contains(verdict));
    worst.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

fn doctor(world: &World, changes: &[(&str, &str)]) -> CommandResult {
    run(&world.environment(changes), &["doctor", "--json"])
}

#[tokio::test]
async fn without_a_fault_every_check_is_ok() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let public = format!("http://{}", gateway.address);
    let found = findings(&doctor(&world, &[("PUBLIC_URL", &public)]), 0);
    for check in [
        "configuration",
        "database",
        "schema",
        "clock",
        "groups",
        "opt-outs",
        "sessions",
        "events",
        "losses",
        "broker",
        "queues",
    ] {
        assert_eq!(verdict(&found, check), "ok", "{found:#?}");
    }
    assert_eq!((verdict(&found, "provider"), verdict(&found, "links")), ("ok", "ok"), "{found:#?}");
    for finding in &found {
        let names: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["check", "found", "mend", "verdict"], "the contract names them: {finding}");
        assert_eq!(finding["mend"].is_null(), finding["verdict"] == "ok", "{finding}");
    }
    let table = run(&world.environment(&[]), &["doctor"]).ok();
    assert!(table.trim_start().starts_with("CHECK") && table.contains("WHAT TO DO"), "{table}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_setting_with_a_wrong_letter_in_its_name_is_named() {
    let world = World::start().await;
    let found = findings(&doctor(&world, &[("SMS_TIMOUT", "3s"), ("GATEWAY_ADRESS", "")]), 0);
    let said = found.iter().find(|finding| finding["check"] == "configuration").unwrap();
    let text = said["found"].as_str().unwrap();
    assert!(text.contains("SMS_TIMOUT") && text.contains("SMS_TIMEOUT") && !text.contains("3s"), "{said}");
    assert_eq!(said["verdict"], "warning");
    world.spawn(&[("SMS_TIMOUT", "3s")]).logs("SMS_TIMOUT is set, and no setting has that name").await;
}

#[tokio::test]
async fn a_worker_that_was_stopped_just_now_is_named_with_the_command_that_continues_it() {
    let world = World::start().await;
    let reports = "select exists (select from processes where state = 'ready')";
    world.database.until_true("the worker reports", reports).await;
    world.running().signal("STOP");
    let found = findings(&doctor(&world, &[]), 1);
    let remedy = format!("kill -CONT {}", world.running().id());
    assert!(found.iter().any(|finding| finding["mend"] == json!(remedy)), "{found:#?}");
    world.running().signal("CONT");
}

#[tokio::test]
async fn the_groups_whose_invites_are_hit_are_named() {
    let world = Setup::default().one_try().start().await;
    world.provider.set(json!({"throttle": 1.0})).await;
    world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    let found = findings(&doctor(&world, &[]), 0);
    let said = found.iter().find(|finding| finding["check"] == "invites").unwrap();
    assert_eq!(said["verdict"], "warning");
    assert!(said["found"].as_str().unwrap().contains("group 72: 1 failed (provider_unavailable)"), "{said}");
}

#[test]
fn each_url_with_parameters_that_are_not_obeyed_is_warned_of_once() {
    let urls = [
        ("DATABASE_URL", "postgres://u:p@127.0.0.1:1/d?keepalives=1"),
        ("AMQP_URL", "amqp://127.0.0.1:1/%2f?verify=verify_none"),
    ];
    let ran = run(&urls.map(|(name, url)| (name.to_owned(), url.to_owned())), &["doctor"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    for parameter in ["keepalives", "verify"] {
        let warnings =
            ran.stderr.lines().filter(|line| line.contains("are ignored") && line.contains(parameter));
        assert_eq!(warnings.count(), 1, "{parameter}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn before_the_first_worker_schema_and_queues_are_missing_and_are_not_created() {
    let world = Setup::default().without_worker().await;
    let found = findings(&doctor(&world, &[]), 0);
    assert_eq!((verdict(&found, "schema"), verdict(&found, "queues")), ("warning", "warning"), "{found:#?}");
    assert_eq!(
        (verdict(&found, "groups"), verdict(&found, "sessions")),
        ("skipped", "skipped"),
        "{found:#?}"
    );
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    assert_eq!(world.database.value::<i64>(tables).await, 0);
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, None);
}

#[tokio::test]
async fn each_fault_is_reported_with_its_remedy_and_the_other_checks_still_run() {
    let world = World::start().await;
    for (variable, value, check) in [
        ("DATABASE_URL", "postgres://unknown:wrong@127.0.0.1:1/none", "database"),
        ("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f", "broker"),
        ("TWILIO_AUTH_TOKEN", "wrong", "provider"),
        ("SMS_BASE_URL", "http://127.0.0.1:1", "provider"),
        ("SECRETS_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "groups"),
        ("PREFETCH", "none", "configuration"),
    ] {
        let found = findings(&doctor(&world, &[(variable, value)]), 1);
        assert_eq!(verdict(&found, check), "failed", "{variable}: {found:#?}");
        for failed in found.iter().filter(|finding| finding["verdict"] == "failed") {
            // The check, its verdict, what was found, and the remedy.
            let texts = failed.as_object().unwrap().values().filter_map(Value::as_str);
            assert_eq!(texts.filter(|text| !text.is_empty()).count(), 4, "{failed}");
        }
        let others = ["database", "broker", "provider"].into_iter().filter(|other| *other != check);
        for other in others {
            assert_eq!(verdict(&found, other), "ok", "{variable}: {found:#?}");
        }
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains(&world.provider.auth_token) && !text.contains("unknown:wrong"), "{text}");
    }
}

#[tokio::test]
async fn unreadable_messages_are_a_warning_and_other_queue_arguments_a_fault() {
    let world = World::start().await;
    world.broker.publish_to(&world.broker.queue("unreadable"), Message::bytes("x")).await;
    let found = findings(&doctor(&world, &[]), 0);
    assert_eq!(verdict(&found, "queues"), "warning", "{found:#?}");
    world.broker.purge("unreadable").await;
    world.broker.delete("unreadable").await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let queue = world.broker.queue("unreadable");
    world.broker.channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let found = findings(&doctor(&world, &[]), 1);
    assert_eq!(verdict(&found, "queues"), "failed", "{found:#?}");
}
