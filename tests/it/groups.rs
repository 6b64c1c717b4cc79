//! What operators change, and how soon the workers notice.

use crate::support::{Message, Setup, World, gjwt, gkey, run, until};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

/// Waits until an invite is answered so: its error's code, or `sent`.
async fn answered(world: &World, authorization: &str, wanted: &str) {
    until(&format!("invites are answered {wanted}"), || async {
        let reply = world.invite(&world.request_with(json!({ "authorization": authorization }))).await.json();
        let answer = reply["error"]["code"].as_str().or(reply["status"].as_str())?;
        (answer == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_group_is_known_at_once() {
    let world = World::start().await;
    for group in 100..103 {
        let key = format!("the key of {group}, a new one");
        world.add_group(group, &["--api-key".to_owned(), key.clone()]);
        let new = json!({"groupid": group, "authorization": gkey(group, "x", &key)});
        world.invite(&world.request_with(new)).await.sent();
    }
}

#[tokio::test]
async fn a_disabled_group_is_told_so_and_leaves_rows_until_it_is_enabled() {
    let world = World::start().await;
    let key = world.credential();
    world.run(&["groups", "disable", "72"]).ok();
    answered(&world, &key, "group_disabled").await;
    let rows = world.database.sessions().await;
    assert_eq!(rows.last().unwrap()["error_code"], "group_disabled");
    world.run(&["groups", "enable", "72"]).ok();
    answered(&world, &key, "sent").await;
}

#[tokio::test]
async fn keys_are_rotated_without_a_gap() {
    let world = World::start().await;
    let (old, new) = (world.credential(), gkey(72, "12345", "the new key of this group"));
    world.run(&["groups", "rotate-key", "72", "--api-key", "the new key of this group"]).ok();
    answered(&world, &new, "sent").await;
    answered(&world, &old, "sent").await;
    world.run(&["groups", "rotate-key", "72", "--finish"]).ok();
    answered(&world, &old, "credential_invalid").await;
    answered(&world, &new, "sent").await;
}

#[tokio::test]
async fn a_kid_picks_its_jwt_secret_and_none_else() {
    let world = World::start().await;
    let secret = "another secret of this group, long enough";
    world.run(&["groups", "rotate-key", "72", "--jwt-secret", secret, "--jwt-kid", "second"]).ok();
    let claims = crate::support::claims(72);
    answered(&world, &gjwt(&claims, secret), "sent").await;
    answered(&world, &gjwt(&claims, &world.jwt_secret), "sent").await;
    let issued = world.run(&["tokens", "issue", "gjwt", "--group", "72"]).ok();
    answered(&world, &format!("Bearer GJWT {}", issued.trim()), "sent").await;
}

#[tokio::test]
async fn a_key_in_use_and_a_group_that_is_there_are_refused() {
    let world = World::start().await;
    let twice = world.run(&["groups", "add", "73", "--api-key", &world.api_key]).fails(1);
    assert!(!twice.contains(&world.api_key), "{twice}");
    assert!(world.run(&["groups", "add", "72"]).fails(1).contains("72"));
    for absent in [vec!["show", "99"], vec!["disable", "99"], vec!["rotate-key", "99"]] {
        let args: Vec<_> = ["groups"].into_iter().chain(absent).collect();
        assert!(world.run(&args).fails(1).contains("99"));
    }
}

#[tokio::test]
async fn keys_at_rest_are_sealed_and_the_sealing_key_can_be_rotated() {
    let mut world = World::start().await;
    let plain = format!(
        "select count(*) from group_api_keys where position('{}'::bytea in sealed) > 0",
        world.api_key
    );
    assert_eq!(world.database.value::<i64>(&plain).await, 0);
    assert!(world.take_worker().stop().success());

    let old = world.environment(&[]).into_iter().find(|(name, _)| name == "SECRETS_KEY").unwrap().1;
    let new = BASE64_STANDARD.encode([7_u8; 32]);
    let both = format!("{new},{old}");
    let mut worker = world.spawn(&[("SECRETS_KEY", &both)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    // Without the key that sealed them every sender would be refused: the worker does not start.
    let complaint = run(&world.environment(&[("SECRETS_KEY", &new)]), &["worker"]).fails(1);
    assert!(complaint.contains("SECRETS_KEY opens none of the 2 sealed keys"), "{complaint}");
}

#[tokio::test]
async fn a_group_counts_its_texts_segments_before_it_sends_any() {
    let world = Setup::default().group(&["--template", "Grüße… {key}"]).start().await;
    let shown = world.run(&["groups", "show", "72", "--json"]).json();
    assert_eq!(shown["example"]["segments"], 1, "{shown}");
    assert_eq!(shown["example"]["encoding"], "UCS-2", "{shown}");
    for bad in ["no key in it", "{unknown} {key}", "{key", ""] {
        let refused = world.run(&["groups", "set", "72", "--template", bad]);
        assert_ne!(refused.code, Some(0), "{bad}: {refused:?}");
    }
    world.ask(Message::json(&world.request())).await.sent();
}

/// So many invites, each under the id of its number.
async fn publish(world: &World, count: usize) {
    for n in 0..count {
        let request = world.request_with(json!({"smsPhone": format!("201-555-{n:04}")}));
        let name = n.to_string();
        world.broker.request(Message::json(&request).id(&name).correlation(&name)).await;
    }
}

async fn until_all_are(world: &World, count: usize, text_state: &str) {
    until(&format!("{count} texts are {text_state}"), || async {
        let rows = world.database.sessions().await;
        (rows.iter().filter(|row| row["text_state"] == text_state).count() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_further_try_is_refused_once_its_group_is_switched_off() {
    let world = World::start().await;
    world
        .provider
        .set(json!({"next": ["throttle", "throttle", "throttle", "throttle", "throttle"], "retry_after": 3}))
        .await;
    publish(&world, 5).await;
    until_all_are(&world, 5, "waiting").await;
    world.run(&["groups", "disable", "72"]).ok();
    for n in 0..5 {
        world.broker.reply(&n.to_string()).await.refused("rejected", "group_disabled", 403);
    }
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (5, 0));
    let rows = world.database.sessions().await;
    for row in &rows {
        assert_eq!(
            (&row["status"], &row["error_code"]),
            (&json!("rejected"), &json!("group_disabled")),
            "{row}"
        );
        assert_eq!((&row["key_held"], &row["session_key"]), (&json!(false), &json!(null)), "{row}");
    }
    // Surely no text: their ids are free.
    world.run(&["groups", "enable", "72"]).ok();
    answered(&world, &world.credential(), "sent").await;
    publish(&world, 5).await;
    for n in 0..5 {
        world.broker.reply(&n.to_string()).await.sent();
    }
}

#[tokio::test]
async fn what_may_have_gone_out_for_a_group_that_is_off_is_looked_for_and_never_sent_again() {
    let world = Setup::default().set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "5s").start().await;
    // The first is taken and its answer lost, the second is not taken.
    world.provider.set(json!({"next": ["cut", "cut_before"], "list_lag_ms": 4_000})).await;
    world.broker.request(Message::json(&world.request()).id("taken").correlation("taken")).await;
    until_all_are(&world, 1, "unknown").await;
    world.broker.request(Message::json(&world.request()).id("lost").correlation("lost")).await;
    until_all_are(&world, 2, "unknown").await;
    world.run(&["groups", "disable", "72"]).ok();
    let (taken, lost) = (world.broker.reply("taken").await, world.broker.reply("lost").await);
    taken.sent();
    assert_eq!(lost.refused("failed", "outcome_unknown", 504)["retryable"], false);
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (2, 1));

    // A repeat is answered from its row; anything else is refused, also another content of the same id.
    answered(&world, &world.credential(), "group_disabled").await;
    let posts = world.provider.posts().await;
    for (id, first) in [("taken", taken), ("lost", lost)] {
        assert_eq!(world.ask(Message::json(&world.request()).id(id)).await.bytes, first.bytes, "{id}");
        let other = world.request_with(json!({"sessiontype": 7}));
        world.ask(Message::json(&other).id(id)).await.refused("rejected", "group_disabled", 403);
    }
    world.ask(Message::json(&world.request()).id("new")).await.refused("rejected", "group_disabled", 403);
    assert_eq!(world.provider.posts().await, posts);
}

#[tokio::test]
async fn a_repeat_that_comes_while_the_first_waits_falls_under_the_rule_of_a_group_that_is_off() {
    let mut world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 30})).await;
    publish(&world, 1).await;
    let copy = world.broker.take("retry.30s").await;
    assert_eq!(copy.correlation().as_deref(), Some("0"));
    world.run(&["groups", "disable", "72"]).ok();
    answered(&world, &world.credential(), "group_disabled").await;
    let posts = world.provider.posts().await;
    world.database.execute("update sessions set lease_until = now() where text_state = 'waiting'").await;
    publish(&world, 1).await;
    world.broker.reply("0").await.refused("rejected", "group_disabled", 403);
    let first =
        "select status || ' ' || error_code from sessions where text_state = 'refused' and message_id = '0'";
    assert_eq!(world.database.value::<String>(first).await, "rejected group_disabled");
    assert_eq!(world.provider.posts().await, posts);
    assert!(world.worker().is_running());
}

#[tokio::test]
async fn what_waits_for_its_first_turn_is_refused_too_once_its_group_is_switched_off() {
    let world = Setup::default().set("SMS_PER_SECOND", "0.25").start().await;
    publish(&world, 5).await;
    until("the first has its turn", || async { (world.provider.posts().await >= 1).then_some(()) }).await;
    world.run(&["groups", "disable", "72"]).ok();
    let mut refused = 0;
    for n in 0..5 {
        let reply = world.broker.reply(&n.to_string()).await;
        refused += usize::from(reply.json()["error"]["code"] == "group_disabled");
    }
    // A turn may have come before the worker has read the groups again.
    assert!(refused >= 3, "{refused}");
    assert_eq!(world.provider.texts().await.len(), 5 - refused);
}
