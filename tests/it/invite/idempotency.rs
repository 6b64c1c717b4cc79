//! The contract's section 8, promise 2: one session and one outcome for one (group, `message_id`).

use crate::support::{
    GROUP, Message,
    SessionStatus::{Failed, Rejected, Sent},
    Setup, World, gkey, gkey_until, now, until,
};
use serde_json::json;

/// True once no row waits for its acknowledgement.
const ALL_ACKNOWLEDGED: &str = "select not exists (select from sessions where not acknowledged)";

#[tokio::test]
async fn a_repeat_gets_the_same_bytes_and_no_second_text() {
    let world = World::start().await;
    let message = Message::json(&world.request()).id("order-17");
    let first = world.call(message.clone()).await;
    first.sent();
    // Another credential, and the same phone and parameters in another form: the same content.
    let same = json!({
        "smsPhone": "+1 (111) 000-0000",
        "authorization": gkey(GROUP, "another", &world.api_key),
        "sessionParams": {"resolution": "352x288", "camera": "back", "none": null},
    });
    for repeat in [message, Message::json(&world.request_with(same)).id("order-17")] {
        assert_eq!(world.call(repeat).await.bytes, first.bytes);
    }
    world.database.session().await;
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn twenty_copies_at_once_make_one_text_and_equal_replies() {
    let mut world = World::start().await;
    world.provider.set(json!({"latency_ms": 300})).await;
    let mut second = world.start_worker().await;
    let message = Message::json(&world.request()).id("many");
    let copies = (0..20).map(|n| {
        let message = message.clone().correlation(&n.to_string());
        let world = &world;
        async move {
            world.broker.request(message).await;
            world.broker.reply(&n.to_string()).await
        }
    });
    let replies = futures::future::join_all(copies).await;
    replies[0].sent();
    assert!(replies.iter().all(|reply| reply.bytes == replies[0].bytes));
    assert_eq!(world.provider.posts().await, 1);
    world.database.session().await;
    assert!(second.stop().success() && world.worker().is_running());
}

#[tokio::test]
async fn another_content_under_a_used_message_id_is_a_conflict() {
    let world = World::start().await;
    world.call(Message::json(&world.request()).id("order-17")).await.sent();
    for other in [
        json!({"sessiontype": 2}),
        json!({"smsPhone": "111-000-0001"}),
        json!({"sessionParams": {"camera": "front"}}),
        json!({"sessionParams": null}),
    ] {
        let reply = world.call(Message::json(&world.request_with(other)).id("order-17")).await;
        reply.refused("rejected", "idempotency_conflict", 409);
    }
    // A repeat of the first still gets its reply.
    world.call(Message::json(&world.request()).id("order-17")).await.sent();
    let rows = world.database.sessions().await;
    let conflicts = rows.iter().filter(|row| row.error_code() == Some("idempotency_conflict")).count();
    assert_eq!((rows.len(), conflicts), (5, 4), "a conflict leaves a row");
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn each_group_has_its_own_message_ids() {
    let world = World::start().await;
    world.add_group(73, &["--api-key".to_owned(), "the key of seventy-three".to_owned()]);
    world.call(Message::json(&world.request()).id("order-17")).await.sent();
    let authorization = gkey(73, "x", "the key of seventy-three");
    let other = world.request_with(json!({"groupid": 73, "authorization": authorization, "sessiontype": 5}));
    world.call(Message::json(&other).id("order-17")).await.sent();
    assert_eq!(world.provider.posts().await, 2);
}

#[tokio::test]
async fn without_a_message_id_each_publish_is_an_invite_of_its_own() {
    let world = World::start().await;
    for id in [None, None, Some("")] {
        let message = Message::json(&world.request());
        world.call(id.map_or(message.clone(), |id| message.id(id))).await.sent();
    }
    assert_eq!(world.provider.posts().await, 3);
}

#[tokio::test]
async fn after_an_outcome_without_a_text_a_new_publish_is_a_new_invite() {
    let world = Setup::default().one_try().start().await;
    let message = Message::json(&world.request()).id("again");
    world.provider.next(&["throttle"]).await;
    world.call(message.clone()).await.refused("failed", "provider_unavailable", 503);
    let wrong = Message::json(&world.request_with(json!({"smsPhone": "x"}))).id("again");
    world.call(wrong).await.refused("rejected", "phone_invalid", 400);
    let sent = world.call(message.clone()).await;
    sent.sent();
    assert_eq!(world.call(message).await.bytes, sent.bytes);
    let statuses: Vec<_> = world.database.sessions().await.iter().map(|row| row.status).collect();
    assert_eq!(statuses, [Failed, Rejected, Sent], "each publish has a row of its own");
    assert_eq!(world.provider.texts().await.len(), 1);
}

#[tokio::test]
async fn an_unknown_outcome_keeps_its_message_id() {
    let world = Setup::default().short_waits().never_sends_again().start().await;
    let message = Message::json(&world.request()).id("perhaps");
    world.provider.next(&["cut_before"]).await;
    let first = world.call(message.clone()).await;
    first.refused("failed", "outcome_unknown", 504);
    assert_eq!(world.call(message).await.bytes, first.bytes);
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn a_worker_killed_while_it_sends_causes_no_second_text() {
    kill_while_sending(|message| message.id("killed")).await;
}

/// Kills a worker while the provider has the text, and asserts that another worker finishes the invite without a second one.
async fn kill_while_sending(with_id: impl Fn(Message) -> Message) {
    let mut world = Setup::default().short_waits().start().await;
    world.provider.next(&["hang"]).await;
    let message = with_id(Message::json(&world.request())).correlation("killed");
    world.broker.request(message).await;
    world.provider.until_posts(1).await;
    world.take_worker().kill();
    world.database.end_leases().await;

    let mut next = world.start_worker().await;
    world.broker.reply("killed").await.sent();
    assert_eq!(world.database.session().await.status, Sent);
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_redelivery_is_answered_from_its_row_although_its_credential_is_no_longer_valid() {
    let mut world = World::start().await;
    let expires_at = now() + 10;
    let request =
        world.request_with(json!({"authorization": gkey_until(GROUP, "u", &world.api_key, expires_at)}));
    let message = Message::json(&request).id("r").correlation("r");
    world.broker.request(message.clone()).await;
    let first = world.broker.reply("r").await;
    first.sent();

    world.stop_worker();
    world.broker.request_redelivered(message.clone()).await;
    world.run(&["groups", "rotate-key", "72", "--revoke-old"]).ok();
    world.run(&["groups", "disable", "72"]).ok();
    until("the credential has expired", || async { (now() > expires_at).then_some(()) }).await;
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("r").await.bytes, first.bytes);
    // The same bytes in a new publish are refused.
    world.broker.request(message).await;
    world.broker.reply("r").await.refused("rejected", "credential_invalid", 401);
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_redelivery_gets_the_refusal_that_a_new_publish_would_replace() {
    let mut world = Setup::default().one_try().start().await;
    world.provider.next(&["throttle"]).await;
    let message = Message::json(&world.request()).id("r").correlation("r");
    world.broker.request(message.clone()).await;
    let first = world.broker.reply("r").await;
    first.refused("failed", "provider_unavailable", 503);

    world.stop_worker();
    world.broker.request_redelivered(message).await;
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("r").await.bytes, first.bytes);
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn equal_requests_without_a_message_id_are_each_texted() {
    let world = World::start().await;
    let message = Message::json(&world.request()).correlation("counter-1");
    world.call(message.clone()).await.sent();
    world.call(message).await.sent();
    assert_eq!(world.provider.texts().await.len(), 2);
}

#[tokio::test]
async fn without_a_message_id_too_a_worker_killed_while_it_sends_causes_no_second_text() {
    kill_while_sending(|message| message).await;
}

#[tokio::test]
async fn without_a_message_id_an_equal_redelivery_is_a_new_invite_once_the_first_is_acknowledged() {
    let mut world = World::start().await;
    let message = Message::json(&world.request()).correlation("counter-1");
    world.broker.request(message.clone()).await;
    world.broker.reply("counter-1").await.sent();
    world.database.until_true("the acknowledgement is recorded", ALL_ACKNOWLEDGED).await;

    // Another publish of the same message, which the broker marks as redelivered.
    world.stop_worker();
    world.broker.request_redelivered(message).await;
    let mut next = world.start_worker().await;
    world.broker.reply("counter-1").await.sent();
    assert_eq!(world.provider.texts().await.len(), 2);
    assert!(next.stop().success());
}

#[tokio::test]
async fn without_a_message_id_a_redelivery_whose_acknowledgement_was_lost_is_answered_from_its_row() {
    let mut world = World::start().await;
    let message = Message::json(&world.request()).correlation("counter-1");
    world.broker.request(message.clone()).await;
    let first = world.broker.reply("counter-1").await;
    first.sent();
    world.stop_worker();
    // The state after a worker that died between its reply and its acknowledgement.
    world.database.execute("update sessions set acknowledged = false").await;
    world.broker.request_redelivered(message).await;
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("counter-1").await.bytes, first.bytes);
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn the_acknowledgement_of_a_refusal_without_a_message_id_is_recorded() {
    let world = World::start().await;
    let message = Message::json(&world.request()).id("a\nb").correlation("c");
    world.call(message).await.refused("rejected", "field_invalid", 400);
    let request = world.request_with(json!({"smsPhone": "x"}));
    world.call(Message::json(&request).correlation("d")).await.refused("rejected", "phone_invalid", 400);
    world.database.until_true("both acknowledgements are recorded", ALL_ACKNOWLEDGED).await;
}

#[tokio::test]
async fn a_redelivery_gets_its_own_outcome_although_its_message_id_has_a_newer_one() {
    let mut world = World::start().await;
    let wrong = Message::json(&world.request_with(json!({"smsPhone": "x"}))).id("a").correlation("wrong");
    world.broker.request(wrong.clone()).await;
    let first = world.broker.reply("wrong").await;
    first.refused("rejected", "phone_invalid", 400);
    let sent = Message::json(&world.request()).id("a");
    world.call(sent).await.sent();
    // A conflict also leaves a row that does not own the message_id.
    let other = Message::json(&world.request_with(json!({"sessiontype": 7}))).id("a").correlation("other");
    world.broker.request(other.clone()).await;
    let conflict = world.broker.reply("other").await;
    conflict.refused("rejected", "idempotency_conflict", 409);
    world.stop_worker();
    world.run(&["groups", "disable", "72"]).ok();
    // Each worker died after its reply.
    for (message, answered) in [(wrong, first), (other, conflict)] {
        world.broker.request_redelivered(message).await;
        let mut next = world.start_worker().await;
        let correlation = answered.correlation().unwrap();
        assert_eq!(world.broker.reply(&correlation).await.bytes, answered.bytes);
        assert!(next.stop().success());
    }
    assert_eq!(world.database.sessions().await.len(), 3, "no further row");
}
