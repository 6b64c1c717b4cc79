//! What becomes of a session, as the exchange of events tells it: at least once, and in its order.

use crate::support::{Gateway, Setup, World, at_home_quietly, receipt, send, until};
use futures::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use sqlx::Connection;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// An event as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub key: String,
    pub kind: String,
    pub message_id: String,
    pub body: Value,
}

/// Listens to what the key matches, from now on.
pub async fn listen(world: &World, key: &str) -> Arc<Mutex<Vec<Heard>>> {
    let channel = &world.broker.channel;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.expect("a queue");
    let (name, exchange) = (queue.name().clone(), world.broker.queue("events"));
    channel
        .queue_bind(
            name.clone(),
            exchange.as_str().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("the exchange is there");
    let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut events =
        channel.basic_consume(name, "".into(), automatic, FieldTable::default()).await.expect("events");
    let heard: Arc<Mutex<Vec<_>>> = Arc::default();
    let into = heard.clone();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let text = |text: &Option<_>| text.as_ref().map(ToString::to_string).unwrap_or_default();
            let heard = Heard {
                key: event.routing_key.to_string(),
                kind: text(event.properties.kind()),
                message_id: text(event.properties.message_id()),
                body: serde_json::from_slice(&event.data).expect("an event is JSON"),
            };
            into.lock().expect("no reader panics").push(heard);
        }
    });
    heard
}

/// As docs/schemas says it.
fn assert_valid(event: &Value) {
    let schema = include_str!("../../docs/schemas/event.schema.json");
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    assert!(validator.is_valid(event), "{event}");
}

fn keys(heard: &Mutex<Vec<Heard>>) -> Vec<String> {
    heard.lock().expect("no reader panics").iter().map(|event| event.key.clone()).collect()
}

pub async fn until_heard(heard: &Mutex<Vec<Heard>>, expected: &[&str]) {
    until(&format!("{expected:?} is heard"), || async {
        (keys(heard).len() >= expected.len()).then_some(())
    })
    .await;
    assert_eq!(keys(heard), expected);
}

fn key_request(gateway: &Gateway, world: &World, what: &str, key: &Value) -> reqwest::RequestBuilder {
    gateway
        .request("POST", &format!("/api/SessionInvitation/session/{what}/?groupid=72"))
        .header("Authorization", world.credential())
        .body(json!({"sessionKey": key}).to_string())
}

#[tokio::test]
async fn a_sessions_way_is_told_step_by_step() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let heard = listen(&world, "session.*.72").await;
    let others = listen(&world, "session.*.73").await;
    let answer = send(gateway.invite(&world)).await;
    let (reply, id) = (answer.ok(), answer.header("idempotency-key").unwrap().to_owned());
    let session = world.database.session().await;
    for status in ["sent", "delivered", "delivered"] {
        assert_eq!(receipt(&world, &gateway, &session, status).await.status, 204);
    }
    for _ in 0..2 {
        send(key_request(&gateway, &world, "join", &reply["sessionKey"])).await.ok();
    }
    send(key_request(&gateway, &world, "end", &reply["sessionKey"])).await.ok();
    let expected = ["session.sent.72", "session.delivered.72", "session.joined.72", "session.ended.72"];
    until_heard(&heard, &expected).await;
    let heard = heard.lock().unwrap().clone();
    for Heard { key, kind, body: event, .. } in &heard {
        assert_eq!(
            (&event["sessionId"], &event["groupid"], &event["sessionKey"]),
            (&reply["sessionId"], &json!(72), &reply["sessionKey"])
        );
        assert_eq!(event["messageId"], id);
        assert_eq!(*kind, format!("session.{}", event["status"].as_str().unwrap()));
        assert_eq!(*key, format!("{kind}.72"));
        assert_valid(event);
        let at = event["at"].as_str().unwrap();
        assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
        assert_eq!(event.as_object().unwrap().len(), 6);
    }
    let ids: BTreeSet<&str> = heard.iter().map(|event| event.message_id.as_str()).collect();
    assert_eq!(ids.len(), heard.len(), "each event has an id of its own");
    assert!(keys(&others).is_empty(), "another tenant hears nothing of it");
    until("the outbox is empty", || async {
        (world.database.value::<i64>("select count(*) from events").await == 0).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn expiry_an_undelivered_text_and_the_end_of_a_long_session_are_told() {
    let world = Setup::default().group(&["--session-ttl", "1s", "--session-max", "1s"]).start().await;
    let heard = listen(&world, "session.expired.72").await;
    world.invite(&world.request()).await.sent();
    until_heard(&heard, &["session.expired.72"]).await;

    let ended = listen(&world, "session.ended.72").await;
    world.invite(&world.request()).await.sent();
    world
        .database
        .execute(
            "update sessions set status = 'joined', joined_at = now(), due_at = now() where status = 'sent'",
        )
        .await;
    until_heard(&ended, &["session.ended.72"]).await;
}

#[tokio::test]
async fn a_worker_that_dies_takes_no_event_along() {
    let mut world = World::start().await;
    let heard = listen(&world, "session.sent.72").await;
    // Nobody publishes while this holds the lock of whoever does.
    let mut held = sqlx::PgConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("select pg_advisory_lock(x'6576656e7473'::bigint)").execute(&mut held).await.unwrap();
    let mut worker = world.take_worker();
    let reply = world.invite(&world.request()).await.sent();
    worker.kill();
    assert!(keys(&heard).is_empty(), "it waits in the outbox");
    let mut another = world.start_worker().await;
    held.close().await.unwrap();
    until_heard(&heard, &["session.sent.72"]).await;
    assert_eq!(heard.lock().unwrap()[0].body["sessionId"], reply["sessionId"]);
    assert!(another.stop().success());
}

#[tokio::test]
async fn an_exchange_that_is_gone_costs_no_invite_and_no_event() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    until("the outbox is empty", || async {
        (world.database.value::<i64>("select count(*) from events").await == 0).then_some(())
    })
    .await;
    let exchange = world.broker.queue("events");
    world
        .broker
        .channel
        .exchange_delete(exchange.as_str().into(), lapin::options::ExchangeDeleteOptions::default())
        .await
        .unwrap();
    world.invite(&world.request()).await.sent();
    // It is declared again, and what could not be published is.
    until("the outbox is empty", || async {
        (world.database.value::<i64>("select count(*) from events").await == 0).then_some(())
    })
    .await;
    let heard = listen(&world, "session.sent.72").await;
    world.invite(&world.request()).await.sent();
    until_heard(&heard, &["session.sent.72"]).await;
}

#[tokio::test]
async fn an_event_that_is_published_again_has_the_same_id() {
    let world = World::start().await;
    let heard = listen(&world, "session.sent.72").await;
    // Confirmed by the broker, and not deleted: as when the database goes away in between.
    world
        .database
        .execute(
            "create function refuse() returns trigger language plpgsql as
                 $$ begin raise exception 'not now' using errcode = 'cannot_connect_now'; end $$;
             create trigger refuse before delete on events for each row execute function refuse()",
        )
        .await;
    world.invite(&world.request()).await.sent();
    until("it was published twice", || async { (keys(&heard).len() >= 2).then_some(()) }).await;
    world.database.execute("drop trigger refuse on events").await;
    until("the outbox is empty", || async {
        (world.database.value::<i64>("select count(*) from events").await == 0).then_some(())
    })
    .await;
    let heard = heard.lock().unwrap();
    let ids: BTreeSet<&str> = heard.iter().map(|event| event.message_id.as_str()).collect();
    assert_eq!(ids.len(), 1, "{heard:?}");
}

#[tokio::test]
async fn an_events_id_is_not_used_again_after_a_restore_nor_for_a_row_of_an_older_worker() {
    let world = World::start().await;
    let heard = listen(&world, "session.*.72").await;
    for count in 1..=2 {
        world.invite(&world.request()).await.sent();
        until("it is told", || async { (keys(&heard).len() == count).then_some(()) }).await;
        // A restore brings the sequence back to an earlier number.
        world.database.execute("alter table events alter column id restart with 1").await;
    }
    // As the release before writes it; its session is gone by now.
    world
        .database
        .execute(
            "insert into events (session_id, group_id, session_key, event)
             values (gen_random_uuid(), 72, '123456', 'expired')",
        )
        .await;
    until("it is told", || async { (keys(&heard).len() == 3).then_some(()) }).await;
    let heard = heard.lock().unwrap();
    let ids: BTreeSet<&str> = heard.iter().map(|event| event.message_id.as_str()).collect();
    assert_eq!(ids.len(), 3, "{heard:?}");
    assert!(ids.iter().all(|id| id.parse::<uuid::Uuid>().is_ok()), "{ids:?}");
    for event in heard.iter() {
        assert!(event.body["messageId"].is_null(), "the invites had none: {event:?}");
        assert_valid(&event.body);
    }
}
