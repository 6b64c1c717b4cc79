//! The contract's section 8, promise 9: a broker with several nodes.

use crate::support::{
    FakeBroker, Message, Setup, Tunnel, Worker, World, broker_server, free_address, keeps_promise, send,
    until, until_within,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How soon work has to continue where a node is cut off, or falls silent. The contract promises 10 s of a broker that has a
/// majority; here its silence has to be noticed first, on a slow machine too.
const CONTINUES_WITHIN: Duration = Duration::from_secs(30);
/// How long a test waits for it.
const PATIENCE: Duration = Duration::from_mins(1);

fn node<'a>(body: &'a Value, name: &str) -> &'a Value {
    let nodes = body["nodes"].as_array().expect("nodes are a list");
    nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {body}"))
}

/// Waits until `/readyz` has this status and its node this state; returns the body.
async fn until_node(process: &Worker, status: u16, name: &str, state: &str) -> Value {
    until_within(PATIENCE, &format!("{name} is {state}, and the answer {status}"), || async {
        let (found, body) = process.readiness().await;
        (found == status && node(&body, name)["state"] == state).then_some(body)
    })
    .await
}

/// The host and port of a tunnel.
fn address(tunnel: &Tunnel) -> String {
    let url = url::Url::parse(&tunnel.url).expect("a tunnel has a URL");
    format!("127.0.0.1:{}", url.port().expect("a tunnel has a port"))
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_its_cluster_is_left_by_consumers_and_publishers() {
    keeps_promise(CONTINUES_WITHIN, leave_a_node_that_is_cut_off).await;
}

/// Returns the time until worker and gateway work on the other node.
async fn leave_a_node_that_is_cut_off() -> Duration {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(72, &[]);
    let (cut_off, other) = (FakeBroker::start(), Tunnel::closed(&broker_server()));
    let nodes = format!("{},{}", cut_off.url, other.url);
    let mut worker = world.spawn(&[("AMQP_URL", &nodes)]);
    let mut gateway = world.spawn_gateway(&[("AMQP_URL", &nodes)]).await;
    // All connections lead to the node that takes logins. No node declares anything or confirms.
    let body = until_node(&worker, 503, &cut_off.address, "away").await;
    assert!(body["problems"].to_string().contains("has its cluster lost its majority?"), "{body}");
    assert_eq!(node(&body, &address(&other))["state"], "away", "{body}");
    let (begun, before) = (Instant::now(), cut_off.logins());
    let have_tried = || async { (cut_off.logins() >= before + 24).then_some(()) };
    until_within(PATIENCE, "the processes have tried again", have_tried).await;
    let (tries, seconds) = (cut_off.logins() - before, begun.elapsed().as_secs_f64());
    // Two consumers, two publishers, the gateway's, its look at the queue, and two looks at nodes: each about once a second.
    // Without a pause between their tries, they need a fraction of a second.
    assert!(
        f64::from(u32::try_from(tries).expect("not so many")) < 16.0 * seconds + 8.0,
        "{tries} logins in {seconds} s"
    );

    other.open();
    let begun = Instant::now();
    until_node(&worker, 200, &address(&other), "answers").await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    world.broker.reply_within(PATIENCE, "x").await.sent();
    until_within(PATIENCE, "the gateway answers", || async {
        (send(gateway.invite(&world)).await.status == 200).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(gateway.process.stop().success() && worker.stop().success());
    took
}

#[tokio::test]
async fn when_a_node_falls_silent_work_continues_on_another() {
    let mut world = World::start().await;
    let (one, two) = (Tunnel::opened(&broker_server()), Tunnel::opened(&broker_server()));
    let nodes = format!("{},{}", one.url, two.url);
    let mut worker = world.replace_worker(&[("AMQP_URL", &nodes)]).await;
    world.invite(&world.request()).await.sent();
    let body = until_node(&worker, 200, &address(&one), "answers").await;
    assert_eq!(node(&body, &address(&two))["state"], "answers", "{body}");
    // Every connection is silent, and one node is gone.
    one.silence();
    two.silence();
    one.close();
    worker.logs("not consuming").await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    // The broker delivers again what it had sent on a silent connection, once it misses heartbeats.
    world.broker.reply_within(PATIENCE, "x").await.sent();
    let body = until_node(&worker, 200, &address(&one), "away").await;
    assert!(body["problems"].to_string().contains(&format!("node {} is away", address(&one))), "{body}");
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let mut world = World::start().await;
    let (foreign, own) = (free_address(), Tunnel::opened(&broker_server()));
    own.name_cluster();
    let nodes = format!("{},amqp://guest:guest@{foreign}/%2f", own.url);
    let mut worker = world.replace_worker(&[("AMQP_URL", &nodes)]).await;
    until_node(&worker, 200, &foreign, "away").await;
    let fake = FakeBroker::on(&foreign, Some("elsewhere"));
    until("the reason is known", || async {
        let (status, body) = worker.readiness().await;
        let reason = node(&body, &fake.address)["reason"].as_str().unwrap_or_default().to_owned();
        (status == 200 && reason.contains("another cluster (\"elsewhere\"")).then_some(())
    })
    .await;
    world.invite(&world.request()).await.sent();
    // Nothing was published for longer than a node may be silent, which is no silence.
    assert!(!worker.log().contains("confirms nothing"), "{}", worker.log());
    let found = crate::support::run(&world.environment(&[("AMQP_URL", &nodes)]), &["doctor"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains("another cluster than"), "{found:?}");
    assert!(worker.stop().success());
}
