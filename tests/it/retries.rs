//! The contract's section 6: what the provider surely did not take is tried again, by way of the retry queues.

use crate::support::{Message, Setup, Tunnel, World, now, until};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_throttled_text_is_tried_again_and_sent_once() {
    let world = World::start().await;
    world.provider.next(&["throttle", "throttle"]).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() > Duration::from_secs(5), "one second, then five: {:?}", begun.elapsed());
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (3, 1));
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["attempts"]), (&json!("sent"), &json!(3)));
}

#[tokio::test]
async fn a_copy_in_a_retry_queue_holds_a_ticket_and_no_credential() {
    let mut world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 5})).await;
    let message =
        Message::json(&world.request()).id("order-17").correlation("c").timestamp(now()).expiration("60000");
    world.broker.request(message).await;
    let copy = world.broker.take("retry.5s").await;
    let body = String::from_utf8(copy.bytes.clone()).unwrap();
    assert!(!body.contains("GKEY") && !body.contains("smsPhone"), "{body}");
    let headers = format!("{:?}", copy.properties.headers());
    assert!(!headers.to_lowercase().contains("authorization") && !headers.contains("GKEY"), "{headers}");
    assert_eq!(copy.properties.expiration(), &None);
    let row = world.database.session().await;
    assert_eq!(copy.header("x-session-id").as_deref(), row["id"].as_str());
    assert_eq!(copy.correlation().as_deref(), Some("c"));
    assert_eq!(copy.properties.message_id().as_ref().map(ToString::to_string).as_deref(), Some("order-17"));
    assert_eq!((&row["status"], &row["text_state"]), (&json!("sending"), &json!("waiting")));

    // A ticket that is not the row's opens nothing.
    let forged = Message::bytes("{}").text_header("x-session-id", row["id"].as_str().unwrap());
    let forged = forged.text_header("x-ticket", "00000000-0000-4000-8000-000000000000");
    world.ask(forged).await.refused("rejected", "credential_missing", 401);

    // The copy was taken away, but the invite's own id brings it on.
    world.database.execute("update sessions set lease_until = now()").await;
    world.ask(Message::json(&world.request()).id("order-17")).await.sent();
    assert_eq!(world.provider.texts().await.len(), 1);
    assert!(world.worker().is_running());
}

#[tokio::test]
async fn the_providers_retry_after_is_waited_for() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 3})).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_would_wait_for_nothing_is_told_at_once() {
    let world = Setup::default().group(&["--session-ttl", "1m"]).start().await;
    world.provider.set(json!({"throttle": 1.0, "retry_after": 600})).await;
    let error = world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    assert_eq!((&error["retryable"], &error["retryAfterSeconds"]), (&json!(true), &json!(600)));
    // The same for a request whose own time is short.
    world.provider.set(json!({"retry_after": 30})).await;
    let short = Message::json(&world.request()).timestamp(now()).expiration("20000");
    world.ask(short).await.refused("failed", "provider_unavailable", 503);
    assert_eq!(world.provider.posts().await, 2);
}

#[tokio::test]
async fn tries_are_counted_and_end() {
    let world = Setup::default().set("SMS_MAX_ATTEMPTS", "2").start().await;
    world.provider.set(json!({"throttle": 1.0})).await;
    let message = Message::json(&world.request()).id("x");
    world.ask(message.clone()).await.refused("failed", "provider_unavailable", 503);
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["attempts"]), (&json!("failed"), &json!(2)));
    assert_eq!((&row["key_held"], &row["session_key"]), (&json!(false), &json!(null)));
    // No text exists, so the id is free.
    world.provider.set(json!({"throttle": 0.0})).await;
    world.ask(message).await.sent();
}

#[tokio::test]
async fn a_provider_that_nobody_reaches_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let world = Setup::default().set("SMS_BASE_URL", &format!("http://127.0.0.1:{port}")).start().await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    until("it waits for its next try", || async {
        let rows = world.database.sessions().await;
        (rows.first()?["text_state"] == "waiting").then_some(())
    })
    .await;
    let _reached = Tunnel::open_on(port, &world.provider.url);
    world.broker.reply("x").await.sent();
}

#[tokio::test]
async fn a_refused_account_is_tried_again_and_told_to_the_operator() {
    let world = World::start().await;
    world.provider.set(json!({"error_code": 20003, "error_status": 401})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    let problem = || async {
        let ready = world.get("/readyz").await;
        assert_eq!(ready.status(), 200, "it consumes, and reaches the database");
        ready.text().await.unwrap().contains("refuses the operator's account (20003)").then_some(())
    };
    until("readiness tells it", problem).await;
    world.expect_error("the provider refuses the operator's account");
    world.provider.set(json!({"error_code": null})).await;
    world.broker.reply("x").await.sent();
    assert!(problem().await.is_none());
}

#[tokio::test]
async fn a_burst_of_failures_holds_nobody_up() {
    let world = Setup::default().set("SMS_CONCURRENCY", "4").set("PREFETCH", "20").start().await;
    world.provider.set(json!({"next": vec!["throttle"; 100], "retry_after": 30})).await;
    for n in 0..100 {
        let request = world.request_with(json!({"smsPhone": format!("201-555-{n:04}")}));
        world.broker.request(Message::json(&request).correlation(&format!("slow{n}"))).await;
    }
    until("all have failed", || async { (world.provider.posts().await == 100).then_some(()) }).await;
    let begun = Instant::now();
    world.invite(&world.request()).await.sent();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(world.broker.left().is_empty());
    // Their time is not waited for here.
    for queue in ["retry.30s", "retry.5s", "retry.1s"] {
        world.broker.purge(queue).await;
    }
}

#[tokio::test]
async fn a_repeat_that_comes_while_the_first_waits_gets_the_firsts_outcome() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 3})).await;
    let message = Message::json(&world.request()).id("x");
    world.broker.request(message.clone().correlation("first")).await;
    until("the first waits", || async {
        let rows = world.database.sessions().await;
        (rows.first()?["text_state"] == "waiting").then_some(())
    })
    .await;
    world.broker.request(message.correlation("second")).await;
    let (first, second) = (world.broker.reply("first").await, world.broker.reply("second").await);
    first.sent();
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(world.provider.texts().await.len(), 1);
    let other = world.request_with(json!({"sessiontype": 7}));
    world.ask(Message::json(&other).id("x")).await.refused("rejected", "idempotency_conflict", 409);
}

#[tokio::test]
async fn an_accepted_credential_may_expire_while_its_invite_waits() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 3})).await;
    let authorization = crate::support::gkey_until(72, "u", &world.api_key, now() + 2);
    let request = world.request_with(json!({"authorization": authorization}));
    world.broker.request(Message::json(&request).id("x").correlation("x")).await;
    until("it waits", || async {
        let rows = world.database.sessions().await;
        (rows.first()?["text_state"] == "waiting").then_some(())
    })
    .await;
    world.run(&["groups", "rotate-key", "72", "--revoke-old"]).ok();
    world.broker.reply("x").await.sent();
}

#[tokio::test]
async fn a_direct_reply_comes_after_the_retries_as_well() {
    let world = World::start().await;
    world.provider.next(&["throttle"]).await;
    let reply = world.run(&["send", "--group", "72", "--phone", "111-000-0000", "--json"]).json();
    assert_eq!(reply["status"], "sent", "{reply}");
}

#[tokio::test]
async fn an_invite_is_not_texted_after_its_own_expiration_however_long_it_waited_here() {
    let world = Setup::default().set("SMS_CONCURRENCY", "1").set("SMS_TIMEOUT", "5s").start().await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).correlation("slow")).await;
    until("it has the only place", || async { (world.provider.posts().await == 1).then_some(()) }).await;
    // Without a timestamp its own time counts from when it came.
    let short = world.ask(Message::json(&world.request()).expiration("2000")).await;
    short.refused("failed", "invite_expired", 504);
    assert_eq!(world.provider.posts().await, 1);
    world.broker.reply("slow").await.sent();
}
