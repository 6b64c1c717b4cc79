//! Opt-outs: numbers that get no texts.

use crate::support::{Message, Setup, World, gkey, run};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

/// The provider's test number that has opted out.
const OPTED_OUT: &str = "+15005550004";

#[tokio::test]
async fn an_opt_out_that_the_provider_reports_is_stored_and_no_further_text_is_posted() {
    let world = World::start().await;
    let request = world.request_with(json!({"smsPhone": OPTED_OUT}));
    let first = world.invite(&request).await.refused("rejected", "opted_out", 403);
    assert_eq!(first.provider_code, Some(21610));
    for id in ["one", "two"] {
        let refused = world.call(Message::json(&request).id(id)).await.refused("rejected", "opted_out", 403);
        assert_eq!((refused.field.as_str(), refused.retryable), ("smsPhone", false));
    }
    assert_eq!(world.provider.posts().await, 1);
    let row: String = world.database.value("select o::text from optouts o").await;
    assert!(!row.contains("5005550004") && row.contains("+15005550006") && row.contains("provider"), "{row}");
    // The opt-out holds for its From number only.
    let options = ["--api-key", "the key of 73", "--sms-from", "+15550001111"].map(str::to_owned);
    world.add_group(73, &options);
    let of_73 = gkey(73, "x", "the key of 73");
    let other = json!({"groupid": 73, "authorization": of_73, "smsPhone": OPTED_OUT});
    world.invite(&world.request_with(other)).await.refused("rejected", "opted_out", 403);
    assert_eq!(world.provider.posts().await, 2);
}

#[tokio::test]
async fn opt_outs_of_operators_are_refused_without_a_request_to_the_provider() {
    let world = World::start().await;
    let invite = async |phone: &str| world.invite(&world.request_with(json!({ "smsPhone": phone }))).await;
    let first = Message::json(&world.request()).id("before");
    let stored = world.call(first.clone()).await;
    stored.sent();

    let added = world.run(&["optouts", "add", "(111)", "000-0000"]).ok();
    assert!(added.contains("…00") && added.contains("+15005550006") && !added.contains("0000000"), "{added}");
    assert!(world.run(&["optouts", "add", "111-000-0000"]).ok().contains("already"));
    world.run(&["optouts", "add", "+442079460958", "--sender", "*"]).ok();
    world.run(&["optouts", "add", "0151 23456789", "--region", "DE", "--sender", "+15550001111"]).ok();
    invite("111-000-0000").await.refused("rejected", "opted_out", 403);
    invite("+44 20 7946 0958").await.refused("rejected", "opted_out", 403);
    // The last opt-out is from another From number.
    invite("+4915123456789").await.sent();
    assert_eq!(world.provider.posts().await, 2);
    // The message_id is checked before the opt-outs.
    assert_eq!(world.call(first).await.bytes, stored.bytes);

    let listed = world.run(&["optouts", "list", "--json"]).json();
    let shown: Vec<_> = (0..3).map(|n| (&listed[n]["sender"], &listed[n]["lastDigits"])).collect();
    let expected = [("+15550001111", "89"), ("*", "58"), ("+15005550006", "00")];
    assert!(
        shown.iter().zip(expected).all(|(row, (sender, digits))| row.0 == sender && row.1 == digits),
        "{listed}"
    );
    assert!(listed[0]["source"] == "command" && listed[0]["createdAt"].is_string() && listed[3].is_null());
    let table = world.run(&["optouts", "list", "--sender", "*", "--limit", "5"]).ok();
    assert!(table.contains("…58") && table.lines().count() == 2, "{table}");

    world.run(&["optouts", "remove", "111-000-0000"]).ok();
    let absent = world.run(&["optouts", "remove", "111-000-0000"]).fails(1);
    assert!(absent.contains("not on the list") && !absent.contains("0000000"), "{absent}");
    invite("111-000-0000").await.sent();
    assert!(world.run(&["optouts", "add", "12"]).fails(2).contains("PHONE"));
}

#[tokio::test]
async fn a_file_is_imported_completely_or_not_at_all() {
    let world = World::start().await;
    let complaint = world.import_optouts("111-000-0000\nmistyped\n", &[]).fails(1);
    assert!(complaint.contains("line 2: "), "{complaint}");
    assert_eq!(world.database.value::<i64>("select count(*) from optouts").await, 0);
    world.invite(&world.request()).await.sent();

    let many: Vec<_> = (0..3_000).map(|n| format!("201555{n:04}")).collect();
    let file = format!("{}\n111-000-0000,*\n", many.join("\n"));
    let done = world.import_optouts(&file, &["--json"]).json();
    assert_eq!(done, json!({"read": 3_001, "added": 3_001}));
    world.invite(&world.request()).await.refused("rejected", "opted_out", 403);
    let other = world.request_with(json!({"smsPhone": "201-555-2999"}));
    world.invite(&other).await.refused("rejected", "opted_out", 403);
    assert!(world.run(&["optouts", "import", "/nowhere"]).fails(1).contains("/nowhere"));
}

#[tokio::test]
async fn numbers_are_hashed_with_a_sealed_key_that_secrets_reseal_rotates() {
    let mut world = World::start().await;
    world.run(&["optouts", "add", "111-000-0000"]).ok();
    world.stop_worker();
    let sealed = "select octet_length(sealed) from optout_key";
    // A version, a nonce, 44 characters of base64 and a tag.
    assert_eq!(world.database.value::<i32>(sealed).await, 1 + 24 + 44 + 16);
    let plain: bool = world
        .database
        .value("select phone_hash in (sha256('+11110000000'), sha256('11110000000')) from optouts")
        .await;
    assert!(!plain, "the hashes cannot be tried without the key");

    let old = world.secrets_key();
    let new = BASE64_STANDARD.encode([7_u8; 32]);
    let without = world.environment(&[("SECRETS_KEY", &new)]);
    let complaint = run(&without, &["optouts", "add", "111-000-0001"]).fails(1);
    assert!(complaint.contains("SECRETS_KEY does not open the key of the opt-outs"), "{complaint}");

    let both = format!("{new},{old}");
    let mut worker = world.spawn(&[("SECRETS_KEY", &both)]);
    worker.ready().await;
    world.invite(&world.request()).await.refused("rejected", "opted_out", 403);
    assert!(worker.stop().success());
    // Only `secrets reseal` seals it under the new key: another process may have the old key alone.
    run(&without, &["optouts", "add", "111-000-0001"]).fails(1);
    run(&world.environment(&[("SECRETS_KEY", &both)]), &["secrets", "reseal"]).ok();
    assert!(run(&without, &["optouts", "add", "111-000-0000"]).ok().contains("already"));
}

#[tokio::test]
async fn without_groups_too_a_secrets_key_that_does_not_open_the_opt_outs_ends_the_start() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.run(&["optouts", "add", "111-000-0000"]).ok();
    let new = BASE64_STANDARD.encode([7_u8; 32]);
    let complaint = run(&world.environment(&[("SECRETS_KEY", &new)]), &["worker"]).fails(1);
    assert!(complaint.contains("SECRETS_KEY does not open the key of the opt-outs"), "{complaint}");
}
