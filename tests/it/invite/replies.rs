//! The contract's section 7: where a reply goes, and its properties.

use crate::support::{
    DEADLINE, Message, SentReply, SessionStatus::Sent, Setup, World, connect_broker, until,
};
use futures::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::FieldTable,
};
use serde_json::json;

#[tokio::test]
async fn a_reply_is_persistent_json_with_its_type() {
    let world = Setup::default().one_try().start().await;
    let sent = world.call(Message::json(&world.request())).await;
    world.provider.next(&["throttle"]).await;
    let failed = world.call(Message::json(&world.request())).await;
    let rejected = world.call(Message::bytes("x")).await;
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
async fn a_reply_has_the_requests_correlation_id_or_else_its_message_id() {
    let world = World::start().await;
    world.broker.request(Message::json(&world.request()).id("only-an-id")).await;
    world.broker.reply("only-an-id").await.sent();
    world.broker.request(Message::json(&world.request()).id("an-id").correlation("a-correlation")).await;
    world.broker.reply("a-correlation").await.sent();
    world.broker.request(Message::bytes("malformed").id("of-nothing")).await;
    world.broker.reply("of-nothing").await.refused("rejected", "request_malformed", 400);
}

#[tokio::test]
async fn no_reply_goes_to_one_of_the_workers_own_queues() {
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
async fn replies_go_only_to_queues_of_reply_to_allow() {
    let world = Setup::default().set("REPLY_TO_ALLOW", "crm.*, web").start().await;
    world.publish(Message::json(&world.request()).reply_to(&world.broker.reply_queue)).await;
    world.broker.take("replies").await.sent();
    assert!(world.broker.replies_left().is_empty());
}

#[tokio::test]
async fn a_reply_whose_queue_does_not_exist_is_set_aside_with_the_reason() {
    let world = World::start().await;
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&missing)).await;
    let dead = world.broker.take("dead").await;
    dead.sent();
    assert_eq!(dead.correlation().as_deref(), Some("lost"));
    assert_eq!(dead.header("x-kind").as_deref(), Some("reply"));
    assert!(dead.header("x-reason").unwrap().contains(&missing), "{dead:?}");
    for header in ["x-attempts", "x-first-at", "x-last-at"] {
        assert!(dead.header(header).is_some(), "{header}");
    }
    assert_eq!(world.database.session().await.status, Sent);
}

#[tokio::test]
async fn rabbitmqs_direct_reply_to_works_and_a_requester_may_disconnect() {
    let world = World::start().await;
    let connection = connect_broker().await;
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
    let reply = tokio::time::timeout(DEADLINE, replies.next()).await.unwrap().unwrap().unwrap();
    SentReply::read(&serde_json::from_slice(&reply.data).unwrap());

    // Slow enough that the requester disconnects before the reply.
    world.provider.set(json!({"latency_ms": 500})).await;
    channel.basic_publish("".into(), requests.as_str().into(), options, &body, properties).await.unwrap();
    until("the second invite is in flight", || async {
        (world.database.sessions().await.len() == 2).then_some(())
    })
    .await;
    connection.close(200, "done".into()).await.unwrap();
    until("the outcome is in the table", || async {
        world.database.sessions().await.iter().all(|row| row.status == Sent).then_some(())
    })
    .await;
}
