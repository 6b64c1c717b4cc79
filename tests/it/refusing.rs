//! The contract's section 8, promise 7: a database that answers, and does not carry out what it is asked.

use crate::support::{
    Gateway, Message, Setup, Tunnel, Worker, World, at_home_quietly, receipt, run, send, until, webhook,
};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

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
        let in_hand = format!("session_invite_invites_in_flight {INVITES}\n");
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

/// What only a process's start or a command shows: how it begins, how it ends, and what is named.
const OF_THE_START: [(&str, &str, &str); 2] = [
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
async fn the_doctor_names_each_right_that_is_missing_and_whatever_refuses() {
    let world = World::start().await;
    let role = role(&world).await;
    let database: String = world.database.value("select quote_ident(current_database())").await;
    let filled = |sql: &str| sql.replace("{role}", &role.name).replace("{database}", &database);
    let look = || {
        let ran = run(&world.environment(&[("DATABASE_URL", &role.url)]), &["doctor", "--json"]);
        let findings: Vec<Value> = serde_json::from_str(&ran.stdout).expect("findings");
        let failed = findings.iter().filter(|finding| finding["verdict"] == "failed");
        let said: Vec<_> =
            failed.map(|finding| format!("{}: {}", finding["found"], finding["mend"])).collect();
        (ran.code, said.join("\n"))
    };
    assert_eq!(look(), (Some(0), String::new()), "all is well");
    // A column that is gone shows in the statement alone.
    let faults = FAULTS.iter().filter(|fault| fault.name != "a column that is gone");
    let faults = faults.map(|fault| (fault.begins, fault.ends, fault.named.to_vec()));
    for (begins, ends, named) in
        faults.chain(OF_THE_START.map(|(begins, ends, named)| (begins, ends, vec![named])))
    {
        world.database.execute(&filled(begins)).await;
        let (code, said) = look();
        assert_eq!(code, Some(1), "{begins}: {said}");
        for part in named {
            assert!(said.contains(&filled(part)), "{begins}: {said}");
        }
        world.database.execute(&filled(ends)).await;
    }
    assert_eq!(look(), (Some(0), String::new()), "all is well again");
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
    assert_eq!(send(gateway.invite(&world)).await.status, 200);
    assert!(gateway.process.stop().success());
    assert!(worker.stop().success());

    // With something to come, the one says so, and the other waits for it.
    world
        .database
        .execute("delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)")
        .await;
    let ran = run(&world.environment(&[("DATABASE_URL", &role.url)]), &["worker"]).fails(1);
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
        let ran = run(&world.environment(&changes), &[command]).fails(1);
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

/// What a gateway's requests meet: the server has closed its connections.
fn cut_the_gateway() -> String {
    CUT.replace("session-invite%", "session-invite gateway")
}

/// A text from the world's visitor, as the provider tells of it.
async fn says_to_us(world: &World, gateway: &Gateway, sid: &str, body: &str) -> u16 {
    let form = [("From", "+11110000000"), ("To", "+15005550006"), ("Body", body), ("MessageSid", sid)];
    webhook(world, gateway, "/webhooks/twilio/inbound", &form).await.status
}

/// How many opt-outs there are.
async fn opted_out(world: &World) -> i64 {
    world.database.value("select count(*) from optouts").await
}

#[tokio::test]
async fn connections_that_were_closed_meanwhile_cost_a_gateways_requests_nothing() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let sent = world.invite(&world.request()).await.sent();
    let key = sent["sessionKey"].as_str().unwrap().to_owned();
    let row = world.database.session().await;
    let token = row["token"].as_str().unwrap();
    let session = "/api/SessionInvitation/session";
    let credential = world.credential();
    let cut = async || world.database.execute(&cut_the_gateway()).await;

    for (said, status) in [("delivered", "delivered"), ("sent", "delivered")] {
        cut().await;
        assert_eq!(receipt(&world, &gateway, &row, said).await.status, 204, "{said}");
        assert_eq!(world.database.session().await["status"], status, "{said}");
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
    // The provider sends neither of these again.
    for (sid, word, left) in [("SM1", "STOP", 1), ("SM2", "START", 0), ("SM3", "Stop.", 1)] {
        cut().await;
        assert_eq!(says_to_us(&world, &gateway, sid, word).await, 200, "{word}");
        assert_eq!(opted_out(&world).await, left, "{word}");
    }
    world.invite(&world.request()).await.refused("rejected", "opted_out", 403);
    assert_eq!(world.provider.posts().await, 1);
    assert!(gateway.process.stop().success());
}

/// Connections are closed while they are in use, so that some requests lose theirs on the way.
#[tokio::test]
async fn connections_that_are_closed_under_requests_cost_none_that_may_be_repeated() {
    const CUTS: usize = 8;
    /// Of each kind of request, between one cut and the next.
    const BETWEEN: usize = 4;
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let sent = world.invite(&world.request()).await.sent();
    let key = sent["sessionKey"].as_str().unwrap();
    let row = world.database.session().await;
    let credential = world.credential();
    let look_up = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    let page = format!("/s/{}", row["token"].as_str().unwrap());
    let answered: [AtomicUsize; 3] = Default::default();
    let goes_on = AtomicBool::new(true);
    let cutting = async {
        for _ in 0..CUTS {
            let before = answered.each_ref().map(|count| count.load(Ordering::SeqCst));
            world.database.execute(&cut_the_gateway()).await;
            until("requests go on", || async {
                let counts = answered.iter().zip(before);
                counts
                    .map(|(now, before)| now.load(Ordering::SeqCst) - before)
                    .all(|n| n >= BETWEEN)
                    .then_some(())
            })
            .await;
        }
        goes_on.store(false, Ordering::SeqCst);
    };
    let looking = async {
        while goes_on.load(Ordering::SeqCst) {
            let request = gateway.request("GET", &look_up).header("Authorization", &credential);
            assert_eq!(send(request).await.status, 200, "look-up");
            assert_eq!(send(gateway.request("GET", &page)).await.status, 200, "page");
            answered[0].fetch_add(1, Ordering::SeqCst);
        }
    };
    let hearing = async {
        while goes_on.load(Ordering::SeqCst) {
            assert_eq!(receipt(&world, &gateway, &row, "delivered").await.status, 204, "receipt");
            answered[1].fetch_add(1, Ordering::SeqCst);
        }
    };
    let obeying = async {
        while goes_on.load(Ordering::SeqCst) {
            let text = answered[2].load(Ordering::SeqCst);
            let (word, left) = if text.is_multiple_of(2) { ("STOP", 1) } else { ("START", 0) };
            let status = says_to_us(&world, &gateway, &format!("SM{text}"), word).await;
            assert_eq!((status, opted_out(&world).await), (200, left), "{word}, text {text}");
            answered[2].fetch_add(1, Ordering::SeqCst);
        }
    };
    futures::future::join4(cutting, looking, hearing, obeying).await;
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
