//! kill -9 of the gateway and of the worker, under load: whoever asks again by the same key loses nothing, and nobody is
//! texted twice.

use crate::support::{Http, Setup, World, http_invite, send, try_send, until};
use futures::future::join_all;
use serde_json::{Value, json};
use std::{
    cell::Cell,
    collections::HashSet,
    net::TcpListener,
    time::{Duration, Instant},
};

const INVITES: usize = 200;
/// Of a worker that was killed: its margin, the provider's time-out, and what the retry queues add.
const PATIENCE: Duration = Duration::from_secs(90);

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// Asks by one key until there is an answer, through whatever happens to the gateway.
async fn persist(gateway: &Http, world: &World, n: usize, answered: &Cell<usize>) -> Value {
    let mut body = http_invite();
    body["smsPhone"] = json!(format!("201-555-{n:04}"));
    // As they come, and not all at once.
    tokio::time::sleep(Duration::from_millis(8) * u32::try_from(n).expect("few")).await;
    let begun = Instant::now();
    loop {
        let request = gateway.invite_with(world, &body).header("Idempotency-Key", format!("k{n}"));
        match try_send(request).await {
            Ok(answer) if answer.status == 200 => {
                answered.set(answered.get() + 1);
                return answer.ok();
            }
            Ok(answer) => assert!(matches!(answer.status, 503 | 504), "{answer:?}"),
            Err(_) => {}
        }
        assert!(begun.elapsed() < PATIENCE, "k{n} has no answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All are answered, each with a session of its own, and each number has one text.
async fn judge(world: &World, answers: &[Value]) {
    let sessions: HashSet<_> = answers.iter().map(|answer| answer["sessionId"].to_string()).collect();
    assert_eq!(sessions.len(), INVITES);
    let texts = world.provider.texts().await;
    let numbers: HashSet<_> = texts.iter().map(|text| text["to"].to_string()).collect();
    assert_eq!((texts.len(), numbers.len()), (INVITES, INVITES), "one text each");
}

#[tokio::test]
async fn a_gateway_that_is_killed_loses_no_invite_and_doubles_no_text() {
    let world = Setup::default().start().await;
    world.provider.set(json!({"latency_ms": 30})).await;
    let address = free_address();
    let mut gateway = world.start_gateway(&[("GATEWAY_ADDR", &address)]).await;
    let asked = Http::at(&address);
    let answered = Cell::new(0);
    let asking = join_all((0..INVITES).map(|n| persist(&asked, &world, n, &answered)));
    let killing = async {
        for share in [5, 3, 2] {
            until("some are answered", || async { (answered.get() > INVITES / share / 2).then_some(()) })
                .await;
            gateway.process.kill();
            gateway = world.start_gateway(&[("GATEWAY_ADDR", &address)]).await;
        }
        gateway
    };
    let (answers, mut gateway) = tokio::join!(asking, killing);
    judge(&world, &answers).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_no_invite_and_doubles_no_text() {
    let mut world = Setup::default().hurried().start().await;
    world.provider.set(json!({"latency_ms": 30})).await;
    let mut gateway = world.start_gateway(&[("GATEWAY_TIMEOUT", "60s")]).await;
    let mut first = world.take_worker();
    let answered = Cell::new(0);
    let asking = join_all((0..INVITES).map(|n| persist(&gateway, &world, n, &answered)));
    let killing = async {
        until("some are answered", || async { (answered.get() > INVITES / 4).then_some(()) }).await;
        first.kill();
        world.start_worker().await
    };
    let (answers, mut worker) = tokio::join!(asking, killing);
    judge(&world, &answers).await;
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn a_panic_costs_its_own_request_only() {
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
