//! The request of the contract's section 1, from the queue to the reply.

use crate::support::{GROUP, Message, SessionStatus, World, claims, gjwt, gkey};
use serde_json::json;

#[tokio::test]
async fn the_contracts_example_becomes_a_session_a_text_and_a_reply() {
    let world = World::start().await;
    let reply = world.invite(&world.request()).await.sent();

    let key = reply.session_key.as_str();
    assert!(key.len() == 6 && key.bytes().all(|b| b.is_ascii_digit()), "{key}");
    assert_eq!((reply.groupid, reply.sms_phone.as_str()), (GROUP, "+11110000000"));

    let row = world.database.session().await;
    let token = row.token();
    assert_eq!(
        reply.invitation_text,
        format!("Join your session: http://127.0.0.1:8080/s/{token} (code {key})")
    );
    assert_eq!((row.id, row.group_id, row.status), (reply.session_id, GROUP, SessionStatus::Sent));
    assert_eq!((row.key(), row.sid()), (key, reply.provider_message_id.as_str()));
    assert_eq!(row.session_type, Some(1));
    assert_eq!(json!(row.session_params), json!({"camera": "back", "resolution": "352x288"}));
    assert_eq!(row.phone.as_deref(), Some("+11110000000"));
    assert_eq!(row.invitation_text.as_ref(), Some(&reply.invitation_text));
    assert_eq!((row.requested_by.as_str(), row.attempts, row.error_code()), ("gkey:12345", 1, None));
    assert!(row.sent_at.is_some() && row.ended_at.is_none() && row.joined_at.is_none());
    let ttl: f64 = world
        .database
        .value("select extract(epoch from expires_at - created_at)::float8 from sessions")
        .await;
    assert!((ttl - 600.0).abs() < 1.0, "{ttl}");

    let text = world.provider.text().await;
    assert_eq!((&text["to"], &text["from"]), (&json!("+11110000000"), &json!("+15005550006")));
    assert_eq!(
        (&text["body"], &text["sid"]),
        (&json!(reply.invitation_text), &json!(reply.provider_message_id))
    );
}

#[tokio::test]
async fn group_and_credential_may_be_in_headers_of_any_case() {
    let world = World::start().await;
    let bare = world.request_with(json!({"groupid": null, "authorization": null}));
    for (group, authorization) in [("groupid", "Authorization"), ("GroupID", "AUTHORIZATION")] {
        let message = Message::json(&bare)
            .text_header(group, &GROUP.to_string())
            .text_header(authorization, &world.credential());
        world.call(message).await.sent();
    }
    let number = lapin::types::AMQPValue::LongInt(72);
    let message = Message::json(&world.request_with(json!({"groupid": "72"}))).header("groupid", number);
    world.call(message).await.sent();
}

#[tokio::test]
async fn every_type_of_credential_is_accepted_in_body_and_header() {
    let world = World::start().await;
    world.run(&["addresses", "add", "Joe.Example", "--group", "72", "--user", "joe-at-home"]).ok();
    let issued = world.run(&["tokens", "issue", "gssnid", "--group", "72", "--user", "ann"]).ok();
    let website = issued.trim();
    world.is_secret(website);

    let key = gkey(GROUP, "joe-at-home", &world.api_key);
    let login_key = key.rsplit('&').next().unwrap();
    let token = gjwt(&claims(GROUP), &world.jwt_secret);
    for (authorization, requested_by) in [
        (key.clone(), "gkey:joe-at-home"),
        (format!("bearer  gkey  joe.EXAMPLE~{login_key}"), "gkey:joe-at-home"),
        (token, "gjwt:joe"),
        (format!("Bearer GSSNID {website}"), "gssnid:ann"),
    ] {
        let in_body = world.request_with(json!({ "authorization": authorization }));
        let body = world.invite(&in_body).await.sent();
        let bare = Message::json(&world.request_with(json!({"authorization": null})));
        let header = world.call(bare.text_header("authorization", &authorization)).await.sent();
        for reply in [body, header] {
            let row = world.database.session_with_id(reply.session_id).await;
            assert_eq!(row.requested_by, requested_by);
        }
    }
    let in_field = world.request_with(json!({"authorization": null, "gssnid": website}));
    world.invite(&in_field).await.sent();
    let bare = Message::json(&world.request_with(json!({"authorization": null})));
    world.call(bare.text_header("x-gssnid", website)).await.sent();
}

#[tokio::test]
async fn phone_numbers_are_read_in_any_format_and_stored_as_e164() {
    let world = World::start().await;
    for (written, stored) in [
        (json!("111-000-0000"), "+11110000000"),
        (json!("1110000000"), "+11110000000"),
        (json!(1_110_000_000_u64), "+11110000000"),
        (json!("+44 20 7946 0958"), "+442079460958"),
        (json!("tel:+1-201-555-0123"), "+12015550123"),
    ] {
        let reply = world.invite(&world.request_with(json!({ "smsPhone": written }))).await.sent();
        assert_eq!(reply.sms_phone, stored, "{written}");
    }
}

#[tokio::test]
async fn other_parameters_are_stored_and_nulls_are_dropped() {
    let world = World::start().await;
    let params = json!({"camera": "front", "note": "é\u{7}", "n": 1.5, "yes": true, "none": null});
    world.invite(&world.request_with(json!({"sessionParams": params, "unknown": {"deep": []}}))).await.sent();
    let stored = world.database.session().await.session_params;
    assert_eq!(json!(stored), json!({"camera": "front", "note": "é\u{7}", "n": 1.5, "yes": true}));
}
