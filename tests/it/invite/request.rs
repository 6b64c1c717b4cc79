//! The contract's section 2: any bytes on the queue get one reply, with the right code.

use crate::support::{Message, SessionStatus::Rejected, World, gkey};
use serde_json::{Value, json};

fn padded(world: &World, bytes: usize) -> Vec<u8> {
    let mut body = world.request().to_string().into_bytes();
    body.resize(bytes, b' ');
    body
}

#[tokio::test]
async fn a_body_that_is_not_a_json_object_is_answered_as_malformed() {
    let world = World::start().await;
    let nested = format!("{{\"x\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let broken = format!("{{\"x\":{}", "[".repeat(60_000));
    let repeated = world.request().to_string().replacen('{', "{\"groupid\":72,", 1);
    let escaped = world.request().to_string().replacen('{', "{\"group\\u0069d\":72,", 1);
    let marked = format!("\u{feff}\u{feff}{}", world.request());
    for body in [
        b"".as_slice(),
        b"\xff\xfe{}",
        b"null",
        b"[]",
        b"\"text\"",
        b"{",
        b"{}{}",
        b"{\"a\":NaN}",
        broken.as_bytes(),
        repeated.as_bytes(),
        escaped.as_bytes(),
        marked.as_bytes(),
        b"{\"sessionParams\":{\"camera\":\"back\",\"camera\":\"back\"}}",
    ] {
        let reply = world.call(Message::bytes(body)).await;
        let error = reply.refused("rejected", "request_malformed", 400);
        assert!(!error.retryable, "{error:?}");
    }
    // A deep unknown field is valid JSON, and so is half of a surrogate pair. Here the credential is missing.
    for unknown in [nested.as_str(), r#"{"a\ud800":1}"#, r#"{"a":"\ud800"}"#] {
        world.call(Message::bytes(unknown)).await.refused("rejected", "credential_missing", 401);
    }
    assert!(world.database.sessions().await.is_empty(), "a sender that is not authenticated leaves no row");
}

#[tokio::test]
async fn a_body_may_have_64_kib_and_no_more() {
    let world = World::start().await;
    world.call(Message::bytes(padded(&world, 65_536))).await.sent();
    let larger = world.call(Message::bytes(padded(&world, 65_537))).await;
    larger.refused("rejected", "request_malformed", 413);
    let huge = world.call(Message::bytes(vec![b'['; 4 << 20])).await;
    huge.refused("rejected", "request_malformed", 413);
}

#[tokio::test]
async fn the_content_type_must_be_json_if_it_is_set() {
    let world = World::start().await;
    for good in ["application/json", "Application/JSON; charset=utf-8", ""] {
        world.call(Message::json(&world.request()).content_type(good)).await.sent();
    }
    for bad in ["text/plain", "application/xml", "json"] {
        let reply = world.call(Message::json(&world.request()).content_type(bad)).await;
        reply.refused("rejected", "request_malformed", 415);
    }
}

#[tokio::test]
async fn a_request_without_any_properties_is_answered_on_the_replies_queue() {
    let world = World::start().await;
    world.publish(Message::bytes("no JSON")).await;
    let reply = world.broker.take("replies").await;
    reply.refused("rejected", "request_malformed", 400);
    assert_eq!(reply.correlation(), None);
    world.publish(Message::json(&world.request())).await;
    world.broker.take("replies").await.sent();
}

#[tokio::test]
async fn a_missing_or_invalid_field_is_refused_by_its_name() {
    let world = World::start().await;
    let many: serde_json::Map<String, Value> =
        (0..400).map(|n| (format!("name{n}"), json!("0123456789"))).collect();
    let cases = [
        ("field_missing", "groupid", json!({"groupid": null})),
        ("field_missing", "sessiontype", json!({"sessiontype": null})),
        ("field_missing", "smsPhone", json!({"smsPhone": null})),
        ("field_invalid", "groupid", json!({"groupid": 0})),
        ("field_invalid", "groupid", json!({"groupid": -72})),
        ("field_invalid", "groupid", json!({"groupid": 72.5})),
        ("field_invalid", "groupid", json!({"groupid": "72 "})),
        ("field_invalid", "groupid", json!({"groupid": 9_007_199_254_740_992_u64})),
        ("field_invalid", "groupid", json!({"groupid": "7\u{0}2"})),
        ("field_invalid", "groupid", json!({"groupid": [72]})),
        ("field_invalid", "sessiontype", json!({"sessiontype": -1})),
        ("field_invalid", "sessiontype", json!({"sessiontype": 32_768})),
        ("field_invalid", "sessiontype", json!({"sessiontype": "1"})),
        ("field_invalid", "sessiontype", json!({"sessiontype": 1e300})),
        ("field_invalid", "smsPhone", json!({"smsPhone": "111\u{0}0000000"})),
        ("field_invalid", "smsPhone", json!({"smsPhone": {"a": 1}})),
        ("field_invalid", "smsPhone", json!({"smsPhone": 1.5})),
        ("field_invalid", "sessionParams", json!({"sessionParams": []})),
        ("field_invalid", "sessionParams", json!({"sessionParams": "back"})),
        ("field_invalid", "sessionParams", json!({"sessionParams": {"a\u{0}": 1}})),
        ("field_invalid", "sessionParams", json!({ "sessionParams": many })),
        ("field_invalid", "sessionParams.camera", json!({"sessionParams": {"camera": "side"}})),
        ("field_invalid", "sessionParams.camera", json!({"sessionParams": {"camera": 1}})),
        ("field_invalid", "sessionParams.resolution", json!({"sessionParams": {"resolution": "15x16"}})),
        ("field_invalid", "sessionParams.resolution", json!({"sessionParams": {"resolution": "7681x16"}})),
        ("field_invalid", "sessionParams.resolution", json!({"sessionParams": {"resolution": "352X288"}})),
        ("field_invalid", "sessionParams.note", json!({"sessionParams": {"note": {"deep": 1}}})),
        ("field_invalid", "sessionParams.note", json!({"sessionParams": {"note": "a\u{0}b"}})),
    ];
    for (code, field, change) in &cases {
        let error = world.invite(&world.request_with(change.clone())).await;
        let error = error.refused("rejected", code, 400);
        assert_eq!(error.field, *field, "{change}: {error:?}");
    }
    let rows = world.database.sessions().await;
    assert_eq!(rows.len(), cases.len(), "a rejected request of an authenticated sender leaves a row");
    assert!(rows.iter().all(|row| row.status == Rejected && row.session_key.is_none()));
    assert_eq!(world.provider.posts().await, 0);
}

#[tokio::test]
async fn values_that_serde_does_not_write_are_refused_by_their_field() {
    let world = World::start().await;
    let raw = |field: &str, value: &str| {
        let marked = world.request_with(json!({ field: "MARK" })).to_string();
        Message::bytes(marked.replace("\"MARK\"", value))
    };
    for (field, value) in [
        ("smsPhone", r#""111\ud8000000000""#),
        ("sessiontype", "99999999999999999999999999"),
        ("sessiontype", "1.5e0"),
        ("sessiontype", "1e-1"),
        ("sessiontype", "4e4"),
        ("sessiontype", "1e999999999999999999999"),
        ("groupid", "1e999"),
        ("groupid", "7.25e1"),
        ("smsPhone", "1e999999999"),
        ("sessionParams", r#"{"a\ud800": 1}"#),
    ] {
        let error = world.call(raw(field, value)).await.refused("rejected", "field_invalid", 400);
        assert_eq!(error.field, field, "{value}");
    }
    let lone = world.call(raw("sessionParams", r#"{"note": "\udc00"}"#)).await;
    assert_eq!(lone.refused("rejected", "field_invalid", 400).field, "sessionParams.note");
    for whole in ["1", "1.0", "1e0", "10E-1", "0.1e+1"] {
        world.call(raw("sessiontype", whole)).await.sent();
    }
    world.call(raw("groupid", "7.2e1")).await.sent();
    assert_eq!(world.call(raw("smsPhone", "1.110000000e9")).await.sent().sms_phone, "+11110000000");
    let far = world.call(raw("sessionParams", r#"{"note": 1e999}"#)).await;
    assert_eq!(far.refused("rejected", "field_invalid", 400).field, "sessionParams.note");
}

#[tokio::test]
async fn groupid_in_body_and_header_must_agree() {
    let world = World::start().await;
    for header in ["73", "x", "072x", ""] {
        let reply = world.call(Message::json(&world.request()).text_header("groupid", header)).await;
        assert_eq!(reply.refused("rejected", "field_invalid", 400).field, "groupid", "{header}");
    }
    let without = world.request_with(json!({"groupid": null}));
    for (body, words) in
        [(world.request(), "between the body and the header"), (without, "between two headers")]
    {
        let message = Message::json(&body).text_header("groupid", "72").text_header("GroupId", "73");
        let error = world.call(message).await.refused("rejected", "field_invalid", 400);
        assert!(error.field == "groupid" && error.message.contains(words), "{error:?}");
    }
}

#[tokio::test]
async fn a_message_id_may_have_255_bytes_and_no_control_characters() {
    let world = World::start().await;
    for bad in ["line\nbreak", "nul\0"] {
        let reply = world.call(Message::json(&world.request()).id(bad)).await;
        assert_eq!(reply.refused("rejected", "field_invalid", 400).field, "message_id");
    }
    world.call(Message::json(&world.request()).id(&"i".repeat(255))).await.sent();
}

#[tokio::test]
async fn checks_are_in_the_contracts_order() {
    let world = World::start().await;
    world.add_group(73, &[]);
    let stranger = gkey(72, "x", "no such key");
    // Everything is wrong. The credential is checked first, then the group, the fields, and the phone.
    let all = json!({"authorization": stranger, "groupid": 73, "sessiontype": -1, "smsPhone": "x"});
    let unknown = world.invite(&world.request_with(all)).await;
    unknown.refused("rejected", "credential_invalid", 401);
    let known = json!({"groupid": 73, "sessiontype": -1, "smsPhone": "x"});
    world.invite(&world.request_with(known)).await.refused("rejected", "group_mismatch", 403);
    let fields = json!({"sessiontype": -1, "smsPhone": "x"});
    world.invite(&world.request_with(fields)).await.refused("rejected", "field_invalid", 400);
    let phone = json!({"smsPhone": "x"});
    world.invite(&world.request_with(phone)).await.refused("rejected", "phone_invalid", 400);
    // One row for the fields, one for the phone.
    assert_eq!(world.database.sessions().await.len(), 2);
}
