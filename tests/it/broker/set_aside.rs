//! Invites that the worker cannot finish are set aside as dead letters, and their senders get a reply.

use crate::support::{Message, World, gkey_until, now, run};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use lapin::types::AMQPValue;
use serde_json::json;

/// Makes the database refuse one phone number.
const REFUSE_ONE: &str = "alter table sessions add constraint never_this_one check (phone <> '+12015550100')";

#[tokio::test]
async fn an_invite_that_the_database_refuses_is_set_aside_and_the_others_are_sent() {
    let world = World::start().await;
    world.database.execute(REFUSE_ONE).await;
    world.expect_error("it is set aside");
    let phones = ["201-555-0101", "201-555-0100", "201-555-0102", "201-555-0103"];
    let replies = futures::future::join_all(phones.map(|phone| {
        let request = world.request_with(json!({ "smsPhone": phone }));
        let world = &world;
        async move { world.call(Message::json(&request).id(phone)).await }
    }))
    .await;
    for (reply, phone) in replies.iter().zip(phones) {
        if phone == "201-555-0100" {
            reply.refused("failed", "internal_error", 500);
        } else {
            reply.sent();
        }
    }
    let dead = world.broker.take("dead").await;
    assert_eq!(dead.json()["smsPhone"], "201-555-0100", "the request can be replayed");
    assert_eq!(dead.header("x-kind").as_deref(), Some("request"));
    assert_eq!(dead.header("x-code").as_deref(), Some("internal_error"));
    let reason = dead.header("x-reason").unwrap();
    assert!(reason.contains("never_this_one") && !reason.contains("5550100"), "{reason}");
    for header in ["x-attempts", "x-first-at", "x-last-at"] {
        assert!(dead.header(header).is_some(), "{header}");
    }
    assert_eq!(world.provider.posts().await, 3);

    // After the repair, the same bytes and properties get another reply, which then counts.
    world.database.execute("alter table sessions drop constraint never_this_one").await;
    let id = dead.message_id().expect("a message_id");
    world.call(Message::bytes(dead.bytes.clone()).id(&id)).await.sent();
}

#[tokio::test]
async fn a_message_over_the_delivery_limit_is_set_aside_and_answered() {
    let mut world = World::start().await;
    world.stop_worker();
    world.expect_error("it is set aside");
    let message = Message::json(&world.request()).correlation("poison");
    world.broker.request(message).await;
    for _ in 0..=100 {
        world.broker.deliver_and_return("requests").await;
    }
    let mut next = world.start_worker().await;
    world.broker.reply("poison").await.refused("failed", "internal_error", 500);
    let dead = world.broker.take("dead").await;
    assert!(dead.header("x-reason").unwrap().contains("delivery_limit"), "{dead:?}");
    assert_eq!(world.provider.posts().await, 0);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_message_delivered_twenty_times_without_a_row_is_set_aside() {
    let mut world = World::start().await;
    world.stop_worker();
    world.expect_error("it is set aside");
    let message = Message::json(&world.request()).id("poison").correlation("poison");
    world.broker.request(message).await;
    for _ in 0..20 {
        world.broker.deliver_and_return("requests").await;
    }
    let mut next = world.start_worker().await;
    world.broker.reply("poison").await.refused("failed", "internal_error", 500);
    let dead = world.broker.take("dead").await;
    assert_eq!(dead.header("x-kind").as_deref(), Some("request"));
    assert!(dead.header("x-attempts").unwrap().parse::<u32>().unwrap() >= 20, "{dead:?}");
    assert_eq!(world.provider.posts().await, 0);
    assert!(world.database.sessions().await.is_empty());
    assert!(next.stop().success());
}

#[tokio::test]
async fn messages_delivered_often_are_processed_alone_and_answered() {
    let mut world = World::start().await;
    world.stop_worker();
    for n in 0..5 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("c{n}"))).await;
    }
    for _ in 0..15 {
        world.broker.deliver_and_return("requests").await;
    }
    let mut next = world.start_worker().await;
    for n in 0..5 {
        world.broker.reply(&format!("c{n}")).await.sent();
    }
    next.idle().await;
    assert_eq!(
        world.database.value::<i64>("select count(*) from suspects").await,
        0,
        "their counts are deleted"
    );
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_sender_whose_keys_cannot_be_opened_fails_and_is_not_rejected() {
    let world = World::start().await;
    world.expect_error("SECRETS_KEY");
    // A group that was added with another SECRETS_KEY, while the worker runs.
    let other = BASE64_STANDARD.encode([9_u8; 32]);
    run(&world.environment(&[("SECRETS_KEY", &other)]), &["groups", "add", "73", "--api-key", "another-key"])
        .ok();
    let authorization = gkey_until(73, "u", "another-key", now() + 600);
    let request = world.request_with(json!({ "groupid": 73, "authorization": authorization }));
    world.invite(&request).await.refused("failed", "internal_error", 500);
    let dead = world.broker.take("dead").await;
    assert!(dead.header("x-reason").unwrap().contains("SECRETS_KEY does not open all keys"), "{dead:?}");
    // Other groups are not affected.
    world.invite(&world.request()).await.sent();
}

#[tokio::test]
async fn a_request_with_a_cc_header_is_set_aside_once() {
    let world = World::start().await;
    world.database.execute(REFUSE_ONE).await;
    world.expect_error("it is set aside");
    let request = Message::json(&world.request_with(json!({ "smsPhone": "201-555-0100" })));
    // RabbitMQ also routes a message to the queues in its CC header. A dead letter must not keep that header.
    let requests = AMQPValue::LongString(world.broker.queue("requests").into());
    let carbon = AMQPValue::FieldArray(vec![requests].into());
    let reply = world.call(request.header("CC", carbon).id("copied")).await;
    reply.refused("failed", "internal_error", 500);
    let dead = world.broker.take("dead").await;
    assert!(!format!("{:?}", dead.properties.headers()).contains("CC"), "{dead:?}");
    world.broker.until_queues_are_empty().await;
}
