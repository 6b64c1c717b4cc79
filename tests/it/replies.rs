//! The contract's section 7: where a reply goes, and what it looks like.

use crate::support::{Message, Setup, World};
use futures::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::FieldTable,
};
use serde_json::json;

#[tokio::test]
async fn a_reply_is_persistent_json_and_names_its_kind() {
    let world = Setup::default().one_try().start().await;
    let sent = world.ask(Message::json(&world.request())).await;
    world.provider.next(&["throttle"]).await;
    let failed = world.ask(Message::json(&world.request())).await;
    let rejected = world.ask(Message::bytes("x")).await;
    for (reply, kind) in [(sent, "invite.sent"), (failed, "invite.failed"), (rejected, "invite.rejected")] {
        let properties = &reply.properties;
        assert_eq!(properties.kind().as_ref().map(ToString::to_string).as_deref(), Some(kind));
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(
            properties.content_type().as_ref().map(ToString::to_string).as_deref(),
            Some("application/json")
        );
    }
}

#[tokio::test]
async fn a_reply_correlates_by_correlation_id_else_by_message_id() {
    let world = World::start().await;
    world.broker.request(Message::json(&world.request()).id("only-an-id")).await;
    world.broker.reply("only-an-id").await.sent();
    world.broker.request(Message::json(&world.request()).id("an-id").correlation("a-correlation")).await;
    world.broker.reply("a-correlation").await.sent();
    world.broker.request(Message::bytes("malformed").id("of-nothing")).await;
    world.broker.reply("of-nothing").await.refused("rejected", "request_malformed", 400);
}

#[tokio::test]
async fn no_reply_goes_to_a_queue_of_the_workers_own() {
    let world = World::start().await;
    for own in ["requests", "dropped", "dead", "unreadable", "retry.1s", "retry.120s"] {
        let queue = world.broker.queue(own);
        world.publish(Message::json(&world.request()).correlation(own).reply_to(&queue)).await;
        let reply = world.broker.take("replies").await;
        assert_eq!(reply.correlation().as_deref(), Some(own));
        reply.sent();
    }
    let replies = world.broker.queue("replies");
    world.publish(Message::json(&world.request()).reply_to(&replies)).await;
    world.broker.take("replies").await.sent();
}

#[tokio::test]
async fn replies_go_only_where_the_operator_allows_it() {
    let world = Setup::default().set("REPLY_TO_ALLOW", "crm.*, web").start().await;
    world.publish(Message::json(&world.request()).reply_to(&world.broker.reply_queue)).await;
    world.broker.take("replies").await.sent();
    assert!(world.broker.left().is_empty());
}

#[tokio::test]
async fn a_reply_whose_queue_is_gone_is_set_aside_with_the_reason() {
    let world = World::start().await;
    let gone = format!("{}.gone", world.broker.prefix);
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&gone)).await;
    let dead = world.broker.take("dead").await;
    dead.sent();
    assert_eq!(dead.correlation().as_deref(), Some("lost"));
    assert_eq!(dead.header("x-kind").as_deref(), Some("reply"));
    assert!(dead.header("x-reason").unwrap().contains(&gone), "{dead:?}");
    for header in ["x-attempts", "x-first-at", "x-last-at"] {
        assert!(dead.header(header).is_some(), "{header}");
    }
    assert_eq!(world.database.session().await["status"], "sent");
}

#[tokio::test]
async fn rabbitmqs_direct_reply_to_works_and_a_requester_that_left_troubles_nobody() {
    let world = World::start().await;
    let connection = crate::support::connect_broker().await;
    let channel = connection.create_channel().await.unwrap();
    let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let direct = "amq.rabbitmq.reply-to";
    let mut replies =
        channel.basic_consume(direct.into(), "".into(), automatic, FieldTable::default()).await.unwrap();
    let Message { body, properties } = Message::json(&world.request()).correlation("1").reply_to(direct);
    let requests = world.broker.queue("requests");
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), requests.as_str().into(), options, &body, properties.clone())
        .await
        .unwrap();
    let reply =
        tokio::time::timeout(crate::support::DEADLINE, replies.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&reply.data).unwrap()["status"], "sent");

    // Slow enough that the requester is gone before the answer is there.
    world.provider.set(json!({"latency_ms": 500})).await;
    channel.basic_publish("".into(), requests.as_str().into(), options, &body, properties).await.unwrap();
    crate::support::until("the second is in hand", || async {
        (world.database.sessions().await.len() == 2).then_some(())
    })
    .await;
    connection.close(200, "gone".into()).await.unwrap();
    crate::support::until("its outcome is in the table", || async {
        world.database.sessions().await.iter().all(|row| row["status"] == "sent").then_some(())
    })
    .await;
}
