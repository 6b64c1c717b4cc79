//! Changes to groups, and how soon the workers apply them.

use crate::support::{
    Events, Message,
    SessionStatus::Rejected,
    Setup,
    TextState::{Unknown, Waiting},
    World, claims, gjwt, gkey, run, until,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use std::time::{Duration, Instant};

/// Waits until an invite is answered with this error code, or with `sent`.
async fn until_answered(world: &World, authorization: &str, wanted: &str) {
    until(&format!("invites are answered {wanted}"), || async {
        let reply = world.invite(&world.request_with(json!({ "authorization": authorization }))).await.json();
        let answer = reply["error"]["code"].as_str().or(reply["status"].as_str())?;
        (answer == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn invites_of_a_new_group_are_sent_at_once() {
    let world = World::start().await;
    for group in 100..103 {
        let key = format!("the key of {group}, a new one");
        world.add_group(group, &["--api-key".to_owned(), key.clone()]);
        let new = json!({"groupid": group, "authorization": gkey(group, "x", &key)});
        world.invite(&world.request_with(new)).await.sent();
    }
}

#[tokio::test]
async fn invites_of_a_disabled_group_are_refused_with_a_row_until_it_is_enabled() {
    let world = World::start().await;
    let key = world.credential();
    world.run(&["groups", "disable", "72"]).ok();
    until_answered(&world, &key, "group_disabled").await;
    let rows = world.database.sessions().await;
    assert_eq!(rows.last().unwrap().error_code(), Some("group_disabled"));
    world.run(&["groups", "enable", "72"]).ok();
    until_answered(&world, &key, "sent").await;
}

#[tokio::test]
async fn keys_are_rotated_without_a_gap() {
    let world = World::start().await;
    let (old, new) = (world.credential(), gkey(72, "12345", "the new key of this group"));
    world.run(&["groups", "rotate-key", "72", "--api-key", "the new key of this group"]).ok();
    until_answered(&world, &new, "sent").await;
    until_answered(&world, &old, "sent").await;
    world.run(&["groups", "rotate-key", "72", "--finish"]).ok();
    let shown = world.run(&["groups", "show", "72", "--json"]).json();
    let revoked = &shown["revokedApiKeys"];
    assert!(revoked[0]["revokedAt"].is_string() && revoked[1].is_null(), "{shown}");
    assert_ne!(shown["apiKeys"][0]["id"], revoked[0]["id"]);
    let printed = world.run(&["groups", "show", "72"]).ok();
    assert!(printed.contains("revoked 2") && !printed.contains(&world.api_key), "{printed}");
    until_answered(&world, &old, "credential_invalid").await;
    until_answered(&world, &new, "sent").await;
}

#[tokio::test]
async fn a_second_jwt_secret_is_used_beside_the_first() {
    let world = World::start().await;
    let secret = "another secret of this group, long enough";
    world.run(&["groups", "rotate-key", "72", "--jwt-secret", secret, "--jwt-kid", "second"]).ok();
    let claims = claims(72);
    until_answered(&world, &gjwt(&claims, secret), "sent").await;
    until_answered(&world, &gjwt(&claims, &world.jwt_secret), "sent").await;
    let issued = world.run(&["tokens", "issue", "gjwt", "--group", "72"]).ok();
    until_answered(&world, &format!("Bearer GJWT {}", issued.trim()), "sent").await;
}

#[tokio::test]
async fn a_key_in_use_and_an_existing_group_are_refused() {
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
async fn keys_are_stored_sealed_and_the_sealing_key_can_be_rotated() {
    let mut world = World::start().await;
    let plain = format!(
        "select count(*) from group_api_keys where position('{}'::bytea in sealed) > 0",
        world.api_key
    );
    assert_eq!(world.database.value::<i64>(&plain).await, 0);
    world.stop_worker();

    let old = world.secrets_key();
    let new = BASE64_STANDARD.encode([7_u8; 32]);
    let both = format!("{new},{old}");
    let mut worker = world.spawn(&[("SECRETS_KEY", &both)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    // Without the key that sealed them, the worker would refuse every sender. It does not start.
    let complaint = run(&world.environment(&[("SECRETS_KEY", &new)]), &["worker"]).fails(1);
    let line = complaint.lines().last().unwrap();
    assert!(line.starts_with("error: SECRETS_KEY opens none of the 2 sealed keys"), "{complaint}");
}

#[tokio::test]
async fn groups_show_counts_the_segments_of_an_example_text() {
    let world = Setup::default().group(&["--template", "Grüße… {key}"]).start().await;
    let shown = world.run(&["groups", "show", "72", "--json"]).json();
    assert_eq!(shown["example"]["segments"], 1, "{shown}");
    assert_eq!(shown["example"]["encoding"], "UCS-2", "{shown}");
    for bad in ["no key in it", "{unknown} {key}", "{key", ""] {
        let refused = world.run(&["groups", "set", "72", "--template", bad]);
        assert_ne!(refused.code, Some(0), "{bad}: {refused:?}");
    }
    world.call(Message::json(&world.request())).await.sent();
}

/// Publishes invites, with their numbers as message_id and correlation id.
async fn publish(world: &World, count: usize) {
    for n in 0..count {
        let request = world.request_to_number(n);
        let name = n.to_string();
        world.broker.request(Message::json(&request).id(&name).correlation(&name)).await;
    }
}

#[tokio::test]
async fn invites_that_wait_for_a_further_try_are_refused_once_their_group_is_disabled() {
    let world = World::start().await;
    world
        .provider
        .set(json!({"next": ["throttle", "throttle", "throttle", "throttle", "throttle"], "retry_after": 10}))
        .await;
    publish(&world, 5).await;
    world.database.until_texts_are(5, Waiting).await;
    world.run(&["groups", "disable", "72"]).ok();
    for n in 0..5 {
        world.broker.reply(&n.to_string()).await.refused("rejected", "group_disabled", 403);
    }
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (5, 0));
    let rows = world.database.sessions().await;
    for row in &rows {
        assert_eq!((row.status, row.error_code()), (Rejected, Some("group_disabled")), "{row:?}");
        assert_eq!((row.key_held, &row.session_key), (false, &None), "{row:?}");
    }
    // There is surely no text, so their message_ids are free.
    world.run(&["groups", "enable", "72"]).ok();
    until_answered(&world, &world.credential(), "sent").await;
    publish(&world, 5).await;
    for n in 0..5 {
        world.broker.reply(&n.to_string()).await.sent();
    }
}

#[tokio::test]
async fn a_text_that_may_have_been_sent_for_a_disabled_group_is_looked_for_and_never_sent_again() {
    let world = Setup::default().set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "5s").start().await;
    // The provider takes the first text, and its answer is lost. It does not take the second.
    world.provider.set(json!({"next": ["cut", "cut_before"], "list_lag_ms": 4_000})).await;
    world.broker.request(Message::json(&world.request()).id("taken").correlation("taken")).await;
    world.database.until_texts_are(1, Unknown).await;
    world.broker.request(Message::json(&world.request()).id("lost").correlation("lost")).await;
    world.database.until_texts_are(2, Unknown).await;
    world.run(&["groups", "disable", "72"]).ok();
    let (taken, lost) = (world.broker.reply("taken").await, world.broker.reply("lost").await);
    taken.sent();
    assert!(!lost.refused("failed", "outcome_unknown", 504).retryable);
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (2, 1));

    // A repeat is answered from its row. Everything else is refused, another content under the same message_id too.
    until_answered(&world, &world.credential(), "group_disabled").await;
    let posts = world.provider.posts().await;
    for (id, first) in [("taken", taken), ("lost", lost)] {
        assert_eq!(world.call(Message::json(&world.request()).id(id)).await.bytes, first.bytes, "{id}");
        let other = world.request_with(json!({"sessiontype": 7}));
        world.call(Message::json(&other).id(id)).await.refused("rejected", "group_disabled", 403);
    }
    world.call(Message::json(&world.request()).id("new")).await.refused("rejected", "group_disabled", 403);
    assert_eq!(world.provider.posts().await, posts);
}

#[tokio::test]
async fn a_repeat_for_a_disabled_group_refuses_the_first_that_waits() {
    let mut world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 30})).await;
    publish(&world, 1).await;
    let copy = world.broker.take("retry.30s").await;
    assert_eq!(copy.correlation().as_deref(), Some("0"));
    world.run(&["groups", "disable", "72"]).ok();
    until_answered(&world, &world.credential(), "group_disabled").await;
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
async fn invites_that_wait_for_their_first_turn_are_refused_once_their_group_is_disabled() {
    let world = Setup::default().set("SMS_PER_SECOND", "0.25").start().await;
    publish(&world, 5).await;
    world.provider.until_posts(1).await;
    world.run(&["groups", "disable", "72"]).ok();
    let mut refused = 0;
    for n in 0..5 {
        let reply = world.broker.reply(&n.to_string()).await;
        refused += usize::from(reply.json()["error"]["code"] == "group_disabled");
    }
    // Some turns may come before the worker has read the groups again: on a slow machine, most of the five.
    assert!(refused >= 1, "{refused}");
    assert_eq!(world.provider.texts().await.len(), 5 - refused);
}

/// The last use of each of the group's API keys and JWT secrets, by `groups show`.
fn last_uses(world: &World) -> [Vec<serde_json::Value>; 2] {
    let shown = world.run(&["groups", "show", "72", "--json"]).json();
    ["apiKeys", "jwtSecrets"].map(|kind| {
        let keys = shown[kind].as_array().expect("keys").iter();
        keys.map(|key| key["lastUsedAt"].clone()).collect()
    })
}

#[tokio::test]
async fn groups_show_has_when_each_key_was_last_used() {
    let world = World::start().await;
    world.run(&["groups", "rotate-key", "72", "--api-key", "the new key of this group"]).ok();
    assert_eq!(last_uses(&world), [vec![json!(null), json!(null)], vec![json!(null)]]);
    let version = "select version from settings_version";
    let before = world.database.value::<i64>(version).await;

    let with = |authorization: String| world.request_with(json!({ "authorization": authorization }));
    world.invite(&with(gkey(72, "12345", "a wrong key of this group"))).await.refused(
        "rejected",
        "credential_invalid",
        401,
    );
    world.invite(&with(gkey(72, "12345", "the new key of this group"))).await.sent();
    until("the new key's use is written", || async {
        let [api_keys, jwt_secrets] = last_uses(&world);
        (api_keys[0].is_null() && !api_keys[1].is_null() && jwt_secrets[0].is_null()).then_some(())
    })
    .await;
    assert!(world.run(&["groups", "show", "72"]).ok().contains("no use recorded"));
    assert_eq!(world.database.value::<i64>(version).await, before, "no worker reads the groups again");

    // The next uses are written a minute later, all in one statement; here by a worker that has just started.
    world.invite(&with(gjwt(&claims(72), &world.jwt_secret))).await.sent();
    let mut world = world;
    let _worker = world.replace_worker(&[]).await;
    world
        .invite(&world.request_with(json!({ "authorization": gjwt(&claims(72), &world.jwt_secret) })))
        .await
        .sent();
    until("the secret's use is written", || async {
        let [_, jwt_secrets] = last_uses(&world);
        (!jwt_secrets[0].is_null()).then_some(())
    })
    .await;
}

/// Runs `groups remove 72` with these arguments; returns its report.
fn remove(world: &World, args: &[&str]) -> serde_json::Value {
    world.run(&[&["groups", "remove", "72", "--rest", "3s", "--json"], args].concat()).json()
}

#[tokio::test]
async fn removing_a_group_counts_first_and_then_takes_all_that_belongs_to_it() {
    let world = Setup::default().group(&["--sms-from", "+15550001111"]).start().await;
    let other_key = "the key of another group".to_owned();
    world.add_group(73, &["--api-key".to_owned(), other_key.clone()]);
    let of_another = world.request_with(json!({"groupid": 73, "authorization": gkey(73, "x", &other_key)}));
    world.invite(&world.request()).await.sent();
    world.invite(&of_another).await.sent();
    world.run(&["addresses", "add", "joe.example", "--group", "72", "--user", "1"]).ok();
    world.run(&["optouts", "add", "201-555-0123", "--sender", "+15550001111"]).ok();
    let rows = "insert into sessions (id, group_id, status, requested_by, created_at, updated_at)
                select gen_random_uuid(), 72, 'expired', 'gkey:1', now() - interval '1 day', now() - interval '1 day'
                  from generate_series(1, 1200)";
    world.database.execute(rows).await;
    let events = Events::subscribe(&world, "session.ended.*").await;

    let counted = remove(&world, &[]);
    for (name, expected) in [
        ("sessions", 1_201),
        ("live", 1),
        ("inFlight", 0),
        ("apiKeys", 1),
        ("jwtSecrets", 1),
        ("addresses", 1),
    ] {
        assert_eq!(counted[name], expected, "{name}: {counted}");
    }
    assert_eq!((&counted["removed"], &counted["stays"]["optouts"]), (&json!(false), &json!(1)));
    let said = world.run(&["groups", "remove", "72"]).ok();
    assert!(said.contains("session-invite groups remove 72 --yes"), "{said}");
    world.invite(&world.request()).await.sent();

    let removed = remove(&world, &["--yes"]);
    assert_eq!((&removed["removed"], &removed["sessions"]), (&json!(true), &json!(1_202)));
    for table in ["sessions", "group_api_keys", "group_jwt_secrets", "addresses"] {
        let left = format!("select count(*) from {table} where group_id = 72");
        assert_eq!(world.database.value::<i64>(&left).await, 0, "{table}");
    }
    assert_eq!(world.database.value::<i64>("select count(*) from optouts").await, 1);
    events.until_keys_are(&["session.ended.72", "session.ended.72"]).await;
    world.invite(&world.request()).await.refused("rejected", "credential_invalid", 401);
    assert_eq!(world.database.value::<i64>("select count(*) from sessions").await, 1);
    world.invite(&of_another).await.sent();
    assert!(world.run(&["groups", "remove", "72"]).fails(1).contains("there is no group 72"));
}

#[tokio::test]
async fn removing_a_group_waits_until_its_invites_in_flight_have_an_outcome() {
    let world = Setup::default().short_waits().start().await;
    // One text surely did not go out, and waits for a further try. Another may have gone out, and is looked for.
    world.provider.set(json!({"next": ["throttle"], "retry_after": 7})).await;
    world.broker.request(Message::json(&world.request_to_number(1)).id("waits").correlation("waits")).await;
    world.database.until_texts_are(1, Waiting).await;
    world.provider.set(json!({"next": ["cut"], "list_lag_ms": 2_000})).await;
    world.broker.request(Message::json(&world.request_to_number(2)).id("taken").correlation("taken")).await;
    world.database.until_texts_are(1, Unknown).await;

    let removed = remove(&world, &["--yes"]);
    assert_eq!((&removed["inFlight"], &removed["removed"]), (&json!(2), &json!(true)));
    world.broker.reply("waits").await.refused("rejected", "group_disabled", 403);
    world.broker.reply("taken").await.sent();
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (2, 1));
    assert_eq!(world.database.value::<i64>("select count(*) from sessions").await, 0);
}

#[tokio::test]
async fn removing_a_paused_group_refuses_the_invites_that_wait() {
    let world = World::start().await;
    world.run(&["groups", "pause", "72"]).ok();
    until("the worker knows of the pause", || async {
        let (_, ready) = world.running().readiness().await;
        ready["problems"].to_string().contains("group 72 is paused").then_some(())
    })
    .await;
    world.broker.request(Message::json(&world.request()).id("waits").correlation("waits")).await;
    world.database.until_texts_are(1, Waiting).await;
    let removed = remove(&world, &["--yes"]);
    assert_eq!((&removed["inFlight"], &removed["removed"]), (&json!(1), &json!(true)));
    world.broker.reply("waits").await.refused("rejected", "group_disabled", 403);
    assert_eq!(world.provider.posts().await, 0);
    // The copy that waited for the end of the pause is still there. By default its row would be too.
    world.broker.purge("retry.120s").await;
}

#[tokio::test]
async fn a_session_stays_as_long_as_a_retry_copy_may_need_it() {
    let world = World::start().await;
    world.invite(&world.request()).await.sent();
    let begun = Instant::now();
    world.run(&["groups", "remove", "72", "--yes", "--rest", "9s"]).ok();
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(world.database.value::<i64>("select count(*) from sessions").await, 0);
}

#[tokio::test]
async fn a_removal_that_was_stopped_goes_on_and_one_without_a_worker_says_why_it_waits() {
    let mut world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 30})).await;
    world.broker.request(Message::json(&world.request()).id("waits").correlation("waits")).await;
    world.database.until_texts_are(1, Waiting).await;
    world.stop_worker();
    let complaint = world.run(&["groups", "remove", "72", "--yes", "--wait", "1s"]).fails(1);
    assert!(
        complaint.contains("is a worker running?") && complaint.contains("--yes` goes on"),
        "{complaint}"
    );
    assert_eq!(world.database.value::<i64>("select count(*) from sessions").await, 1);
    assert_eq!(world.run(&["groups", "show", "72", "--json"]).json()["enabled"], false);

    // It was killed after it had removed the group, and before the last sessions.
    world
        .database
        .execute(
            "update sessions set status = 'failed', updated_at = now() - interval '1 minute';
             delete from group_api_keys; delete from group_jwt_secrets; delete from groups",
        )
        .await;
    assert_eq!(remove(&world, &["--yes"])["sessions"], 1);
    assert_eq!(world.database.value::<i64>("select count(*) from sessions").await, 0);
    world.broker.purge("retry.30s").await;
}
