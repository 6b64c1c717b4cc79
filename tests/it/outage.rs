//! The contract's section 8, promise 7: broker, queues or database away for a while, in the middle of the work.

use crate::support::{Message, Setup, Tunnel, Worker, World, broker_server, until};
use serde_json::json;
use std::{collections::HashSet, time::Duration};

const INVITES: usize = 150;
const PATIENCE: Duration = Duration::from_mins(1);

/// Publishes a burst, each to a number of its own.
async fn burst(world: &World) {
    for n in 0..INVITES {
        let request = world.request_with(json!({"smsPhone": format!("201-555-{n:04}")}));
        let message = Message::json(&request).id(&format!("i{n}")).correlation(&format!("i{n}"));
        world.broker.request(message).await;
    }
}

/// Waits for its replies, and counts its texts.
async fn is_answered_and_texted_once(world: &World) {
    for n in 0..INVITES {
        world.broker.reply_within(PATIENCE, &format!("i{n}")).await.sent();
    }
    let texts = world.provider.texts().await;
    let numbers: HashSet<_> = texts.iter().map(|text| text["to"].to_string()).collect();
    assert_eq!((texts.len(), numbers.len()), (INVITES, INVITES), "one text each");
}

/// A worker behind tunnels, in place of the world's own.
async fn behind(world: &mut World, broker: &Tunnel, database: &Tunnel) -> Worker {
    assert!(world.take_worker().stop().success());
    let mut worker = world.spawn(&[("AMQP_URL", &broker.url), ("DATABASE_URL", &database.url)]);
    worker.ready().await;
    worker
}

fn tunnels(world: &World) -> (Tunnel, Tunnel) {
    let (broker, database) = (Tunnel::closed(&broker_server()), Tunnel::closed(&world.database.url));
    broker.open();
    database.open();
    (broker, database)
}

#[tokio::test]
async fn lines_that_are_cut_in_a_burst_lose_nothing_and_double_nothing() {
    let mut world = Setup::default().hurried().set("SMS_CONCURRENCY", "2").start().await;
    let (broker, database) = tunnels(&world);
    let mut worker = behind(&mut world, &broker, &database).await;
    world.provider.set(json!({"latency_ms": 20})).await;
    burst(&world).await;
    for cut in [&broker, &database, &broker, &database] {
        let before = world.provider.posts().await;
        let more = || async { (world.provider.posts().await > before + 10).then_some(()) };
        until("some more are sent", more).await;
        cut.close();
        cut.open();
    }
    is_answered_and_texted_once(&world).await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_database_that_ends_all_connections_loses_nothing_and_doubles_nothing() {
    let world = Setup::default().hurried().set("SMS_CONCURRENCY", "2").start().await;
    world.provider.set(json!({"latency_ms": 20})).await;
    burst(&world).await;
    for _ in 0..4 {
        let before = world.provider.posts().await;
        let more = || async { (world.provider.posts().await > before + 10).then_some(()) };
        until("some more are sent", more).await;
        world
            .database
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                  where datname = current_database() and application_name = 'session-invite worker'",
            )
            .await;
    }
    is_answered_and_texted_once(&world).await;
}

#[tokio::test]
async fn a_database_that_cannot_write_is_waited_for_and_told_once() {
    let mut world = World::start().await;
    world
        .database
        .execute(
            "create function full_disk() returns trigger language plpgsql as $$
             begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
             create trigger full_disk before insert on sessions for each statement execute function full_disk();",
        )
        .await;
    for n in 0..20 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("{n}"))).await;
    }
    world.worker().says("the database does not carry out a statement").await;
    assert!(world.broker.left().is_empty());
    world.database.execute("drop trigger full_disk on sessions").await;
    for n in 0..20 {
        world.broker.reply(&n.to_string()).await.sent();
    }
    world.worker().says("the database answers again").await;
    let told = world.worker().log().matches("the database does not carry out").count();
    assert!(told <= 4, "once for each batch that waited, not for each try: {told}");
}

#[tokio::test]
async fn a_locked_table_is_waited_for() {
    let world = World::start().await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("lock table sessions in access exclusive mode").execute(&mut *lock).await.unwrap();
    for n in 0..20 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("{n}"))).await;
    }
    until("all of them wait", || async {
        let metrics = world.get("/metrics").await.text().await.unwrap();
        metrics.contains("session_invite_invites_in_flight 20\n").then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
    for n in 0..20 {
        world.broker.reply(&n.to_string()).await.sent();
    }
    assert_eq!(world.provider.posts().await, 20);
}

#[tokio::test]
async fn a_queue_that_is_deleted_under_the_worker_is_declared_again() {
    let world = Setup::default().start().await;
    for suffix in ["requests", "dropped", "replies"] {
        world.broker.delete(suffix).await;
        let queue = world.broker.queue(suffix);
        until("it is there again", || async {
            if suffix == "replies" {
                // Nobody consumes from it: it is missed by what should go there.
                world.broker.publish(Message::json(&world.request())).await;
            }
            world.broker.depth(&queue).await.map(drop)
        })
        .await;
        until("requests are taken", || async {
            world.broker.depth(&world.broker.queue("requests")).await.map(drop)
        })
        .await;
        world.invite(&world.request()).await.sent();
    }
    let _ = world.broker.take_declared_again("replies").await;

    // A retry queue, and the dead-letter queue, when something is to go there.
    world.broker.delete("retry.1s").await;
    world.provider.next(&["throttle"]).await;
    world.invite(&world.request()).await.sent();
    world.broker.delete("dead").await;
    let gone = format!("{}.gone", world.broker.prefix);
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&gone)).await;
    let dead = world.broker.queue("dead");
    until("the dead letters' queue is there again", || async { world.broker.depth(&dead).await.map(drop) })
        .await;
    assert_eq!(world.broker.take_declared_again("dead").await.correlation().as_deref(), Some("lost"));
}

#[tokio::test]
async fn a_line_that_is_silent_is_taken_for_dead() {
    let mut world = Setup::default().hurried().start().await;
    let (broker, database) = tunnels(&world);
    let mut worker = behind(&mut world, &broker, &database).await;
    world.invite(&world.request()).await.sent();
    // Neither closed nor answering, as when a firewall has forgotten it; new lines work.
    broker.silence();
    worker.says("not consuming").await;
    // What the broker had sent down the silent line comes again once the broker misses its heartbeats.
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    world.broker.reply_within(PATIENCE, "x").await.sent();
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn an_outage_is_told_once_and_not_for_each_try() {
    let mut world = World::start().await;
    let (broker, database) = tunnels(&world);
    let mut worker = behind(&mut world, &broker, &database).await;
    broker.close();
    worker.says("not consuming").await;
    let begun = std::time::Instant::now();
    until("three seconds have passed", || async { (begun.elapsed().as_secs() >= 3).then_some(()) }).await;
    let ready = worker.ask("/readyz").await;
    assert_eq!(ready.status(), 503);
    let said = ready.text().await.unwrap();
    assert!(said.contains("the broker is away"), "{said}");
    let warnings = worker.log().lines().filter(|line| line.contains(" WARN ")).count();
    // Two consumers; two publishers that lose their line, and then find none.
    assert!(warnings <= 6, "{}", worker.log());
    broker.open();
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
}
