//! What the pages show, and what their buttons do.

use super::{Browser, HOSTILE, TOKEN, assert_escaped, assert_page};
use crate::support::{GROUP, Message, TextState, Tunnel, World, send, until};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

/// Runs a statement with these two texts.
async fn execute(world: &World, statement: &'static str, short: &str, long: &str) {
    let statement = sqlx::query(statement).bind(short).bind(long);
    statement.execute(&world.database.pool).await.expect("the statement is right");
}

#[tokio::test]
async fn the_overview_says_what_is_wrong_and_whose_invites_it_hits() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let calm = until("nothing is wrong", || async {
        let page = browser.open("/console").await;
        page.body.contains("Nothing: no worker").then_some(page)
    })
    .await;
    for part in ["What is wrong now", "No invite began in the last hour", ".requests", "worker "] {
        assert!(calm.body.contains(part), "{part}: {}", calm.body);
    }

    world.invite(&world.request()).await;
    let refused = world.request_with(json!({"smsPhone": "12"}));
    world.invite(&refused).await.refused("rejected", "phone_invalid", 400);
    world.broker.publish_to(&world.broker.queue("dead"), Message::json(&json!({"a": "letter"}))).await;
    world.run(&["groups", "pause", "72"]).ok();
    let parts = [
        "Dead letters wait for a decision: 1.",
        "Group 72 is paused since",
        "href=\"/console/groups/72\"",
        "phone_invalid",
        "invites began in the last 5 minutes",
    ];
    let page = until("the overview has it all", || async {
        let page = browser.open("/console").await;
        parts.iter().all(|part| page.body.contains(part)).then_some(page)
    })
    .await;
    assert_page(&page);
    let live = browser.open("/console/live").await;
    assert!(live.status == 200 && live.body.contains("What is wrong now") && !live.body.contains("<html"));
    world.broker.purge("dead").await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_overview_says_that_all_is_well_only_if_it_knows() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let mut locking = PgConnection::connect(&world.database.url).await.expect("PostgreSQL is reached");
    let lock = "begin; lock table processes in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut locking).await.expect("a lock");
    let page = browser.open_once("/console").await;
    for part in [
        "Not known: what workers and gateways report, as the database did not answer within 200 ms.",
        "Not known: whether events are published, as ",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert!(!page.body.contains("Nothing: no worker"), "{}", page.body);
    sqlx::raw_sql("rollback").execute(&mut locking).await.expect("the lock is released");
    until("all is well again", || async {
        browser.open("/console").await.body.contains("Nothing: no worker").then_some(())
    })
    .await;
    // Nor without the broker.
    world.broker.delete("dead").await;
    until("a queue is missing", || async {
        let page = browser.open("/console").await;
        (page.body.contains("there is no queue .dead") && !page.body.contains("Nothing: ")).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_stranger_with_a_header_raises_no_alarm() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    send(gateway.request("GET", "/healthz").header("X-Forwarded-For", "203.0.113.7")).await;
    until("the overview tells what was seen, and that nothing is wrong", || async {
        let page = browser.open("/console").await.body;
        let parts =
            ["X-Forwarded-For from 127.0.0.1", "Any client can send that header", "Nothing: no worker"];
        parts.iter().all(|part| page.contains(part)).then_some(())
    })
    .await;
    until("doctor warns of it", || async {
        let found: Vec<Value> =
            serde_json::from_str(&world.run(&["doctor", "--json"]).stdout).expect("findings");
        let warns = |one: &&Value| {
            one["verdict"] == "warning" && one["found"].as_str().expect("a text").contains("TRUSTED_PROXIES")
        };
        found.iter().find(warns).map(drop)
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_group_is_paused_and_resumed_by_its_page_and_the_audit_has_both() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Zoë O'Brien").await;
    let list = browser.open("/console/groups").await;
    assert!(
        list.body.contains("href=\"/console/groups/72\"") && list.body.contains("enabled"),
        "{}",
        list.body
    );
    let group = browser.open("/console/groups/72").await;
    assert!(group.body.contains("href=\"/console/groups/72/pause\""), "{}", group.body);

    let path = "/console/groups/72/pause";
    let confirmation = browser.open(path).await;
    assert!(confirmation.body.contains("None of its texts goes out"), "{}", confirmation.body);
    let paused = browser.send_form(&confirmation, path).await;
    assert_eq!(
        (paused.status, paused.header("location")),
        (303, Some("/console/groups/72?done=pause&invites=0"))
    );
    let group = browser.open(paused.header("location").unwrap()).await;
    assert!(
        group.body.contains("The group is paused.") && group.body.contains("72/resume"),
        "{}",
        group.body
    );
    until("the worker knows of the pause", || async {
        let (_, ready) = world.running().readiness().await;
        ready["problems"].to_string().contains("group 72 is paused").then_some(())
    })
    .await;
    world.broker.request(Message::json(&world.request_to_number(1)).id("1").correlation("1")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    assert_eq!(world.provider.texts().await.len(), 0);

    let path = "/console/groups/72/resume";
    let confirmation = browser.open(path).await;
    assert!(
        confirmation.body.contains("without an outcome now: <strong>1</strong>"),
        "{}",
        confirmation.body
    );
    let resumed = browser.send_form(&confirmation, path).await;
    assert_eq!(resumed.header("location"), Some("/console/groups/72?done=resume&invites=1"));
    world.database.until_texts_are(1, TextState::Accepted).await;

    let rows = world.run(&["audit", "list", "--json", "--action", "groups", "--limit", "2"]).json();
    for (row, verb) in rows.as_array().unwrap().iter().zip(["resume", "pause"]) {
        assert_eq!(row["action"], format!("groups {verb}"), "{row}");
        assert_eq!(row["command"], format!("console (token) 127.0.0.1: groups {verb} 72"), "{row}");
        assert_eq!((&row["actingAs"], &row["groupid"]), (&json!("Zoë O'Brien"), &json!(GROUP)), "{row}");
        assert_ne!(row["before"]["paused_at"], row["after"]["paused_at"], "{row}");
    }
    let audit = browser.open("/console/audit?group=72&action=groups+pause").await;
    assert!(
        audit.body.contains("&quot;Zoë O'Brien&quot; (typed beside")
            && audit.body.contains("groups pause 72"),
        "{}",
        audit.body
    );
    assert!(!audit.body.contains("groups resume 72"), "{}", audit.body);
    world.broker.reply("1").await;
    // The copies that would be answered once more.
    for queue in ["retry.1s", "retry.5s", "retry.30s", "retry.120s"] {
        world.broker.purge(queue).await;
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn what_is_wrong_with_one_group_is_on_its_page_and_the_overview_leads_there() {
    const PROBLEM: &str = "group 80 (group 72) has no active key";
    let world = World::start().await;
    world.add_group(80, &["--name".to_owned(), "group 72".to_owned()]);
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    for keys in ["group_api_keys", "group_jwt_secrets"] {
        world.database.execute(&format!("update {keys} set revoked_at = now() where group_id = 80")).await;
    }
    let overview = until("the overview names it", || async {
        let page = browser.open("/console").await;
        page.body.contains(PROBLEM).then_some(page)
    })
    .await;
    assert!(overview.body.contains("<a href=\"/console/groups/80\">The group</a>"), "{}", overview.body);
    let group = browser.open("/console/groups/80").await;
    assert_page(&group);
    for part in [PROBLEM, "What to do: session-invite groups rotate-key 80", "Reported by "] {
        assert!(group.body.contains(part), "{part}: {}", group.body);
    }
    let no_problem = "No worker and no gateway lists a problem of this group";
    until("the other group has no problem", || async {
        let page = browser.open("/console/groups/72").await;
        assert!(!page.body.contains(PROBLEM), "{}", page.body);
        page.body.contains(no_problem).then_some(())
    })
    .await;
    world.run(&["groups", "rotate-key", "80"]).ok();
    until("its page says that it is repaired", || async {
        let page = browser.open("/console/groups/80").await;
        page.body.contains(no_problem).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_group_is_disabled_and_enabled_and_one_that_is_not_there_is_404() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    for (verb, enabled) in [("disable", false), ("enable", true)] {
        let path = format!("/console/groups/72/{verb}");
        let done = browser.send_form(&browser.open(&path).await, &path).await;
        assert_eq!(done.status, 303);
        let state: bool = world.database.value("select enabled from groups where id = 72").await;
        assert_eq!(state, enabled);
    }
    for path in [
        "groups/73",
        "groups/73/pause",
        "groups/x",
        "groups/0",
        "groups/-1",
        "groups/72/remove",
        "groups/99999999999999999999",
        "groups/%00",
        "groups/72/pause/x",
        "assets/x",
    ] {
        let answer = browser.open(&format!("/console/{path}")).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    let found =
        send(gateway.request("GET", "/console/groups?group=72").header("Cookie", &browser.cookie)).await;
    assert_eq!(found.header("location"), Some("/console/groups/72"));
    let other = browser.post("/console/groups", &[]).await;
    assert_eq!(other.status, 405);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn hostile_texts_are_never_markup_and_no_page_is_large() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    for (n, hostile) in (1..).zip(HOSTILE) {
        // A command takes no control character.
        let hostile = hostile.trim_matches('\u{1b}');
        let id = (1_000 + n).to_string();
        world
            .run(&["groups", "add", &id, "--template", &format!("{hostile} {{key}}"), "--name", hostile])
            .ok();
    }
    // A template with a control character is an error in the log.
    let one = HOSTILE.concat().replace('\u{1b}', "");
    let long = one.repeat(150);
    let statement = "insert into groups (id, name, template) select 2000 + n, left($1, 60), left($2, 1500)
                       from generate_series(1, 300) n";
    execute(&world, statement, &one, &long).await;
    let statement = "insert into audit_log (os_user, acting_as, host, action, command, group_id, before, after)
                     select $2, $2, $2, 'groups set', $2, 2001,
                            (select jsonb_object_agg($1 || i, left($2, 3000)) from generate_series(1, 30) i), jsonb_build_object('x', n)
                       from generate_series(1, 120) n";
    execute(&world, statement, &one, &long).await;
    let statement = "insert into processes (id, kind, host, machine, pid, start_ticks, version, state, problems, settings)
                     select gen_random_uuid(), 'worker', left($1, 200), $1, n, n, $1, 'ready', array_fill($2, array[20]), '{}'
                       from generate_series(1, 200) n";
    execute(&world, statement, &one, &long).await;
    let statement = "insert into sessions (id, group_id, status, requested_by, error_code)
                     select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7'
                             || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 1, 15))::uuid,
                            2000 + n, 'rejected', 'x', left($1, 50) || n from generate_series(1, 300) n
                     where $2 <> ''";
    execute(&world, statement, &one, &long).await;

    let browser = Browser::logged_in(&gateway, "' onclick='alert(1)").await;
    for path in [
        "",
        "/live",
        "/groups",
        "/groups?after=1050",
        "/groups/1001",
        "/groups/2001",
        "/groups/1001/pause",
        "/audit",
        "/audit?group=2001",
        "/groups/1002?done=%3Cscript%3Ealert(1)&invites=%3Cimg",
        "/audit?action=%3Cscript%3Ealert(1)%3C/script%3E&group=%22%3E%3Cimg",
        "/groups?group=%22%3E%3Cimg+src=x%E2%80%AE",
        "/audit?action=%E2%80%AEx&group=%E2%80%AEx",
        "/%3Cscript%3Ealert(1)",
    ] {
        let page = browser.open_once(&format!("/console{path}")).await;
        assert!([200, 404].contains(&page.status), "{path}: {}", page.status);
        assert_escaped(&page.body);
    }
    let first = browser.open("/console/audit").await;
    let (_, older) = first.body.split_once("href=\"/console/audit?before=").expect("there is a next page");
    let older = browser.open(&format!("/console/audit?before={}", older.split('"').next().unwrap())).await;
    assert_eq!(older.body.matches("<tr>").count(), 51);
    let first = browser.open("/console/groups").await;
    assert!(first.body.contains("More groups"));
    world.database.execute("delete from sessions").await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_the_database_is_away_the_frame_tells_so() {
    let world = World::start().await;
    world.is_secret(TOKEN);
    let tunnel = Tunnel::opened(&world.database.url);
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &tunnel.url), ("CONSOLE_TOKEN", TOKEN)]).await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let confirmation = browser.open("/console/groups/72/pause").await;
    tunnel.close();
    let page = until("the overview tells of it", || async {
        let page = browser.open("/console").await;
        page.body.contains("Not read: the database is away").then_some(page)
    })
    .await;
    assert_eq!(page.status, 200);
    for path in ["/console/groups", "/console/groups/72"] {
        let page = browser.open(path).await;
        assert!(page.status == 503 && page.body.contains("the database is away"), "{path}: {page:?}");
        assert!(page.header("retry-after").is_some() && page.body.contains("href=\"/console/audit\""));
    }
    assert_eq!(browser.send_form(&confirmation, "/console/groups/72/pause").await.status, 503);
    // Even then one can log in.
    Browser::logged_in(&gateway, "Bob").await;
    tunnel.open();
    until("the pages are back", || async {
        (browser.open("/console/groups").await.status == 200).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_console_is_not_in_the_document_nor_open_to_other_origins() {
    let world = World::start().await;
    world.is_secret(TOKEN);
    let settings = [("CONSOLE_TOKEN", TOKEN), ("GATEWAY_CORS_ORIGINS", "*")];
    let mut gateway = world.start_gateway(&settings).await;
    let document: Value = send(gateway.request("GET", "/openapi.json")).await.ok();
    assert!(!document.to_string().contains("console"));
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let request = gateway.request("GET", "/console").header("Cookie", &browser.cookie);
    assert_page(&send(request.header("Origin", "https://evil.example")).await);
    let preflight =
        gateway.request("OPTIONS", "/console/groups/72/pause").header("Origin", "https://evil.example");
    let preflight = send(preflight.header("Access-Control-Request-Method", "POST")).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (405, None));
    assert!(gateway.process.stop().success());
}
