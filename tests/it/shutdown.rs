//! The contract's section 8, promise 6: a stop loses nothing and doubles nothing.

use crate::support::{Message, Reply, Setup, Tunnel, World, broker_server, until};
use serde_json::json;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

const INVITES: usize = 120;

#[tokio::test]
async fn a_stop_under_load_leaves_no_invite_unanswered_and_none_texted_twice() {
    let mut world = Setup::default().set("SMS_CONCURRENCY", "8").start().await;
    world.provider.set(json!({"latency_ms": 150})).await;
    for n in 0..INVITES {
        let request = world.request_with(json!({"smsPhone": format!("201-555-{n:04}")}));
        world
            .broker
            .request(Message::json(&request).id(&format!("i{n}")).correlation(&format!("i{n}")))
            .await;
    }
    until("some are sent", || async { (world.provider.posts().await > 10).then_some(()) }).await;
    assert!(world.take_worker().stop().success());
    let sent_by_first = world.provider.texts().await.len();
    assert!(sent_by_first < INVITES, "the first had work left");

    let mut second = world.start_worker().await;
    for n in 0..INVITES {
        world.broker.reply(&format!("i{n}")).await.sent();
    }
    let texts = world.provider.texts().await;
    let numbers: HashSet<_> = texts.iter().map(|text| text["to"].to_string()).collect();
    assert_eq!((texts.len(), numbers.len()), (INVITES, INVITES), "one text each");
    assert!(world.broker.left().is_empty(), "one reply each");
    assert!(second.stop().success());
}

/// Some take longer than those behind them, so that each is acknowledged by itself, the last ones a moment before the end.
/// They have no id: one that came again after its acknowledgement counted as sure would be texted again.
#[tokio::test]
async fn what_was_answered_before_a_stop_does_not_come_again() {
    const MESSAGES: usize = 600;
    let mut world = World::start().await;
    assert!(world.take_worker().stop().success());
    for n in 0..MESSAGES {
        let message = if n % 5 == 0 {
            Message::json(&world.request_with(json!({"smsPhone": format!("201-555-{n:04}")})))
        } else {
            Message::bytes("x")
        };
        world.broker.request(message.correlation(&format!("m{n}"))).await;
    }
    let mut first = world.start_worker().await;
    until("some are answered", || async { (!world.broker.left().is_empty()).then_some(()) }).await;
    assert!(first.stop().success());

    let mut second = world.start_worker().await;
    let answered = || world.broker.left().iter().filter_map(Reply::correlation).collect::<Vec<_>>();
    until("all are answered", || async {
        (answered().into_iter().collect::<HashSet<_>>().len() == MESSAGES).then_some(())
    })
    .await;
    second.idle().await;
    assert!(second.stop().success());
    let mut answered = answered();
    answered.sort_unstable();
    let again: Vec<_> = answered.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
    assert!(again.is_empty(), "{} were answered again: {again:?}", again.len());
    assert_eq!(world.provider.posts().await, MESSAGES as u64 / 5, "one text each");
}

#[tokio::test]
async fn what_is_in_hand_is_finished_before_the_end() {
    for signal in ["TERM", "INT"] {
        let mut world = World::start().await;
        world.provider.set(json!({"latency_ms": 700})).await;
        world.broker.request(Message::json(&world.request()).correlation("slow")).await;
        until("it is in hand", || async { (world.provider.posts().await == 1).then_some(()) }).await;
        let mut worker = world.take_worker();
        worker.signal(signal);
        assert!(worker.ended().success());
        // Published and acknowledged already: there is no worker left that could.
        world.broker.reply("slow").await.sent();
    }
}

#[tokio::test]
async fn a_line_that_is_lost_while_the_rest_is_finished_holds_up_no_stop() {
    let mut world = World::start().await;
    let tunnel = Tunnel::closed(&broker_server());
    tunnel.open();
    assert!(world.take_worker().stop().success());
    let mut worker = world.spawn(&[("AMQP_URL", tunnel.url.as_str())]);
    worker.ready().await;
    world.provider.set(json!({"latency_ms": 3_000})).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until("it is in hand", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    let begun = Instant::now();
    worker.signal("TERM");
    worker.says("stopping").await;
    tunnel.close();
    tunnel.open();
    // The reply goes out on another line. Its acknowledgement cannot, and nobody waits for that.
    let reply = world.broker.reply("x").await;
    reply.sent();
    assert!(worker.ended().success());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "less than the grace of 25 s: {took:?}");

    // So it comes again, and finds its outcome.
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("x").await.bytes, reply.bytes);
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_second_signal_ends_the_worker_at_once() {
    let mut world = World::start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until("it is in hand", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    let mut worker = world.take_worker();
    worker.signal("TERM");
    worker.says("stopping").await;
    let begun = Instant::now();
    worker.signal("TERM");
    worker.ended();
    assert!(begun.elapsed() < Duration::from_secs(1));
    // The other worker takes it up, finds the text, and does not send.
    world.database.leases_are_over().await;
    let mut next = world.start_worker().await;
    world.broker.reply("x").await.sent();
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn when_the_grace_is_over_the_rest_goes_back_to_the_queue() {
    let mut world = Setup::default().set("SHUTDOWN_GRACE", "300ms").set("SMS_TIMEOUT", "60s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until("it is in hand", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    let begun = Instant::now();
    assert!(world.take_worker().stop().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.database.leases_are_over().await;
    let mut next = world.start_worker().await;
    world.broker.reply("x").await.sent();
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}
