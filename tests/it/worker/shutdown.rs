//! The contract's section 8, promise 6: a stop loses no invite and repeats no text.

use crate::support::{Message, Reply, Setup, Tunnel, World, broker_server, until};
use serde_json::json;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

const INVITES: usize = 120;

#[tokio::test]
async fn after_a_stop_under_load_every_invite_is_answered_and_texted_once() {
    let mut world = Setup::default().set("SMS_CONCURRENCY", "8").start().await;
    world.provider.set(json!({"latency_ms": 400})).await;
    // All invites wait when the first worker starts, however slowly they are published.
    world.stop_worker();
    for n in 0..INVITES {
        let request = world.request_to_number(n);
        world
            .broker
            .request(Message::json(&request).id(&format!("i{n}")).correlation(&format!("i{n}")))
            .await;
    }
    let mut first = world.start_worker().await;
    world.provider.until_posts(11).await;
    assert!(first.stop().success());
    let sent_by_first = world.provider.texts().await.len();
    assert!(sent_by_first < INVITES, "the first worker had invites left");

    let mut second = world.start_worker().await;
    for n in 0..INVITES {
        world.broker.reply(&format!("i{n}")).await.sent();
    }
    let texts = world.provider.texts().await;
    let numbers: HashSet<_> = texts.iter().map(|text| text["to"].to_string()).collect();
    assert_eq!((texts.len(), numbers.len()), (INVITES, INVITES), "one text each");
    assert!(world.broker.replies_left().is_empty(), "one reply each");
    assert!(second.stop().success());
}

/// Some messages take longer than those behind them, so that each is acknowledged by itself, the last ones just before the
/// end. Without a message_id, a message that came again after its acknowledgement was recorded would be texted again.
#[tokio::test]
async fn messages_answered_before_a_stop_are_not_delivered_again() {
    const MESSAGES: usize = 600;
    let mut world = World::start().await;
    world.stop_worker();
    for n in 0..MESSAGES {
        let message =
            if n % 5 == 0 { Message::json(&world.request_to_number(n)) } else { Message::bytes("x") };
        world.broker.request(message.correlation(&format!("m{n}"))).await;
    }
    let mut first = world.start_worker().await;
    until("some are answered", || async { (!world.broker.replies_left().is_empty()).then_some(()) }).await;
    assert!(first.stop().success());

    let mut second = world.start_worker().await;
    let answered = || world.broker.replies_left().iter().filter_map(Reply::correlation).collect::<Vec<_>>();
    until("all are answered", || async {
        (answered().into_iter().collect::<HashSet<_>>().len() == MESSAGES).then_some(())
    })
    .await;
    second.idle().await;
    assert!(second.stop().success());
    let mut answered = answered();
    answered.sort_unstable();
    let repeated: Vec<_> = answered.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
    assert!(repeated.is_empty(), "{} were answered again: {repeated:?}", repeated.len());
    assert_eq!(world.provider.posts().await, MESSAGES as u64 / 5, "one text each");
}

#[tokio::test]
async fn a_stop_finishes_the_invites_in_flight() {
    for signal in ["TERM", "INT"] {
        let mut world = World::start().await;
        world.provider.set(json!({"latency_ms": 700})).await;
        world.broker.request(Message::json(&world.request()).correlation("slow")).await;
        world.provider.until_posts(1).await;
        let mut worker = world.take_worker();
        worker.signal(signal);
        assert!(worker.wait().success());
        // The stopped worker has published the reply and acknowledged the message.
        world.broker.reply("slow").await.sent();
    }
}

#[tokio::test]
async fn a_connection_lost_during_a_stop_does_not_delay_it() {
    let mut world = Setup::default().set("SMS_TIMEOUT", "20s").start().await;
    let tunnel = Tunnel::opened(&broker_server());
    let mut worker = world.replace_worker(&[("AMQP_URL", tunnel.url.as_str())]).await;
    world.provider.set(json!({"latency_ms": 8_000})).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    world.provider.until_posts(1).await;
    let begun = Instant::now();
    worker.signal("TERM");
    worker.logs("stopping").await;
    tunnel.close();
    tunnel.open();
    // The worker publishes the reply on a new connection. It cannot acknowledge on it, and does not wait for that.
    let reply = world.broker.reply("x").await;
    reply.sent();
    assert!(worker.wait().success());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(24), "less than the grace of 25 s: {took:?}");

    // The message is delivered again, and gets the stored outcome.
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("x").await.bytes, reply.bytes);
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_second_signal_ends_the_worker_at_once() {
    let mut world = Setup::default().set("SMS_TIMEOUT", "60s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    world.provider.until_posts(1).await;
    let mut worker = world.take_worker();
    worker.signal("TERM");
    worker.logs("stopping").await;
    let begun = Instant::now();
    worker.signal("TERM");
    worker.wait();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "less than the grace of 25 s: {took:?}");
    // The other worker resumes the invite, finds the text, and does not send it again.
    world.database.end_leases().await;
    let mut next = world.start_worker().await;
    world.broker.reply("x").await.sent();
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn after_the_grace_unfinished_invites_go_back_to_the_queue() {
    let mut world = Setup::default().set("SHUTDOWN_GRACE", "300ms").set("SMS_TIMEOUT", "60s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    world.provider.until_posts(1).await;
    let begun = Instant::now();
    world.stop_worker();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "less than the default grace of 25 s: {took:?}");
    world.database.end_leases().await;
    let mut next = world.start_worker().await;
    world.broker.reply("x").await.sent();
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}
