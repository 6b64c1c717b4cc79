//! The contract's section 8, promise 7: a database that is up and refuses statements or connections.

use crate::support::{
    DatabaseRole, Gateway, Message, SessionStatus, Setup, Tunnel, Worker, World, keeps_promise, receipt, run,
    send, text_from, until, until_within, with_gateway,
};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// How soon `/readyz` has to report a fault, and its end. The contract promises 10 s; a slow machine gets 10 s more.
const READY_WITHIN: Duration = Duration::from_secs(20);
const INVITES: u64 = 5;

/// Waits until `/readyz` answers with this status; returns the body.
async fn until_readiness(process: &Worker, expected: u16) -> Value {
    until_within(READY_WITHIN, &format!("/readyz answers {expected}"), || async {
        let (status, body) = process.readiness().await;
        assert_eq!(status == 200, body["ready"] == true, "{body}");
        (status == expected).then_some(body)
    })
    .await
}

/// One way in which a database refuses.
struct Fault {
    name: &'static str,
    /// The SQL that brings the fault about.
    breaks: &'static str,
    repairs: &'static str,
    /// Texts that the problems of `/readyz` have to contain.
    reported: &'static [&'static str],
    /// Whether a gateway is unready too.
    gateway_reports_it: bool,
    /// Whether invites wait until it is repaired.
    holds_invites: bool,
}

const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name like 'session-invite%'";

const FAULTS: &[Fault] = &[
    Fault {
        name: "no right to update sessions",
        breaks: "revoke update on sessions from {role}",
        repairs: "grant update on sessions to {role}",
        reported: &["sessions", "grant update on sessions to {role}"],
        gateway_reports_it: true,
        holds_invites: true,
    },
    Fault {
        name: "no right to insert events",
        breaks: "revoke insert on events from {role}",
        repairs: "grant insert on events to {role}",
        reported: &["events", "grant insert on events to {role}"],
        gateway_reports_it: true,
        holds_invites: true,
    },
    Fault {
        name: "no right to delete suspects",
        breaks: "revoke delete on suspects from {role}",
        repairs: "grant delete on suspects to {role}",
        reported: &["grant delete on suspects to {role}"],
        gateway_reports_it: false,
        holds_invites: false,
    },
    Fault {
        name: "no right to the schema",
        breaks: "revoke usage on schema public from {role}, public",
        repairs: "grant usage on schema public to {role}, public",
        reported: &["schema public", "grant usage on schema public to {role}"],
        gateway_reports_it: true,
        holds_invites: true,
    },
    Fault {
        name: "a missing table",
        breaks: "alter table rate_buckets rename to renamed",
        repairs: "alter table renamed rename to rate_buckets",
        reported: &["rate_buckets", "missing"],
        gateway_reports_it: true,
        holds_invites: false,
    },
    Fault {
        name: "a missing column",
        breaks: "alter table sessions rename column due_at to renamed",
        repairs: "alter table sessions rename column renamed to due_at",
        reported: &["due_at"],
        gateway_reports_it: false,
        holds_invites: true,
    },
    Fault {
        name: "a database that is read-only",
        breaks: "alter database {database} set default_transaction_read_only = on",
        repairs: "alter database {database} reset default_transaction_read_only",
        reported: &["read-only", "alter database"],
        gateway_reports_it: true,
        holds_invites: true,
    },
    Fault {
        name: "a role that is read-only",
        breaks: "alter role {role} set default_transaction_read_only = on",
        repairs: "alter role {role} reset default_transaction_read_only",
        reported: &["read-only"],
        gateway_reports_it: true,
        holds_invites: true,
    },
    Fault {
        name: "a role that may not log in",
        breaks: "alter role {role} nologin",
        repairs: "alter role {role} login",
        reported: &["{role}", "not permitted to log in"],
        gateway_reports_it: true,
        holds_invites: true,
    },
    Fault {
        name: "a role without a connection",
        breaks: "alter role {role} connection limit 0",
        repairs: "alter role {role} connection limit -1",
        reported: &["too many connections for role", "DATABASE_MAX_CONNECTIONS"],
        gateway_reports_it: true,
        holds_invites: true,
    },
];

/// Each fault is reported while no invite comes. Invites that come then are sent once each after the repair.
#[tokio::test]
async fn each_database_fault_is_reported_and_no_invite_is_lost() {
    let mut world = Setup::default().short_waits().start().await;
    let role = DatabaseRole::create(&world).await;
    let mut worker = world.replace_worker(&[("DATABASE_URL", &role.url)]).await;
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &role.url)]).await;
    let database: String = world.database.value("select quote_ident(current_database())").await;
    let filled = |sql: &str| sql.replace("{role}", &role.name).replace("{database}", &database);
    for (n, fault) in (0..).zip(FAULTS) {
        eprintln!("{}", fault.name);
        world.database.execute(&filled(fault.breaks)).await;
        // These take effect for new connections only.
        if fault.breaks.starts_with("alter database") || fault.breaks.starts_with("alter role") {
            world.database.execute(CUT).await;
        }
        let mut processes = vec![&worker];
        processes.extend(fault.gateway_reports_it.then_some(&gateway.process));
        for process in &processes {
            let problems = until_readiness(process, 503).await["problems"].to_string();
            for part in fault.reported {
                assert!(problems.contains(&filled(part)), "{}: {problems}", fault.name);
            }
        }
        for m in 0..INVITES {
            let phone = format!("201-555-{:04}", n * INVITES + m);
            let request = world.request_with(json!({"smsPhone": phone}));
            let id = format!("{n}-{m}");
            world.broker.request(Message::json(&request).id(&id).correlation(&id)).await;
        }
        if fault.holds_invites {
            let in_flight = format!("session_invite_invites_in_flight {INVITES}\n");
            until("the invites are in flight", || async {
                worker.metrics().await.contains(&in_flight).then_some(())
            })
            .await;
        }
        world.database.execute(&filled(fault.repairs)).await;
        for process in &processes {
            until_readiness(process, 200).await;
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

/// Faults that only the start of a process and the doctor notice: the SQL that breaks and repairs, and what is reported.
const ONLY_AT_START: [(&str, &str, &str); 2] = [
    (
        "revoke select on groups from {role}",
        "grant select on groups to {role}",
        "grant select on groups to {role}",
    ),
    (
        "revoke select on _sqlx_migrations from {role}",
        "grant select on _sqlx_migrations to {role}",
        "grant select on _sqlx_migrations to {role}",
    ),
];

#[tokio::test]
async fn the_doctor_reports_each_database_fault_and_each_missing_right() {
    let world = World::start().await;
    let role = DatabaseRole::create(&world).await;
    let database: String = world.database.value("select quote_ident(current_database())").await;
    let filled = |sql: &str| sql.replace("{role}", &role.name).replace("{database}", &database);
    let doctor = || {
        let ran = run(&world.environment(&[("DATABASE_URL", &role.url)]), &["doctor", "--json"]);
        let findings: Vec<Value> = serde_json::from_str(&ran.stdout).expect("findings");
        let failed = findings.iter().filter(|finding| finding["verdict"] == "failed");
        let reports: Vec<_> = failed.map(Value::to_string).collect();
        (ran.code, reports.join("\n"))
    };
    assert_eq!(doctor(), (Some(0), String::new()), "no fault");
    // The doctor does not check columns.
    let faults = FAULTS.iter().filter(|fault| fault.name != "a missing column");
    let faults = faults.map(|fault| (fault.breaks, fault.repairs, fault.reported.to_vec()));
    for (breaks, repairs, reported) in
        faults.chain(ONLY_AT_START.map(|(breaks, repairs, reported)| (breaks, repairs, vec![reported])))
    {
        world.database.execute(&filled(breaks)).await;
        let (code, report) = doctor();
        assert_eq!(code, Some(1), "{breaks}: {report}");
        for part in reported {
            assert!(report.contains(&filled(part)), "{breaks}: {report}");
        }
        world.database.execute(&filled(repairs)).await;
    }
    assert_eq!(doctor(), (Some(0), String::new()), "no fault is left");
    role.drop(&world).await;
}

#[tokio::test]
async fn a_table_lock_is_reported_with_its_holder_and_no_claim_is_lost_to_it() {
    let mut world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("lock table sessions in access exclusive mode").execute(&mut *lock).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *lock).await.unwrap();
    for process in [world.worker() as &Worker, &gateway.process] {
        let problems = until_readiness(process, 503).await["problems"].to_string();
        assert!(problems.contains("sessions") && problems.contains(&pid.to_string()), "{problems}");
        assert!(problems.contains(&format!("pg_terminate_backend({pid})")), "{problems}");
        assert!(!problems.contains("is it running"), "{problems}");
    }
    for n in 0..INVITES {
        world.broker.request(Message::json(&world.request()).correlation(&n.to_string())).await;
    }
    // The lock is held for longer than a claim's lease.
    let is_older = format!(
        "select clock_timestamp() - xact_start > interval '12 s' from pg_stat_activity where pid = {pid}"
    );
    world.database.until_true("the lock is older than a claim's lease", &is_older).await;
    lock.rollback().await.unwrap();
    until_readiness(world.worker(), 200).await;
    until_readiness(&gateway.process, 200).await;
    for n in 0..INVITES {
        world.broker.reply(&n.to_string()).await.sent();
    }
    assert_eq!(world.provider.posts().await, INVITES);
    let log = world.worker().log();
    assert!(!log.contains("stood still") && !log.contains("claim was over"), "{log}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_role_without_ddl_rights_can_run_worker_and_gateway_but_not_migrate() {
    let mut world = World::start().await;
    let role = DatabaseRole::create(&world).await;
    world.stop_worker();
    world.database.execute("revoke create on schema public from public").await;
    let mut worker = world.spawn(&[("DATABASE_URL", &role.url)]);
    worker.ready().await;
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &role.url)]).await;
    world.invite(&world.request()).await.sent();
    assert_eq!(send(gateway.invite(&world)).await.status, 200);
    assert!(gateway.process.stop().success());
    assert!(worker.stop().success());

    // A migration is missing: the worker ends with an error, and the gateway waits.
    world
        .database
        .execute("delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)")
        .await;
    let ran = run(&world.environment(&[("DATABASE_URL", &role.url)]), &["worker"]).fails(1);
    assert!(ran.contains("session-invite migrate") && ran.contains("permission denied"), "{ran}");
    let gateway = world.spawn_gateway(&[("DATABASE_URL", &role.url)]).await;
    until_it_waits_for_migrations(&gateway).await;
    drop(gateway);
    role.drop(&world).await;
}

async fn until_it_waits_for_migrations(gateway: &Gateway) {
    until("the gateway waits for the migrations", || async {
        let (_, body) = gateway.process.readiness().await;
        body.to_string().contains("session-invite migrate").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_does_not_migrate_and_is_ready_once_a_worker_has() {
    let world = Setup::default().without_worker().await;
    let mut gateway = world.spawn_gateway(&[]).await;
    gateway.process.logs("waiting for the database").await;
    until_it_waits_for_migrations(&gateway).await;
    let tables: i64 =
        world.database.value("select count(*) from pg_tables where schemaname = 'public'").await;
    assert_eq!(tables, 0);
    let mut worker = world.start_worker().await;
    gateway.process.ready().await;
    assert!(gateway.process.stop().success());
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_database_that_is_not_utf8_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let name = format!("latin_{}", uuid::Uuid::new_v4().simple());
    let create = format!("create database {name} encoding 'LATIN1' locale 'C' template template0");
    world.database.execute(&create).await;
    let mut url = url::Url::parse(&world.database.url).unwrap();
    url.set_path(&name);
    for command in ["worker", "gateway", "migrate"] {
        let changes = [("DATABASE_URL", url.as_str()), ("GATEWAY_ADDR", "127.0.0.1:0")];
        let ran = run(&world.environment(&changes), &[command]).fails(1);
        assert!(ran.contains("LATIN1") && ran.contains("UTF8"), "{command}: {ran}");
    }
    world.database.execute(&format!("drop database {name}")).await;
}

#[tokio::test]
async fn silent_database_connections_are_replaced_by_new_ones() {
    let mut world = Setup::default().short_waits().start().await;
    let database = Tunnel::opened(&world.database.url);
    let mut worker = world.replace_worker(&[("DATABASE_URL", &database.url)]).await;
    world.invite(&world.request()).await.sent();
    let mut posts = 1;
    // A statement that waits for a silent connection to answer is given up after 18 s.
    keeps_promise(Duration::from_secs(12), async || {
        database.silence();
        let begun = Instant::now();
        world.broker.request(Message::json(&world.request()).correlation("x")).await;
        world.broker.reply_within(Duration::from_mins(1), "x").await.sent();
        posts += 1;
        assert_eq!(world.provider.posts().await, posts);
        begun.elapsed()
    })
    .await;
    until_readiness(&worker, 200).await;

    // When new connections are refused too, readiness reports that.
    database.close();
    let problems = until_readiness(&worker, 503).await["problems"].to_string();
    assert!(problems.contains("127.0.0.1:") && !problems.contains("pool timed out"), "{problems}");
    database.open();
    until_readiness(&worker, 200).await;
    assert!(worker.stop().success());
}

/// Closes the gateway's connections, and waits until they are gone: a request meanwhile might still use one.
async fn cut_the_gateways_connections(world: &World) {
    let pids = "select coalesce(array_agg(pid), '{}') from pg_stat_activity
                 where datname = current_database() and application_name = 'session-invite gateway'";
    let before: Vec<i32> = world.database.value(pids).await;
    world.database.execute(&cut_the_gateway()).await;
    let gone =
        format!("select not exists (select from pg_stat_activity where pid = any(array{before:?}::int[]))");
    world.database.until_true("the connections are gone", &gone).await;
}

/// The SQL that ends the gateway's connections.
fn cut_the_gateway() -> String {
    CUT.replace("session-invite%", "session-invite gateway")
}

/// The status of the answer to a text from the world's visitor.
async fn visitor_texts(world: &World, gateway: &Gateway, sid: &str, body: &str) -> u16 {
    text_from(world, gateway, "+11110000000", body, sid).await.status
}

/// How many opt-outs there are.
async fn count_optouts(world: &World) -> i64 {
    world.database.value("select count(*) from optouts").await
}

#[tokio::test]
async fn the_gateway_answers_although_the_server_closed_its_idle_connections() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let key = world.invite(&world.request()).await.sent().session_key;
    let row = world.database.session().await;
    let token = row.token();
    let session = "/api/SessionInvitation/session";
    let credential = world.credential();
    let cut = async || cut_the_gateways_connections(&world).await;

    for receipt_status in ["delivered", "sent"] {
        cut().await;
        assert_eq!(receipt(&world, &gateway, &row, receipt_status).await.status, 204, "{receipt_status}");
        assert_eq!(world.database.session().await.status, SessionStatus::Delivered, "{receipt_status}");
    }
    let with_key = Some(json!({"sessionKey": key}).to_string());
    let requests = [
        ("GET", "look-up", format!("{session}/?groupid=72&sessionKey={key}"), None),
        ("GET", "page", format!("/s/{token}"), None),
        ("POST", "join", format!("{session}/join/?groupid=72"), with_key.clone()),
        ("POST", "end", format!("{session}/end/?groupid=72"), with_key),
    ];
    for (method, name, path, body) in requests {
        cut().await;
        let mut request = gateway.request(method, &path).header("Authorization", &credential);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        assert_eq!(send(request).await.status, 200, "{name}");
    }
    // The provider does not repeat these webhooks.
    for (sid, word, left) in [("SM1", "STOP", 1), ("SM2", "START", 0), ("SM3", "Stop.", 1)] {
        cut().await;
        assert_eq!(visitor_texts(&world, &gateway, sid, word).await, 200, "{word}");
        assert_eq!(count_optouts(&world).await, left, "{word}");
    }
    world.invite(&world.request()).await.refused("rejected", "opted_out", 403);
    assert_eq!(world.provider.posts().await, 1);
    assert!(gateway.process.stop().success());
}

/// Closes connections while they are in use, so that some requests lose theirs.
#[tokio::test]
async fn requests_that_may_be_repeated_survive_connections_closed_under_them() {
    const CUTS: usize = 8;
    /// Requests of each kind between two cuts.
    const BETWEEN: usize = 4;
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let key = world.invite(&world.request()).await.sent().session_key;
    let row = world.database.session().await;
    let page = format!("/s/{}", row.token());
    let answered: [AtomicUsize; 3] = Default::default();
    let is_running = AtomicBool::new(true);
    let cutting = async {
        for _ in 0..CUTS {
            let before = answered.each_ref().map(|count| count.load(Ordering::SeqCst));
            world.database.execute(&cut_the_gateway()).await;
            until("requests are answered", || async {
                let counts = answered.iter().zip(before);
                counts
                    .map(|(now, before)| now.load(Ordering::SeqCst) - before)
                    .all(|n| n >= BETWEEN)
                    .then_some(())
            })
            .await;
        }
        is_running.store(false, Ordering::SeqCst);
    };
    let looking = async {
        while is_running.load(Ordering::SeqCst) {
            assert_eq!(send(gateway.look_up(&world, &key)).await.status, 200, "look-up");
            assert_eq!(send(gateway.request("GET", &page)).await.status, 200, "page");
            answered[0].fetch_add(1, Ordering::SeqCst);
        }
    };
    let receiving = async {
        while is_running.load(Ordering::SeqCst) {
            assert_eq!(receipt(&world, &gateway, &row, "delivered").await.status, 204, "receipt");
            answered[1].fetch_add(1, Ordering::SeqCst);
        }
    };
    let opting_out = async {
        while is_running.load(Ordering::SeqCst) {
            let text = answered[2].load(Ordering::SeqCst);
            let (word, left) = if text.is_multiple_of(2) { ("STOP", 1) } else { ("START", 0) };
            let status = visitor_texts(&world, &gateway, &format!("SM{text}"), word).await;
            assert_eq!((status, count_optouts(&world).await), (200, left), "{word}, text {text}");
            answered[2].fetch_add(1, Ordering::SeqCst);
        }
    };
    futures::future::join4(cutting, looking, receiving, opting_out).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_worker_moves_to_another_node_when_one_is_down() {
    let mut world = Setup::default().short_waits().start().await;
    let nodes = [Tunnel::closed(&world.database.url), Tunnel::closed(&world.database.url)];
    nodes.iter().for_each(Tunnel::open);
    let [first, second] = nodes.each_ref().map(|node| url::Url::parse(&node.url).unwrap());
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", first.port().unwrap(), second.port().unwrap());
    let password = first.password().map(|password| format!(":{password}")).unwrap_or_default();
    let url = format!("postgres://{}{password}@{hosts}{}", first.username(), first.path());
    let mut worker = world.replace_worker(&[("DATABASE_URL", &url)]).await;
    for (n, down) in [0, 1, 0].into_iter().enumerate() {
        nodes[down].close();
        let id = n.to_string();
        world.broker.request(Message::json(&world.request()).id(&id).correlation(&id)).await;
        world.broker.reply_within(READY_WITHIN, &id).await.sent();
        until_readiness(&worker, 200).await;
        nodes[down].open();
    }
    assert_eq!(world.provider.posts().await, 3);
    assert!(worker.stop().success());
}
