//! The events of a session: each is published at least once, and in its order.

use crate::support::{Event, Events, Setup, World, receipt, send, with_gateway};
use serde_json::{Value, json};
use sqlx::Connection;

/// Asserts that an event matches docs/schemas/event.schema.json.
fn assert_valid(event: &Value) {
    let schema = include_str!("../../../docs/schemas/event.schema.json");
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    assert!(validator.is_valid(event), "{event}");
}

#[tokio::test]
async fn each_step_of_a_session_is_published_as_an_event() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let events = Events::subscribe(&world, "session.*.72").await;
    let others = Events::subscribe(&world, "session.*.73").await;
    let answer = send(gateway.invite(&world)).await;
    let (reply, id) = (answer.sent(), answer.header("idempotency-key").unwrap().to_owned());
    let session = world.database.session().await;
    for status in ["sent", "delivered", "delivered"] {
        assert_eq!(receipt(&world, &gateway, &session, status).await.status, 204);
    }
    for _ in 0..2 {
        send(gateway.join(&world, &reply.session_key)).await.ok();
    }
    send(gateway.end(&world, &reply.session_key)).await.ok();
    let expected = ["session.sent.72", "session.delivered.72", "session.joined.72", "session.ended.72"];
    events.until_keys_are(&expected).await;
    for Event { key, kind, body: event, .. } in &events.received() {
        assert_eq!(
            (&event["sessionId"], &event["groupid"], &event["sessionKey"]),
            (&json!(reply.session_id), &json!(72), &json!(reply.session_key))
        );
        assert_eq!(event["messageId"], id);
        assert_eq!(*kind, format!("session.{}", event["status"].as_str().unwrap()));
        assert_eq!(*key, format!("{kind}.72"));
        assert_valid(event);
        let at = event["at"].as_str().unwrap();
        assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
        assert_eq!(event.as_object().unwrap().len(), 6);
    }
    assert_eq!(events.count_ids(), 4, "each event has an id of its own");
    assert!(others.received().is_empty(), "these are events of another group");
    world.database.until_outbox_is_empty().await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_expiry_and_the_end_of_a_session_are_published_as_events() {
    let world = World::start().await;
    let events = Events::subscribe(&world, "session.expired.72").await;
    world.invite(&world.request()).await.sent();
    world.database.execute("update sessions set expires_at = now(), due_at = now()").await;
    events.until_keys_are(&["session.expired.72"]).await;

    let ended = Events::subscribe(&world, "session.ended.72").await;
    world.invite(&world.request()).await.sent();
    world
        .database
        .execute(
            "update sessions set status = 'joined', joined_at = now(), due_at = now() where status = 'sent'",
        )
        .await;
    ended.until_keys_are(&["session.ended.72"]).await;
}

#[tokio::test]
async fn a_worker_that_dies_loses_no_event() {
    let mut world = World::start().await;
    let events = Events::subscribe(&world, "session.sent.72").await;
    // No worker publishes events while this connection holds the lock for it.
    let mut held = sqlx::PgConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("select pg_advisory_lock(x'6576656e7473'::bigint)").execute(&mut held).await.unwrap();
    let mut worker = world.take_worker();
    let reply = world.invite(&world.request()).await.sent();
    worker.kill();
    assert!(events.received().is_empty(), "the event waits in the outbox");
    let mut another = world.start_worker().await;
    held.close().await.unwrap();
    events.until_keys_are(&["session.sent.72"]).await;
    assert_eq!(events.received()[0].body["sessionId"], json!(reply.session_id));
    assert!(another.stop().success());
}

#[tokio::test]
async fn a_deleted_exchange_loses_no_invite_and_no_event() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    world.database.until_outbox_is_empty().await;
    let exchange = world.broker.queue("events");
    world
        .broker
        .channel
        .exchange_delete(exchange.as_str().into(), lapin::options::ExchangeDeleteOptions::default())
        .await
        .unwrap();
    world.invite(&world.request()).await.sent();
    // The worker declares the exchange again, and publishes the event then.
    world.database.until_outbox_is_empty().await;
    let events = Events::subscribe(&world, "session.sent.72").await;
    world.invite(&world.request()).await.sent();
    events.until_keys_are(&["session.sent.72"]).await;
}

#[tokio::test]
async fn an_event_that_is_published_again_has_the_same_id() {
    let world = World::start().await;
    let events = Events::subscribe(&world, "session.sent.72").await;
    // The broker confirms the event, and the database does not delete it, as in an outage in between.
    world
        .database
        .execute(
            "create function refuse() returns trigger language plpgsql as
                 $$ begin raise exception 'not now' using errcode = 'cannot_connect_now'; end $$;
             create trigger refuse before delete on events for each row execute function refuse()",
        )
        .await;
    world.invite(&world.request()).await.sent();
    events.until_received(2).await;
    world.database.execute("drop trigger refuse on events").await;
    world.database.until_outbox_is_empty().await;
    assert_eq!(events.count_ids(), 1, "{:?}", events.received());
}

#[tokio::test]
async fn event_ids_stay_unique_after_a_restore_and_for_rows_of_an_older_worker() {
    let world = World::start().await;
    let events = Events::subscribe(&world, "session.*.72").await;
    for count in 1..=2 {
        world.invite(&world.request()).await.sent();
        events.until_received(count).await;
        // A restore resets the sequence to an earlier number.
        world.database.execute("alter table events alter column id restart with 1").await;
    }
    // A row as an older release writes it, whose session has been deleted.
    world
        .database
        .execute(
            "insert into events (session_id, group_id, session_key, event)
             values (gen_random_uuid(), 72, '123456', 'expired')",
        )
        .await;
    events.until_received(3).await;
    assert_eq!(events.count_ids(), 3, "{:?}", events.received());
    for event in events.received() {
        assert!(event.message_id.parse::<uuid::Uuid>().is_ok(), "{event:?}");
        assert!(event.body["messageId"].is_null(), "the invites had none: {event:?}");
        assert_valid(&event.body);
    }
}
