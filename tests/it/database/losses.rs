//! Something was lost: the database has lost rows that were committed, or the broker has lost messages.

use crate::support::{Message, SessionStatus::Sent, Setup, TextState, Tunnel, World, until};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// As when a standby is promoted that lacked the last second: the broker has a later marker.
const SET_THE_MARKER_BACK: &str = "update database_marker set number = -1";
/// The lost tries have surely ended, and the provider's list has settled.
const END_THE_WAIT: &str =
    "update sessions set unsure_from = now() - interval '2 s', lease_until = now() - interval '1 s'";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Waits until the row of an invite that is looked for first is there, and lets its time pass.
async fn pass_the_wait(world: &World) {
    let is_there = "select exists (select from sessions where look_since is not null)";
    world.database.until_true("a row is looked for", is_there).await;
    world.database.execute(END_THE_WAIT).await;
}

/// The broker loses the retry copy of the one invite that waits.
async fn lose_the_retry_copy(world: &World) {
    world.database.until_texts_are(1, TextState::Waiting).await;
    world.broker.take("retry.30s").await;
}

/// Lets three minutes pass for the row with this message id, so that it is checked for the first time. Its id has its time, so
/// it gets a new one, which this returns.
async fn pass_three_minutes(world: &World, message_id: &str) -> uuid::Uuid {
    let [id, earlier] = [180, 181]
        .map(|ago| uuid::Builder::from_unix_timestamp_millis((now() - ago) * 1_000, &[7; 10]).into_uuid());
    let passes = format!(
        "update steps set session_id = '{id}'
          where session_id = (select id from sessions where message_id = '{message_id}');
         update sessions
            set id = '{id}', lease_until = lease_until - interval '3 min', unsure_from = unsure_from - interval '3 min',
                updated_at = now() - interval '3 min'
          where message_id = '{message_id}';
         update database_marker set open_checked = '{earlier}'"
    );
    world.database.execute(&passes).await;
    id
}

/// Starts a worker on a database that has lost what the last one wrote.
async fn after_a_loss(world: &World) -> crate::support::Worker {
    world.database.execute(SET_THE_MARKER_BACK).await;
    let worker = world.start_worker().await;
    world.expect_error("the database has lost rows that were committed");
    worker
}

#[tokio::test]
async fn an_invite_whose_row_was_lost_after_its_text_is_not_texted_again() {
    let mut world = Setup::default().short_waits().start().await;
    let mut first = world.replace_worker(&[("SESSION_INVITE_FAILPOINT", "recorded:die")]).await;
    let message = Message::json(&world.request()).id("a").correlation("a").timestamp(now());
    world.broker.request(message).await;
    first.wait();
    assert_eq!(world.provider.texts().await.len(), 1);
    world.database.execute("delete from sessions").await;
    let mut next = after_a_loss(&world).await;
    pass_the_wait(&world).await;
    world.broker.reply("a").await.refused("failed", "outcome_unknown", 504);
    assert_eq!(world.provider.posts().await, 1);
    // The id stands for an invite that may have its text.
    let again = world.request();
    world.broker.request(Message::json(&again).id("a").correlation("b").timestamp(now())).await;
    world.broker.reply("b").await.refused("failed", "outcome_unknown", 504);
    assert_eq!(world.provider.posts().await, 1);
    let why: String = world.database.value("select why from database_rewinds").await;
    assert!(why.contains("its marker is -1"), "{why}");
    assert!(next.stop().success());
}

#[tokio::test]
async fn after_a_loss_an_older_invite_without_a_text_is_sent_and_a_newer_one_at_once() {
    let mut world = Setup::default().short_waits().start().await;
    world.stop_worker();
    for (id, timestamp) in [("old", Some(now() - 60)), ("undated", None)] {
        let message = Message::json(&world.request()).id(id).correlation(id);
        let message = timestamp.map_or(message.clone(), |at| message.timestamp(at));
        world.broker.request(message).await;
    }
    let mut next = after_a_loss(&world).await;
    world.database.until_texts_are(2, TextState::Unknown).await;
    assert_eq!(world.provider.posts().await, 0, "both are looked for first");
    world.invite_after_a_loss(&world.request_to_number(1)).await.sent();
    world.database.execute(&format!("{END_THE_WAIT} where look_since is not null")).await;
    // The one that is sent first is not taken for the other's: its row owns it.
    world.broker.reply("old").await.sent();
    world.broker.reply("undated").await.sent();
    assert_eq!(world.provider.posts().await, 3);
    assert!(next.stop().success());
}

#[tokio::test]
async fn after_a_loss_a_text_whose_session_does_not_have_its_id_yet_is_not_taken_for_a_lost_one() {
    let mut world = Setup::default().short_waits().start().await;
    world.stop_worker();
    world.database.execute(SET_THE_MARKER_BACK).await;
    let mut first = world.spawn(&[("SESSION_INVITE_FAILPOINT", "accepted:die")]);
    first.ready().await;
    world.expect_error("the database has lost rows that were committed");
    let old = Message::json(&world.request()).id("old").correlation("old").timestamp(now() - 60);
    world.broker.request(old).await;
    world.database.until_texts_are(1, TextState::Unknown).await;
    let new = Message::json(&world.request()).id("new").correlation("new");
    world.broker.request(world.dated_after_a_loss(new).await).await;
    first.wait();
    assert_eq!(world.provider.texts().await.len(), 1, "to the same number");
    let lease = |until| format!("update sessions set lease_until = {until} where look_since is null");
    world.database.execute(&lease("now() + interval '5 min'")).await;
    let mut next = world.start_worker().await;
    world.database.execute(&format!("{END_THE_WAIT} where look_since is not null")).await;
    world.broker.reply("old").await.sent();
    world.database.execute(&lease("now()")).await;
    world.broker.reply("new").await.sent();
    assert_eq!(world.provider.posts().await, 2);
    assert!(next.stop().success());
}

#[tokio::test]
async fn after_a_loss_what_a_row_says_of_its_last_try_is_not_believed() {
    let mut world = Setup::default().short_waits().start().await;
    let mut first = world.replace_worker(&[("SESSION_INVITE_FAILPOINT", "recorded:die")]).await;
    world.broker.request(Message::json(&world.request()).id("a").correlation("a").timestamp(now())).await;
    first.wait();
    // As the row was before its last try, which was accepted.
    world
        .database
        .execute(
            "update sessions set status = 'sending', text_state = 'waiting', provider_message_id = null, sent_at = null,
                    lease_until = now(); delete from events",
        )
        .await;
    let mut next = after_a_loss(&world).await;
    world.database.until_texts_are(1, TextState::Unknown).await;
    world.database.execute(END_THE_WAIT).await;
    world.broker.reply("a").await.sent();
    let row = world.database.session().await;
    assert_eq!((row.status, row.sid()), (Sent, world.provider.text().await["sid"].as_str().expect("a sid")));
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_retry_copy_whose_row_was_lost_is_answered_as_unknown() {
    let world = World::start().await;
    // The copy comes back after five seconds, when its row is gone.
    world.provider.set(json!({"next": ["throttle"], "retry_after": 8})).await;
    world.broker.request(Message::json(&world.request()).id("a").correlation("a")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    world.database.execute("delete from sessions").await;
    world.broker.reply("a").await.refused("failed", "outcome_unknown", 504);
    assert_eq!(world.provider.texts().await.len(), 0);
}

#[tokio::test]
async fn a_row_that_is_lost_during_its_try_is_answered_as_unknown() {
    let world = World::start().await;
    world.provider.set(json!({"latency_ms": 5_000})).await;
    world.broker.request(Message::json(&world.request()).id("a").correlation("a")).await;
    world.provider.until_posts(1).await;
    world.database.execute("delete from sessions").await;
    world.broker.reply("a").await.refused("failed", "outcome_unknown", 504);
    assert_eq!(world.provider.texts().await.len(), 1);
}

#[tokio::test]
async fn the_marker_grows_in_the_database_and_at_the_broker() {
    let world = World::start().await;
    world.database.until_true("the marker grows", "select number >= 2 from database_marker").await;
    let kept = world.broker.queue("marker");
    until("the broker has markers", || async { world.broker.depth(&kept).await.filter(|count| *count >= 2) })
        .await;
}

#[tokio::test]
async fn an_open_invite_goes_on_when_the_broker_has_lost_its_message() {
    let mut world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 30})).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-";
    let message = Message::json(&world.request()).id("a").correlation("a");
    world.broker.request(message.text_header("traceparent", &format!("{trace}b7ad6b7169203331-01"))).await;
    lose_the_retry_copy(&world).await;
    assert_eq!(world.database.session().await.reply_to, Some(world.broker.reply_queue.clone()));
    pass_three_minutes(&world, "a").await;
    let reply = world.broker.reply("a").await;
    reply.sent();
    assert!(
        reply.header("traceparent").is_some_and(|value| value.starts_with(trace)),
        "it stays in its trace"
    );
    assert_eq!(world.provider.texts().await.len(), 1);
    world
        .database
        .until_true("it is not checked again", "select resume_at is null or resume_at > now() from sessions")
        .await;
    world.worker().logs("the broker may have lost the message of an open invite").await;
}

#[tokio::test]
async fn an_invite_that_the_sweep_has_ended_is_answered_once_when_the_broker_has_lost_its_message() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 30})).await;
    world.broker.request(Message::json(&world.request()).id("a").correlation("a")).await;
    lose_the_retry_copy(&world).await;
    let over = "update sessions set expires_at = now(), due_at = now(), lease_until = now()";
    world.database.execute(over).await;
    let closed = "select exists (select from steps where kind = 'closed' and detail->>'by' = 'sweep')";
    world.database.until_true("the sweep has ended it", closed).await;
    world.running().idle().await;
    assert!(world.broker.replies_left().is_empty(), "nobody has answered it");
    pass_three_minutes(&world, "a").await;
    world.broker.reply("a").await.refused("failed", "invite_expired", 504);
    let left = "select resume_at is null from sessions";
    world.database.until_true("it is not checked again", left).await;
    world.running().idle().await;
    let messages = "select count(*) from steps where kind = 'resumed'";
    assert_eq!(world.database.value::<i64>(messages).await, 1, "one more message");
    assert!(world.broker.replies_left().is_empty(), "one reply");
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn an_invite_that_its_worker_has_ended_and_answered_is_not_taken_for_a_lost_one() {
    let world = Setup::default().set("SMS_CONCURRENCY", "1").start().await;
    world.provider.set(json!({"latency_ms": 6_000})).await;
    world.broker.request(Message::json(&world.request()).id("a").correlation("a")).await;
    world.database.until_texts_are(1, TextState::Begun).await;
    // Its turn comes when it is too old.
    let late =
        Message::json(&world.request_with(json!({"smsPhone": "+12015550123"}))).id("b").correlation("b");
    world.broker.request(late.expiration("2000")).await;
    world.broker.reply("a").await.sent();
    world.broker.reply("b").await.refused("failed", "invite_expired", 504);
    let ended =
        "select count(*) = 1 from sessions where error_code = 'invite_expired' and text_state = 'refused'";
    world.database.until_true("it was begun, and not texted", ended).await;
    let id = pass_three_minutes(&world, "b").await;
    let checked = format!("select open_checked > '{id}' from database_marker");
    world.database.until_true("the row is checked", &checked).await;
    let left = "select resume_at is null from sessions where message_id = 'b'";
    assert!(world.database.value::<bool>(left).await);
    // Nor at a time that an older worker has set, nor if a step says that a worker ended it.
    let closed = "insert into steps (session_id, kind, detail)
                  select id, 'closed', '{\"code\": \"invite_expired\", \"by\": \"worker\", \"optedOut\": false}'::jsonb
                    from sessions where message_id = 'b'";
    for step in ["", closed] {
        let due = format!("update sessions set resume_at = now() where message_id = 'b'; {step}");
        world.database.execute(&due).await;
        world.database.until_true("it is checked again", left).await;
    }
    world.running().idle().await;
    assert_eq!(world.database.value::<i64>("select count(*) from steps where kind = 'resumed'").await, 0);
    assert_eq!(world.broker.replies_left().len(), 0);
}

#[tokio::test]
async fn an_open_invite_whose_message_waits_is_left_alone() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 20})).await;
    world.broker.request(Message::json(&world.request()).id("a").correlation("a")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    world.database.execute("update sessions set resume_at = now()").await;
    let moved = "select resume_at > lease_until + interval '50 s' from sessions";
    world.database.until_true("it is checked again a minute after its time", moved).await;
    for queue in ["retry.1s", "retry.5s", "retry.30s"] {
        world.broker.purge(queue).await;
    }
}

/// A row can be seen before it is replicated, when its commit was cut off while it waited for a synchronous standby.
#[tokio::test]
async fn a_row_whose_insert_was_not_answered_is_claimed_before_its_text() {
    let mut world = World::start().await;
    let tunnel = Tunnel::opened(&world.database.url);
    let mut worker = world.replace_worker(&[("DATABASE_URL", &tunnel.url)]).await;
    world.invite(&world.request()).await.sent();
    let first = world.database.session().await.id;
    // A message id that is not committed makes the insert wait. A table's lock could stop its preparation instead.
    let mut taken = world.database.pool.begin().await.unwrap();
    sqlx::query(
        "insert into sessions (id, group_id, status, requested_by, message_id, owns_message_id)
         select gen_random_uuid(), group_id, 'failed', 'another', 'a', true from sessions",
    )
    .execute(&mut *taken)
    .await
    .unwrap();
    world.broker.request(Message::json(&world.request()).id("a").correlation("a")).await;
    let waits = "select exists (select from pg_stat_activity where datname = current_database()
                                 and wait_event_type = 'Lock' and query like 'with gated%')";
    world.database.until_true("the insert waits", waits).await;
    tunnel.close();
    taken.rollback().await.unwrap();
    world.database.until_true("the row is there", "select count(*) = 2 from sessions").await;
    tunnel.open();
    world.broker.reply("a").await.sent();
    let rows = world.database.sessions().await;
    let row = rows.iter().find(|row| row.id != first).expect("a second row");
    assert_eq!((row.status, row.attempts), (Sent, 1));
    assert!(row.fence > 0, "the row was claimed once more");
    assert_eq!(world.provider.posts().await, 2);
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_database_that_is_set_back_while_the_worker_runs_is_noticed() {
    let world = World::start().await;
    world.database.until_true("the marker grows", "select number >= 2 from database_marker").await;
    world.database.execute(SET_THE_MARKER_BACK).await;
    world.expect_error("the database has lost rows that were committed");
    world.database.until_true("it is noticed", "select exists (select from database_rewinds)").await;
    world.invite_after_a_loss(&world.request()).await.sent();
}

#[tokio::test]
async fn a_queue_that_has_no_marker_any_more_shows_nothing() {
    let mut world = World::start().await;
    world.stop_worker();
    world.broker.purge("marker").await;
    let queue = world.broker.queue("marker");
    until("the queue is empty", || async { (world.broker.depth(&queue).await == Some(0)).then_some(()) })
        .await;
    let mut next = world.start_worker().await;
    world.expect_error("the database has lost rows that were committed, or may have");
    let why: String = world.database.value("select why from database_rewinds").await;
    assert!(why.contains("no copy of its marker"), "{why}");
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_marker_queue_that_is_deleted_is_declared_again_and_nothing_counts_as_lost() {
    let world = World::start().await;
    world.broker.delete("marker").await;
    let queue = world.broker.queue("marker");
    until("the queue has a marker again", || async {
        world.broker.depth(&queue).await.filter(|count| *count > 0)
    })
    .await;
    assert_eq!(world.database.value::<i64>("select count(*) from database_rewinds").await, 0);
}

#[tokio::test]
async fn the_orphan_row_of_a_worker_that_died_during_its_insert_is_not_texted_beside_the_next_one() {
    let world = World::start().await;
    world.broker.request(Message::json(&world.request()).correlation("a")).await;
    let reply = world.broker.reply("a").await;
    reply.sent();
    // Postgres commits the insert of a worker that has died once the standby answers; the redelivery did not see that row.
    world
        .database
        .execute(
            "insert into sessions
             select (jsonb_populate_record(null::sessions, to_jsonb(s) || jsonb_build_object(
                        'id', '00000000-0000-7000-8000-000000000001', 'ticket', gen_random_uuid(), 'session_key', '999999',
                        'token', 'AAAAAAAAAAAAAAAA', 'status', 'sending', 'text_state', 'begun', 'provider_message_id', null,
                        'sent_at', null, 'created_at', s.created_at - interval '1 s', 'resume_at', now() - interval '1 min',
                        'lease_until', now() - interval '5 min', 'unsure_from', now() - interval '5 min',
                        'updated_at', now() - interval '5 min'))).*
               from sessions s",
        )
        .await;
    let left = "select exists (select from sessions where resume_at > now() and status = 'sending')";
    world.database.until_true("the orphan is left alone", left).await;
    // Its session ends, and the sweep closes it: nobody gets another reply.
    world
        .database
        .execute("update sessions set expires_at = now(), due_at = now() where status = 'sending'")
        .await;
    let closed = "select bool_and(status <> 'sending') from sessions";
    world.database.until_true("the orphan is closed", closed).await;
    world.database.execute("update sessions set resume_at = now() where resume_at is not null").await;
    let over = "select bool_and(resume_at is null) from sessions";
    world.database.until_true("the orphan is not looked at again", over).await;
    world.running().idle().await;
    assert_eq!(world.provider.posts().await, 1);
    assert!(world.broker.replies_left().iter().all(|other| other.bytes == reply.bytes));
}
