//! Bad messages among good ones: nobody else waits longer or is answered less.

use crate::support::{Message, Setup, World, until};
use serde_json::{Value, json};

#[tokio::test]
async fn bad_messages_among_good_ones_cost_nobody_an_answer() {
    let world = World::start().await;
    let mut asked = Vec::new();
    for n in 0..200 {
        let id = format!("m{n}");
        let message = match n % 5 {
            0 => Message::json(&world.request_with(json!({"smsPhone": format!("201-555-{n:04}")}))),
            1 => Message::bytes(vec![0xff; n]),
            2 => Message::bytes("[".repeat(60_000)),
            3 => Message::json(&json!({"authorization": "Bearer GKEY x", "groupid": n})),
            _ => Message::json(&world.request_with(json!({"smsPhone": "x".repeat(n)}))),
        };
        world.broker.request(message.correlation(&id)).await;
        asked.push(id);
    }
    for (n, id) in asked.iter().enumerate() {
        let reply = world.broker.reply(id).await;
        match n % 5 {
            0 => drop(reply.sent()),
            1 | 2 => drop(reply.refused("rejected", "request_malformed", 400)),
            3 => drop(reply.refused("rejected", "credential_malformed", 401)),
            _ => drop(reply.refused("rejected", "phone_invalid", 400)),
        }
    }
    assert!(world.broker.left().is_empty(), "one reply each");
    assert_eq!(world.provider.posts().await, 40);
}

#[tokio::test]
async fn invites_are_worked_side_by_side_up_to_the_providers_limit() {
    let world = Setup::default().set("SMS_CONCURRENCY", "20").start().await;
    world.provider.set(json!({"latency_ms": 500})).await;
    let begun = std::time::Instant::now();
    let invites = (0..40).map(|n| {
        let request = world.request_with(json!({"smsPhone": format!("201-555-{n:04}")}));
        let world = &world;
        async move { drop(world.invite(&request).await.sent()) }
    });
    futures::future::join_all(invites).await;
    let took = begun.elapsed().as_millis();
    assert!((1_000..5_000).contains(&took), "two rounds of half a second took {took} ms");
}

#[tokio::test]
async fn a_group_whose_provider_hangs_holds_no_malformed_request_up() {
    let world = Setup::default().set("SMS_TIMEOUT", "3s").never_looks().start().await;
    world.provider.next(&["hang", "hang", "hang"]).await;
    for n in 0..3 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("slow{n}"))).await;
    }
    until("they hang", || async { (world.provider.posts().await == 3).then_some(()) }).await;
    let begun = std::time::Instant::now();
    world.ask(Message::bytes("x")).await.refused("rejected", "request_malformed", 400);
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    for n in 0..3 {
        world.broker.reply(&format!("slow{n}")).await.refused("failed", "outcome_unknown", 504);
    }
}

#[tokio::test]
async fn replies_say_nothing_that_was_secret_in_the_request() {
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
    let reply = world.ask(Message::bytes(broken)).await;
    assert!(!String::from_utf8_lossy(&reply.bytes).contains("s3cr3t"), "{reply:?}");
    world.is_secret("s3cr3t");
}
