//! A large table is as fast as an empty one: statements use an index, and updates change no indexed column
//! (docs/GROWTH.md).

use crate::support::{Message, Setup, until};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{fs, path::Path};

/// The program's statements on `sessions`, with the number of their parameters, from the files of `cargo sqlx prepare`.
fn statements() -> Vec<(String, usize)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut found = Vec::new();
    for file in fs::read_dir(folder).expect("the queries exist") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a query is readable");
        let described: Value = serde_json::from_str(&text).expect("JSON");
        let query = described["query"].as_str().expect("a query").to_owned();
        let parameters = described["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        if ["from sessions", "into sessions", "update sessions", "from live_sessions"]
            .iter()
            .any(|on| query.contains(on))
        {
            found.push((query, parameters));
        }
    }
    assert!(found.len() >= 15, "only {} statements on sessions", found.len());
    found
}

/// The generic plan of each statement, as the worker's connections make it.
async fn plans(url: &str, settings: &str) -> Vec<String> {
    let mut plans = Vec::new();
    for (query, parameters) in statements() {
        let mut connection = PgConnection::connect(url).await.expect("PostgreSQL is reached");
        let prepare = format!("{settings}; prepare it as {query}");
        sqlx::raw_sql(AssertSqlSafe(prepare))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        let nulls = vec!["null"; parameters].join(", ");
        let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("explain execute it{arguments}")))
            .fetch_all(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        plans.push(format!("{query}\n{}", lines.join("\n")));
    }
    plans
}

fn assert_by_index(plans: &[String]) {
    let gate = plans.iter().find(|plan| plan.contains("with gated as")).expect("the insert of sessions");
    let texts = gate.matches("Scan Backward using sessions_texts").count();
    assert!(texts == 2 && gate.contains("using optouts_pkey"), "the limits are looked up by {gate}");
    let of_number = plans.iter().find(|plan| plan.contains("with read as")).expect("the console's search");
    for index in ["sessions_texts", "sessions_untexted"] {
        assert!(of_number.contains(index), "a number is searched by {of_number}");
    }
    for plan in plans {
        assert!(!plan.contains("Seq Scan on sessions"), "the whole table is read by {plan}");
        assert!(
            !plan.contains("Hash Join") || !plan.contains("Update on sessions"),
            "joined by hash: {plan}"
        );
    }
}

#[tokio::test]
async fn every_statement_uses_an_index_on_an_empty_and_on_a_large_table() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let workers = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off; set max_parallel_workers_per_gather = 0";
    assert_by_index(&plans(&world.database.url, workers).await);
    world.database.execute("vacuum analyze").await;
    assert_by_index(&plans(&world.database.url, workers).await);

    let fill = "insert into sessions (id, group_id, session_key, token, status, phone, requested_by, message_id, owns_message_id, created_at)
                select gen_random_uuid(), 72, lpad(n::text, 6, '0'), 't' || n, 'expired', '+1415' || (2000000 + n), 'gkey:12345', 'old-' || n,
                       true, now() - interval '2 days' from generate_series(1, 200000) n";
    world.database.execute(fill).await;
    let opted_out = "insert into optouts (phone_hash, sender, last_digits, source)
                     select sha256(n::text::bytea), '+15005550006', '00', 'import' from generate_series(1, 20000) n";
    world.database.execute(opted_out).await;
    world.database.execute("analyze").await;
    // On the large table the right indexes are used without the workers' settings.
    assert_by_index(&plans(&world.database.url, "set plan_cache_mode = force_generic_plan").await);
    assert_by_index(&plans(&world.database.url, workers).await);
}

#[tokio::test]
async fn invites_read_no_whole_table_and_their_updates_are_heap_only() {
    let world = Setup::default().group(&["--per-number", "100/1h"]).start().await;
    let counted = |what: &'static str| {
        let sql = format!("select coalesce({what}, 0) from pg_stat_user_tables where relname = 'sessions'");
        let pool = world.database.pool.clone();
        async move { sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).fetch_one(&pool).await.expect("statistics") }
    };
    let read_before = counted("seq_scan").await;
    for n in 0..60 {
        let message = Message::json(&world.request()).id(&format!("order-{n}"));
        world.broker.request(message.correlation(&n.to_string())).await;
    }
    for n in 0..60 {
        world.broker.reply(&n.to_string()).await.sent();
    }
    // The server updates its statistics with a delay.
    until("the updates are counted", || async { (counted("n_tup_upd").await >= 60).then_some(()) }).await;
    // An update of the last row of a page may not fit there, as it is a little longer than its insert.
    let (updated, heap_only) = (counted("n_tup_upd").await, counted("n_tup_hot_upd").await);
    assert!(heap_only * 10 >= updated * 9, "{heap_only} of {updated} updates are heap-only");
    assert_eq!(counted("seq_scan").await, read_before, "nothing reads the whole table");
}
