//! Health, readiness and metrics of the worker.

use crate::support::{GROUP, Message, Setup, World, gkey, now, send, until, with_gateway_and_callbacks};
use serde_json::json;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};
use test_support::metrics_page::{self, Described};

/// The value of one metric; 0 if it is missing.
fn value(metrics: &str, line: &str) -> f64 {
    let found = metrics.lines().find_map(|l| l.strip_prefix(line));
    found.map_or(0.0, |rest| rest.trim().parse().expect("a metric's value is a number"))
}

#[tokio::test]
async fn metrics_count_invites_by_outcome_and_texts_by_answer() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    let mut request = world.request();
    request["smsPhone"] = "not a number".into();
    world.invite(&request).await.refused("rejected", "phone_invalid", 400);

    let answer = world.running().fetch("/metrics").await;
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let metrics = answer.text().await.unwrap();
    for (line, count) in [
        (r#"session_invite_replies_total{status="sent",code=""} "#, 1.0),
        (r#"session_invite_replies_total{status="rejected",code="phone_invalid"} "#, 1.0),
        (r#"session_invite_sms_attempts_total{result="accepted"} "#, 1.0),
        ("session_invite_sms_attempt_duration_seconds_count ", 1.0),
    ] {
        assert!((value(&metrics, line) - count).abs() < f64::EPSILON, "{line}\n{metrics}");
    }
    assert!(!metrics.contains("not a number"), "{metrics}");
}

/// The metrics of an exposition. A histogram's own label and endings are not part of it.
fn shown(exposition: &str) -> BTreeMap<String, Described> {
    let mut all: BTreeMap<String, Described> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            let described = Described { kind: kind.to_owned(), labels: BTreeMap::new() };
            all.insert(name.to_owned(), described);
        }
    }
    for line in exposition.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let endings = ["_bucket", "_sum", "_count"];
        let whole = endings
            .iter()
            .find_map(|ending| name.strip_suffix(ending))
            .filter(|name| all.contains_key(*name));
        let metric = all.get_mut(whole.unwrap_or(name)).unwrap_or_else(|| panic!("{line} has no type"));
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').expect("a label");
            let values = (label != "le").then(|| metric.labels.entry(label.to_owned()).or_default());
            let value = value.trim_matches('"');
            let is_group = label == "group" && value.parse::<u64>().is_ok();
            values.filter(|_| !is_group).map(|values| values.insert(value.to_owned()));
        }
    }
    all
}

/// The metrics of docs/METRICS.md that this process has.
fn documented(process: &str) -> BTreeMap<String, Described> {
    let all = metrics_page::documented(include_str!("../../../docs/METRICS.md"));
    let own = all.into_iter().filter(|(_, (shown_by, _))| ["both", process].contains(&shown_by.as_str()));
    own.map(|(name, (_, described))| (name, described)).collect()
}

#[tokio::test]
async fn the_page_of_metrics_is_what_a_new_worker_and_a_new_gateway_show() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let expositions =
        [("worker", world.running().metrics().await), ("gateway", gateway.operators("/metrics").await.body)];
    for (process, exposition) in expositions {
        let (shown, documented) = (shown(&exposition), documented(process));
        let names = |all: &BTreeMap<String, Described>| all.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&shown), names(&documented), "{process}");
        assert!(shown.len() > 15, "{exposition}");
        for (name, page) in documented {
            let found = &shown[&name];
            assert_eq!(found.kind, page.kind, "{process}: {name}");
            let labels = |described: &Described| described.labels.keys().cloned().collect::<Vec<_>>();
            assert_eq!(labels(found), labels(&page), "{process}: {name}");
            for (label, values) in page.labels {
                let named = values.is_empty() || values == found.labels[&label];
                assert!(
                    named,
                    "{process}: {name} has {label}: {:?}, and the page {values:?}",
                    found.labels[&label]
                );
            }
        }
        assert!(exposition.contains(r#"outcomes_total{group="other",code="sent"} 0"#), "{exposition}");
    }
}

#[tokio::test]
async fn outcomes_are_counted_once_by_group_and_code() {
    let world = World::start().await;
    let message = || Message::json(&world.request()).id("once");
    world.call(message()).await.sent();
    world.call(message()).await.sent();
    let request = world.request_with(json!({"smsPhone": "not a number"}));
    world.invite(&request).await.refused("rejected", "phone_invalid", 400);
    let request = world.request_with(json!({"authorization": "Bearer GKEY 72&1&no"}));
    world.invite(&request).await.refused("rejected", "credential_malformed", 401);
    let metrics = world.running().metrics().await;
    for (labels, count) in [
        (r#"{group="72",code="sent"} "#, 1.0),
        (r#"{group="72",code="phone_invalid"} "#, 1.0),
        (r#"{group="72",code="opted_out"} "#, 0.0),
        (r#"{group="none",code="credential_malformed"} "#, 1.0),
    ] {
        let line = format!("session_invite_outcomes_total{labels}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
        assert!((value(&metrics, &line) - count).abs() < f64::EPSILON, "{line}\n{metrics}");
    }
    let replies = value(&metrics, r#"session_invite_replies_total{status="sent",code=""} "#);
    assert!((replies - 2.0).abs() < f64::EPSILON, "the repeat has a reply too: {replies}");
}

#[tokio::test]
async fn readiness_problems_and_refused_credentials_have_gauges() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let refused = r#"session_invite_credentials_refused_in_a_row{group="72"} "#;
    let of = async |line: &str| {
        let shown = (world.running().metrics().await, gateway.operators("/metrics").await.body);
        (value(&shown.0, line), value(&shown.1, line))
    };
    assert_eq!(of("session_invite_ready ").await, (1.0, 1.0));
    assert_eq!((of("session_invite_problems ").await, of(refused).await), ((0.0, 0.0), (0.0, 0.0)));

    let wrong = gkey(GROUP, "12345", "not the key of this group");
    let wrong = world.request_with(json!({"authorization": wrong}));
    for _ in 0..5 {
        world.invite(&wrong).await.refused("rejected", "credential_invalid", 401);
    }
    assert_eq!(of(refused).await, (5.0, 0.0));
    // `/readyz` lists them, and they do not count: the first has an alert of its own, strangers can cause the other.
    send(gateway.request("GET", "/s/aB3aB3aB3aB3aB3a").header("X-Forwarded-For", "203.0.113.7")).await;
    let listed = [world.running().readiness().await.1.to_string(), gateway.operators("/readyz").await.body];
    assert!(listed[0].contains("all credentials of group 72"), "{}", listed[0]);
    assert!(listed[1].contains("TRUSTED_PROXIES"), "{}", listed[1]);
    assert_eq!(of("session_invite_problems ").await, (0.0, 0.0));
    assert_eq!(of("session_invite_ready ").await, (1.0, 1.0));
    world.invite(&world.request()).await.sent();
    assert_eq!((of(refused).await, of("session_invite_problems ").await), ((0.0, 0.0), (0.0, 0.0)));

    world.database.execute("alter table sessions rename to away").await;
    until("the gateway says that it is not ready", || async {
        (value(&gateway.operators("/metrics").await.body, "session_invite_ready ") < 0.5).then_some(())
    })
    .await;
    world.database.execute("alter table away rename to sessions").await;
}

#[tokio::test]
async fn an_invite_that_is_tried_again_is_measured_as_one_from_its_publishing_to_its_delivery() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    world.provider.next(&["throttle", "throttle"]).await;
    world.call(Message::json(&world.request()).timestamp(now() - 20)).await.sent();
    world.invite(&world.request_to_number(1)).await.sent();
    let metrics = world.running().metrics().await;
    for (line, at_least, at_most) in [
        ("session_invite_first_delivery_to_sent_seconds_count ", 2.0, 2.0),
        // From the publishing, which has a timestamp of 20 s ago, it would be 26 s and more.
        ("session_invite_first_delivery_to_sent_seconds_sum ", 5.0, 25.0),
        ("session_invite_publish_to_sent_seconds_count ", 1.0, 1.0),
        ("session_invite_publish_to_sent_seconds_sum ", 25.0, 60.0),
        ("session_invite_sent_without_timestamp_total ", 1.0, 1.0),
        (r#"session_invite_provider_answers_total{class="429"} "#, 2.0, 2.0),
        (r#"session_invite_provider_answers_total{class="2xx"} "#, 2.0, 2.0),
        (r#"session_invite_sms_retries_total{reason="unavailable"} "#, 2.0, 2.0),
    ] {
        let found = value(&metrics, line);
        assert!((at_least..=at_most).contains(&found), "{line}: {found}\n{metrics}");
    }
    until("the receipts are counted", || async {
        let metrics = gateway.operators("/metrics").await.body;
        let count = value(&metrics, "session_invite_publish_to_delivered_seconds_count ");
        let sum = value(&metrics, "session_invite_publish_to_delivered_seconds_sum ");
        (count >= 1.0 && sum >= 25.0).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn queues_outbox_and_keys_are_measured_in_the_background() {
    let mut world = Setup::default().group(&["--key-length", "4"]).start().await;
    world.invite(&world.request()).await.sent();
    world.broker.publish_to(&world.broker.queue("dead"), Message::bytes("{}")).await;
    // A new worker measures at its start.
    let worker = world.replace_worker(&[]).await;
    let metrics = until("all is measured", || async {
        let metrics = worker.metrics().await;
        let measured = |what: &str| {
            value(
                &metrics,
                &format!("session_invite_measurement_timestamp_seconds{{measurement=\"{what}\"}} "),
            ) > 1e9
        };
        // The first measurement may come before the consumer.
        let is_consumed = value(&metrics, r#"session_invite_queue_consumers{queue="requests"} "#) > 0.0;
        (is_consumed && measured("queues") && measured("outbox") && measured("session_keys"))
            .then_some(metrics)
    })
    .await;
    for (line, expected) in [
        (r#"session_invite_queue_messages{queue="dead"} "#, 1.0),
        (r#"session_invite_queue_messages{queue="requests"} "#, 0.0),
        (r#"session_invite_queue_consumers{queue="requests"} "#, 1.0),
        ("session_invite_requests_oldest_message_age_seconds ", 0.0),
        (r#"session_invite_session_keys_held{group="72"} "#, 1.0),
        (r#"session_invite_key_space_used_ratio{group="72"} "#, 0.0001),
        ("session_invite_database_connections_max ", 3.0),
        ("session_invite_build_info{version=\"0.1.0\"} ", 1.0),
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
        assert!((value(&metrics, line) - expected).abs() < f64::EPSILON, "{line}\n{metrics}");
    }
    for line in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
        assert!(value(&metrics, line) > 0.0, "{line}\n{metrics}");
    }
    world.broker.purge("dead").await;
    world.keep_worker(worker);
}

#[tokio::test]
async fn health_and_readiness_answer_for_the_worker() {
    let world = World::start().await;
    assert_eq!(world.running().fetch("/healthz").await.status(), 200);
    let ready = world.running().fetch("/readyz").await;
    assert_eq!(ready.status(), 200);
    let mut ready: serde_json::Value = serde_json::from_str(&ready.text().await.unwrap()).unwrap();
    // The servers' addresses differ from machine to machine.
    let nodes = ready.as_object_mut().unwrap().remove("nodes").unwrap();
    let states: Vec<_> = nodes.as_array().unwrap().iter().map(|node| (&node["of"], &node["state"])).collect();
    assert_eq!(
        serde_json::json!(states),
        serde_json::json!([["database", "takes-writes"], ["broker", "answers"]])
    );
    let good = serde_json::json!({
        "ready": true, "consuming": true, "database": true, "publishing": true, "provider": "ok", "problems": [],
    });
    assert_eq!(ready, good);
}

/// A mark of acknowledgements may take messages beside the consumer's.
#[tokio::test]
async fn a_backlog_of_requests_without_ids_does_not_raise_the_number_in_flight() {
    let world = Setup::default().set("PREFETCH", "4").set("SMS_CONCURRENCY", "1").start().await;
    world.provider.set(json!({"latency_ms": 300})).await;
    for n in 0..60 {
        world.broker.request(Message::json(&world.request_to_number(n))).await;
    }
    let highest = Cell::new(0.0_f64);
    until("twenty invites are sent", || async {
        let in_flight = value(&world.running().metrics().await, "session_invite_invites_in_flight ");
        highest.set(highest.get().max(in_flight));
        (world.provider.posts().await >= 20).then_some(())
    })
    .await;
    world.provider.set(json!({"latency_ms": 0})).await;
    world.broker.until_queues_are_empty().await;
    world.running().idle().await;
    // Right are 8: PREFETCH, and as many that marks have taken. A settled invite may be counted for a moment longer. With a
    // fixed room of 16 for marks there would be 20.
    assert!((4.0..=14.0).contains(&highest.get()), "{} in flight, where PREFETCH is 4", highest.get());
}
