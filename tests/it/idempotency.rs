//! The contract's section 8, promise 2: one session and one outcome for one (group, `message_id`).

use crate::support::{GROUP, Message, Setup, World, gkey_until, now, until};
use serde_json::json;

#[tokio::test]
async fn a_repeat_gets_the_same_bytes_and_no_second_text() {
    let world = World::start().await;
    let message = Message::json(&world.request()).id("order-17");
    let first = world.ask(message.clone()).await;
    first.sent();
    // Another credential and another form of the same phone and parameters: the same content.
    let same = json!({
        "smsPhone": "+1 (111) 000-0000",
        "authorization": crate::support::gkey(GROUP, "another", &world.api_key),
        "sessionParams": {"resolution": "352x288", "camera": "back", "none": null},
    });
    for repeat in [message, Message::json(&world.request_with(same)).id("order-17")] {
        assert_eq!(world.ask(repeat).await.bytes, first.bytes);
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
async fn another_content_under_an_id_in_use_is_a_conflict() {
    let world = World::start().await;
    world.ask(Message::json(&world.request()).id("order-17")).await.sent();
    for other in [
        json!({"sessiontype": 2}),
        json!({"smsPhone": "111-000-0001"}),
        json!({"sessionParams": {"camera": "front"}}),
        json!({"sessionParams": null}),
    ] {
        let reply = world.ask(Message::json(&world.request_with(other)).id("order-17")).await;
        reply.refused("rejected", "idempotency_conflict", 409);
    }
    // The first still stands, and other groups have their own ids.
    world.ask(Message::json(&world.request()).id("order-17")).await.sent();
    let rows = world.database.sessions().await;
    let conflicts = rows.iter().filter(|row| row["error_code"] == "idempotency_conflict").count();
    assert_eq!((rows.len(), conflicts), (5, 4), "a conflict leaves a row");
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn an_id_belongs_to_its_group() {
    let world = World::start().await;
    world.add_group(73, &["--api-key".to_owned(), "the key of seventy-three".to_owned()]);
    world.ask(Message::json(&world.request()).id("order-17")).await.sent();
    let authorization = crate::support::gkey(73, "x", "the key of seventy-three");
    let other = world.request_with(json!({"groupid": 73, "authorization": authorization, "sessiontype": 5}));
    world.ask(Message::json(&other).id("order-17")).await.sent();
    assert_eq!(world.provider.posts().await, 2);
}

#[tokio::test]
async fn without_an_id_each_publish_is_an_invite_of_its_own() {
    let world = World::start().await;
    for id in [None, None, Some("")] {
        let message = Message::json(&world.request());
        world.ask(id.map_or(message.clone(), |id| message.id(id))).await.sent();
    }
    assert_eq!(world.provider.posts().await, 3);
}

#[tokio::test]
async fn after_an_outcome_without_a_text_a_new_publish_begins_anew() {
    let world = Setup::default().one_try().start().await;
    let message = Message::json(&world.request()).id("again");
    world.provider.next(&["throttle"]).await;
    world.ask(message.clone()).await.refused("failed", "provider_unavailable", 503);
    let wrong = Message::json(&world.request_with(json!({"smsPhone": "x"}))).id("again");
    world.ask(wrong).await.refused("rejected", "phone_invalid", 400);
    let sent = world.ask(message.clone()).await;
    sent.sent();
    assert_eq!(world.ask(message).await.bytes, sent.bytes);
    let statuses: Vec<_> = world
        .database
        .sessions()
        .await
        .iter()
        .map(|row| row["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(statuses, ["failed", "rejected", "sent"], "each beginning has a row of its own");
    assert_eq!(world.provider.texts().await.len(), 1);
}

#[tokio::test]
async fn an_unknown_outcome_holds_the_id() {
    let world = Setup::default().never_looks().start().await;
    let message = Message::json(&world.request()).id("perhaps");
    world.provider.next(&["cut"]).await;
    let first = world.ask(message.clone()).await;
    first.refused("failed", "outcome_unknown", 504);
    assert_eq!(world.ask(message).await.bytes, first.bytes);
    assert_eq!(world.provider.posts().await, 1);
}

#[tokio::test]
async fn a_worker_killed_while_it_sends_leaves_no_second_text() {
    let mut world = Setup::default().hurried().start().await;
    world.provider.next(&["hang"]).await;
    let message = Message::json(&world.request()).id("killed").correlation("killed");
    world.broker.request(message).await;
    until("the provider has the text", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    world.take_worker().kill();
    world.database.leases_are_over().await;

    let mut next = world.start_worker().await;
    world.broker.reply("killed").await.sent();
    assert_eq!(world.database.session().await["status"], "sent");
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_redelivery_is_answered_from_its_row_whatever_became_of_its_credential() {
    let mut world = World::start().await;
    let request =
        world.request_with(json!({"authorization": gkey_until(GROUP, "u", &world.api_key, now() + 4)}));
    let message = Message::json(&request).id("r").correlation("r");
    world.broker.request(message.clone()).await;
    let first = world.broker.reply("r").await;
    first.sent();

    // Published again and taken by a client that dies with it: the broker marks it redelivered.
    assert!(world.take_worker().stop().success());
    world.broker.request(message.clone()).await;
    world.broker.deliver_and_die("requests").await;
    world.run(&["groups", "rotate-key", "72", "--revoke-old"]).ok();
    world.run(&["groups", "disable", "72"]).ok();
    tokio::time::sleep_until(tokio::time::Instant::now() + std::time::Duration::from_secs(4)).await;
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("r").await.bytes, first.bytes);
    // The same bytes in a new publish prove nothing.
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

    assert!(world.take_worker().stop().success());
    world.broker.request(message).await;
    world.broker.deliver_and_die("requests").await;
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("r").await.bytes, first.bytes);
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn equal_requests_without_an_id_are_texted_one_by_one() {
    let world = World::start().await;
    let message = Message::json(&world.request()).correlation("counter-1");
    world.ask(message.clone()).await.sent();
    world.ask(message).await.sent();
    assert_eq!(world.provider.texts().await.len(), 2);
}

#[tokio::test]
async fn a_worker_killed_while_it_sends_leaves_no_second_text_without_an_id_either() {
    let mut world = Setup::default().hurried().start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).correlation("killed")).await;
    until("the provider has the text", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    world.take_worker().kill();
    world.database.leases_are_over().await;

    let mut next = world.start_worker().await;
    world.broker.reply("killed").await.sent();
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_redelivery_without_an_id_is_a_request_of_its_own_once_the_first_is_surely_acknowledged() {
    let mut world = World::start().await;
    let message = Message::json(&world.request()).correlation("counter-1");
    world.broker.request(message.clone()).await;
    world.broker.reply("counter-1").await.sent();
    let sure = "select count(*) from sessions where not acknowledged";
    until("the acknowledgement is sure", || async {
        (world.database.value::<i64>(sure).await == 0).then_some(())
    })
    .await;

    // Another publish, equal in all, which the broker marks redelivered since its first consumer died.
    assert!(world.take_worker().stop().success());
    world.broker.request(message).await;
    world.broker.deliver_and_die("requests").await;
    let mut next = world.start_worker().await;
    world.broker.reply("counter-1").await.sent();
    assert_eq!(world.provider.texts().await.len(), 2);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_redelivery_without_an_id_whose_acknowledgement_was_lost_is_answered_from_its_row() {
    let mut world = World::start().await;
    let message = Message::json(&world.request()).correlation("counter-1");
    world.broker.request(message.clone()).await;
    let first = world.broker.reply("counter-1").await;
    first.sent();
    assert!(world.take_worker().stop().success());
    // As if the worker had died between its reply and its acknowledgement.
    world.database.execute("update sessions set acknowledged = false").await;
    world.broker.request(message).await;
    world.broker.deliver_and_die("requests").await;
    let mut next = world.start_worker().await;
    assert_eq!(world.broker.reply("counter-1").await.bytes, first.bytes);
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn a_row_without_an_id_waits_for_its_acknowledgement_and_no_longer() {
    let world = World::start().await;
    let message = Message::json(&world.request()).id("a\nb").correlation("c");
    world.ask(message).await.refused("rejected", "field_invalid", 400);
    let request = world.request_with(json!({"smsPhone": "x"}));
    world.ask(Message::json(&request).correlation("d")).await.refused("rejected", "phone_invalid", 400);
    let unsure = "select count(*) from sessions where not acknowledged";
    until("both are surely acknowledged", || async {
        (world.database.value::<i64>(unsure).await == 0).then_some(())
    })
    .await;
}
