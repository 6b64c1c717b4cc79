//! Old sessions: what names a person is blanked after half a year, and the row is deleted after `RETENTION`.

use crate::support::{GROUP, Message, Setup, World, until};
use serde_json::{Value, json};

/// A session that is over, so many days old; `more` is what differs, as assignments.
async fn is_there(world: &World, message_id: &str, days: u32, more: &str) {
    let insert = format!(
        "insert into sessions (id, group_id, session_key, status, session_type, session_params, phone, invitation_text, token,
                               requested_by, message_id, correlation_id, owns_message_id, provider_message_id,
                               created_at, updated_at)
         values (gen_random_uuid(), 72, '123456', 'expired', 1, '{{\"camera\": \"back\"}}', '+11110000000', 'text', '{message_id:x<16}',
                 'gkey:12345', '{message_id}', 'call-7', true, 'SM1', now() - interval '{days} days', now() - interval '{days} days')"
    );
    world.database.execute(&insert).await;
    if !more.is_empty() {
        let change = format!("update sessions set {more} where message_id = '{message_id}'");
        world.database.execute(&change).await;
    }
}

/// A world whose database has the schema, and no worker yet.
async fn before_the_worker(setup: Setup) -> World {
    let world = setup.without_worker().await;
    world.run(&["migrate"]).ok();
    world
}

async fn all(world: &World) -> Vec<(String, Value)> {
    let rows = world.database.sessions().await.into_iter();
    let mut named: Vec<_> =
        rows.map(|row| (row["message_id"].as_str().unwrap_or_default().to_owned(), row)).collect();
    named.sort_by(|one, other| one.0.cmp(&other.0));
    named
}

#[tokio::test]
async fn old_sessions_are_blanked_and_then_deleted_while_open_and_young_ones_stay() {
    let world = before_the_worker(Setup::default().set("RETENTION", "365d")).await;
    is_there(&world, "young", 181, "").await;
    is_there(&world, "half-a-year", 183, "").await;
    is_there(&world, "refused", 183, "status = 'rejected', session_key = null").await;
    is_there(&world, "key-held", 400, "key_held = true, due_at = now() + interval '1 day'").await;
    is_there(&world, "in-hand", 400, "status = 'sending', text_state = 'waiting'").await;
    is_there(&world, "old", 366, "").await;
    is_there(&world, "old-and-blanked", 366, "blanked = true").await;
    let before = all(&world).await;

    let worker = world.start_worker().await;
    let metrics = until("the worker has counted what it forgot", || async {
        let metrics = worker.ask("/metrics").await.text().await.expect("text");
        metrics.contains("sessions_retired_total{action=\"blanked\"} 2").then_some(metrics)
    })
    .await;
    assert!(metrics.contains("sessions_retired_total{action=\"deleted\"} 2"), "{metrics}");

    let after = all(&world).await;
    let names: Vec<_> = after.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["half-a-year", "in-hand", "key-held", "refused", "young"]);
    for (name, row) in &after {
        if !["half-a-year", "refused"].contains(&name.as_str()) {
            assert!(before.contains(&(name.clone(), row.clone())), "{name} stays as it was: {row}");
            continue;
        }
        for column in ["phone", "invitation_text", "token", "correlation_id"] {
            assert!(row[column].is_null(), "{column} of {name} is blanked: {row}");
        }
        assert_eq!((&row["session_params"], &row["requested_by"]), (&json!({}), &json!("gkey")));
        assert_eq!((&row["provider_message_id"], &row["owns_message_id"]), (&json!("SM1"), &json!(true)));
    }
}

#[tokio::test]
async fn a_short_retention_deletes_what_was_never_blanked() {
    let world = before_the_worker(Setup::default().set("RETENTION", "1d")).await;
    is_there(&world, "today", 0, "").await;
    is_there(&world, "yesterday", 2, "").await;
    is_there(&world, "ended-today", 2, "updated_at = now()").await;
    let _worker = world.start_worker().await;
    until("yesterday's session is deleted", || async {
        let names: Vec<_> = all(&world).await.into_iter().map(|(name, _)| name).collect();
        (names == ["ended-today", "today"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn several_workers_delete_more_than_one_batch_together() {
    let world = before_the_worker(Setup::default()).await;
    let many = "insert into sessions (id, group_id, status, requested_by, phone, created_at, updated_at)
                select gen_random_uuid(), 72, 'expired', 'test', '+11110000000', now() - n * interval '1 day', now() - n * interval '1 day'
                  from generate_series(1, 4000) n";
    world.database.execute(many).await;
    let (_one, _other) = tokio::join!(world.start_worker(), world.start_worker());
    // Two years of 365.25 days, and half of one.
    let left = "select count(*) = 730 and count(*) filter (where not blanked) = 181
                       and count(*) filter (where phone is null) = count(*) filter (where blanked) from sessions";
    until("all that is old is gone", || async {
        let left = world.database.value::<bool>(left).await;
        left.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_message_id_whose_session_is_blanked_still_stands_for_its_outcome() {
    let mut world = Setup::default().hurried().never_sends_again().start().await;
    let message = Message::json(&world.request()).id("order-17");
    let first = world.ask(message.clone()).await.sent();
    world.provider.next(&["cut_before"]).await;
    let lost = Message::json(&world.request()).id("lost");
    let unknown = world.ask(lost.clone()).await;
    unknown.refused("failed", "outcome_unknown", 504);
    world.database
        .execute("update sessions set status = 'expired', key_held = false, due_at = null, created_at = now() - interval '200 days'")
        .await;
    // What is old is looked for when a worker starts, and each hour.
    assert!(world.take_worker().stop().success());
    let _worker = world.start_worker().await;
    until("the sessions are blanked", || async {
        world.database.value::<bool>("select bool_and(blanked) from sessions").await.then_some(())
    })
    .await;

    // The names of its parameters in another order and its number in another form are the same content.
    let same = world.request_with(json!({
        "smsPhone": "+1 111 000 0000",
        "sessionParams": {"resolution": "352x288", "camera": "back"},
    }));
    for repeat in [message, Message::json(&same).id("order-17")] {
        let again = world.ask(repeat).await.sent();
        for field in ["sessionId", "sessionKey", "groupid", "smsPhone", "expiresAt", "providerMessageId"] {
            assert_eq!(again[field], first[field], "{field}");
        }
        assert_eq!(again["invitationText"], "", "the text is blanked");
    }
    assert_eq!(world.ask(lost).await.bytes, unknown.bytes);
    for other in [
        json!({"sessiontype": 2}),
        json!({"smsPhone": "111-000-0001"}),
        json!({"sessionParams": {"camera": "front"}}),
    ] {
        let other = Message::json(&world.request_with(other)).id("order-17");
        world.ask(other).await.refused("rejected", "idempotency_conflict", 409);
    }
    // Blanked by a release that kept nothing to compare with: no second text either.
    world.database.execute("update sessions set content_hash = null").await;
    let message = Message::json(&world.request()).id("order-17");
    assert_eq!(world.ask(message).await.sent()["sessionId"], first["sessionId"]);
    assert_eq!(world.provider.posts().await, 2);
    let owners = format!("select count(*) from sessions where owns_message_id and group_id = {GROUP}");
    assert_eq!(world.database.value::<i64>(&owners).await, 2);
}
