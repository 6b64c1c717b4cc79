//! The contract's section 8, promise 5: an invite that is too old is not texted.

use crate::support::{GROUP, Message, SessionStatus, Setup, World, gkey, now, until};
use serde_json::json;

#[tokio::test]
async fn an_invite_older_than_the_limit_is_not_texted() {
    let world = Setup::default().set("INVITE_MAX_AGE", "1m").start().await;
    for (timestamp, old) in [
        (now() - 30, false),
        (now() - 90, true),
        ((now() - 30) * 1_000, false),
        ((now() - 90) * 1_000, true),
        (now() + 9_000, false),
        ((now() + 9_000) * 1_000, false),
        (0, true),
        (u64::MAX, false),
    ] {
        let reply = world.call(Message::json(&world.request()).timestamp(timestamp)).await;
        if old {
            let error = reply.refused("failed", "invite_expired", 504);
            assert!(!error.retryable, "{error:?}");
        } else {
            reply.sent();
        }
    }
    let rows = world.database.sessions().await;
    let expired = rows.iter().filter(|row| row.error_code() == Some("invite_expired")).count();
    assert_eq!((rows.len(), expired), (8, 3), "a refusal for age leaves a row");
    assert_eq!(world.provider.posts().await, 5);
}

#[tokio::test]
async fn an_invites_own_expiration_counts_from_its_timestamp() {
    let world = World::start().await;
    let old = Message::json(&world.request()).timestamp(now() - 10).expiration("5000");
    world.call(old).await.refused("failed", "invite_expired", 504);
    let young = Message::json(&world.request()).timestamp(now() - 10).expiration("60000");
    world.call(young).await.sent();
    world.call(Message::json(&world.request()).expiration("60000")).await.sent();
}

#[tokio::test]
async fn a_repeat_is_never_too_old_as_the_message_id_is_checked_first() {
    let world = Setup::default().set("INVITE_MAX_AGE", "1m").start().await;
    let first = world.call(Message::json(&world.request()).id("a")).await;
    let late = world.call(Message::json(&world.request()).id("a").timestamp(now() - 900)).await;
    assert_eq!(late.bytes, first.bytes);
    let other = Message::json(&world.request_with(json!({"sessiontype": 9}))).id("a").timestamp(now() - 900);
    world.call(other).await.refused("rejected", "idempotency_conflict", 409);
}

#[tokio::test]
async fn a_timestamp_may_be_required() {
    let world = Setup::default().set("INVITE_REQUIRE_TIMESTAMP", "true").start().await;
    let reply = world.invite(&world.request()).await.json();
    assert_ne!(reply["status"], "sent", "{reply}");
    world.call(Message::json(&world.request()).timestamp(now())).await.sent();
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn an_invite_that_the_broker_expired_is_answered_once_its_credential_is_checked() {
    let mut world = World::start().await;
    world.stop_worker();
    let requests = [
        ("good", world.request()),
        ("stranger", world.request_with(json!({"authorization": gkey(GROUP, "x", "no such key")}))),
        ("shapeless", json!([])),
    ];
    for (correlation, request) in &requests {
        let message = Message::json(request).correlation(correlation).expiration("1");
        world.broker.request(message).await;
    }
    let dropped = world.broker.queue("dropped");
    until("the broker drops them", || async {
        (world.broker.depth(&dropped).await == Some(3)).then_some(())
    })
    .await;
    let mut next = world.start_worker().await;
    world.broker.reply("good").await.refused("failed", "invite_expired", 504);
    world.broker.reply("stranger").await.refused("rejected", "credential_invalid", 401);
    world.broker.reply("shapeless").await.refused("rejected", "request_malformed", 400);
    let row = world.database.session().await;
    assert_eq!((row.status, row.error_code()), (SessionStatus::Failed, Some("invite_expired")));
    assert_eq!(world.provider.posts().await, 0);
    assert!(next.stop().success());
}
