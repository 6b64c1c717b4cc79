//! The questions of operators that a command answers: what became of invites, who wants no texts, what is set, what gets old.

use crate::support::{Message, Setup, World, program, run};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

/// The values of a field, in the order of a listing.
fn column<'a>(listed: &'a Value, name: &str) -> Vec<&'a Value> {
    listed.as_array().expect("a listing").iter().map(|row| &row[name]).collect()
}

/// Inserts a session that began so many minutes ago. Its id has that time, as a worker's would.
async fn insert_session(world: &World, minutes: u32, columns: &str, values: &str) {
    let insert = format!(
        "insert into sessions (id, status, requested_by, created_at, updated_at, {columns})
         select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
                 || '8' || substr(md5(random()::text), 1, 15))::uuid, s.status, 'gkey:1', at, at, {values}
           from (select now() - interval '{minutes} minutes' as at) t, (values ('sent')) as s (status)"
    );
    world.database.execute(&insert).await;
}

/// Three sessions of the last hours: a text to a number of two groups, and a refusal to the first number, without a text.
async fn with_sessions() -> World {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let phone = "'+11110000000'";
    insert_session(&world, 30, "group_id, phone, token", &format!("72, {phone}, 'aaaaaaaaaaaaaaaa'")).await;
    insert_session(&world, 90, "group_id, phone, token", "73, '+12015550123', 'bbbbbbbbbbbbbbbb'").await;
    insert_session(&world, 3_000, "group_id, phone, error_code", &format!("72, {phone}, 'opted_out'")).await;
    world.database.execute("update sessions set status = 'rejected' where error_code is not null").await;
    world
}

#[tokio::test]
async fn a_command_that_waits_for_a_lock_says_whose_it_is() {
    let world = with_sessions().await;
    let mut holder = PgConnection::connect(&world.database.url).await.expect("PostgreSQL is reached");
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut holder).await.expect("a process");
    sqlx::raw_sql("begin; lock table sessions").execute(&mut holder).await.expect("the table is free");
    let mut command = program(&world.environment(&[]));
    let counting = command.args(["sessions", "count"]).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut counting = counting.spawn().expect("the program starts");
    let said = BufReader::new(counting.stderr.take().expect("it is piped")).lines().next();
    let said = said.expect("a line").expect("text");
    assert!(
        said.contains("waits for a lock") && said.contains(&format!("pg_terminate_backend({pid})")),
        "{said}"
    );
    holder.close().await.expect("it closes");
    let output = counting.wait_with_output().expect("it ends");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains('3'), "{output:?}");
}

#[tokio::test]
async fn sessions_are_listed_by_their_number_time_code_and_group() {
    let world = with_sessions().await;
    let list = |args: &[&str]| world.run(&[&["sessions", "list", "--json"], args].concat()).json();
    for phone in ["111-000-0000", "(111) 000 0000", "+1 111 000 0000", "1110000000", "tel:+11110000000"] {
        let of_number = list(&["--phone", phone]);
        assert_eq!(
            column(&of_number, "status"),
            [&json!("sent"), &json!("rejected")],
            "{phone}: the newest first"
        );
    }
    assert_eq!(column(&list(&["--phone", "111-000-0000", "--since", "1h"]), "status"), [&json!("sent")]);
    assert_eq!(column(&list(&["--phone", "111-000-0000", "--limit", "1"]), "status"), [&json!("sent")]);
    assert_eq!(column(&list(&["--since", "2h"]), "group_id"), [&json!(72), &json!(73)]);
    assert_eq!(column(&list(&["--since", "2h", "--until", "1h"]), "group_id"), [&json!(73)]);
    assert_eq!(column(&list(&["--code", "opted_out", "--group", "72"]), "error_code"), [&json!("opted_out")]);
    assert_eq!(list(&["--code", "opted_out", "--group", "73"]), json!([]));
    assert_eq!(list(&["--since", "2030-01-01T00:00:00Z"]), json!([]));
    assert_eq!(column(&list(&["--until", "2030-01-01T00:00:00+01:00"]), "group_id").len(), 3);

    let wrong = world.run(&["sessions", "list", "--phone", "12"]).fails(2);
    assert!(wrong.contains("--phone") && !wrong.contains("12:"), "{wrong}");
    assert!(run(&[], &["sessions", "list", "--since", "yesterday"]).fails(2).contains("RFC 3339"));
}

#[tokio::test]
async fn both_forms_of_a_mobile_number_are_one_number() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    insert_session(&world, 1, "group_id, phone, token", "72, '+5215512345678', 'aaaaaaaaaaaaaaaa'").await;
    for phone in ["+52 55 1234 5678", "+52 1 55 1234 5678"] {
        let listed = world.run(&["sessions", "list", "--phone", phone, "--json"]).json();
        assert_eq!(column(&listed, "group_id"), [&json!(72)], "{phone}");
    }
}

#[tokio::test]
async fn sessions_are_counted_by_the_columns_that_are_given() {
    let world = with_sessions().await;
    let count = |args: &[&str]| world.run(&[&["sessions", "count", "--json"], args].concat()).json();
    assert_eq!(count(&[]), json!([{"sessions": 3}]));
    assert_eq!(count(&["--group", "99"]), json!([{"sessions": 0}]));
    assert_eq!(
        count(&["--by", "group"]),
        json!([{"group": 72, "sessions": 2}, {"group": 73, "sessions": 1}])
    );
    let by_all = count(&["--by", "group,status,code", "--since", "2h"]);
    let row = |group: u64| json!({"group": group, "status": "sent", "code": null, "sessions": 1});
    assert_eq!(by_all, json!([row(72), row(73)]));
    assert_eq!(
        count(&["--by", "code", "--phone", "111-000-0000"]),
        json!([{"code": "opted_out", "sessions": 1}, {"code": null, "sessions": 1}])
    );

    let table = world.run(&["sessions", "count", "--by", "status,group"]).ok();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["STATUS", "GROUP", "SESSIONS"], "{table}");
    assert!(lines.contains(&vec!["rejected", "72", "1"]), "{table}");
    assert!(run(&[], &["sessions", "count", "--by", "phone"]).fails(2).contains("status"));
}

#[tokio::test]
async fn a_number_is_checked_against_the_opt_outs_without_changing_them() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let check = |args: &[&str]| world.run(&[&["optouts", "check"], args].concat());
    assert_eq!(check(&["111-000-0000", "--json"]).json()["optedOut"], false);
    assert_eq!(world.database.value::<i64>("select count(*) from optout_key").await, 0, "no key is made");

    world.run(&["optouts", "add", "111-000-0000", "--sender", "+15550001111"]).ok();
    world.run(&["optouts", "add", "+52 55 1234 5678", "--sender", "*"]).ok();
    let found = check(&["(111)", "000-0000", "--json"]).json();
    assert_eq!((&found["optedOut"], &found["optOuts"][0]["sender"]), (&json!(true), &json!("+15550001111")));
    let text = check(&["+1 111 000 0000"]).ok();
    assert!(text.contains("…00 wants no texts from +15550001111 since 20"), "{text}");
    let of_another = check(&["111-000-0000", "--sender", "+15550002222"]).ok();
    assert!(of_another.contains("has not opted out of texts from +15550002222"), "{of_another}");
    // An opt-out from all texts holds for each sender, in both forms of the number.
    assert_eq!(check(&["+5215512345678", "--sender", "+15550002222", "--json"]).json()["optedOut"], true);

    assert_eq!(check(&["111-000-0000"]).code, Some(0), "an answer is not a failure");
    check(&["111-000-0000", "--exit-code"]).fails(1);
    check(&["111-000-0000", "--exit-code", "--sender", "+15550002222"]).ok();
    check(&["12"]).fails(2);
}

#[tokio::test]
async fn retention_counts_the_rows_that_workers_would_take_and_changes_none() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let day = 24 * 60;
    for (days, columns, values) in [
        (400, "group_id", "72"),
        (400, "group_id, blanked", "72, true"),
        (183, "group_id", "72"),
        (181, "group_id", "72"),
        (400, "group_id, session_key, key_held", "72, '123456', true"),
    ] {
        insert_session(&world, days * day, columns, values).await;
    }
    world.database.execute("update sessions set status = 'ended' where not key_held").await;
    let inbound = "insert into inbound_texts (message_sid, received_at)
                   values ('SM1', now() - interval '31 days'), ('SM2', now())";
    world.database.execute(inbound).await;
    let before = world.database.sessions().await;
    let rows = |args: &[&str]| {
        let printed = world.run(&[&["retention", "--dry-run", "--json"], args].concat()).json();
        printed["rows"].clone()
    };
    let counted = rows(&["--retention", "365d"]);
    assert_eq!(counted, json!({"deleted": 2, "blanked": 1, "inboundTexts": 1}));
    assert_eq!(rows(&["--retention", "90d"]), json!({"deleted": 4, "blanked": 0, "inboundTexts": 1}));
    assert_eq!(world.database.sessions().await, before);
    assert!(run(&[], &["retention"]).fails(2).contains("--dry-run"));
    assert!(world.run(&["retention", "--dry-run", "--retention", "1h"]).fails(2).contains("RETENTION"));

    // A worker takes just these.
    let mut worker = world.spawn(&[("RETENTION", "365d")]);
    worker.ready().await;
    let taken = "select count(*) = 3 and count(*) filter (where blanked) = 1 from sessions";
    world.database.until_true("the worker has taken them", taken).await;
    assert_eq!(rows(&["--retention", "365d"]), json!({"deleted": 0, "blanked": 0, "inboundTexts": 0}));
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_number_in_a_script_is_texted_once_and_listed_by_its_number() {
    let world = World::start().await;
    world.call(Message::json(&world.request()).id("order-17")).await.sent();
    let listed =
        world.run(&["sessions", "list", "--phone", "(111) 000-0000", "--since", "1h", "--json"]).json();
    assert_eq!(column(&listed, "message_id"), [&json!("order-17")]);
}
