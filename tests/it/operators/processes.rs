//! Workers and gateways report that they run. One that is stopped, that drains or that has other settings is named, with
//! what to do.

use crate::support::{CommandResult, Message, Setup, Worker, World, run, until, until_within};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

/// How soon a fault has to be reported. The promise is 10 s; a slow machine gets 10 s more.
const REPORTED_WITHIN: Duration = Duration::from_secs(20);

fn doctor(world: &World) -> CommandResult {
    run(&world.environment(&[]), &["doctor", "--json"])
}

/// The findings of a check with this verdict, whose text has this part.
fn found(ran: &CommandResult, check: &str, verdict: &str, part: &str) -> Vec<Value> {
    let all: Vec<Value> =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let is_meant = |finding: &Value| {
        finding["check"] == check
            && finding["verdict"] == verdict
            && finding["found"].as_str().is_some_and(|found| found.contains(part))
    };
    all.into_iter().filter(is_meant).collect()
}

/// Waits until `/readyz`, which stays at 200, has a problem with this part, or none.
async fn until_problem(process: &Worker, part: &str, expected: bool) -> String {
    until(&format!("{part:?} is listed: {expected}"), || async {
        let (status, body) = process.readiness().await;
        if status != 200 {
            return None;
        }
        let mut problems = body["problems"].as_array().expect("a list").iter().filter_map(Value::as_str);
        let problem = problems.find(|problem| problem.contains(part)).map(str::to_owned);
        (problem.is_some() == expected).then(|| problem.unwrap_or_default())
    })
    .await
}

#[tokio::test]
async fn a_stopped_worker_is_named_by_the_others_and_by_doctor_and_the_remedy_works() {
    let world = World::start().await;
    let mut other = world.start_worker().await;
    let gateway = world.start_gateway(&[]).await;
    let listed = format!("worker {} on", other.id());
    until("all three report", || async {
        let rows = world.database.value::<i64>("select count(*) from processes where state = 'ready'").await;
        (rows == 3).then_some(())
    })
    .await;
    other.signal("STOP");
    for process in [world.running(), &gateway.process] {
        let problem = until_problem(process, &listed, true).await;
        assert!(problem.contains("is stopped by a signal (SIGSTOP)"), "{problem}");
        assert!(problem.ends_with(&format!("What to do: kill -CONT {}", other.id())), "{problem}");
    }
    let finding = until("doctor names it", || async {
        let ran = doctor(&world);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        found(&ran, "processes", "failed", &listed).pop()
    })
    .await;
    let remedy = finding["mend"].as_str().expect("a remedy");
    let typed = std::process::Command::new("sh").args(["-c", remedy]).status().expect("a shell starts");
    assert!(typed.success(), "{remedy}");
    until_problem(world.running(), &listed, false).await;
    until("doctor finds no fault of the processes", || async {
        let ran = doctor(&world);
        let is_checked = !found(&ran, "processes", "ok", "").is_empty();
        (is_checked && found(&ran, "processes", "failed", &listed).is_empty()).then_some(())
    })
    .await;
    assert!(other.stop().success());
    let mut gateway = gateway;
    assert!(gateway.process.stop().success());
    // A process that ends deletes its row.
    assert_eq!(world.database.value::<i64>("select count(*) from processes").await, 1);
}

#[tokio::test]
async fn a_worker_that_was_killed_is_named_by_doctor_and_forgotten_later() {
    let world = World::start().await;
    let mut other = world.start_worker().await;
    let id = other.id();
    until("both report", || async {
        (world.database.value::<i64>("select count(*) from processes").await == 2).then_some(())
    })
    .await;
    other.kill();
    let finding = until_within(REPORTED_WITHIN, "doctor names it", || async {
        found(&doctor(&world), "processes", "failed", &format!("worker {id} on")).pop()
    })
    .await;
    assert!(finding["found"].as_str().unwrap().contains("was killed, or it crashed"), "{finding}");
    world
        .database
        .execute(&format!("update processes set seen_at = seen_at - interval '1 minute' where pid = {id}"))
        .await;
    until("it is forgotten", || async {
        (world.database.value::<i64>("select count(*) from processes").await == 1).then_some(())
    })
    .await;
    let (_, body) = world.running().readiness().await;
    assert_eq!(body["problems"], json!([]), "{body}");
}

#[tokio::test]
async fn a_gateway_with_another_auth_token_is_named_by_doctor() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[("TWILIO_AUTH_TOKEN", "another-token-of-this-test")]).await;
    let finding = until("doctor names it", || async {
        found(&doctor(&world), "settings", "warning", "TWILIO_AUTH_TOKEN of").pop()
    })
    .await;
    let text = finding.to_string();
    assert!(text.contains(&format!("gateway {} on", gateway.process.id())), "{finding}");
    assert!(!text.contains("another-token") && !text.contains(&world.provider.auth_token), "{finding}");
    let settings: Value = world.database.value("select jsonb_agg(settings) from processes").await;
    assert!(!settings.to_string().contains("another-token"), "{settings}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_worker_that_drains_says_so() {
    let mut world = Setup::default().short_waits().set("SMS_TIMEOUT", "12s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    world.provider.until_posts(1).await;
    world.running().signal("TERM");
    let body = until_within(REPORTED_WITHIN, "the worker drains", || async {
        let (status, body) = world.running().readiness().await;
        (status == 503).then_some(body)
    })
    .await;
    let problems = body["problems"].to_string();
    assert!(
        problems.contains("is stopping after a signal") && problems.contains("finishes the 1 in its hands"),
        "{body}"
    );
    assert!(!problems.contains("the broker is away"), "{body}");
    until("its row says so", || async {
        let state: Option<String> = world.database.value("select max(state) from processes").await;
        (state.as_deref() == Some("stopping")).then_some(())
    })
    .await;
    assert!(world.take_worker().wait().success());
    world.keep_worker(world.start_worker().await);
    world.broker.reply("x").await.sent();
}

#[tokio::test]
async fn a_limit_of_connections_below_what_the_processes_may_open_is_a_warning() {
    let world = World::start().await;
    world.database.execute(&format!("alter database \"{}\" connection limit 3", world.database.name())).await;
    let finding = until("doctor warns", || async {
        found(&doctor(&world), "connections", "warning", "1 processes open up to 4").pop()
    })
    .await;
    let text = finding.to_string();
    assert!(
        text.contains("the database allows 3") && text.contains("DATABASE_MAX_CONNECTIONS=3"),
        "{finding}"
    );
}

#[tokio::test]
async fn a_lock_is_named_with_its_holder_and_the_remedy_works() {
    let world = World::start().await;
    let mut holder = PgConnection::connect(&world.database.url).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    for statement in
        ["set application_name = 'a migration'", "begin", "lock table sessions in access exclusive mode"]
    {
        sqlx::raw_sql(statement).execute(&mut holder).await.unwrap();
    }
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    let finding = until_within(REPORTED_WITHIN, "doctor names it", || async {
        found(&doctor(&world), "locks", "failed", &format!("of process {pid} (")).pop()
    })
    .await;
    let text = finding.to_string();
    assert!(text.contains("a migration") && text.contains("lock table sessions"), "{finding}");
    let remedy =
        finding["mend"].as_str().expect("a remedy").rsplit_once(": ").expect("a statement").1.to_owned();
    world.database.execute(&remedy).await;
    world.broker.reply("x").await.sent();
}

#[tokio::test]
async fn a_worker_without_file_descriptors_is_named_by_doctor() {
    let mut world = Setup::default().without_worker().await;
    let worker = Worker::spawn_with_files("worker", 48, &world.environment(&[]), &world.log);
    let address = worker.address().await;
    until("it reports", || async {
        let ready = "select coalesce(bool_or(state = 'ready'), false) from processes";
        let exists: bool = world.database.value("select to_regclass('processes') is not null").await;
        (exists && world.database.value::<bool>(ready).await).then_some(())
    })
    .await;
    // They send nothing, and are closed after ten seconds.
    let held: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let finding = until_within(REPORTED_WITHIN, "doctor names it", || async {
        found(&doctor(&world), "processes", "warning", "files and connections open, and may have 48").pop()
    })
    .await;
    assert!(finding["mend"].as_str().unwrap().contains("ulimit -n"), "{finding}");
    drop(held);
    world.keep_worker(worker);
}

/// Servers that accept connections, and never answer.
#[tokio::test]
async fn doctor_takes_less_than_three_seconds_where_every_server_is_silent() {
    let silent = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [database, broker, provider] = silent.each_ref().map(|listener| listener.local_addr().unwrap());
    let world = Setup::default().without_worker().await;
    let environment = world.environment(&[
        ("DATABASE_URL", &format!("postgres://u:p@{database}/d")),
        ("AMQP_URL", &format!("amqp://guest:guest@{broker}/%2f")),
        ("SMS_BASE_URL", &format!("http://{provider}")),
    ]);
    // The shortest of three runs counts: one may be slow for another reason.
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let ran = run(&environment, &["doctor", "--json"]);
        times.push(begun.elapsed());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for check in ["database", "broker", "provider"] {
            assert_eq!(found(&ran, check, "failed", "").len(), 1, "{check}: {}", ran.stdout);
        }
    }
    assert!(times.iter().min() < Some(&Duration::from_secs(3)), "{times:?}");
}
