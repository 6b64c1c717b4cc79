//! Bad messages among good ones do not delay the others, nor keep them from their answers.

use crate::support::{Message, Setup, World};
use serde_json::{Value, json};

#[tokio::test]
async fn every_message_is_answered_once_although_most_are_bad() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for n in 0..200 {
        let id = format!("m{n}");
        let message = match n % 5 {
            0 => Message::json(&world.request_to_number(n)),
            1 => Message::bytes(vec![0xff; n]),
            2 => Message::bytes("[".repeat(60_000)),
            3 => Message::json(&json!({"authorization": "Bearer GKEY x", "groupid": n})),
            _ => Message::json(&world.request_with(json!({"smsPhone": "x".repeat(n)}))),
        };
        world.broker.request(message.correlation(&id)).await;
        ids.push(id);
    }
    for (n, id) in ids.iter().enumerate() {
        let reply = world.broker.reply(id).await;
        match n % 5 {
            0 => drop(reply.sent()),
            1 | 2 => drop(reply.refused("rejected", "request_malformed", 400)),
            3 => drop(reply.refused("rejected", "credential_malformed", 401)),
            _ => drop(reply.refused("rejected", "phone_invalid", 400)),
        }
    }
    assert!(world.broker.replies_left().is_empty(), "one reply each");
    assert_eq!(world.provider.posts().await, 40);
}

#[tokio::test]
async fn invites_are_processed_concurrently_up_to_sms_concurrency() {
    let world = Setup::default().set("SMS_CONCURRENCY", "20").start().await;
    world.provider.set(json!({"latency_ms": 500})).await;
    let begun = std::time::Instant::now();
    let invites = (0..40).map(|n| {
        let (world, request) = (&world, world.request_to_number(n));
        async move { world.invite(&request).await.sent() }
    });
    futures::future::join_all(invites).await;
    let took = begun.elapsed().as_millis();
    assert!((1_000..15_000).contains(&took), "two rounds of half a second, and not 40: {took} ms");
}

#[tokio::test]
async fn texts_that_hang_at_the_provider_delay_no_other_request() {
    let world = Setup::default().set("SMS_TIMEOUT", "10s").start().await;
    world.provider.next(&["hang", "hang", "hang"]).await;
    for n in 0..3 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("slow{n}"))).await;
    }
    world.provider.until_posts(3).await;
    world.call(Message::bytes("x")).await.refused("rejected", "request_malformed", 400);
    world.invite(&world.request()).await.sent();
    assert!(world.broker.replies_left().is_empty(), "the slow ones are not answered yet");
    for n in 0..3 {
        world.broker.reply(&format!("slow{n}")).await.sent();
    }
}

#[tokio::test]
async fn replies_never_contain_a_secret_of_the_request() {
    let world = World::start().await;
    let secret = "s3cr3t-s3cr3t-s3cr3t-s3cr3t";
    for request in [
        json!({"authorization": format!("Bearer GKEY {secret}")}),
        json!({"authorization": secret}),
        json!({"gssnid": secret, "authorization": Value::Null}),
    ] {
        let reply = world.invite(&world.request_with(request)).await;
        assert!(!String::from_utf8_lossy(&reply.bytes).contains("s3cr3t"), "{reply:?}");
    }
    let broken = format!("{{\"authorization\": \"{secret}\", {secret}");
    let reply = world.call(Message::bytes(broken)).await;
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("s3cr3t"), "{reply:?}");
    world.is_secret("s3cr3t");
}
