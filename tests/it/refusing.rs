//! The contract's section 8, promise 7: a database that answers, and does not carry out what it is asked.

use crate::support::{Message, Setup, Tunnel, Worker, World, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Within that the process says that it is not ready, and that it is again.
const WITHIN: Duration = Duration::from_secs(10);
const INVITES: u64 = 5;

/// A role of the world's database that may use its tables, and change none.
struct Role {
    name: String,
    url: String,
}

/// A role for one test. The worker that migrates is the server's own.
async fn role(world: &World) -> Role {
    let name = format!("r_{}", uuid::Uuid::new_v4().simple());
    let create = format!(
        "create role {name} login password '{name}';
         grant usage on schema public to {name};
         grant select, insert, update, delete on all tables in schema public to {name};"
    );
    world.database.execute(&create).await;
    let mut url = url::Url::parse(&world.database.url).expect("a test's database has a usual URL");
    url.set_username(&name).expect("a test's database has a usual URL");
    // Some servers trust everybody who comes from this machine, and some nobody.
    url.set_password(Some(&name)).expect("a test's database has a usual URL");
    Role { url: url.into(), name }
}

impl Role {
    /// Its rights are the database's, so it goes first.
    async fn drop(self, world: &World) {
        world.database.execute(&format!("drop owned by {0}; drop role {0}", self.name)).await;
    }
}

/// What `/readyz` says, when it is this.
async fn says(process: &Worker, status: u16) -> Value {
    let begun = Instant::now();
    loop {
        let answer = process.ask("/readyz").await;
        let is = answer.status().as_u16();
        let body = answer.text().await.expect("a body");
        let body: Value = serde_json::from_str(&body).expect("a body of JSON");
        assert_eq!(is == 200, body["ready"] == true, "{body}");
        if is == status {
            return body;
        }
        assert!(begun.elapsed() < WITHIN, "no {status} in {WITHIN:?}: {body}\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One way in which a database refuses.
struct Fault {
    name: &'static str,
    begins: &'static str,
    ends: &'static str,
    /// Each is in the problems.
    named: &'static [&'static str],
    /// Whether a gateway needs it too.
    of_gateways: bool,
    /// Whether invites wait for its end.
    holds_invites: bool,
}

const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name like 'session-invite%'";

const FAULTS: &[Fault] = &[
    Fault {
        name: "no right to update sessions",
        begins: "revoke update on sessions from {role}",
        ends: "grant update on sessions to {role}",
        named: &["sessions", "grant update on sessions to {role}"],
        of_gateways: true,
        holds_invites: true,
    },
    Fault {
        name: "no right to insert events",
        begins: "revoke insert on events from {role}",
        ends: "grant insert on events to {role}",
        named: &["events", "grant insert on events to {role}"],
        of_gateways: true,
        holds_invites: true,
    },
    Fault {
        name: "no right to delete suspects",
        begins: "revoke delete on suspects from {role}",
        ends: "grant delete on suspects to {role}",
        named: &["grant delete on suspects to {role}"],
        of_gateways: false,
        holds_invites: false,
    },
    Fault {
        name: "no right to the schema",
        begins: "revoke usage on schema public from {role}, public",
        ends: "grant usage on schema public to {role}, public",
        named: &["schema public", "grant usage on schema public to {role}"],
        of_gateways: true,
        holds_invites: true,
    },
    Fault {
        name: "a table that is gone",
        begins: "alter table rate_buckets rename to gone",
        ends: "alter table gone rename to rate_buckets",
        named: &["rate_buckets", "missing"],
        of_gateways: true,
        holds_invites: false,
    },
    Fault {
        name: "a column that is gone",
        begins: "alter table sessions rename column due_at to gone",
        ends: "alter table sessions rename column gone to due_at",
        named: &["due_at"],
        of_gateways: false,
        holds_invites: true,
    },
    Fault {
        name: "a database that is read-only",
        begins: "alter database {database} set default_transaction_read_only = on",
        ends: "alter database {database} reset default_transaction_read_only",
        named: &["read-only", "alter database"],
        of_gateways: true,
        holds_invites: true,
    },
    Fault {
        name: "a role that is read-only",
        begins: "alter role {role} set default_transaction_read_only = on",
        ends: "alter role {role} reset default_transaction_read_only",
        named: &["read-only"],
        of_gateways: true,
        holds_invites: true,
    },
    Fault {
        name: "a role that may not log in",
        begins: "alter role {role} nologin",
        ends: "alter role {role} login",
        named: &["{role}", "not permitted to log in"],
        of_gateways: true,
        holds_invites: true,
    },
    Fault {
        name: "a role without a connection",
        begins: "alter role {role} connection limit 0",
        ends: "alter role {role} connection limit -1",
        named: &["too many connections for role", "DATABASE_MAX_CONNECTIONS"],
        of_gateways: true,
        holds_invites: true,
    },
];

/// Each fault with no invite coming, then with some in hand: it is named, and when it is over all go on, once each.
#[tokio::test]
async fn a_database_that_refuses_is_named_and_no_invite_is_lost() {
    let mut world = Setup::default().hurried().start().await;
    let role = role(&world).await;
    assert!(world.take_worker().stop().success());
    let mut worker = world.spawn(&[("DATABASE_URL", &role.url)]);
    worker.ready().await;
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &role.url)]).await;
    let database: String = world.database.value("select quote_ident(current_database())").await;
    let filled = |sql: &str| sql.replace("{role}", &role.name).replace("{database}", &database);
    for (n, fault) in (0..).zip(FAULTS) {
        eprintln!("{}", fault.name);
        world.database.execute(&filled(fault.begins)).await;
        // Settings and logins count for new connections.
        if fault.begins.starts_with("alter database") || fault.begins.starts_with("alter role") {
            world.database.execute(CUT).await;
        }
        let mut processes = vec![&worker];
        processes.extend(fault.of_gateways.then_some(&gateway.process));
        for process in &processes {
            let problems = says(process, 503).await["problems"].to_string();
            for part in fault.named {
                assert!(problems.contains(&filled(part)), "{}: {problems}", fault.name);
            }
        }
        for m in 0..INVITES {
            let phone = format!("201-555-{:04}", n * INVITES + m);
            let request = world.request_with(json!({"smsPhone": phone}));
            let id = format!("{n}-{m}");
            world.broker.request(Message::json(&request).id(&id).correlation(&id)).await;
        }
        let in_hand = format!("session_invite_in_hand {INVITES}\n");
        until("the invites are in hand", || async {
            let metrics = worker.ask("/metrics").await.text().await.unwrap();
            (!fault.holds_invites || metrics.contains(&in_hand)).then_some(())
        })
        .await;
        world.database.execute(&filled(fault.ends)).await;
        for process in &processes {
            says(process, 200).await;
        }
        for m in 0..INVITES {
            world.broker.reply(&format!("{n}-{m}")).await.sent();
        }
        assert_eq!(world.provider.posts().await, (n + 1) * INVITES, "{}", fault.name);
    }
    assert!(!worker.log().contains("pool timed out"), "{}", worker.log());
    assert!(gateway.process.stop().success());
    assert!(worker.stop().success());
    role.drop(&world).await;
}

#[tokio::test]
async fn a_lock_is_named_with_its_holder_and_leaves_no_claim_behind() {
    let mut world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("lock table sessions in access exclusive mode").execute(&mut *lock).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *lock).await.unwrap();
    for process in [world.worker() as &Worker, &gateway.process] {
        let problems = says(process, 503).await["problems"].to_string();
        assert!(problems.contains("sessions") && problems.contains(&pid.to_string()), "{problems}");
        assert!(problems.contains(&format!("pg_terminate_backend({pid})")), "{problems}");
        assert!(!problems.contains("is it running"), "{problems}");
    }
    for n in 0..INVITES {
        world.broker.request(Message::json(&world.request()).correlation(&n.to_string())).await;
    }
    // Longer than the time of a claim.
    let begun = Instant::now();
    until("the lock was held for a while", || async { (begun.elapsed().as_secs() >= 12).then_some(()) })
        .await;
    lock.rollback().await.unwrap();
    says(world.worker(), 200).await;
    says(&gateway.process, 200).await;
    for n in 0..INVITES {
        world.broker.reply(&n.to_string()).await.sent();
    }
    assert_eq!(world.provider.posts().await, INVITES);
    let log = world.worker().log();
    assert!(!log.contains("stood still") && !log.contains("claim was over"), "{log}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_role_that_may_only_use_the_tables_starts_both_and_migrates_nothing() {
    let mut world = World::start().await;
    let role = role(&world).await;
    assert!(world.take_worker().stop().success());
    world.database.execute("revoke create on schema public from public").await;
    let mut worker = world.spawn(&[("DATABASE_URL", &role.url)]);
    worker.ready().await;
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &role.url)]).await;
    world.invite(&world.request()).await.sent();
    assert_eq!(crate::support::send(gateway.invite(&world)).await.status, 200);
    assert!(gateway.process.stop().success());
    assert!(worker.stop().success());

    // With something to come, the one says so, and the other waits for it.
    world
        .database
        .execute("delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)")
        .await;
    let ran = crate::support::run(&world.environment(&[("DATABASE_URL", &role.url)]), &["worker"]).fails(1);
    assert!(ran.contains("session-invite migrate") && ran.contains("permission denied"), "{ran}");
    let gateway = world.spawn_gateway(&[("DATABASE_URL", &role.url)]).await;
    until("the gateway says what it waits for", || async {
        let body = gateway.process.ask("/readyz").await.text().await.unwrap();
        body.contains("session-invite migrate").then_some(())
    })
    .await;
    drop(gateway);
    role.drop(&world).await;
}

#[tokio::test]
async fn a_gateway_changes_nothing_in_an_empty_database_and_is_ready_once_a_worker_was_there() {
    let world = Setup::default().without_worker().await;
    let mut gateway = world.spawn_gateway(&[]).await;
    gateway.process.says("waiting for the database").await;
    until("the gateway says what it waits for", || async {
        let body = gateway.process.ask("/readyz").await.text().await.unwrap();
        body.contains("session-invite migrate").then_some(())
    })
    .await;
    let tables: i64 =
        world.database.value("select count(*) from pg_tables where schemaname = 'public'").await;
    assert_eq!(tables, 0);
    let mut worker = world.start_worker().await;
    gateway.process.ready().await;
    assert!(gateway.process.stop().success());
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_database_in_another_encoding_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let name = format!("latin_{}", uuid::Uuid::new_v4().simple());
    let create = format!("create database {name} encoding 'LATIN1' locale 'C' template template0");
    world.database.execute(&create).await;
    let mut url = url::Url::parse(&world.database.url).unwrap();
    url.set_path(&name);
    for command in ["worker", "gateway", "migrate"] {
        let changes = [("DATABASE_URL", url.as_str()), ("GATEWAY_ADDR", "127.0.0.1:0")];
        let ran = crate::support::run(&world.environment(&changes), &[command]).fails(1);
        assert!(ran.contains("LATIN1") && ran.contains("UTF8"), "{command}: {ran}");
    }
    world.database.execute(&format!("drop database {name}")).await;
}

#[tokio::test]
async fn silent_connections_are_left_and_new_ones_are_used() {
    let mut world = Setup::default().hurried().start().await;
    let database = Tunnel::closed(&world.database.url);
    database.open();
    assert!(world.take_worker().stop().success());
    let mut worker = world.spawn(&[("DATABASE_URL", &database.url)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    database.silence();
    let begun = Instant::now();
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    world.broker.reply_within(Duration::from_secs(30), "x").await.sent();
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(world.provider.posts().await, 2);
    says(&worker, 200).await;

    // Where new ones are refused too, that is what is said.
    database.close();
    let problems = says(&worker, 503).await["problems"].to_string();
    assert!(problems.contains("127.0.0.1:") && !problems.contains("pool timed out"), "{problems}");
    database.open();
    says(&worker, 200).await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn connections_that_were_closed_meanwhile_cost_a_gateways_requests_nothing() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let sent = world.invite(&world.request()).await.sent();
    let key = sent["sessionKey"].as_str().unwrap().to_owned();
    let token: String = world.database.value("select token from sessions").await;
    let session = "/api/SessionInvitation/session";
    let credential = world.credential();
    let requests: Vec<(&str, &str, String, Option<String>)> = vec![
        ("GET", "look-up", format!("{session}/?groupid=72&sessionKey={key}"), None),
        ("GET", "page", format!("/s/{token}"), None),
        ("POST", "join", format!("{session}/join/?groupid=72"), Some(json!({"sessionKey": key}).to_string())),
        ("POST", "end", format!("{session}/end/?groupid=72"), Some(json!({"sessionKey": key}).to_string())),
    ];
    for (method, name, path, body) in requests {
        world.database.execute(&CUT.replace("session-invite%", "session-invite gateway")).await;
        let mut request = gateway.request(method, &path).header("Authorization", &credential);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        assert_eq!(crate::support::send(request).await.status, 200, "{name}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_node_that_is_gone_is_replaced_by_another() {
    let mut world = Setup::default().hurried().start().await;
    let nodes = [Tunnel::closed(&world.database.url), Tunnel::closed(&world.database.url)];
    nodes.iter().for_each(Tunnel::open);
    let [first, second] = nodes.each_ref().map(|node| url::Url::parse(&node.url).unwrap());
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", first.port().unwrap(), second.port().unwrap());
    let password = first.password().map(|password| format!(":{password}")).unwrap_or_default();
    let url = format!("postgres://{}{password}@{hosts}{}", first.username(), first.path());
    assert!(world.take_worker().stop().success());
    let mut worker = world.spawn(&[("DATABASE_URL", &url)]);
    worker.ready().await;
    for (n, gone) in [0, 1, 0].into_iter().enumerate() {
        nodes[gone].close();
        let id = n.to_string();
        world.broker.request(Message::json(&world.request()).id(&id).correlation(&id)).await;
        world.broker.reply_within(WITHIN, &id).await.sent();
        says(&worker, 200).await;
        nodes[gone].open();
    }
    assert_eq!(world.provider.posts().await, 3);
    assert!(worker.stop().success());
}
