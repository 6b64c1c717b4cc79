//! What the gateway does when the workers, the broker or the database are away, or too much waits.

use crate::support::{
    Answer, Gateway, Setup, Tunnel, World, broker_server, http_invite, send, try_send, until,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// Asks until the answer has this status: what is away is noticed in its own time, and what was published until then
/// waits for it to come back.
async fn until_answered(gateway: &Gateway, world: &World, status: u16) -> Answer {
    until(&format!("the answer is {status}"), || async {
        let answer = try_send(gateway.invite(world).timeout(Duration::from_secs(2))).await.ok()?;
        (answer.status == status).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn without_a_worker_the_answer_is_504_and_the_invite_goes_on() {
    let mut world = World::start().await;
    assert!(world.take_worker().stop().success());
    let mut gateway = world.start_gateway(&[("GATEWAY_TIMEOUT", "300ms")]).await;
    let late = send(gateway.invite(&world).header("Idempotency-Key", "late")).await;
    late.problem(504, "reply_timeout");
    assert_eq!(late.header("idempotency-key"), Some("late"));
    assert!(gateway.process.stop().success());

    let mut worker = world.start_worker().await;
    until("it is texted", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    let mut gateway = world.start_gateway(&[]).await;
    send(gateway.invite(&world).header("Idempotency-Key", "late")).await.ok();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_back_no_invite() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    world.provider.set(json!({"latency_ms": 400})).await;
    let request = gateway.invite(&world).timeout(Duration::from_millis(100));
    assert!(request.send().await.unwrap_err().is_timeout());
    until("it is sent", || async {
        let rows = world.database.sessions().await;
        rows.first().is_some_and(|row| row["sent_at"].is_string()).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_the_broker_is_away_the_answer_is_503_and_look_ups_go_on() {
    let world = World::start().await;
    let tunnel = Tunnel::closed(&broker_server());
    let mut gateway = world.spawn_gateway(&[("AMQP_URL", &tunnel.url)]).await;
    gateway.process.says("waiting for the broker").await;
    assert_eq!((gateway.process.get("/healthz").await, gateway.process.get("/readyz").await), (200, 503));
    tunnel.open();
    gateway.process.ready().await;
    let key = send(gateway.invite(&world)).await.ok()["sessionKey"].as_str().unwrap().to_owned();

    tunnel.close();
    until_answered(&gateway, &world, 503).await.problem(503, "unavailable");
    let readiness = send(gateway.request("GET", "/readyz")).await;
    assert_eq!((readiness.status, &readiness.json()["publishing"]), (503, &json!(false)));
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    send(gateway.request("GET", &path).header("Authorization", world.credential())).await.ok();
    // Wrong requests are still told what is wrong with them.
    let malformed = gateway.invite_with(&world, &json!([]));
    send(malformed).await.problem(400, "request_malformed");

    tunnel.open();
    until_answered(&gateway, &world, 200).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_line_that_is_lost_between_confirm_and_reply_costs_neither_answer_nor_second_text() {
    let world = World::start().await;
    let tunnel = Tunnel::closed(&broker_server());
    tunnel.open();
    let mut gateway = world.start_gateway(&[("AMQP_URL", &tunnel.url)]).await;
    world.provider.set(json!({"latency_ms": 1_500})).await;
    let asking = send(gateway.invite(&world));
    let cutting = async {
        until("it is in hand", || async { (world.provider.posts().await == 1).then_some(()) }).await;
        tunnel.close();
        tunnel.open();
    };
    let (answer, ()) = tokio::join!(asking, cutting);
    answer.ok();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_the_database_is_away_nothing_hangs() {
    let world = World::start().await;
    let tunnel = Tunnel::closed(&world.database.url);
    let mut gateway = world.spawn_gateway(&[("DATABASE_URL", &tunnel.url)]).await;
    gateway.process.says("waiting for the database").await;
    send(gateway.invite(&world)).await.problem(503, "unavailable");
    tunnel.open();
    gateway.process.ready().await;
    send(gateway.invite(&world)).await.ok();

    tunnel.close();
    let begun = Instant::now();
    // A key that is known needs no database of the gateway's, and one that is not cannot be refused by what may be old.
    send(gateway.invite(&world)).await.ok();
    let unknown = gateway.request("POST", crate::support::SMS_INVITE).body(http_invite().to_string());
    let unknown = unknown.header("Authorization", crate::support::gkey(72, "12345", "another key"));
    send(unknown).await.problem(503, "unavailable");
    let look_up = gateway.request("GET", "/api/sessioninvitation/session?groupid=72&sessionKey=123456");
    send(look_up.header("Authorization", world.credential())).await.problem(503, "unavailable");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let readiness = send(gateway.request("GET", "/readyz")).await;
    assert_eq!((readiness.status, &readiness.json()["database"]), (503, &json!(false)));
    tunnel.open();
    gateway.process.ready().await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_queue_that_is_too_deep_takes_no_more() {
    let mut world = World::start().await;
    assert!(world.take_worker().stop().success());
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
async fn a_queue_that_was_deleted_is_declared_again() {
    let mut world = World::start().await;
    assert!(world.take_worker().stop().success());
    let mut gateway = world.start_gateway(&[]).await;
    world.broker.delete("requests").await;
    let mut worker = world.start_worker().await;
    until_answered(&gateway, &world, 200).await;
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn more_requests_than_the_gateway_may_have_in_hand_are_answered_503() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[("GATEWAY_CONCURRENCY", "2")]).await;
    world.provider.set(json!({"latency_ms": 700})).await;
    let all = (0..6).map(|_| send(gateway.invite(&world)));
    let answers = futures::future::join_all(all).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(503)), (2, 4), "{answers:?}");
    answers.iter().find(|answer| answer.status == 503).unwrap().problem(503, "unavailable");
    send(gateway.request("GET", "/healthz")).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_wrong_start_is_one_clear_line() {
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
