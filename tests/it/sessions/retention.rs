//! Old sessions: personal data is blanked after half a year, and the row is deleted after `RETENTION`.

use crate::support::{GROUP, Message, SentReply, SessionRow, Setup, World, until};
use serde_json::json;
use std::collections::BTreeMap;

/// Inserts a session that is over and so many days old. `changes` are SQL assignments.
async fn insert_old(world: &World, message_id: &str, days: u32, changes: &str) {
    let insert = format!(
        "insert into sessions (id, group_id, session_key, status, session_type, session_params, phone, invitation_text, token,
                               requested_by, message_id, correlation_id, owns_message_id, provider_message_id,
                               created_at, updated_at)
         values (gen_random_uuid(), 72, '123456', 'expired', 1, '{{\"camera\": \"back\"}}', '+11110000000', 'text', '{message_id:x<16}',
                 'gkey:12345', '{message_id}', 'call-7', true, 'SM1', now() - interval '{days} days', now() - interval '{days} days')"
    );
    world.database.execute(&insert).await;
    if !changes.is_empty() {
        let change = format!("update sessions set {changes} where message_id = '{message_id}'");
        world.database.execute(&change).await;
    }
}

/// A world whose database has the schema, and no worker yet.
async fn before_the_worker(setup: Setup) -> World {
    let world = setup.without_worker().await;
    world.run(&["migrate"]).ok();
    world
}

/// All rows, by their message_id.
async fn rows_by_id(world: &World) -> BTreeMap<String, SessionRow> {
    let rows = world.database.sessions().await.into_iter();
    rows.map(|row| (row.message_id.clone().unwrap_or_default(), row)).collect()
}

#[tokio::test]
async fn old_sessions_are_blanked_and_later_deleted_and_open_or_young_ones_stay() {
    let world = before_the_worker(Setup::default().set("RETENTION", "365d")).await;
    insert_old(&world, "young", 181, "").await;
    insert_old(&world, "half-a-year", 183, "").await;
    insert_old(&world, "refused", 183, "status = 'rejected', session_key = null").await;
    insert_old(&world, "key-held", 400, "key_held = true, due_at = now() + interval '1 day'").await;
    insert_old(&world, "in-flight", 400, "status = 'sending', text_state = 'waiting'").await;
    insert_old(&world, "old", 366, "").await;
    insert_old(&world, "old-and-blanked", 366, "blanked = true").await;
    let before = rows_by_id(&world).await;

    let worker = world.start_worker().await;
    let metrics = until("the worker has counted what it blanked", || async {
        let metrics = worker.metrics().await;
        metrics.contains("sessions_retired_total{action=\"blanked\"} 2").then_some(metrics)
    })
    .await;
    assert!(metrics.contains("sessions_retired_total{action=\"deleted\"} 2"), "{metrics}");

    let after = rows_by_id(&world).await;
    let names: Vec<_> = after.keys().map(String::as_str).collect();
    assert_eq!(names, ["half-a-year", "in-flight", "key-held", "refused", "young"]);
    for (name, row) in &after {
        if !["half-a-year", "refused"].contains(&name.as_str()) {
            assert_eq!(before[name], *row, "{name} does not change");
            continue;
        }
        assert_eq!((&row.phone, &row.invitation_text), (&None, &None), "{name}");
        assert_eq!((&row.token, &row.correlation_id), (&None, &None), "{name}");
        assert_eq!((row.session_params.len(), row.requested_by.as_str()), (0, "gkey"), "{name}");
        assert_eq!((row.sid(), row.owns_message_id), ("SM1", true), "{name}");
    }
}

#[tokio::test]
async fn a_short_retention_deletes_sessions_that_were_never_blanked() {
    let world = before_the_worker(Setup::default().set("RETENTION", "1d")).await;
    insert_old(&world, "today", 0, "").await;
    insert_old(&world, "yesterday", 2, "").await;
    insert_old(&world, "ended-today", 2, "updated_at = now()").await;
    let _worker = world.start_worker().await;
    until("yesterday's session is deleted", || async {
        let names: Vec<_> = rows_by_id(&world).await.into_keys().collect();
        (names == ["ended-today", "today"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_workers_delete_more_than_one_batch() {
    let world = before_the_worker(Setup::default()).await;
    let many = "insert into sessions (id, group_id, status, requested_by, phone, created_at, updated_at)
                select gen_random_uuid(), 72, 'expired', 'test', '+11110000000', now() - n * interval '1 day', now() - n * interval '1 day'
                  from generate_series(1, 4000) n";
    world.database.execute(many).await;
    let (_one, _other) = tokio::join!(world.start_worker(), world.start_worker());
    // RETENTION is two years of 365.25 days; blanking comes after half a year.
    let is_done = "select count(*) = 730 and count(*) filter (where not blanked) = 181
                       and count(*) filter (where phone is null) = count(*) filter (where blanked) from sessions";
    world.database.until_true("all old rows are deleted", is_done).await;
}

#[tokio::test]
async fn a_message_id_whose_session_is_blanked_still_gets_its_outcome() {
    let mut world = Setup::default().short_waits().never_sends_again().start().await;
    let message = Message::json(&world.request()).id("order-17");
    let first = world.call(message.clone()).await.sent();
    world.provider.next(&["cut_before"]).await;
    let lost = Message::json(&world.request()).id("lost");
    let unknown = world.call(lost.clone()).await;
    unknown.refused("failed", "outcome_unknown", 504);
    world.database
        .execute("update sessions set status = 'expired', key_held = false, due_at = null, created_at = now() - interval '200 days'")
        .await;
    // A worker looks for old rows at its start, and each hour.
    world.stop_worker();
    let worker = world.start_worker().await;
    world.keep_worker(worker);
    world.database.until_true("the sessions are blanked", "select bool_and(blanked) from sessions").await;

    // Parameters in another order and the number in another form are the same content.
    let same = world.request_with(json!({
        "smsPhone": "+1 111 000 0000",
        "sessionParams": {"resolution": "352x288", "camera": "back"},
    }));
    for repeat in [message, Message::json(&same).id("order-17")] {
        let again = world.call(repeat).await.sent();
        assert_eq!(again, SentReply { invitation_text: String::new(), ..first.clone() });
    }
    assert_eq!(world.call(lost).await.bytes, unknown.bytes);
    for other in [
        json!({"sessiontype": 2}),
        json!({"smsPhone": "111-000-0001"}),
        json!({"sessionParams": {"camera": "front"}}),
    ] {
        let other = Message::json(&world.request_with(other)).id("order-17");
        world.call(other).await.refused("rejected", "idempotency_conflict", 409);
    }
    // A row that an older release blanked has no hash of its content. It causes no second text either.
    world.database.execute("update sessions set content_hash = null").await;
    let message = Message::json(&world.request()).id("order-17");
    assert_eq!(world.call(message).await.sent().session_id, first.session_id);
    assert_eq!(world.provider.posts().await, 2);
    let owners = format!("select count(*) from sessions where owns_message_id and group_id = {GROUP}");
    assert_eq!(world.database.value::<i64>(&owners).await, 2);
}
