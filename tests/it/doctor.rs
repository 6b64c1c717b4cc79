//! `session-invite doctor`: it says what the worker lacks, and changes nothing.

use crate::support::{Message, Ran, Setup, World, run};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde_json::Value;

/// The findings of a run with this exit code.
#[track_caller]
fn findings(ran: &Ran, code: i32) -> Vec<Value> {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    match serde_json::from_str(&ran.stdout) {
        Ok(Value::Array(findings)) => findings,
        other => panic!("{other:?}: {}", ran.stdout),
    }
}

/// What a check came to, the worst first.
fn verdict<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let of: Vec<_> =
        findings.iter().filter(|it| it["check"] == check).filter_map(|it| it["verdict"].as_str()).collect();
    let worst = ["failed", "warning", "skipped", "ok"].into_iter().find(|verdict| of.contains(verdict));
    worst.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

fn doctor(world: &World, changes: &[(&str, &str)]) -> Ran {
    run(&world.environment(changes), &["doctor", "--json"])
}

#[tokio::test]
async fn where_all_is_well_it_says_so() {
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
        "broker",
        "queues",
    ] {
        assert_eq!(verdict(&found, check), "ok", "{found:#?}");
    }
    assert_eq!((verdict(&found, "provider"), verdict(&found, "links")), ("ok", "ok"), "{found:#?}");
    let table = run(&world.environment(&[]), &["doctor"]).ok();
    assert!(table.trim_start().starts_with("CHECK") && table.contains("WHAT TO DO"), "{table}");
    assert!(gateway.process.stop().success());
}

#[test]
fn it_warns_once_of_each_url_with_parameters_that_are_not_obeyed() {
    let urls = [
        ("DATABASE_URL", "postgres://u:p@127.0.0.1:1/d?keepalives=1"),
        ("AMQP_URL", "amqp://127.0.0.1:1/%2f?verify=verify_none"),
    ];
    let ran = run(&urls.map(|(name, url)| (name.to_owned(), url.to_owned())), &["doctor"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    for parameter in ["keepalives", "verify"] {
        let warnings =
            ran.stderr.lines().filter(|line| line.contains("not obeyed") && line.contains(parameter));
        assert_eq!(warnings.count(), 1, "{parameter}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn before_the_first_worker_nothing_is_there_and_nothing_is_made() {
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
async fn each_fault_is_told_with_what_to_do_and_the_rest_is_looked_at_all_the_same() {
    let world = World::start().await;
    for (variable, value, check) in [
        ("DATABASE_URL", "postgres://nobody:wrong@127.0.0.1:1/none", "database"),
        ("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f", "broker"),
        ("TWILIO_AUTH_TOKEN", "wrong", "provider"),
        ("SMS_BASE_URL", "http://127.0.0.1:1", "provider"),
        ("SECRETS_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "groups"),
        ("PREFETCH", "none", "configuration"),
    ] {
        let found = findings(&doctor(&world, &[(variable, value)]), 1);
        assert_eq!(verdict(&found, check), "failed", "{variable}: {found:#?}");
        for failed in found.iter().filter(|it| it["verdict"] == "failed") {
            assert!(failed["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{failed}");
        }
        let others = ["database", "broker", "provider"].into_iter().filter(|other| *other != check);
        for other in others {
            assert_eq!(verdict(&found, other), "ok", "{variable}: {found:#?}");
        }
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains(&world.provider.auth_token) && !text.contains("nobody:wrong"), "{text}");
    }
}

#[tokio::test]
async fn what_lies_aside_and_what_is_declared_otherwise_is_told() {
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
