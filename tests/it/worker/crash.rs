//! A worker dies or is stopped between two effects of an invite, and another worker finishes the invite. The table is that
//! of docs/DELIVERY.md.

use crate::support::{
    Message, Reply, SessionStatus::Sent, Setup, TextState, Tunnel, Worker, World, broker_server,
    side_by_side, until, until_within,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// Time to recover from a dead worker: the claim's margin, the provider's time-out, and the retry queues.
const PATIENCE: Duration = Duration::from_mins(1);

/// Replaces the world's worker by one with a failpoint.
async fn with_failpoint(world: &mut World, failpoint: &str) -> Worker {
    world.replace_worker(&[("SESSION_INVITE_FAILPOINT", failpoint)]).await
}

/// Replaces the world's worker by one that is stopped at a failpoint while it processes an invite. The broker closes its
/// connection, and delivers the invite again.
async fn stopped_at(world: &mut World, failpoint: &str) -> (Worker, Tunnel) {
    let tunnel = Tunnel::opened(&broker_server());
    let armed = [("SESSION_INVITE_FAILPOINT", failpoint), ("AMQP_URL", tunnel.url.as_str())];
    let stopped = world.replace_worker(&armed).await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until("the worker is stopped", || async { stopped.is_stopped().then_some(()) }).await;
    tunnel.close();
    (stopped, tunnel)
}

/// A point at which a worker dies, and the result once the next worker has finished.
struct Point {
    failpoint: &'static str,
    /// The provider's faults at the first tries.
    faults: &'static [&'static str],
    /// Texts that were sent before the death.
    texts_before: usize,
    /// Tries that were begun by the end.
    attempts: u64,
    /// The least and the most replies by the end. All are equal.
    replies: [usize; 2],
}

const POINTS: [Point; 9] = [
    Point { failpoint: "delivered:die", faults: &[], texts_before: 0, attempts: 1, replies: [1, 1] },
    Point { failpoint: "begun:die", faults: &[], texts_before: 0, attempts: 2, replies: [1, 1] },
    Point { failpoint: "accepted:die", faults: &[], texts_before: 1, attempts: 1, replies: [1, 1] },
    Point { failpoint: "recorded:die", faults: &[], texts_before: 1, attempts: 1, replies: [1, 1] },
    Point { failpoint: "replied:die", faults: &[], texts_before: 1, attempts: 1, replies: [2, 2] },
    // The acknowledgement may have been sent or not.
    Point { failpoint: "acknowledged:die", faults: &[], texts_before: 1, attempts: 1, replies: [1, 2] },
    // The message and its retry copy both continue the row.
    Point { failpoint: "copied:die", faults: &["throttle"], texts_before: 0, attempts: 2, replies: [2, 2] },
    Point { failpoint: "claimed:die", faults: &["throttle"], texts_before: 0, attempts: 3, replies: [1, 1] },
    Point { failpoint: "looked:die", faults: &["cut"], texts_before: 1, attempts: 1, replies: [1, 1] },
];

#[test]
fn a_death_between_two_effects_leaves_one_session_one_text_and_equal_replies() {
    side_by_side(&POINTS, |point| dies_and_is_finished_by_another(point, Some("order-17")));
}

#[test]
fn without_a_message_id_too_a_death_leaves_one_session_one_text_and_equal_replies() {
    side_by_side(&POINTS, |point| dies_and_is_finished_by_another(point, None));
}

async fn dies_and_is_finished_by_another(point: &Point, id: Option<&str>) {
    let mut world = Setup::default().short_waits().start().await;
    let mut first = with_failpoint(&mut world, point.failpoint).await;
    world.provider.next(point.faults).await;
    let message = Message::json(&world.request()).correlation("c");
    world.broker.request(id.map_or(message.clone(), |id| message.id(id))).await;
    first.wait();
    let name = point.failpoint;
    assert_eq!(world.provider.texts().await.len(), point.texts_before, "{name}: texts before");
    world.database.end_leases().await;

    let mut next = world.start_worker().await;
    let mut replies: Vec<Reply> = Vec::new();
    for _ in 0..point.replies[0] {
        replies.push(world.broker.reply("c").await);
    }
    // No invite is in flight or in a queue, so no more replies can come.
    world.broker.until_queues_are_empty().await;
    next.idle().await;
    replies.extend(world.broker.replies_left());
    assert!(
        (point.replies[0]..=point.replies[1]).contains(&replies.len()),
        "{name}: {} replies",
        replies.len()
    );
    replies[0].sent();
    assert!(replies.iter().all(|reply| reply.bytes == replies[0].bytes), "{name}: {replies:#?}");
    let row = world.database.session().await;
    assert_eq!((row.status, row.text_state), (Sent, Some(TextState::Accepted)), "{name}");
    assert_eq!(row.attempts, point.attempts, "{name}");
    assert_eq!(world.provider.text().await["sid"], row.sid(), "{name}");
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_worker_stopped_before_its_post_does_not_send_the_text_later() {
    let mut world = Setup::default().short_waits().start().await;
    let (mut stopped, tunnel) = stopped_at(&mut world, "begun:stop").await;
    let begun = Instant::now();
    let left = "select extract(epoch from lease_until - now())::float8 from sessions";
    let left = world.database.value::<f64>(left).await;
    let mut next = world.start_worker().await;
    let reply = world.broker.reply_within(PATIENCE, "x").await;
    reply.sent();
    let took = begun.elapsed().as_secs_f64();
    assert!(took > left - 1.0, "the next worker waits for the lease of the first: {left} s, not {took} s");
    tunnel.open();
    stopped.signal("CONT");
    // It notices that its message was delivered to another, or that its claim is over.
    stopped.ready().await;
    stopped.idle().await;
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (1, 1));
    let row = world.database.session().await;
    assert_eq!((row.status, row.attempts), (Sent, 2));
    assert!(stopped.stop().success() && next.stop().success());
    assert!(world.broker.replies_left().iter().all(|other| other.bytes == reply.bytes));
}

#[tokio::test]
async fn a_worker_stopped_with_the_providers_answer_overwrites_nothing_later() {
    let mut world = Setup::default().short_waits().start().await;
    let (mut stopped, tunnel) = stopped_at(&mut world, "accepted:stop").await;
    let mut next = world.start_worker().await;
    let reply = world.broker.reply_within(PATIENCE, "x").await;
    reply.sent();
    let settled = world.database.session().await;
    tunnel.open();
    stopped.signal("CONT");
    stopped.ready().await;
    assert!(stopped.stop().success() && next.stop().success());
    assert_eq!(world.database.session().await, settled);
    assert_eq!(world.provider.posts().await, 1);
    assert!(world.broker.replies_left().iter().all(|other| other.bytes == reply.bytes));
}

#[tokio::test]
async fn two_equal_requests_without_a_message_id_at_a_death_cause_one_text_or_two() {
    let mut world = Setup::default().short_waits().start().await;
    let mut first = with_failpoint(&mut world, "accepted:die:2").await;
    let message = Message::json(&world.request()).correlation("counter-1");
    for _ in 0..2 {
        world.broker.request(message.clone()).await;
    }
    first.wait();
    world.database.end_leases().await;
    let mut next = world.start_worker().await;
    for _ in 0..2 {
        world.broker.reply("counter-1").await.sent();
    }
    let texts = world.provider.texts().await.len();
    assert!((1..=2).contains(&texts), "{texts}");
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_panic_fails_its_own_invite_only() {
    let mut world = World::start().await;
    let mut worker = with_failpoint(&mut world, "begun:panic").await;
    world.expect_error("it is set aside");
    world.expect_error("panicked");
    let broken = world.call(Message::json(&world.request()).id("broken")).await;
    broken.refused("failed", "internal_error", 500);
    world.call(Message::json(&world.request()).id("good")).await.sent();
    let dead = world.broker.take("dead").await;
    assert!(dead.header("x-reason").unwrap().contains("the failpoint begun"), "{dead:?}");
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "broken");
    // A repeat finds the row that was begun.
    world.database.end_leases().await;
    world.call(Message::json(&world.request()).id("broken")).await.sent();
    assert_eq!(world.provider.texts().await.len(), 2);
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_message_that_kills_each_worker_is_set_aside_and_all_others_are_sent() {
    let mut world = Setup::default().short_waits().start().await;
    world.stop_worker();
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
    // Up to 23 workers start and die.
    until_within(Duration::from_secs(150), "the poison is answered", || {
        if !worker.is_running() {
            deaths += 1;
            worker = world.spawn(&armed);
        }
        let answered =
            world.broker.replies_left().iter().any(|reply| reply.correlation().as_deref() == Some("poison"));
        async move { answered.then_some(()) }
    })
    .await;
    assert!((3..=23).contains(&deaths), "{deaths}");
    for n in 0..5 {
        // An invite that was being sent at a death waits until that try has surely ended.
        world.broker.reply_within(PATIENCE, &format!("good{n}")).await.sent();
    }
    world.broker.reply("poison").await.refused("failed", "internal_error", 500);
    let dead = world.broker.take("dead").await;
    assert!(dead.header("x-attempts").unwrap().parse::<u32>().unwrap() >= 20, "{dead:?}");
    assert_eq!(world.provider.texts().await.len(), 5);
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_look_that_is_recorded_late_counts_from_the_time_of_the_look() {
    let mut world = Setup::default().set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "8s").start().await;
    world.provider.set(json!({"list_lag_ms": 7_500, "next": ["cut"]})).await;
    // The second look is some six seconds after the try, while the list still misses the text.
    let mut stopped = with_failpoint(&mut world, "looked:stop:2").await;
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    until_within(PATIENCE, "the worker is stopped", || async { stopped.is_stopped().then_some(()) }).await;
    // The list settles while the worker is stopped.
    world.database.until_true("the lease is over", "select lease_until < now() from sessions").await;
    stopped.signal("CONT");
    world.broker.reply_within(PATIENCE, "x").await.sent();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(stopped.stop().success());
}

#[tokio::test]
async fn a_delivery_that_a_worker_lost_before_its_row_was_written_causes_no_second_text() {
    let mut world = Setup::default().short_waits().start().await;
    // A worker loses the database and then the broker, with a message whose row it has not written yet.
    let (broker, database) = (Tunnel::opened(&broker_server()), Tunnel::opened(&world.database.url));
    let urls = [("AMQP_URL", broker.url.as_str()), ("DATABASE_URL", database.url.as_str())];
    let mut cut_off = world.replace_worker(&urls).await;
    database.close();
    let message = Message::json(&world.request()).correlation("x");
    world.broker.request(message).await;
    cut_off.logs("the database does not carry out a statement").await;
    broker.close();
    let mut next = world.start_worker().await;
    // Another worker answers meanwhile.
    world.broker.reply_within(PATIENCE, "x").await.sent();
    next.idle().await;
    database.open();
    broker.open();
    cut_off.ready().await;
    cut_off.idle().await;
    assert!(cut_off.stop().success() && next.stop().success());
    assert_eq!(world.provider.texts().await.len(), 1);
}
