//! A user at the broker who lacks a right: what can be done without it is done, and what cannot is named.

use crate::support::{Setup, World, broker_command, broker_server, send, until};
use serde_json::Value;

/// A user of the broker; gone with this.
struct User(String);

fn rabbitmqctl(args: &[&str]) {
    let ran = broker_command().args(args).output().expect("rabbitmqctl runs");
    assert!(ran.status.success(), "rabbitmqctl {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

impl User {
    /// With the rights to configure, write and read.
    fn with(world: &World, rights: [&str; 3]) -> Self {
        let user = Self(world.broker.prefix.clone());
        rabbitmqctl(&["add_user", &user.0, "secret"]);
        user.grant(rights);
        user
    }

    fn grant(&self, [configure, write, read]: [&str; 3]) {
        rabbitmqctl(&["set_permissions", "-p", "/", &self.0, configure, write, read]);
    }

    fn url(&self) -> String {
        let mut url = url::Url::parse(&broker_server()).expect("a server has a URL");
        url.set_username(&self.0).expect("a user");
        url.set_password(Some("secret")).expect("a password");
        url.into()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = broker_command().args(["delete_user", &self.0]).output();
    }
}

/// A pattern of rights for all names but one.
fn all_but(name: &str) -> String {
    format!("^(?!{}$).*", name.replace('.', r"\."))
}

/// A world whose queues are declared, and no worker.
async fn declared() -> World {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.run(&["topology", "declare"]).ok();
    world.add_group(72, &[]);
    world
}

/// Waits until the process is unready, and a problem of it says all of this.
async fn unready(worker: &crate::support::Worker, says: &[&str]) {
    until(&format!("a problem says {says:?}"), || async {
        let answer = worker.ask("/readyz").await;
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
        let problems = body["problems"].as_array().expect("problems").clone();
        let named =
            problems.iter().filter_map(Value::as_str).any(|p| says.iter().all(|word| p.contains(word)));
        (status == 503 && named).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_read_the_worker_names_it_and_waits() {
    let world = declared().await;
    let user = User::with(&world, [".*", ".*", "^$"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    unready(&worker, &["read", &world.broker.queue("requests")]).await;
    // It tries again in the meantime, and does not repeat itself.
    until("it has tried often", || async {
        let metrics = worker.ask("/metrics").await.text().await.expect("text");
        let lost = metrics.lines().find_map(|l| {
            l.strip_prefix(r#"session_invite_broker_connections_lost_total{connection="consumer"} "#)
        });
        lost.and_then(|count| count.parse::<u32>().ok()).filter(|count| *count >= 6)
    })
    .await;
    assert_eq!(worker.log().matches("lacks the right read").count(), 2, "of two queues:\n{}", worker.log());
    user.grant([".*", ".*", ".*"]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
}

#[tokio::test]
async fn without_write_the_worker_names_it_and_answers_later() {
    let world = declared().await;
    let user = User::with(&world, [".*", "^$", ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    unready(&worker, &["write", "amq.default"]).await;
    let replies = world.broker.reply_queue.clone();
    let request = crate::support::Message::json(&world.request()).correlation("later").reply_to(&replies);
    world.broker.publish(request).await;
    until("it is texted", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    user.grant([".*", ".*", ".*"]);
    world.broker.reply("later").await.sent();
    worker.ready().await;
    let named = worker.log().matches("lacks the right write").count();
    assert!(named <= 3, "once for replies, direct replies and events:\n{}", worker.log());
    assert!(worker.stop().success());
}

#[tokio::test]
async fn without_configure_queues_that_are_there_will_do() {
    let world = declared().await;
    let user = User::with(&world, ["^$", ".*", ".*"]);
    let url = user.url();
    let mut worker = world.spawn(&[("AMQP_URL", &url)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    let missing = world.broker.queue("retry.5s");
    world.broker.delete("retry.5s").await;
    let mut worker = world.spawn(&[("AMQP_URL", &url)]);
    unready(&worker, &["configure", &missing]).await;
    assert!(worker.log().contains(&missing) && !worker.log().contains("delete"), "{}", worker.log());
    world.run(&["topology", "declare"]).ok();
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn the_gateway_declares_nothing_and_needs_the_right_to_publish_only() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(72, &[]);
    let user = User::with(&world, ["^$", r"^amq\.default$", "^$"]);
    let mut gateway = world.spawn_gateway(&[("AMQP_URL", &user.url())]).await;
    gateway.process.says("a worker declares it").await;
    unready(&gateway.process, &[&world.broker.queue("requests")]).await;
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, None);

    let mut worker = world.start_worker().await;
    gateway.process.ready().await;
    send(gateway.invite(&world)).await.ok();
    user.grant(["^$", "^$", "^$"]);
    assert!(worker.stop().success() && gateway.process.stop().success());
}

#[tokio::test]
async fn without_write_on_the_events_the_worker_answers_and_is_unready() {
    let world = declared().await;
    let user = User::with(&world, [".*", &all_but(&world.broker.queue("events")), ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    unready(&worker, &["events cannot be published", "right write", &world.broker.queue("events")]).await;
    let named = worker.log().matches("events cannot be published").count();
    assert_eq!(named, 1, "{}", worker.log());
    user.grant([".*", ".*", ".*"]);
    worker.ready().await;
    until("the outbox is empty", || async {
        let left: i64 = world.database.value("select count(*) from events").await;
        (left == 0).then_some(())
    })
    .await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn without_read_on_the_dropped_the_worker_answers_and_is_unready() {
    let world = declared().await;
    let user = User::with(&world, [".*", ".*", ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    worker.ready().await;
    user.grant([".*", ".*", &all_but(&world.broker.queue("dropped"))]);
    // The first error is another one: that the broker has closed the connection.
    rabbitmqctl(&["close_all_user_connections", &user.0, "a test"]);
    unready(&worker, &["the broker dropped", "right read", &world.broker.queue("dropped")]).await;
    worker.says("lacks the right read").await;
    world.invite(&world.request()).await.sent();
    user.grant([".*", ".*", ".*"]);
    worker.ready().await;
    assert!(worker.stop().success());
}
