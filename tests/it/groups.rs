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
