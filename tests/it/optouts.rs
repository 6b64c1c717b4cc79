//! Visitors who want no texts stay in peace.

use crate::support::{Message, Setup, World, program, run};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use std::{io::Write, process::Stdio};

/// As the provider's test numbers go, this one has opted out.
const OPTED_OUT: &str = "+15005550004";

#[tokio::test]
async fn the_providers_word_is_kept_and_it_is_not_asked_again() {
    let world = World::start().await;
    let request = world.request_with(json!({"smsPhone": OPTED_OUT}));
    let first = world.invite(&request).await.refused("rejected", "opted_out", 403);
    assert_eq!(first["providerCode"], 21610);
    for id in ["one", "two"] {
        let refused = world.ask(Message::json(&request).id(id)).await.refused("rejected", "opted_out", 403);
        assert_eq!(refused["field"], "smsPhone");
        assert_eq!(refused["retryable"], false);
    }
    assert_eq!(world.provider.posts().await, 1);
    let row: String = world.database.value("select o::text from optouts o").await;
    assert!(!row.contains("5005550004") && row.contains("+15005550006") && row.contains("provider"), "{row}");
    // Another sender's texts may be wanted.
    let options = ["--api-key", "the key of 73", "--sms-from", "+15550001111"].map(str::to_owned);
    world.add_group(73, &options);
    let of_73 = crate::support::gkey(73, "x", "the key of 73");
    let other = json!({"groupid": 73, "authorization": of_73, "smsPhone": OPTED_OUT});
    world.invite(&world.request_with(other)).await.refused("rejected", "opted_out", 403);
    assert_eq!(world.provider.posts().await, 2);
}

#[tokio::test]
async fn operators_add_and_remove_numbers_and_the_provider_is_not_asked() {
    let world = World::start().await;
    let invite = async |phone: &str| world.invite(&world.request_with(json!({ "smsPhone": phone }))).await;
    let first = Message::json(&world.request()).id("before");
    let stored = world.ask(first.clone()).await;
    stored.sent();

    let said = world.run(&["optouts", "add", "(111)", "000-0000"]).ok();
    assert!(said.contains("…00") && said.contains("+15005550006") && !said.contains("0000000"), "{said}");
    assert!(world.run(&["optouts", "add", "111-000-0000"]).ok().contains("already"));
    world.run(&["optouts", "add", "+442079460958", "--sender", "*"]).ok();
    world.run(&["optouts", "add", "0151 23456789", "--region", "DE", "--sender", "+15550001111"]).ok();
    invite("111-000-0000").await.refused("rejected", "opted_out", 403);
    invite("+44 20 7946 0958").await.refused("rejected", "opted_out", 403);
    // Another sender's texts are not wanted there.
    invite("+4915123456789").await.sent();
    assert_eq!(world.provider.posts().await, 2);
    // The id comes before the list.
    assert_eq!(world.ask(first).await.bytes, stored.bytes);

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
    assert!(world.run(&["optouts", "add", "12"]).fails(1).contains("PHONE"));
}

#[tokio::test]
async fn a_file_is_imported_whole_or_not_at_all() {
    let world = World::start().await;
    let import = |text: &str, args: &[&str]| {
        let mut command = program(&world.environment(&[]));
        command.args(["optouts", "import", "-"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("standard input").write_all(text.as_bytes()).expect("it is read");
        child.wait_with_output().expect("it ends")
    };
    let wrong = import("111-000-0000\nmistyped\n", &[]);
    let complaint = String::from_utf8_lossy(&wrong.stderr);
    assert!(wrong.status.code() == Some(1) && complaint.contains("line 2: "), "{complaint}");
    assert_eq!(world.database.value::<i64>("select count(*) from optouts").await, 0);
    world.invite(&world.request()).await.sent();

    let many: Vec<_> = (0..3_000).map(|n| format!("201555{n:04}")).collect();
    let done = import(&format!("{}\n111-000-0000,*\n", many.join("\n")), &["--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(done, json!({"read": 3_001, "added": 3_001}));
    world.invite(&world.request()).await.refused("rejected", "opted_out", 403);
    let other = world.request_with(json!({"smsPhone": "201-555-2999"}));
    world.invite(&other).await.refused("rejected", "opted_out", 403);
    assert!(world.run(&["optouts", "import", "/nowhere"]).fails(1).contains("/nowhere"));
}

#[tokio::test]
async fn numbers_are_hashed_under_a_key_that_is_sealed_and_follows_a_rotation() {
    let mut world = World::start().await;
    world.run(&["optouts", "add", "111-000-0000"]).ok();
    assert!(world.take_worker().stop().success());
    let sealed = "select octet_length(sealed) from optout_key";
    // A version, a nonce, 44 characters of base64 and a tag.
    assert_eq!(world.database.value::<i32>(sealed).await, 1 + 24 + 44 + 16);
    let plain: bool = world
        .database
        .value("select phone_hash in (sha256('+11110000000'), sha256('11110000000')) from optouts")
        .await;
    assert!(!plain, "whoever has the table alone can try no numbers");

    let old = world.environment(&[]).into_iter().find(|(name, _)| name == "SECRETS_KEY").unwrap().1;
    let new = BASE64_STANDARD.encode([7_u8; 32]);
    let without = world.environment(&[("SECRETS_KEY", &new)]);
    let complaint = run(&without, &["optouts", "add", "111-000-0001"]).fails(1);
    assert!(complaint.contains("SECRETS_KEY does not open the key of the opt-outs"), "{complaint}");

    let both = format!("{new},{old}");
    let mut worker = world.spawn(&[("SECRETS_KEY", &both)]);
    worker.ready().await;
    world.invite(&world.request()).await.refused("rejected", "opted_out", 403);
    assert!(worker.stop().success());
    // Nothing is sealed anew until somebody says so: another process may have the old key alone.
    run(&without, &["optouts", "add", "111-000-0001"]).fails(1);
    run(&world.environment(&[("SECRETS_KEY", &both)]), &["secrets", "reseal"]).ok();
    assert!(run(&without, &["optouts", "add", "111-000-0000"]).ok().contains("already"));
}

#[tokio::test]
async fn a_group_without_keys_that_open_does_not_hide_that_the_list_does_not() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.run(&["optouts", "add", "111-000-0000"]).ok();
    let new = BASE64_STANDARD.encode([7_u8; 32]);
    let complaint = run(&world.environment(&[("SECRETS_KEY", &new)]), &["worker"]).fails(1);
    assert!(complaint.contains("SECRETS_KEY does not open the key of the opt-outs"), "{complaint}");
}
