//! The gateway during an outage of workers, broker or database, and while too many requests wait.

use crate::support::{
    Answer, Gateway, Setup, TextState, Tunnel, World, broker_server, http_invite, keeps_promise, send,
    try_send, until,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// Repeats the invite until the answer has this status: the gateway takes some time to notice an outage. An invite that was
/// published before waits for the end of the outage.
async fn until_answered(gateway: &Gateway, world: &World, status: u16) -> Answer {
    until(&format!("the answer is {status}"), || async {
        let answer = try_send(gateway.invite(world).timeout(Duration::from_secs(2))).await.ok()?;
        (answer.status == status).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn without_a_worker_the_answer_is_504_and_the_invite_waits_for_one() {
    let mut world = World::start().await;
    world.stop_worker();
    let mut gateway = world.start_gateway(&[("GATEWAY_TIMEOUT", "300ms")]).await;
    let late = send(gateway.invite(&world).header("Idempotency-Key", "late")).await;
    late.problem(504, "reply_timeout");
    assert_eq!(late.header("idempotency-key"), Some("late"));
    assert!(gateway.process.stop().success());

    let mut worker = world.start_worker().await;
    world.provider.until_posts(1).await;
    let mut gateway = world.start_gateway(&[]).await;
    send(gateway.invite(&world).header("Idempotency-Key", "late")).await.ok();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn an_invite_is_sent_although_its_client_disconnects() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    world.provider.set(json!({"latency_ms": 5_000})).await;
    // The client goes away while the provider has the text.
    tokio::select! {
        biased;
        () = world.provider.until_posts(1) => {}
        answer = send(gateway.invite(&world)) => panic!("it has an answer: {answer:?}"),
    }
    world.database.until_texts_are(1, TextState::Accepted).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_the_broker_is_away_invites_are_answered_503_and_look_ups_work() {
    let world = World::start().await;
    let tunnel = Tunnel::closed(&broker_server());
    let mut gateway = world.spawn_gateway(&[("AMQP_URL", &tunnel.url)]).await;
    gateway.process.logs("waiting for the broker").await;
    assert_eq!(
        (gateway.process.status("/healthz").await, gateway.process.status("/readyz").await),
        (200, 503)
    );
    tunnel.open();
    gateway.process.ready().await;
    let key = gateway.invited(&world).await;

    tunnel.close();
    until_answered(&gateway, &world, 503).await.problem(503, "unavailable");
    let readiness = send(gateway.request("GET", "/readyz")).await;
    assert_eq!((readiness.status, &readiness.json()["publishing"]), (503, &json!(false)));
    send(gateway.look_up(&world, &key)).await.ok();
    // Wrong requests still get their own refusal.
    let malformed = gateway.invite_with(&world, &json!([]));
    send(malformed).await.problem(400, "request_malformed");

    tunnel.open();
    until_answered(&gateway, &world, 200).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_connection_lost_between_confirm_and_reply_still_gets_the_answer() {
    let world = World::start().await;
    let tunnel = Tunnel::opened(&broker_server());
    let mut gateway = world.start_gateway(&[("AMQP_URL", &tunnel.url)]).await;
    world.provider.set(json!({"latency_ms": 1_500})).await;
    let invite = send(gateway.invite(&world));
    let cutting = async {
        world.provider.until_posts(1).await;
        tunnel.close();
        tunnel.open();
    };
    let (answer, ()) = tokio::join!(invite, cutting);
    answer.ok();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_the_database_is_away_every_request_is_answered() {
    let world = World::start().await;
    let tunnel = Tunnel::closed(&world.database.url);
    let mut gateway = world.spawn_gateway(&[("DATABASE_URL", &tunnel.url)]).await;
    gateway.process.logs("waiting for the database").await;
    send(gateway.invite(&world)).await.problem(503, "unavailable");
    tunnel.open();
    gateway.process.ready().await;
    send(gateway.invite(&world)).await.ok();

    tunnel.close();
    let begun = Instant::now();
    // The gateway checks a known key without the database. It refuses no unknown key, as its groups may be old.
    send(gateway.invite(&world)).await.ok();
    // A request waits for the database for three seconds, where a statement would wait for a connection for five.
    keeps_promise(Duration::from_millis(4_500), async || {
        let asked = Instant::now();
        let unknown = gateway.request("POST", crate::support::SMS_INVITE).body(http_invite().to_string());
        let unknown = unknown.header("Authorization", crate::support::gkey(72, "12345", "another key"));
        send(unknown).await.problem(503, "unavailable");
        asked.elapsed()
    })
    .await;
    send(gateway.look_up(&world, "123456")).await.problem(503, "unavailable");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let readiness = send(gateway.request("GET", "/readyz")).await;
    assert_eq!((readiness.status, &readiness.json()["database"]), (503, &json!(false)));
    tunnel.open();
    gateway.process.ready().await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_queue_that_is_too_deep_takes_no_more_invites() {
    let mut world = World::start().await;
    world.stop_worker();
    let mut gateway = world.start_gateway(&[("GATEWAY_BACKLOG", "2"), ("GATEWAY_TIMEOUT", "200ms")]).await;
    for _ in 0..3 {
        send(gateway.invite(&world)).await.problem(504, "reply_timeout");
    }
    let refused = until_answered(&gateway, &world, 503).await;
    refused.problem(503, "unavailable");
    let mut worker = world.start_worker().await;
    until_answered(&gateway, &world, 200).await;
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn the_gateway_works_again_after_its_queue_was_deleted() {
    let mut world = World::start().await;
    world.stop_worker();
    let mut gateway = world.start_gateway(&[]).await;
    world.broker.delete("requests").await;
    let mut worker = world.start_worker().await;
    until_answered(&gateway, &world, 200).await;
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn requests_beyond_the_gateways_concurrency_are_answered_503() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[("GATEWAY_CONCURRENCY", "2")]).await;
    world.provider.set(json!({"latency_ms": 4_000})).await;
    let all = (0..6).map(|_| send(gateway.invite(&world)));
    let answers = futures::future::join_all(all).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(503)), (2, 4), "{answers:?}");
    answers.iter().find(|answer| answer.status == 503).unwrap().problem(503, "unavailable");
    send(gateway.request("GET", "/healthz")).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn each_fault_of_the_gateways_settings_is_named_at_its_start() {
    let world = Setup::default().without_worker().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |changes: &[(&str, &str)]| {
        let all: Vec<_> = [("GATEWAY_ADDR", "127.0.0.1:0")].iter().chain(changes).copied().collect();
        crate::support::run(&world.environment(&all), &["gateway"])
    };
    let complaint = run(&[("GATEWAY_ADDR", &address)]).fails(1);
    assert!(complaint.contains("GATEWAY_ADDR") && complaint.contains(&address), "{complaint}");
    let mut wrong = url::Url::parse(&broker_server()).unwrap();
    wrong.set_password(Some("wrong-password")).unwrap();
    let complaint = run(&[("AMQP_URL", wrong.as_str())]).fails(1);
    assert!(complaint.contains("AMQP_URL") && !complaint.contains("wrong-password"), "{complaint}");
    let complaint = run(&[
        ("GATEWAY_TIMEOUT", "soon"),
        ("GATEWAY_CONCURRENCY", "0"),
        ("GATEWAY_BACKLOG", "-1"),
        ("GATEWAY_CORS_ORIGINS", "example"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("SHUTDOWN_GRACE", "x"),
        ("SMS_BASE_URL", "https://api.twilio.com"),
    ])
    .fails(2);
    for name in [
        "GATEWAY_TIMEOUT",
        "GATEWAY_CONCURRENCY",
        "GATEWAY_BACKLOG",
        "GATEWAY_CORS_ORIGINS",
        "TRUSTED_PROXIES",
        "SHUTDOWN_GRACE",
        "PUBLIC_URL",
    ] {
        assert!(complaint.contains(&format!("{name}: ")), "{name} is missing:\n{complaint}");
    }
}
