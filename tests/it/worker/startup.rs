//! The worker's start, and the errors that end it.

use crate::support::{
    GROUP, Message, Setup, Tunnel, Worker, World, broker_server, database_server, run, until,
};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};

/// The only error: one line, the last, that begins with `error:`.
#[track_caller]
fn one_clear_line(stderr: &str) -> &str {
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert_eq!(stderr.lines().last(), Some(errors[0]), "{stderr}");
    errors[0]
}

fn with_password(server: &str, password: &str) -> String {
    let mut url = url::Url::parse(server).expect("a server has a URL");
    url.set_username("unknown-user").expect("a user can be set");
    url.set_password(Some(password)).expect("a password can be set");
    url.into()
}

#[tokio::test]
async fn every_fault_of_the_environment_is_listed_at_once() {
    let wrong = [
        ("DATABASE_URL", "mysql://x:hidden-password@y"),
        ("DATABASE_MAX_CONNECTIONS", "none"),
        ("AMQP_URL", "http://x:hidden-password@y"),
        ("QUEUE_PREFIX", "with space"),
        ("PREFETCH", "0"),
        ("REPLY_TO_ALLOW", ","),
        ("SMS_BASE_URL", "ftp://hidden-password@x"),
        ("TWILIO_ACCOUNT_SID", "AC/../x"),
        ("SMS_TIMEOUT", "soon"),
        ("SMS_CONCURRENCY", "-1"),
        ("SMS_MAX_ATTEMPTS", "0"),
        ("SMS_SETTLE", "30"),
        ("SMS_WHEN_UNSURE", "guess"),
        ("INVITE_MAX_AGE", "0s"),
        ("INVITE_REQUIRE_TIMESTAMP", "perhaps"),
        ("RETENTION", "1s"),
        ("SHUTDOWN_GRACE", "-1s"),
        ("SECRETS_KEY", "hidden-password"),
        ("PUBLIC_URL", "invite.example"),
        ("HTTP_ADDR", "nowhere"),
    ];
    let environment = wrong.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let complaint = run(&environment, &["worker"]).fails(2);
    for name in wrong.map(|(name, _)| name).into_iter().chain(["TWILIO_AUTH_TOKEN", "SMS_FROM"]) {
        assert!(complaint.contains(&format!("{name}: ")), "{name} is missing:\n{complaint}");
    }
    assert!(!complaint.contains("hidden-password"), "{complaint}");

    let complaint = run(&[], &["worker"]).fails(2);
    for name in
        ["DATABASE_URL", "AMQP_URL", "SECRETS_KEY", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "SMS_FROM"]
    {
        assert!(complaint.contains(&format!("{name}: is not set")), "{name} is missing:\n{complaint}");
    }
    assert!(complaint.contains("openssl rand -base64 32") && complaint.contains("PUBLIC_URL"), "{complaint}");
}

#[tokio::test]
async fn log_settings_are_checked() {
    let variable = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
    assert!(run(&variable("LOG_FORMAT", "xml"), &["worker"]).fails(2).contains("LOG_FORMAT"));
    assert!(run(&variable("RUST_LOG", "a=b=c"), &["worker"]).fails(2).contains("RUST_LOG"));
}

#[tokio::test]
async fn a_refused_database_login_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let mut missing = url::Url::parse(&database_server()).unwrap();
    missing.set_path("no_such_database_is_here");
    for (url, cause) in [
        (missing.to_string(), "no_such_database_is_here"),
        (with_password(&database_server(), "wrong-password"), "unknown-user"),
    ] {
        let ran = run(&world.environment(&[("DATABASE_URL", &url)]), &["worker"]).fails(1);
        let line = one_clear_line(&ran);
        assert!(line.contains("DATABASE_URL") && line.contains(cause), "{line}");
        assert!(!ran.contains("wrong-password"), "{ran}");
    }
}

#[tokio::test]
async fn a_refused_broker_login_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let mut vhost = url::Url::parse(&broker_server()).unwrap();
    vhost.set_path("/no-such-vhost");
    for url in [with_password(&broker_server(), "wrong-password"), vhost.to_string()] {
        let ran = run(&world.environment(&[("AMQP_URL", &url)]), &["worker"]).fails(1);
        let line = one_clear_line(&ran);
        assert!(line.contains("AMQP_URL"), "{line}");
        assert!(!ran.contains("wrong-password"), "{ran}");
    }
}

#[tokio::test]
async fn a_queue_with_other_arguments_ends_the_start_with_its_name() {
    let world = Setup::default().without_worker().await;
    let queue = world.broker.queue("requests");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(7));
    world.broker.channel.queue_declare(queue.as_str().into(), durable, arguments).await.unwrap();
    let ran = run(&world.environment(&[]), &["worker"]).fails(1);
    let line = one_clear_line(&ran);
    assert!(line.contains(&queue) && line.contains("QUEUE_PREFIX"), "{line}");
}

#[tokio::test]
async fn an_older_worker_works_with_a_newer_schema() {
    let mut world = World::start().await;
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (99990101000000, 'of tomorrow', true, '\\x00', 0)";
    world.database.execute(newer).await;
    world.stop_worker();
    let mut worker = world.start_worker().await;
    worker.logs("99990101000000").await;
    world.invite(&world.request()).await.sent();
    assert!(world.run(&["migrate"]).ok().contains("99990101000000"));
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_worker_adds_its_own_missing_migration_to_a_newer_schema() {
    let mut world = World::start().await;
    world.stop_worker();
    // As when this release corrects the one before, and the next one has migrated already.
    let last = "20261129000021";
    world.database.execute("drop index sessions_resume").await;
    world.database.execute(&format!("delete from _sqlx_migrations where version = {last}")).await;
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (99990101000000, 'of tomorrow', true, '\\x00', 0)";
    world.database.execute(newer).await;
    let mut worker = world.start_worker().await;
    worker.logs("99990101000000").await;
    let applied = format!("select exists (select from _sqlx_migrations where version = {last} and success)");
    world.database.until_true("the missing migration is applied", &applied).await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_port_in_use_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run(&world.environment(&[("HTTP_ADDR", &address)]), &["worker"]).fails(1);
    let line = one_clear_line(&ran);
    assert!(line.contains("HTTP_ADDR") && line.contains(&address), "{line}");
}

#[tokio::test]
async fn several_workers_may_start_at_the_same_time_on_an_empty_database() {
    let world = Setup::default().without_worker().await;
    let mut workers: Vec<_> = (0..4).map(|_| world.spawn(&[])).collect();
    for worker in &mut workers {
        worker.ready().await;
    }
    for worker in &mut workers {
        assert!(worker.stop().success());
    }
}

/// Starts a worker while a service cannot be reached, brings the service up, sends an invite, and cuts the service off again.
async fn worker_after_outages(world: &World, variable: &str, service: &Tunnel, log: &str) -> Worker {
    let mut worker = world.spawn(&[(variable, &service.url)]);
    worker.logs(log).await;
    assert_eq!((worker.status("/healthz").await, worker.status("/readyz").await), (200, 503));
    service.open();
    worker.ready().await;
    world.add_group(GROUP, &[]);
    world.invite(&world.request()).await.sent();

    service.close();
    until("the worker is not ready", || async { (worker.status("/readyz").await == 503).then_some(()) })
        .await;
    worker
}

#[tokio::test]
async fn a_worker_waits_for_a_broker_that_cannot_be_reached() {
    let world = Setup::default().without_worker().await;
    let tunnel = Tunnel::closed(&broker_server());
    let mut worker = worker_after_outages(&world, "AMQP_URL", &tunnel, "the broker is away").await;
    tunnel.open();
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_worker_waits_for_a_database_that_cannot_be_reached() {
    let world = Setup::default().without_worker().await;
    let tunnel = Tunnel::closed(&world.database.url);
    let mut worker = worker_after_outages(&world, "DATABASE_URL", &tunnel, "waiting for the database").await;
    // An invite that is published during the outage is answered after it.
    world.broker.request(Message::json(&world.request()).correlation("meanwhile")).await;
    tunnel.open();
    world.broker.reply("meanwhile").await.sent();
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_worker_that_waits_can_be_stopped() {
    let world = Setup::default().without_worker().await;
    let tunnel = Tunnel::closed(&broker_server());
    let mut worker = world.spawn(&[("AMQP_URL", &tunnel.url)]);
    worker.logs("the broker is away").await;
    assert!(worker.stop().success());
    let tunnel = Tunnel::closed(&world.database.url);
    let mut worker = world.spawn(&[("DATABASE_URL", &tunnel.url)]);
    worker.logs("waiting for the database").await;
    assert!(worker.stop().success());
}
