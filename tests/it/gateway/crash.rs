//! kill -9 of the gateway and of the worker, under load. A client that repeats its request by the same key loses nothing,
//! and no visitor is texted twice.

use crate::support::{
    Http, SentReply, Setup, World, free_address, http_invite, send, try_send, until, until_within,
};
use futures::future::join_all;
use serde_json::json;
use std::{cell::Cell, collections::HashSet, time::Duration};

const INVITES: usize = 200;
/// Time to recover from a killed worker: the claim's margin, the provider's time-out, and the retry queues.
const PATIENCE: Duration = Duration::from_secs(90);

/// Repeats an invite under one key until it is sent, while processes are killed.
async fn repeat_until_sent(gateway: &Http, world: &World, n: usize, answered: &Cell<usize>) -> SentReply {
    let mut body = http_invite();
    body["smsPhone"] = json!(format!("201-555-{n:04}"));
    // The load: one new invite each 8 ms.
    tokio::time::sleep(Duration::from_millis(8) * u32::try_from(n).expect("few")).await;
    until_within(PATIENCE, &format!("k{n} is sent"), || async {
        let request = gateway.invite_with(world, &body).header("Idempotency-Key", format!("k{n}"));
        let answer = try_send(request).await.ok()?;
        if answer.status != 200 {
            assert!(matches!(answer.status, 503 | 504), "{answer:?}");
            return None;
        }
        answered.set(answered.get() + 1);
        Some(answer.sent())
    })
    .await
}

/// Each answer has a session of its own, and each number has one text.
async fn assert_one_text_each(world: &World, answers: &[SentReply]) {
    let sessions: HashSet<_> = answers.iter().map(|answer| answer.session_id).collect();
    assert_eq!(sessions.len(), INVITES);
    let texts = world.provider.texts().await;
    let numbers: HashSet<_> = texts.iter().map(|text| text["to"].to_string()).collect();
    assert_eq!((texts.len(), numbers.len()), (INVITES, INVITES), "one text each");
}

#[tokio::test]
async fn a_killed_gateway_loses_no_invite_and_repeats_no_text() {
    let world = Setup::default().start().await;
    world.provider.set(json!({"latency_ms": 30})).await;
    let address = free_address();
    let mut gateway = world.start_gateway(&[("GATEWAY_ADDR", &address)]).await;
    let client = Http::at(&address);
    let answered = Cell::new(0);
    let invites = join_all((0..INVITES).map(|n| repeat_until_sent(&client, &world, n, &answered)));
    let killing = async {
        for share in [5, 3, 2] {
            until("some are answered", || async { (answered.get() > INVITES / share / 2).then_some(()) })
                .await;
            gateway.process.kill();
            gateway = world.start_gateway(&[("GATEWAY_ADDR", &address)]).await;
        }
        gateway
    };
    let (answers, mut gateway) = tokio::join!(invites, killing);
    assert_one_text_each(&world, &answers).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_killed_worker_loses_no_invite_of_the_gateway_and_repeats_no_text() {
    let mut world = Setup::default().short_waits().start().await;
    world.provider.set(json!({"latency_ms": 30})).await;
    let mut gateway = world.start_gateway(&[("GATEWAY_TIMEOUT", "60s")]).await;
    let mut first = world.take_worker();
    let answered = Cell::new(0);
    let invites = join_all((0..INVITES).map(|n| repeat_until_sent(&gateway, &world, n, &answered)));
    let killing = async {
        until("some are answered", || async { (answered.get() > INVITES / 4).then_some(()) }).await;
        first.kill();
        world.start_worker().await
    };
    let (answers, mut worker) = tokio::join!(invites, killing);
    assert_one_text_each(&world, &answers).await;
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn a_panic_fails_its_own_request_only() {
    let world = World::start().await;
    world.expect_error("panicked");
    let mut gateway = world.start_gateway(&[("SESSION_INVITE_FAILPOINT", "asked:panic:=broken")]).await;
    let broken = send(gateway.invite(&world).header("Idempotency-Key", "broken")).await;
    broken.problem(500, "internal_error");
    send(gateway.invite(&world).header("Idempotency-Key", "good")).await.ok();
    let metrics = gateway.operators("/metrics").await.body;
    assert!(metrics.contains("session_invite_http_requests_in_flight 0\n"), "{metrics}");
    assert!(gateway.process.stop().success());
}
