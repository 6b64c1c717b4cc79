//! The contract's sections 3 and 4 through the queue. The unit tests beside the code have all cases.

use crate::support::{GROUP, Message, Setup, World, claims, gjwt, gkey, gkey_until, now, until};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

#[tokio::test]
async fn a_missing_credential_and_two_different_ones_have_their_own_codes() {
    let world = World::start().await;
    for missing in
        [json!({"authorization": null}), json!({"authorization": ""}), json!({"authorization": "  "})]
    {
        let reply = world.invite(&world.request_with(missing)).await;
        reply.refused("rejected", "credential_missing", 401);
    }
    let mut null = world.request();
    null["authorization"] = Value::Null;
    world.invite(&null).await.refused("rejected", "credential_missing", 401);

    let other = gkey(GROUP, "another", &world.api_key);
    let differ = Message::json(&world.request()).text_header("authorization", &other);
    world.call(differ).await.refused("rejected", "credential_ambiguous", 401);
    let (request, raw) = (world.request(), "joe.1.0123456789abcdef");
    let gssnid = Message::json(&request).text_header("X-GSSNID", raw);
    world.call(gssnid).await.refused("rejected", "credential_ambiguous", 401);

    let same = request["authorization"].as_str().unwrap().replacen("Bearer GKEY", "BEARER  gkey", 1);
    world.call(Message::json(&request).text_header("AUTHORIZATION", &same)).await.sent();
    assert_eq!(world.database.sessions().await.len(), 1, "a sender that is not authenticated leaves no row");
}

#[tokio::test]
async fn a_credential_of_the_wrong_shape_is_malformed() {
    let world = World::start().await;
    let good = world.credential();
    let none = BASE64.encode(r#"{"alg":"none"}"#);
    for bad in [
        json!("GKEY 72&12345&x"),
        json!("Basic dTpw"),
        json!("Bearer OTHER x"),
        json!(good.replace("$1$", "$2$")),
        json!(format!("{good}=")),
        json!(good.replace("72&", "072&")),
        json!(format!("Bearer GJWT {none}.{none}.")),
        json!("Bearer GSSNID joe.1.short"),
        json!(good.replace("12345", "1\u{0}2")),
        json!(12345),
        json!({"a": 1}),
    ] {
        let reply = world.invite(&world.request_with(json!({ "authorization": bad }))).await;
        reply.refused("rejected", "credential_malformed", 401);
    }
}

#[tokio::test]
async fn a_wrong_credential_is_invalid_and_an_old_one_is_expired() {
    let world = World::start().await;
    let (key, secret) = (world.api_key.clone(), world.jwt_secret.clone());
    let with = |change: Value| {
        let mut all = claims(GROUP);
        for (name, value) in change.as_object().unwrap() {
            all[name] = value.clone();
        }
        gjwt(&all, &secret)
    };
    for (authorization, code) in [
        (gkey(GROUP, "12345", "another key"), "credential_invalid"),
        (gkey(999, "12345", &key), "credential_invalid"),
        (gkey_until(GROUP, "12345", &key, now() + 86_500), "credential_invalid"),
        (gkey_until(GROUP, "12345", &key, now() - 5), "credential_expired"),
        (gkey_until(GROUP, "12345", "another key", now() - 5), "credential_invalid"),
        (gjwt(&claims(GROUP), "another secret"), "credential_invalid"),
        (with(json!({"nbf": now() + 300})), "credential_invalid"),
        (with(json!({"exp": now() + 7_300})), "credential_invalid"),
        (with(json!({"exp": now() - 60})), "credential_expired"),
        ("Bearer GSSNID joe.1.0123456789abcdef".to_owned(), "credential_invalid"),
    ] {
        let reply = world.invite(&world.request_with(json!({ "authorization": authorization }))).await;
        reply.refused("rejected", code, 401);
    }
}

#[tokio::test]
async fn a_website_session_is_valid_until_it_expires_or_is_revoked() {
    let world = World::start().await;
    let issued = world.run(&["tokens", "issue", "gssnid", "--group", "72", "--user", "ann"]).ok();
    let request = world.request_with(json!({"authorization": null, "gssnid": issued.trim()}));
    world.invite(&request).await.sent();
    world.database.execute("update website_sessions set expires_at = now() - interval '1 s'").await;
    world.invite(&request).await.refused("rejected", "credential_expired", 401);
    world.database.execute("update website_sessions set revoked_at = now()").await;
    world.invite(&request).await.refused("rejected", "credential_invalid", 401);
}

#[tokio::test]
async fn a_credential_is_valid_for_its_own_group_only() {
    let world = World::start().await;
    world.add_group(73, &[]);
    let reply = world.invite(&world.request_with(json!({"groupid": 73}))).await;
    reply.refused("rejected", "group_mismatch", 403);
    assert!(world.database.sessions().await.is_empty(), "a mismatch leaves no row");
}

#[tokio::test]
async fn a_phone_has_to_be_able_to_take_texts_and_be_in_an_allowed_country() {
    let world = Setup::default().group(&["--countries", "US,CA"]).start().await;
    for bad in
        ["555-CALL-NOW", "110", "+1 201 555 0123 ext. 7", "tel:+12015550123;ext=7", "", "12", "+999123456789"]
    {
        let reply = world.invite(&world.request_with(json!({ "smsPhone": bad }))).await;
        assert_eq!(reply.refused("rejected", "phone_invalid", 400).field, "smsPhone", "{bad}");
    }
    let abroad = world.invite(&world.request_with(json!({"smsPhone": "+44 20 7946 0958"}))).await;
    abroad.refused("rejected", "phone_not_allowed", 403);
    world.run(&["groups", "set", "72", "--phone-check", "valid"]).ok();
    until("the worker has read the change", || async {
        let reply = world.invite(&world.request()).await.json();
        (reply["error"]["code"] == "phone_invalid").then_some(())
    })
    .await;
}
