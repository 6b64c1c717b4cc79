//! What becomes of a session, as the exchange of events tells it: at least once, and in its order.

use crate::support::{Gateway, Setup, World, at_home_quietly, receipt, send, until};
use futures::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use sqlx::Connection;
use std::sync::{Arc, Mutex};

/// Listens to what the key matches, from now on.
async fn listen(world: &World, key: &str) -> Arc<Mutex<Vec<(String, Value)>>> {
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
            let body: Value = serde_json::from_slice(&event.data).expect("an event is JSON");
            into.lock().expect("no reader panics").push((event.routing_key.to_string(), body));
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

fn keys(heard: &Arc<Mutex<Vec<(String, Value)>>>) -> Vec<String> {
    heard.lock().expect("no reader panics").iter().map(|(key, _)| key.clone()).collect()
}

async fn until_heard(heard: &Arc<Mutex<Vec<(String, Value)>>>, expected: &[&str]) {
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
    let heard = listen(&world, "session.*").await;
    let reply = send(gateway.invite(&world)).await.ok();
    let session = world.database.session().await;
    for status in ["sent", "delivered", "delivered"] {
        assert_eq!(receipt(&world, &gateway, &session, status).await.status, 204);
    }
    for _ in 0..2 {
        send(key_request(&gateway, &world, "join", &reply["sessionKey"])).await.ok();
    }
    send(key_request(&gateway, &world, "end", &reply["sessionKey"])).await.ok();
    until_heard(&heard, &["session.sent", "session.delivered", "session.joined", "session.ended"]).await;
    for (key, event) in heard.lock().unwrap().iter() {
        assert_eq!(
            (&event["sessionId"], &event["groupid"], &event["sessionKey"]),
            (&reply["sessionId"], &json!(72), &reply["sessionKey"])
        );
        assert_eq!(event["status"].as_str(), key.strip_prefix("session."));
        assert_valid(event);
        let at = event["at"].as_str().unwrap();
        assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
        assert_eq!(event.as_object().unwrap().len(), 5);
    }
    until("the outbox is empty", || async {
        (world.database.value::<i64>("select count(*) from events").await == 0).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn expiry_an_undelivered_text_and_the_end_of_a_long_session_are_told() {
    let world = Setup::default().group(&["--session-ttl", "1s", "--session-max", "1s"]).start().await;
    let heard = listen(&world, "session.expired").await;
    world.invite(&world.request()).await.sent();
    until_heard(&heard, &["session.expired"]).await;

    let ended = listen(&world, "session.ended").await;
    world.invite(&world.request()).await.sent();
    world
        .database
        .execute(
            "update sessions set status = 'joined', joined_at = now(), due_at = now() where status = 'sent'",
        )
        .await;
    until_heard(&ended, &["session.ended"]).await;
}

#[tokio::test]
async fn a_worker_that_dies_takes_no_event_along() {
    let mut world = World::start().await;
    let heard = listen(&world, "session.sent").await;
    // Nobody publishes while this holds the lock of whoever does.
    let mut held = sqlx::PgConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("select pg_advisory_lock(x'6576656e7473'::bigint)").execute(&mut held).await.unwrap();
    let mut worker = world.take_worker();
    let reply = world.invite(&world.request()).await.sent();
    worker.kill();
    assert!(keys(&heard).is_empty(), "it waits in the outbox");
    let mut another = world.start_worker().await;
    held.close().await.unwrap();
    until_heard(&heard, &["session.sent"]).await;
    assert_eq!(heard.lock().unwrap()[0].1["sessionId"], reply["sessionId"]);
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
    let heard = listen(&world, "session.sent").await;
    world.invite(&world.request()).await.sent();
    until_heard(&heard, &["session.sent"]).await;
}
