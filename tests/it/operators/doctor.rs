//! `session-invite doctor` reports what the worker lacks, and changes nothing.

use crate::support::{Message, Setup, World, doctor, run, until};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde_json::{Value, json};

/// The findings of `doctor` in the world's environment with changes, once it ends with this code and these verdicts.
async fn findings(
    world: &World,
    changes: &[(&str, &str)],
    code: i32,
    verdicts: &[(&str, &str)],
) -> Vec<Value> {
    doctor(&world.environment(changes), Some(code), verdicts).await
}

#[tokio::test]
async fn without_a_fault_every_check_is_ok() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let public = format!("http://{}", gateway.address);
    let verdicts = [
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
        "provider",
        "links",
    ]
    .map(|check| (check, "ok"));
    let found = findings(&world, &[("PUBLIC_URL", &public)], 0, &verdicts).await;
    for finding in &found {
        let names: Vec<_> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["check", "found", "mend", "verdict"], "the contract names them: {finding}");
        assert_eq!(finding["mend"].is_null(), finding["verdict"] == "ok", "{finding}");
    }
    let table = until("doctor finds no fault", || async {
        let ran = run(&world.environment(&[]), &["doctor"]);
        (ran.code == Some(0)).then_some(ran.stdout)
    })
    .await;
    assert!(table.trim_start().starts_with("CHECK") && table.contains("WHAT TO DO"), "{table}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_setting_with_a_wrong_letter_in_its_name_is_named() {
    let world = World::start().await;
    let misspelt = [("SMS_TIMOUT", "3s"), ("GATEWAY_ADRESS", "")];
    let found = findings(&world, &misspelt, 0, &[("configuration", "warning")]).await;
    let said = found.iter().find(|finding| finding["check"] == "configuration").unwrap();
    let text = said["found"].as_str().unwrap();
    assert!(text.contains("SMS_TIMOUT") && text.contains("SMS_TIMEOUT") && !text.contains("3s"), "{said}");
    world.spawn(&[("SMS_TIMOUT", "3s")]).logs("SMS_TIMOUT is set, and no setting has that name").await;
}

#[tokio::test]
async fn a_worker_that_was_stopped_just_now_is_named_with_the_command_that_continues_it() {
    let world = World::start().await;
    let reports = "select exists (select from processes where state = 'ready')";
    world.database.until_true("the worker reports", reports).await;
    world.running().signal("STOP");
    // A run that reached the database, whatever it found: a later one sees that the worker is silent.
    let found = doctor(&world.environment(&[]), None, &[("database", "ok")]).await;
    let remedy = format!("kill -CONT {}", world.running().id());
    let is_named = |finding: &Value| finding["verdict"] == "failed" && finding["mend"] == json!(remedy);
    assert!(found.iter().any(is_named), "{found:#?}");
    world.running().signal("CONT");
}

#[tokio::test]
async fn the_groups_whose_invites_are_hit_are_named() {
    let world = Setup::default().one_try().start().await;
    world.provider.set(json!({"throttle": 1.0})).await;
    world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    let found = findings(&world, &[], 0, &[("invites", "warning")]).await;
    let said = found.iter().find(|finding| finding["check"] == "invites").unwrap();
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
    let verdicts =
        [("schema", "warning"), ("queues", "warning"), ("groups", "skipped"), ("sessions", "skipped")];
    findings(&world, &[], 0, &verdicts).await;
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
        let others = ["database", "broker", "provider"].into_iter().filter(|other| *other != check);
        let verdicts: Vec<_> = others.map(|other| (other, "ok")).chain([(check, "failed")]).collect();
        let found = findings(&world, &[(variable, value)], 1, &verdicts).await;
        for failed in found.iter().filter(|finding| finding["verdict"] == "failed") {
            // The check, its verdict, what was found, and the remedy.
            let texts = failed.as_object().unwrap().values().filter_map(Value::as_str);
            assert_eq!(texts.filter(|text| !text.is_empty()).count(), 4, "{failed}");
        }
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains(&world.provider.auth_token) && !text.contains("unknown:wrong"), "{text}");
    }
}

#[tokio::test]
async fn unreadable_messages_are_a_warning_and_other_queue_arguments_a_fault() {
    let world = World::start().await;
    world.broker.publish_to(&world.broker.queue("unreadable"), Message::bytes("x")).await;
    findings(&world, &[], 0, &[("queues", "warning")]).await;
    world.broker.purge("unreadable").await;
    world.broker.delete("unreadable").await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let queue = world.broker.queue("unreadable");
    world.broker.channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    findings(&world, &[], 1, &[("queues", "failed")]).await;
}
