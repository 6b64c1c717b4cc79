//! The contract's section 8, promise 7: an outage of broker, queues or database while invites are processed.

use crate::support::{Message, Setup, Tunnel, Worker, World, broker_server, until, until_within};
use serde_json::json;
use std::{collections::HashSet, time::Duration};

const INVITES: usize = 150;
const PATIENCE: Duration = Duration::from_mins(1);

/// Publishes a burst of invites, each to a number of its own.
async fn burst(world: &World) {
    for n in 0..INVITES {
        let request = world.request_to_number(n);
        let message = Message::json(&request).id(&format!("i{n}")).correlation(&format!("i{n}"));
        world.broker.request(message).await;
    }
}

/// Waits until the worker has posted eleven more texts, or all of them.
async fn until_more_are_posted(world: &World) {
    let before = world.provider.posts().await;
    until_within(PATIENCE, "more texts are posted", || async {
        let posts = world.provider.posts().await;
        (posts > before + 10 || posts >= INVITES as u64).then_some(())
    })
    .await;
}

/// Waits for the replies to the burst, and asserts that each number has one text.
async fn assert_answered_and_texted_once(world: &World) {
    for n in 0..INVITES {
        world.broker.reply_within(PATIENCE, &format!("i{n}")).await.sent();
    }
    let texts = world.provider.texts().await;
    let numbers: HashSet<_> = texts.iter().map(|text| text["to"].to_string()).collect();
    assert_eq!((texts.len(), numbers.len()), (INVITES, INVITES), "one text each");
}

/// Starts a worker that connects through tunnels, to the broker and to the database.
async fn worker_behind_tunnels(world: &World) -> (Worker, Tunnel, Tunnel) {
    let (broker, database) = (Tunnel::opened(&broker_server()), Tunnel::opened(&world.database.url));
    let mut worker = world.spawn(&[("AMQP_URL", &broker.url), ("DATABASE_URL", &database.url)]);
    worker.ready().await;
    (worker, broker, database)
}

#[tokio::test]
async fn connections_that_are_cut_in_a_burst_lose_and_repeat_nothing() {
    let mut world = Setup::default().short_waits().set("SMS_CONCURRENCY", "2").start().await;
    world.stop_worker();
    world.provider.set(json!({"latency_ms": 20})).await;
    burst(&world).await;
    let (mut worker, broker, database) = worker_behind_tunnels(&world).await;
    for cut in [&broker, &database, &broker, &database] {
        until_more_are_posted(&world).await;
        cut.close();
        cut.open();
    }
    assert_answered_and_texted_once(&world).await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_database_that_ends_all_connections_loses_and_repeats_nothing() {
    let mut world = Setup::default().short_waits().set("SMS_CONCURRENCY", "2").start().await;
    world.stop_worker();
    world.provider.set(json!({"latency_ms": 20})).await;
    burst(&world).await;
    let worker = world.start_worker().await;
    world.keep_worker(worker);
    for _ in 0..4 {
        until_more_are_posted(&world).await;
        world
            .database
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                  where datname = current_database() and application_name = 'session-invite worker'",
            )
            .await;
    }
    assert_answered_and_texted_once(&world).await;
}

#[tokio::test]
async fn invites_wait_for_a_database_that_cannot_write_and_the_log_reports_it_once() {
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
    world.worker().logs("the database does not carry out a statement").await;
    assert!(world.broker.replies_left().is_empty());
    world.database.execute("drop trigger full_disk on sessions").await;
    for n in 0..20 {
        world.broker.reply(&n.to_string()).await.sent();
    }
    world.worker().logs("the database answers again").await;
    let lines = world.worker().log().matches("the database does not carry out").count();
    assert!(lines <= 4, "once for each batch that waited, not for each try: {lines}");
}

#[tokio::test]
async fn invites_wait_for_a_locked_table() {
    let world = World::start().await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("lock table sessions in access exclusive mode").execute(&mut *lock).await.unwrap();
    for n in 0..20 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("{n}"))).await;
    }
    until("all invites are in flight", || async {
        let metrics = world.running().metrics().await;
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
async fn a_queue_that_is_deleted_while_the_worker_runs_is_declared_again() {
    let world = Setup::default().start().await;
    for suffix in ["requests", "dropped", "replies"] {
        world.broker.delete(suffix).await;
        let queue = world.broker.queue(suffix);
        until("the queue exists again", || async {
            if suffix == "replies" {
                // The worker only publishes to this queue, so it notices at the next reply.
                world.broker.publish(Message::json(&world.request())).await;
            }
            world.broker.depth(&queue).await.map(drop)
        })
        .await;
        until("the queue of requests exists", || async {
            world.broker.depth(&world.broker.queue("requests")).await.map(drop)
        })
        .await;
        world.invite(&world.request()).await.sent();
    }
    let _ = world.broker.take_declared_again("replies").await;

    // The worker declares a retry queue and the dead-letter queue again when it has a message for them.
    world.broker.delete("retry.1s").await;
    world.provider.next(&["throttle"]).await;
    world.invite(&world.request()).await.sent();
    world.broker.delete("dead").await;
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&missing)).await;
    let dead = world.broker.queue("dead");
    until("the dead-letter queue exists again", || async { world.broker.depth(&dead).await.map(drop) }).await;
    assert_eq!(world.broker.take_declared_again("dead").await.correlation().as_deref(), Some("lost"));
}

#[tokio::test]
async fn a_silent_connection_to_the_broker_is_replaced() {
    let mut world = Setup::default().short_waits().start().await;
    world.stop_worker();
    let (mut worker, broker, _database) = worker_behind_tunnels(&world).await;
    world.invite(&world.request()).await.sent();
    // Open and silent, as when a firewall has dropped the connection. New connections work.
    broker.silence();
    worker.logs("not consuming").await;
    // The broker delivers again what it had sent on the silent connection, once it misses heartbeats.
    world.broker.request(Message::json(&world.request()).id("x").correlation("x")).await;
    world.broker.reply_within(PATIENCE, "x").await.sent();
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn an_outage_is_logged_once_and_not_for_each_try() {
    let mut world = World::start().await;
    world.stop_worker();
    let (mut worker, broker, _database) = worker_behind_tunnels(&world).await;
    broker.close();
    worker.logs("not consuming").await;
    let have_tried = || async { (broker.refused() >= 32).then_some(()) };
    until_within(Duration::from_mins(1), "the worker has tried to reconnect", have_tried).await;
    let (status, body) = worker.readiness().await;
    assert_eq!(status, 503);
    assert!(body.to_string().contains("the broker is away"), "{body}");
    let warnings = worker.log().lines().filter(|line| line.contains(" WARN ")).count();
    // Two consumers, and two publishers that lose their connection and then fail to connect. A slow machine may add a few.
    // One task that warns at each try makes twelve and more.
    assert!(warnings <= 10, "{}", worker.log());
    broker.open();
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
}
