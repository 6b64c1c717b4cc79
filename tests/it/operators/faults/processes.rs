//! Workers and gateways that are stopped, starved, too few, or set differently.

use super::{
    SeededFault,
    SeenIn::{Doctor, GatewayReadiness, WorkerReadiness},
    doctors_findings, problems, seeded_faults, type_into_a_shell,
};
use crate::support::{Gateway, Message, Setup, Worker, World, until};
use serde_json::json;
use tokio::sync::Mutex;

async fn until_all_report(world: &World, count: i64) {
    until("all processes report", || async {
        let rows = world.database.value::<i64>("select count(*) from processes where state = 'ready'").await;
        (rows == count).then_some(())
    })
    .await;
}

/// One of two workers is stopped by a signal.
async fn stopped(fault: SeededFault, by_doctor: bool) -> u8 {
    let world = World::start().await;
    let mut other = world.start_worker().await;
    until_all_report(&world, 2).await;
    other.signal("STOP");
    let id = other.id().to_string();
    let look =
        async || if by_doctor { doctors_findings(&world, &[]) } else { problems(world.running()).await };
    let repair = async |remedy: &str| drop(type_into_a_shell(remedy));
    let points = fault.with(&[("pid", &id)]).score(look, repair).await;
    assert!(other.stop().success());
    points
}

/// A gateway sees that the worker is stopped.
async fn stopped_for_the_gateway(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    until_all_report(&world, 2).await;
    world.running().signal("STOP");
    let id = world.running().id().to_string();
    let repair = async |remedy: &str| drop(type_into_a_shell(remedy));
    let points = fault.with(&[("pid", &id)]).score(async || problems(&gateway.process).await, repair).await;
    assert!(gateway.process.stop().success());
    points
}

/// A gateway with another value of a setting, which is started again with the right one.
async fn set_differently(fault: SeededFault, name: &str, wrong: &str) -> u8 {
    let world = World::start().await;
    let gateway = Mutex::new(world.start_gateway(&[(name, wrong)]).await);
    let repair = async |_: &str| {
        assert!(gateway.lock().await.process.stop().success());
        let right: Gateway = world.start_gateway(&[]).await;
        *gateway.lock().await = right;
    };
    let points = fault.with(&[]).score(async || doctors_findings(&world, &[]), repair).await;
    assert!(gateway.into_inner().process.stop().success());
    points
}

/// The database allows fewer connections than the worker may open.
async fn with_few_connections(fault: SeededFault) -> u8 {
    let mut world = World::start().await;
    world.database.execute(&format!("alter database \"{}\" connection limit 3", world.database.name())).await;
    let worker = Mutex::new(Some(world.take_worker()));
    let repair = async |remedy: &str| {
        assert!(worker.lock().await.take().is_some_and(|mut worker| worker.stop().success()));
        let (name, value) = remedy.split_once('=').expect("a setting with its value");
        let mut changed = world.spawn(&[(name, value)]);
        changed.ready().await;
        *worker.lock().await = Some(changed);
    };
    let points = fault.with(&[]).score(async || doctors_findings(&world, &[]), repair).await;
    assert!(worker.lock().await.take().is_some_and(|mut worker| worker.stop().success()));
    points
}

/// A worker may open 48 files, and idle connections use them up.
async fn without_files(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    let worker = Worker::spawn_with_files("worker", 48, &world.environment(&[]), &world.log);
    let address = worker.address().await;
    until("it reports", || async {
        let exists: bool = world.database.value("select to_regclass('processes') is not null").await;
        let ready = "select coalesce(bool_or(state = 'ready'), false) from processes";
        (exists && world.database.value::<bool>(ready).await).then_some(())
    })
    .await;
    let worker = Mutex::new(worker);
    // They send nothing.
    let held: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(&address).expect("it listens")).collect();
    let repair = async |_: &str| {
        assert!(worker.lock().await.stop().success());
        let raised = world.start_worker().await;
        *worker.lock().await = raised;
    };
    let points = fault.with(&[]).score(async || doctors_findings(&world, &[]), repair).await;
    drop(held);
    assert!(worker.into_inner().stop().success());
    points
}

/// A worker that drains, as its last text is not answered yet.
async fn draining(fault: SeededFault) -> u8 {
    let mut world = Setup::default().short_waits().set("SMS_TIMEOUT", "12s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    world.provider.until_posts(1).await;
    let worker = Mutex::new(world.take_worker());
    worker.lock().await.signal("TERM");
    let look = async || {
        let worker = worker.lock().await;
        problems(&worker).await
    };
    let repair = async |_: &str| {
        assert!(worker.lock().await.wait().success());
        let next = world.start_worker().await;
        *worker.lock().await = next;
    };
    let points = fault.with(&[]).score(look, repair).await;
    world.broker.reply("x").await.sent();
    assert!(worker.into_inner().stop().success());
    points
}

/// More invites come than one slow worker sends.
async fn with_a_backlog(fault: SeededFault) -> u8 {
    let world = Setup::default().set("PREFETCH", "4").set("SMS_CONCURRENCY", "1").start().await;
    world.provider.set(json!({"latency_ms": 2_000})).await;
    for n in 0..120 {
        world.broker.request(Message::json(&world.request_to_number(n))).await;
    }
    let others = Mutex::new(None);
    let repair = async |_: &str| {
        world.provider.set(json!({"latency_ms": 0})).await;
        let other = world.start_worker().await;
        *others.lock().await = Some(other);
        world.broker.until_queues_are_empty().await;
    };
    let points = fault.with(&[]).score(async || problems(world.running()).await, repair).await;
    assert!(others.into_inner().is_none_or(|mut other| other.stop().success()));
    // What the other had not begun is delivered again.
    world.broker.until_queues_are_empty().await;
    world.running().idle().await;
    points
}

seeded_faults! {
    a_worker_is_stopped_by_a_signal:
        SeededFault::new(WorkerReadiness, &["worker {pid} on", "is stopped by a signal (SIGSTOP)"], "kill -CONT {pid}", "that command"),
        |fault| stopped(fault, false);
    a_worker_is_stopped_by_a_signal_for_the_doctor:
        SeededFault::new(Doctor, &["processes: ", "worker {pid} on", "is stopped by a signal (SIGSTOP)"], "kill -CONT {pid}", "that command"),
        |fault| stopped(fault, true);
    the_only_worker_is_stopped_by_a_signal:
        SeededFault::new(GatewayReadiness, &["worker {pid} on", "is stopped by a signal (SIGSTOP)"], "kill -CONT {pid}", "that command"),
        stopped_for_the_gateway;
    a_gateway_has_another_auth_token:
        SeededFault::new(Doctor, &["settings: TWILIO_AUTH_TOKEN of", "differs"], "set TWILIO_AUTH_TOKEN to it where it differs", "the right token, and the gateway started again"),
        |fault| set_differently(fault, "TWILIO_AUTH_TOKEN", "another-token-of-this-test");
    a_gateway_has_another_public_url:
        SeededFault::new(Doctor, &["settings: PUBLIC_URL of", "differs"], "set PUBLIC_URL to it where it differs", "the right URL, and the gateway started again"),
        |fault| set_differently(fault, "PUBLIC_URL", "https://wrong.example");
    the_database_allows_fewer_connections_than_a_worker_opens:
        SeededFault::new(Doctor, &["connections: 1 processes open up to 4", "the database allows 3"], "DATABASE_MAX_CONNECTIONS=3", "that setting, and the worker started again"),
        with_few_connections;
    a_worker_has_no_file_descriptors_left:
        SeededFault::new(Doctor, &["processes: ", "files and connections open, and may have 48"], "raise its limit of open files (ulimit -n", "the worker started again with a higher limit"),
        without_files;
    a_worker_drains:
        SeededFault::new(WorkerReadiness, &["is stopping after a signal", "finishes the 1 in its hands"], "What to do: wait", "nothing, until it has ended"),
        draining;
    a_backlog_grows:
        SeededFault::new(WorkerReadiness, &["invites wait in the queue", "in its hands, takes"], "start another worker", "`session-invite worker`, and the provider is fast again"),
        with_a_backlog;
}
