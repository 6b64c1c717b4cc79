//! The contract's section 8, promises 7 and 9: a database with several nodes.

use crate::support::{
    Message, PostgresPair, PostgresServer, Setup, Worker, World, free_address, keeps_promise, run, send,
    until, until_within,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How soon work has to continue after a database node takes writes.
const CONTINUES_WITHIN: Duration = Duration::from_secs(10);
/// How long a test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The state of a node in the body of `/readyz`.
fn state<'a>(body: &'a Value, node: &str) -> &'a str {
    let nodes = body["nodes"].as_array().expect("nodes are a list");
    let node = nodes.iter().find(|found| found["name"] == node);
    node.and_then(|node| node["state"].as_str()).unwrap_or("missing")
}

/// Waits until `/readyz` has this status and its node this state; returns the body.
async fn until_node(process: &Worker, status: u16, node: &str, expected: &str) -> Value {
    until(&format!("{node} is {expected}, and the answer {status}"), || async {
        let (found, body) = process.readiness().await;
        (found == status && state(&body, node) == expected).then_some(body)
    })
    .await
}

/// A world on the primary of a pair, whose worker knows both.
async fn world_on(pair: &PostgresPair) -> World {
    let mut world = Setup::default().database_on(&pair.primary.url("postgres")).start().await;
    let worker = world.replace_worker(&[("DATABASE_URL", &pair.url(world.database.name()))]).await;
    world.keep_worker(worker);
    world
}

#[tokio::test]
async fn after_a_failover_worker_gateway_and_commands_use_the_new_primary() {
    keeps_promise(CONTINUES_WITHIN, fail_over).await;
}

/// Returns the longer of two times: until an agent is answered, and until an invite is.
async fn fail_over() -> Duration {
    let mut pair = PostgresPair::start();
    let mut world = world_on(&pair).await;
    let (both, old, new) = (pair.url(world.database.name()), pair.primary.address(), pair.standby.address());
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &both)]).await;
    let key = world.invite(&world.request()).await.sent().session_key;
    for process in [world.running(), &gateway.process] {
        let body = until_node(process, 200, &new, "standby").await;
        assert_eq!(
            (state(&body, &old), &body["problems"]),
            ("takes-writes", &serde_json::json!([])),
            "{body}"
        );
    }

    pair.primary.stop();
    pair.standby.promote();
    // It was asynchronous.
    world.expect_error("the database has lost rows that were committed");
    let begun = Instant::now();
    world.database.moves_to(&pair.standby.url("postgres"));
    until_within(PATIENCE, "the worker notices the loss", || async {
        let noticed = "select exists (select from database_rewinds)";
        world.database.value::<bool>(noticed).await.then_some(())
    })
    .await;
    until_within(PATIENCE, "an agent looks a session up", || async {
        (send(gateway.look_up(&world, &key)).await.status == 200).then_some(())
    })
    .await;
    let agent_after = begun.elapsed();
    // The test waits three seconds here, which do not count.
    let message = world.dated_after_a_loss(Message::json(&world.request())).await;
    let begun = Instant::now();
    world.call(message).await.sent();
    let invite_after = begun.elapsed();
    for process in [world.running(), &gateway.process] {
        let body = until_node(process, 200, &old, "away").await;
        assert_eq!(state(&body, &new), "takes-writes", "{body}");
        assert!(body["problems"].to_string().contains(&format!("node {old} is away")), "{body}");
    }
    let environment = world.environment(&[("DATABASE_URL", &both)]);
    run(&environment, &["groups", "list"]).ok();
    let printed = run(&environment, &["doctor", "--json"]).json();
    let nodes: Vec<_> =
        printed.as_array().expect("a list").iter().filter(|one| one["check"] == "database node").collect();
    let verdicts: Vec<_> = nodes.iter().map(|node| node["verdict"].as_str().expect("a word")).collect();
    assert_eq!(verdicts, ["warning", "ok"], "{nodes:?}");
    assert!(gateway.process.stop().success());
    world.stop_worker();
    agent_after.max(invite_after)
}

#[tokio::test]
async fn a_standby_alone_is_not_used_until_it_is_promoted() {
    let mut pair = PostgresPair::start();
    let mut world = world_on(&pair).await;
    world.stop_worker();
    let standby = pair.standby.url(world.database.name());
    let mut worker = world.spawn(&[("DATABASE_URL", &standby)]);
    let mut gateway = world.spawn_gateway(&[("DATABASE_URL", &standby)]).await;
    for process in [&worker, &gateway.process] {
        let body = until_node(process, 503, &pair.standby.address(), "away").await;
        assert!(body["problems"].to_string().contains("it is a standby"), "{body}");
    }
    let open = "select count(*) from pg_stat_activity where application_name like 'session-invite%' and state = 'idle'";
    let name = world.database.name().to_owned();
    world.database.moves_to(&pair.standby.url("postgres"));
    until("no connection to it is kept", || async {
        (world.database.value::<i64>(open).await == 0).then_some(())
    })
    .await;
    // A person may read from it.
    run(&world.environment(&[("DATABASE_URL", &standby)]), &["sessions", "list"]).ok();

    pair.primary.stop();
    // Of several hosts, none takes writes: each is named, with its reason.
    let both = pair.url(&name);
    let printed = run(&world.environment(&[("DATABASE_URL", &both)]), &["groups", "list"]).fails(1);
    for part in [
        format!("{}: Connection refused", pair.primary.address()),
        format!("{}: it is a standby", pair.standby.address()),
    ] {
        assert!(printed.contains(&part), "{printed}");
    }
    pair.standby.promote();
    // It was asynchronous.
    world.expect_error("the database has lost rows that were committed");
    worker.ready().await;
    gateway.process.ready().await;
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn an_old_primary_that_still_takes_writes_is_left_for_the_new_one() {
    let pair = PostgresPair::start();
    let mut world = world_on(&pair).await;
    let both = pair.url(world.database.name());
    world.invite(&world.request()).await.sent();
    // The old primary does not notice: as if it was cut off from those who promoted the other.
    pair.standby.promote();
    // It was asynchronous.
    world.expect_error("the database has lost rows that were committed");
    world.database.moves_to(&pair.standby.url("postgres"));
    world.running().logs("the node in use is an old primary").await;
    world.invite_after_a_loss(&world.request()).await.sent();
    assert_eq!(world.database.sessions().await.len(), 2, "the new primary has the session");
    let body = until_node(world.running(), 200, &pair.primary.address(), "takes-writes").await;
    let problems = body["problems"].to_string();
    assert!(problems.contains("several nodes of the database take writes"), "{body}");
    assert!(problems.contains("it is an old primary (timeline 1;"), "{body}");

    // Nor is it used at a start.
    world.stop_worker();
    let mut worker = world.spawn(&[("DATABASE_URL", &both)]);
    worker.ready().await;
    world.invite_after_a_loss(&world.request()).await.sent();
    assert_eq!(world.database.sessions().await.len(), 3);
    let printed = run(&world.environment(&[("DATABASE_URL", &both)]), &["doctor"]).fails(1);
    assert!(printed.contains("checks have failed"), "{printed}");
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_node_of_another_cluster_is_never_used() {
    let mut own = PostgresServer::start_new();
    let mut world = Setup::default().database_on(&own.url("postgres")).start().await;
    let mut foreign = PostgresServer::start_new();
    foreign.create_database(world.database.name());
    foreign.stop();
    let both = own.url(world.database.name()).replacen(
        &own.address(),
        &format!("{},{}", foreign.address(), own.address()),
        1,
    );
    let mut worker = world.replace_worker(&[("DATABASE_URL", &both)]).await;
    until_node(&worker, 200, &foreign.address(), "away").await;
    foreign.start();
    let body = until_node(&worker, 200, &foreign.address(), "takes-writes").await;
    assert!(body["problems"].to_string().contains("belongs to another cluster (system identifier"), "{body}");
    let found = run(&world.environment(&[("DATABASE_URL", &both)]), &["doctor"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.stdout.contains("belongs to another cluster"), "{found:?}");
    world.invite(&world.request()).await.sent();

    own.stop();
    let body = until_node(&worker, 503, &own.address(), "away").await;
    let problems = body["problems"].to_string();
    assert!(problems.contains("no node takes writes") && problems.contains("another cluster"), "{body}");
    own.start();
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn every_command_uses_the_working_node_in_any_order() {
    let world = World::start().await;
    let database = url::Url::parse(&world.database.url).unwrap();
    let live = format!("{}:{}", database.host_str().unwrap(), database.port().unwrap_or(5432));
    // It accepts connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let broker = crate::support::broker_server();
    for dead in [free_address(), silent] {
        let dead_broker = format!("amqp://guest:guest@{dead}/%2f");
        for (hosts, nodes) in [
            (format!("{dead},{live}"), format!("{dead_broker},{broker}")),
            (format!("{live},{dead}"), format!("{broker},{dead_broker}")),
        ] {
            let url = world.database.url.replacen(&live, &hosts, 1);
            let environment = world.environment(&[("DATABASE_URL", &url), ("AMQP_URL", &nodes)]);
            for command in [
                &["groups", "list"][..],
                &["sessions", "list"],
                &["optouts", "list"],
                &["tokens", "issue", "gkey", "--group", "72", "--user", "1"],
                &["dead", "list"],
                &["topology", "declare"],
                &["migrate"],
                &["send", "--group", "72", "--user", "1", "--phone", "111-000-0000"],
            ] {
                // A command that does not end within 20 s fails.
                run(&environment, command).ok();
            }
            let found = run(&environment, &["doctor", "--json"]).json();
            for check in ["database node", "broker node"] {
                let nodes: Vec<_> =
                    found.as_array().unwrap().iter().filter(|one| one["check"] == check).collect();
                let count = |verdict: &str| nodes.iter().filter(|node| node["verdict"] == verdict).count();
                assert_eq!((nodes.len(), count("ok"), count("warning")), (2, 1, 1), "{nodes:?}");
            }
        }
    }
}
