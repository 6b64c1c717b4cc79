//! A worker that dies, or stands still, between two effects of an invite; and what the next one makes of it. The table is
//! that of docs/DELIVERY.md.

use crate::support::{Message, Reply, Setup, Tunnel, Worker, World, broker_server, until, until_within};
use serde_json::json;
use std::time::{Duration, Instant};

/// The time of a worker that died: its margin, the provider's time-out, and what the retry queues add.
const PATIENCE: Duration = Duration::from_mins(1);

/// A worker that dies at a point, in a world whose first worker has only prepared it.
async fn dies_at(world: &mut World, failpoint: &str) -> Worker {
    assert!(world.take_worker().stop().success());
    let mut worker = world.spawn(&[("SESSION_INVITE_FAILPOINT", failpoint)]);
    worker.ready().await;
    worker
}

/// How a point is left behind, and what the next worker makes of it.
struct Point {
    failpoint: &'static str,
    /// What the provider does with the first tries.
    turns: &'static [&'static str],
    /// Texts that went out before the death.
    texts_before: usize,
    /// Tries that were begun in the end.
    attempts: u64,
    /// Replies in the end, at the least and at the most; all equal.
    replies: [usize; 2],
}

const POINTS: [Point; 9] = [
    Point { failpoint: "delivered:die", turns: &[], texts_before: 0, attempts: 1, replies: [1, 1] },
    Point { failpoint: "begun:die", turns: &[], texts_before: 0, attempts: 2, replies: [1, 1] },
    Point { failpoint: "accepted:die", turns: &[], texts_before: 1, attempts: 1, replies: [1, 1] },
    Point { failpoint: "recorded:die", turns: &[], texts_before: 1, attempts: 1, replies: [1, 1] },
    Point { failpoint: "replied:die", turns: &[], texts_before: 1, attempts: 1, replies: [2, 2] },
    // Whether the acknowledgement was on its way is chance.
    Point { failpoint: "acknowledged:die", turns: &[], texts_before: 1, attempts: 1, replies: [1, 2] },
    // The message and its copy both go on with the row.
    Point { failpoint: "copied:die", turns: &["throttle"], texts_before: 0, attempts: 2, replies: [2, 2] },
    Point { failpoint: "claimed:die", turns: &["throttle"], texts_before: 0, attempts: 3, replies: [1, 1] },
    Point { failpoint: "looked:die", turns: &["cut"], texts_before: 1, attempts: 1, replies: [1, 1] },
];

#[tokio::test]
async fn a_worker_that_dies_between_two_effects_leaves_one_session_one_text_and_equal_replies() {
    let worlds = POINTS.iter().map(|point| dies_and_is_finished(point, Some("order-17")));
    futures::future::join_all(worlds).await;
}

#[tokio::test]
async fn the_same_holds_without_a_message_id() {
    let worlds = POINTS.iter().map(|point| dies_and_is_finished(point, None));
    futures::future::join_all(worlds).await;
}

async fn dies_and_is_finished(point: &Point, id: Option<&str>) {
    let mut world = Setup::default().hurried().start().await;
    let mut first = dies_at(&mut world, point.failpoint).await;
    world.provider.next(point.turns).await;
    let message = Message::json(&world.request()).correlation("c");
    world.broker.request(id.map_or(message.clone(), |id| message.id(id))).await;
    first.ended();
    let what = point.failpoint;
    assert_eq!(world.provider.texts().await.len(), point.texts_before, "{what}: texts before");
    world.database.leases_are_over().await;

    let mut next = world.start_worker().await;
    let mut replies: Vec<Reply> = Vec::new();
    for _ in 0..point.replies[0] {
        replies.push(world.broker.reply("c").await);
    }
    // Nothing is under way or in hand any more, so nothing more can come.
    world.broker.quiet().await;
    next.idle().await;
    replies.extend(world.broker.left());
    assert!(
        (point.replies[0]..=point.replies[1]).contains(&replies.len()),
        "{what}: {} replies",
        replies.len()
    );
    replies[0].sent();
    assert!(replies.iter().all(|reply| reply.bytes == replies[0].bytes), "{what}: {replies:#?}");
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["text_state"]), (&json!("sent"), &json!("accepted")), "{what}");
    assert_eq!(row["attempts"], point.attempts, "{what}");
    let text = world.provider.text().await;
    assert_eq!(row["provider_message_id"], text["sid"], "{what}");
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_worker_that_stood_still_before_its_text_was_written_does_not_write_it() {
    let mut world = Setup::default().hurried().start().await;
    let tunnel = Tunnel::closed(&broker_server());
    tunnel.open();
    assert!(world.take_worker().stop().success());
    let armed = [("SESSION_INVITE_FAILPOINT", "begun:stop"), ("AMQP_URL", tunnel.url.as_str())];
    let mut frozen = world.spawn(&armed);
    frozen.ready().await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until("it stands still", || async { frozen.is_stopped().then_some(()) }).await;
    // The broker takes it for dead, and gives its message to another.
    tunnel.close();
    let begun = Instant::now();
    let mut next = world.start_worker().await;
    let reply = world.broker.reply_within(PATIENCE, "x").await;
    reply.sent();
    assert!(begun.elapsed() > Duration::from_secs(9), "not before the first has had its time");
    tunnel.open();
    frozen.signal("CONT");
    // It notices that its message was taken back, or that its claim is over, whichever it comes to first.
    frozen.ready().await;
    frozen.idle().await;
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (1, 1));
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["attempts"]), (&json!("sent"), &json!(2)));
    assert!(frozen.stop().success() && next.stop().success());
    assert!(world.broker.left().iter().all(|other| other.bytes == reply.bytes));
}

#[tokio::test]
async fn a_worker_that_stood_still_with_the_providers_answer_overwrites_nothing() {
    let mut world = Setup::default().hurried().start().await;
    let tunnel = Tunnel::closed(&broker_server());
    tunnel.open();
    assert!(world.take_worker().stop().success());
    let armed = [("SESSION_INVITE_FAILPOINT", "accepted:stop"), ("AMQP_URL", tunnel.url.as_str())];
    let mut frozen = world.spawn(&armed);
    frozen.ready().await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until("it stands still", || async { frozen.is_stopped().then_some(()) }).await;
    tunnel.close();
    let mut next = world.start_worker().await;
    let reply = world.broker.reply_within(PATIENCE, "x").await;
    reply.sent();
    let settled = world.database.session().await;
    tunnel.open();
    frozen.signal("CONT");
    frozen.ready().await;
    assert!(frozen.stop().success() && next.stop().success());
    assert_eq!(world.database.session().await, settled);
    assert_eq!(world.provider.posts().await, 1);
    assert!(world.broker.left().iter().all(|other| other.bytes == reply.bytes));
}

#[tokio::test]
async fn two_equal_requests_without_an_id_in_hand_at_a_death_bring_one_text_or_two() {
    let mut world = Setup::default().hurried().start().await;
    let mut first = dies_at(&mut world, "accepted:die:2").await;
    let message = Message::json(&world.request()).correlation("counter-1");
    for _ in 0..2 {
        world.broker.request(message.clone()).await;
    }
    first.ended();
    world.database.leases_are_over().await;
    let mut next = world.start_worker().await;
    for _ in 0..2 {
        world.broker.reply("counter-1").await.sent();
    }
    let texts = world.provider.texts().await.len();
    assert!((1..=2).contains(&texts), "{texts}");
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_panic_costs_its_own_invite_only() {
    let mut world = World::start().await;
    let mut worker = dies_at(&mut world, "begun:panic").await;
    world.expect_error("it is set aside");
    world.expect_error("panicked");
    let broken = world.ask(Message::json(&world.request()).id("broken")).await;
    broken.refused("failed", "internal_error", 500);
    world.ask(Message::json(&world.request()).id("good")).await.sent();
    let dead = world.broker.take("dead").await;
    assert!(dead.header("x-reason").unwrap().contains("the failpoint begun"), "{dead:?}");
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "broken");
    // Its sender tries again: the row that was begun is not forgotten.
    world.database.leases_are_over().await;
    world.ask(Message::json(&world.request()).id("broken")).await.sent();
    assert_eq!(world.provider.texts().await.len(), 2);
    assert!(worker.stop().success());
}

#[tokio::test]
async fn what_kills_each_worker_is_set_aside_in_the_end_and_takes_nobody_with_it() {
    let mut world = Setup::default().hurried().start().await;
    assert!(world.take_worker().stop().success());
    world.expect_error("it is set aside");
    for n in 0..5 {
        world
            .broker
            .request(Message::json(&world.request()).id(&format!("good{n}")).correlation(&format!("good{n}")))
            .await;
    }
    let poison = world.request_with(json!({"sessionParams": {"poison": "yes"}}));
    world.broker.request(Message::json(&poison).id("poison").correlation("poison")).await;
    let (mut deaths, armed) = (0, [("SESSION_INVITE_FAILPOINT", "delivered:die:=poison")]);
    let mut worker = world.spawn(&armed);
    until_within(Duration::from_mins(1), "it is set aside", || {
        if !worker.is_running() {
            deaths += 1;
            worker = world.spawn(&armed);
        }
        let told = world.broker.left().iter().any(|reply| reply.correlation().as_deref() == Some("poison"));
        async move { told.then_some(()) }
    })
    .await;
    assert!((3..=23).contains(&deaths), "{deaths}");
    for n in 0..5 {
        // One that was being sent when the poison struck has to wait until that try has surely ended.
        world.broker.reply_within(PATIENCE, &format!("good{n}")).await.sent();
    }
    world.broker.reply("poison").await.refused("failed", "internal_error", 500);
    let dead = world.broker.take("dead").await;
    assert!(dead.header("x-attempts").unwrap().parse::<u32>().unwrap() >= 20, "{dead:?}");
    assert_eq!(world.provider.texts().await.len(), 5);
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_look_that_is_written_down_late_proves_no_more_than_when_it_was_made() {
    let mut world = Setup::default().set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "8s").start().await;
    world.provider.set(json!({"list_lag_ms": 7_500, "next": ["cut"]})).await;
    // The second look, which comes some six seconds after the try: the list still misses the text.
    let mut frozen = dies_at(&mut world, "looked:stop:2").await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until_within(PATIENCE, "it stands still", || async { frozen.is_stopped().then_some(()) }).await;
    // The list's time is over while it stands still.
    world.database.passes("lease_until").await;
    frozen.signal("CONT");
    world.broker.reply_within(PATIENCE, "x").await.sent();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(frozen.stop().success());
}

#[tokio::test]
async fn a_delivery_without_an_id_that_was_taken_back_before_its_row_was_there_brings_no_second_text() {
    let mut world = Setup::default().hurried().start().await;
    // A worker is cut off, from the database and then from the broker, with a message whose row it has not written yet.
    let (broker, database) = (Tunnel::closed(&broker_server()), Tunnel::closed(&world.database.url));
    broker.open();
    database.open();
    assert!(world.take_worker().stop().success());
    let mut cut_off =
        world.spawn(&[("AMQP_URL", broker.url.as_str()), ("DATABASE_URL", database.url.as_str())]);
    cut_off.ready().await;
    database.close();
    let message = Message::json(&world.request()).correlation("x");
    world.broker.request(message).await;
    cut_off.says("the database does not carry out a statement").await;
    broker.close();
    let mut next = world.start_worker().await;
    // Another answers meanwhile.
    world.broker.reply_within(PATIENCE, "x").await.sent();
    next.idle().await;
    database.open();
    broker.open();
    cut_off.ready().await;
    cut_off.idle().await;
    assert!(cut_off.stop().success() && next.stop().success());
    assert_eq!(world.provider.texts().await.len(), 1);
}
