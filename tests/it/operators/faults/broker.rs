//! A user of the broker who lacks a permission, and messages that were set aside.

use super::{
    SeededFault,
    SeenIn::{Doctor, GatewayReadiness, WorkerReadiness},
    doctors_findings, problems, seeded_faults,
};
use crate::support::{ALL_PERMISSIONS, BrokerUser, Events, Message, Setup, World, all_but, send};
use lapin::types::AMQPValue;
use tokio::sync::Mutex;

async fn world_with_queues() -> World {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.run(&["topology", "declare"]).ok();
    world.add_group(72, &[]);
    world
}

/// A worker whose user has these permissions.
async fn without_permission(fault: SeededFault, permissions: [&str; 3]) -> u8 {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, permissions);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    let prefix = world.broker.prefix.clone();
    let look = async || problems(&worker).await;
    let points = fault.with(&[("prefix", &prefix)]).score(look, async |_| user.grant(ALL_PERMISSIONS)).await;
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
    points
}

/// A worker that may not publish events, which it does after an invite.
async fn without_permission_for_events(fault: SeededFault) -> u8 {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, [".*", &all_but(&world.broker.queue("events")), ".*"]);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    let events = world.broker.queue("events");
    let look = async || problems(&worker).await;
    let points =
        fault.with(&[("exchange", &events)]).score(look, async |_| user.grant(ALL_PERMISSIONS)).await;
    world.database.until_outbox_is_empty().await;
    worker.ready().await;
    assert!(worker.stop().success());
    points
}

/// A queue is missing, and the worker may not declare it.
async fn without_a_queue(fault: SeededFault) -> u8 {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, ["^$", ".*", ".*"]);
    let missing = world.broker.queue("retry.5s");
    world.broker.delete("retry.5s").await;
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    let look = async || problems(&worker).await;
    let points = fault.with(&[("queue", &missing)]).score(look, async |_| user.grant(ALL_PERMISSIONS)).await;
    worker.ready().await;
    assert!(worker.stop().success());
    points
}

/// A gateway before any worker has declared the queue of requests.
async fn gateway_without_the_queue(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let mut gateway = world.spawn_gateway(&[]).await;
    let queue = world.broker.queue("requests");
    let look = async || problems(&gateway.process).await;
    let started = Mutex::new(None);
    let start = async |_: &str| {
        let worker = world.start_worker().await;
        *started.lock().await = Some(worker);
    };
    let points = fault.with(&[("queue", &queue)]).score(look, start).await;
    gateway.process.ready().await;
    assert!(gateway.process.stop().success());
    let worker = started.into_inner();
    assert!(worker.is_none_or(|mut worker| worker.stop().success()));
    points
}

/// A request that was set aside, as the worker does.
async fn with_a_dead_letter(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let requests = world.broker.queue("requests");
    let text = |text: &str| AMQPValue::LongString(text.into());
    let message = Message::json(&world.request())
        .header("x-reason", text("the reason of this test"))
        .header("x-kind", text("request"))
        .header("x-queue", text(&requests));
    world.broker.publish_to(&world.broker.queue("dead"), message).await;
    let dead = world.broker.queue("dead");
    let repair = async |remedy: &str| {
        let list = format!("{remedy} --json");
        let list = world.run(&list.split_whitespace().skip(1).collect::<Vec<_>>()).json();
        let id = list[0]["id"].as_str().expect("an id").to_owned();
        world.run(&["dead", "replay", &id]).ok();
    };
    let points = fault.with(&[("queue", &dead)]).score(async || doctors_findings(&world, &[]), repair).await;
    world.broker.until_queues_are_empty().await;
    points
}

/// The worker's connections learn of an alarm, as all that publish do when the broker runs short of memory or disk.
async fn with_an_alarm(fault: SeededFault) -> u8 {
    let world = world_with_queues().await;
    let user = BrokerUser::with(&world, ALL_PERMISSIONS);
    let mut worker = world.spawn(&[("AMQP_URL", &user.url())]);
    worker.ready().await;
    user.set_alarm("memory", true);
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    let look = async || problems(&worker).await;
    let points = fault.with(&[]).score(look, async |_| user.set_alarm("memory", false)).await;
    world.broker.reply("x").await.sent();
    worker.ready().await;
    assert!(worker.stop().success());
    points
}

async fn gateway_with_an_alarm(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let user = BrokerUser::with(&world, ALL_PERMISSIONS);
    let mut gateway = world.start_gateway(&[("AMQP_URL", &user.url())]).await;
    user.set_alarm("disk", true);
    let look = async || problems(&gateway.process).await;
    let hit = send(gateway.invite(&world));
    let scored = async { fault.with(&[]).score(look, async |_| user.set_alarm("disk", false)).await };
    let (answer, points) = tokio::join!(hit, scored);
    answer.ok();
    gateway.process.ready().await;
    send(gateway.invite(&world)).await.ok();
    assert!(gateway.process.stop().success());
    points
}

/// The exchange of events is deleted. The worker declares it again, and its subscribers have to bind to it again.
async fn without_the_exchange(fault: SeededFault) -> u8 {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    world.database.until_outbox_is_empty().await;
    world.broker.delete_events().await;
    world.invite(&world.request()).await.sent();
    let repair = async |_: &str| {
        let events = Events::subscribe(&world, "session.#").await;
        world.invite(&world.request()).await.sent();
        events.until_received(1).await;
    };
    let exchange = world.broker.queue("events");
    let look = async || problems(world.running()).await;
    fault.with(&[("exchange", &exchange)]).score(look, repair).await
}

/// Invites wait, and no worker runs.
async fn without_a_worker(fault: SeededFault) -> u8 {
    let mut world = World::start().await;
    world.stop_worker();
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    let started = Mutex::new(None);
    let start = async |_: &str| {
        let worker = world.start_worker().await;
        *started.lock().await = Some(worker);
    };
    let points = fault.with(&[]).score(async || doctors_findings(&world, &[]), start).await;
    world.broker.reply("x").await.sent();
    let worker = started.into_inner();
    assert!(worker.is_none_or(|mut worker| worker.stop().success()));
    points
}

const GRANTED: &str = "rabbitmqctl set_permissions";
const GRANTS: &str = "that command, with the permission";

seeded_faults! {
    the_user_may_not_read_at_the_broker:
        SeededFault::new(WorkerReadiness, &["lacks the permission read", "{prefix}.requests"], GRANTED, GRANTS),
        |fault| without_permission(fault, [".*", ".*", "^$"]);
    the_user_may_not_write_at_the_broker:
        SeededFault::new(WorkerReadiness, &["lacks the permission write", "amq.default"], GRANTED, GRANTS),
        |fault| without_permission(fault, [".*", "^$", ".*"]);
    the_user_may_not_publish_events:
        SeededFault::new(WorkerReadiness, &["events cannot be published", "lacks the permission write", "{exchange}"], GRANTED, GRANTS),
        without_permission_for_events;
    a_queue_is_missing_and_may_not_be_declared:
        SeededFault::new(WorkerReadiness, &["lacks the permission configure", "{queue}"], GRANTED, GRANTS),
        without_a_queue;
    the_gateway_finds_no_queue_of_requests:
        SeededFault::new(GatewayReadiness, &["invites cannot be published", "{queue}"], "a worker declares it when it starts", "session-invite worker"),
        gateway_without_the_queue;
    the_broker_runs_short_of_memory:
        SeededFault::new(WorkerReadiness, &["replies cannot be published", "low on memory"], "rabbitmqctl list_queues name messages memory", "that command, and the broker has memory again"),
        with_an_alarm;
    the_broker_runs_short_of_disk_for_the_gateway:
        SeededFault::new(GatewayReadiness, &["invites cannot be published", "low on disk"], "free space in its data directory", "the broker has space again"),
        gateway_with_an_alarm;
    the_exchange_of_events_was_deleted:
        SeededFault::new(WorkerReadiness, &["the exchange {exchange} was gone", "no queue has got an event since"], "rabbitmqctl list_bindings", "that command, and each subscriber binds its queue again"),
        without_the_exchange;
    a_request_was_set_aside:
        SeededFault::new(Doctor, &["queues: 1 messages are in {queue}"], "session-invite dead list", "that command, and `dead replay` with the id that it lists"),
        with_a_dead_letter;
    invites_wait_and_no_worker_runs:
        SeededFault::new(Doctor, &["backlog: ", "no worker takes them"], "session-invite worker", "that command"),
        without_a_worker;
}
