//! The contract's section 9: the queues, and the one for messages that cannot be decoded.

use crate::support::{Message, Setup, World, broker_server, publish_undecodable, until};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Declares a queue as the contract defines it. The broker refuses if the worker declared it with other arguments.
async fn declare(world: &World, suffix: &str, arguments: &[(&str, AMQPValue)]) {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let queue = world.broker.queue(suffix);
    let declared = world.broker.channel.queue_declare(queue.as_str().into(), durable, table).await;
    declared.unwrap_or_else(|error| panic!("{suffix}: {error}"));
}

#[tokio::test]
async fn the_queues_have_the_contracts_arguments() {
    let world = World::start().await;
    let to = |suffix: &str| {
        vec![
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&world.broker.queue(suffix))),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ]
    };
    let limited = |mut arguments: Vec<(&'static str, AMQPValue)>| {
        arguments.push(("x-delivery-limit", AMQPValue::LongInt(100)));
        arguments
    };
    declare(&world, "requests", &limited(to("dropped"))).await;
    declare(&world, "dropped", &limited(to("unreadable"))).await;
    for suffix in ["replies", "dead", "unreadable"] {
        declare(&world, suffix, &[]).await;
    }
    for (suffix, delay) in
        [("retry.1s", 1_000), ("retry.5s", 5_000), ("retry.30s", 30_000), ("retry.120s", 120_000)]
    {
        let mut arguments = to("requests");
        arguments.push(("x-message-ttl", AMQPValue::LongInt(delay)));
        declare(&world, suffix, &arguments).await;
    }
}

#[tokio::test]
async fn a_message_whose_properties_cannot_be_decoded_affects_no_other() {
    let world = World::start().await;
    let requests = world.broker.queue("requests");
    for n in 0..5 {
        if n == 2 {
            publish_undecodable(&broker_server(), &requests);
        }
        let id = n.to_string();
        world.broker.request(Message::json(&world.request()).id(&id).correlation(&id)).await;
    }
    for n in 0..5 {
        world.broker.reply(&n.to_string()).await.sent();
    }
    let unreadable = world.broker.queue("unreadable");
    until("it is in the queue of unreadable messages", || async {
        (world.broker.depth(&unreadable).await == Some(1)).then_some(())
    })
    .await;
    assert_eq!(world.provider.posts().await, 5);
    world.broker.purge("unreadable").await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again() {
    let mut world = World::start().await;
    let requests = world.broker.queue("requests");
    world.broker.delete("requests").await;
    until("the queue exists again", || async { world.broker.depth(&requests).await }).await;
    world.worker().ready().await;
    world.invite(&world.request()).await.sent();
}

#[tokio::test]
async fn topology_can_be_declared_and_deleted_without_a_worker() {
    let world = Setup::default().without_worker().await;
    world.run(&["topology", "declare"]).ok();
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, Some(0));
    world.run(&["topology", "delete"]).ok();
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, None);
}
