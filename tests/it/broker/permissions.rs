//! A broker user who lacks a permission: the worker does what it can without it, and reports what it cannot.

use crate::support::{BrokerUser, Message, Setup, Worker, World, all_but, send, until};
use serde_json::Value;

/// A world whose queues are declared, and no worker.
async fn world_with_queues() -> World {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.run(&["topology", "declare"]).ok();
    world.add_group(72, &[]);
    world
}

/// Waits until the process is unready, with a problem that contains all these words.
async fn until_unready(worker: &Worker, words: &[&str]) {
    until(&format!("a problem contains {words:?}"), || async {
        let (status, body) = worker.readiness().await;
        let mut problems = body["problems"].as_array().expect("problems").iter().filter_map(Value::as_str);
        let reported = problems.any(|problem| words.iter().all(|word| problem.contains(word)));
        (status == 503 && reported).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_read_permission_the_worker_reports_it_and_waits() {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, [".*", ".*", "^$"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    until_unready(&worker, &["read", &world.broker.queue("requests")]).await;
    // The worker tries again, and logs the problem once.
    until("the worker has tried often", || async {
        let metrics = worker.metrics().await;
        let lost = metrics.lines().find_map(|l| {
            l.strip_prefix(r#"session_invite_broker_connections_lost_total{connection="consumer"} "#)
        });
        lost.and_then(|count| count.parse::<u32>().ok()).filter(|count| *count >= 6)
    })
    .await;
    assert_eq!(
        worker.log().matches("lacks the permission read").count(),
        3,
        "one line for each of two queues, and for the marker:\n{}",
        worker.log()
    );
    user.grant([".*", ".*", ".*"]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
}

#[tokio::test]
async fn without_the_write_permission_the_worker_reports_it_and_replies_later() {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, [".*", "^$", ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    until_unready(&worker, &["write", "amq.default"]).await;
    let replies = world.broker.reply_queue.clone();
    let request = Message::json(&world.request()).correlation("later").reply_to(&replies);
    world.broker.publish(request).await;
    world.provider.until_posts(1).await;
    user.grant([".*", ".*", ".*"]);
    world.broker.reply("later").await.sent();
    worker.ready().await;
    let named = worker.log().matches("lacks the permission write").count();
    assert!(named <= 4, "once for replies, direct replies, events and the marker:\n{}", worker.log());
    assert!(worker.stop().success());
}

#[tokio::test]
async fn without_the_configure_permission_the_worker_uses_existing_queues() {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, ["^$", ".*", ".*"]);
    let url = user.url();
    let mut worker = world.spawn(&[("AMQP_URL", &url)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    let missing = world.broker.queue("retry.5s");
    world.broker.delete("retry.5s").await;
    let mut worker = world.spawn(&[("AMQP_URL", &url)]);
    until_unready(&worker, &["configure", &missing]).await;
    assert!(worker.log().contains(&missing) && !worker.log().contains("delete"), "{}", worker.log());
    world.run(&["topology", "declare"]).ok();
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn the_gateway_declares_nothing_and_needs_only_the_permission_to_publish() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(72, &[]);
    let user = BrokerUser::with(&world, ["^$", r"^amq\.default$", "^$"]);
    let mut gateway = world.spawn_gateway(&[("AMQP_URL", &user.url())]).await;
    gateway.process.logs("a worker declares it").await;
    until_unready(&gateway.process, &[&world.broker.queue("requests")]).await;
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, None);

    let mut worker = world.start_worker().await;
    gateway.process.ready().await;
    send(gateway.invite(&world)).await.ok();
    user.grant(["^$", "^$", "^$"]);
    assert!(worker.stop().success() && gateway.process.stop().success());
}

#[tokio::test]
async fn without_the_write_permission_for_events_the_worker_replies_and_is_unready() {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, [".*", &all_but(&world.broker.queue("events")), ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    until_unready(
        &worker,
        &["events cannot be published", "permission write", &world.broker.queue("events")],
    )
    .await;
    let lines = worker.log().matches("events cannot be published").count();
    assert_eq!(lines, 1, "{}", worker.log());
    user.grant([".*", ".*", ".*"]);
    worker.ready().await;
    world.database.until_outbox_is_empty().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn without_the_read_permission_for_dropped_messages_the_worker_replies_and_is_unready() {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, [".*", ".*", ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    worker.ready().await;
    user.grant([".*", ".*", &all_but(&world.broker.queue("dropped"))]);
    // The first error is that the broker has closed the connection.
    user.close_connections();
    until_unready(
        &worker,
        &[
            "dropped messages are not answered or set aside",
            "permission read",
            &world.broker.queue("dropped"),
        ],
    )
    .await;
    worker.logs("lacks the permission read").await;
    world.invite(&world.request()).await.sent();
    user.grant([".*", ".*", ".*"]);
    worker.ready().await;
    assert!(worker.stop().success());
}
