//! The provider's signed webhooks: receipts in any order, repeated, and before the worker's own record; and STOP.

use crate::support::{
    Gateway, INBOUND, Message,
    SessionStatus::{Delivered, Sending, Sent, Undelivered, Unknown},
    Setup, TextState, World, free_address, http_invite, receipt, send, status_path, text_from, until_within,
    webhook, webhook_signed, with_gateway, with_gateway_and_callbacks, with_gateway_under_path,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The number of the documented request.
const VISITOR: &str = "+11110000000";

#[tokio::test]
async fn the_providers_receipt_makes_a_session_delivered() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    let reply = send(gateway.invite(&world)).await.sent();
    let row = world.database.until_status(Delivered).await;
    assert!(row.delivered_at.is_some());
    // A repeat still gets the same reply.
    let key = row.message_id.unwrap();
    assert_eq!(send(gateway.invite(&world).header("Idempotency-Key", key)).await.sent(), reply);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_undelivered_text_has_the_providers_code() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    world.provider.set(json!({"deliver": "undelivered"})).await;
    world.invite(&world.request()).await.sent();
    let row = world.database.until_status(Undelivered).await;
    assert!(row.undelivered_at.is_some());
    assert_eq!(row.error_code(), Some("30003"));
    let listed = world.run(&["sessions", "list"]).ok();
    assert!(listed.contains("undelivered") && listed.contains("30003"), "{listed}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn receipts_lead_to_one_status_in_any_order_and_however_often_they_come() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    for (order, status) in [
        (vec!["sent", "delivered", "delivered", "sent"], Delivered),
        (vec!["delivered", "sent", "queued"], Delivered),
        (vec!["undelivered", "undelivered", "sent"], Undelivered),
        (vec!["undelivered", "delivered"], Delivered),
        (vec!["delivered", "undelivered"], Delivered),
        (vec!["sending", "failed"], Undelivered),
        (vec!["a status of the future"], Sent),
    ] {
        let reply = world.invite(&world.request()).await.sent();
        let session = world.database.session_with_id(reply.session_id).await;
        for receipt_status in &order {
            let answer = receipt(&world, &gateway, &session, receipt_status).await;
            assert_eq!(answer.status, 204, "{receipt_status}");
        }
        let after = world.database.session_with_id(reply.session_id).await;
        assert_eq!(after.status, status, "{order:?}");
        assert_eq!(after.delivered_at.is_some(), status == Delivered, "{order:?}");
        assert_eq!(after.error_code(), (status == Undelivered).then_some("30003"), "{order:?}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_receipt_settles_an_unknown_outcome_and_the_reply_does_not_change() {
    let setup = Setup::default().never_sends_again().short_waits();
    let (world, mut gateway) = with_gateway(setup).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["cut"]).await;
    let message = Message::json(&world.request()).id("lost");
    let reply = world.call(message).await;
    reply.refused("failed", "outcome_unknown", 504);
    let session = world.database.session().await;
    assert_eq!(session.status, Unknown);
    let sid = world.provider.text().await["sid"].as_str().unwrap().to_owned();
    let form = [("MessageSid", sid.as_str()), ("MessageStatus", "delivered")];
    assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
    let after = world.database.session().await;
    assert_eq!((after.status, after.sid()), (Delivered, sid.as_str()));
    // A repeat still gets the first answer.
    let again = world.call(Message::json(&world.request()).id("lost")).await;
    assert_eq!(again.bytes, reply.bytes);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_receipt_before_the_workers_record_ends_its_looks() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["cut"]).await;
    let correlation = "early";
    world.broker.request(Message::json(&world.request()).id("early").correlation(correlation)).await;
    let session = world.database.until_texts_are(1, TextState::Unknown).await.remove(0);
    assert_eq!(session.status, Sending);
    let sid = world.provider.text().await["sid"].as_str().unwrap().to_owned();
    let form = [("MessageSid", sid.as_str()), ("MessageStatus", "sent")];
    assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
    let reply = world.broker.reply(correlation).await.sent();
    assert_eq!(reply.provider_message_id, sid);
    assert_eq!(world.provider.posts().await, 1);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn only_the_providers_signature_is_accepted() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let form = [("MessageSid", session.sid()), ("MessageStatus", "delivered")];
    let path = status_path(&session);
    for signature in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        webhook_signed(&gateway, &path, &form, signature).await.problem(403, "signature_invalid");
    }
    // A signature for another URL, and one by another token.
    let token = world.provider.auth_token.clone().into();
    for (url, token) in [
        (format!("http://{}{INBOUND}", gateway.address), &token),
        (format!("http://127.0.0.1:1{path}"), &token),
        (format!("http://{}{path}", gateway.address), &"other".into()),
    ] {
        let signature = sms_provider::signature::sign(token, &url, &form);
        webhook_signed(&gateway, &path, &form, &signature).await.problem(403, "signature_invalid");
    }
    let unsigned = gateway.request("POST", &path).header("Content-Type", "application/x-www-form-urlencoded");
    send(unsigned.body("MessageSid=x")).await.problem(403, "signature_invalid");
    send(gateway.request("POST", &path).body("{}")).await.problem(415, "request_malformed");
    assert_eq!(world.database.session().await.status, Sent);

    // Signed, but without valid fields or a known session.
    webhook(&world, &gateway, &path, &[("MessageStatus", "delivered")]).await.problem(400, "field_missing");
    webhook(&world, &gateway, &path, &[("MessageSid", "a b"), ("MessageStatus", "delivered")])
        .await
        .problem(400, "field_invalid");
    let unknown = format!("/webhooks/twilio/status/{}", uuid::Uuid::new_v4());
    webhook(&world, &gateway, &unknown, &form).await.problem(404, "session_not_found");
    webhook(&world, &gateway, "/webhooks/twilio/status/x", &form).await.problem(404, "session_not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_receipt_of_a_second_text_is_logged_as_an_error() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let form = [("MessageSid", "SM00000000000000000000000000000bad"), ("MessageStatus", "delivered")];
    assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
    world.expect_error("a visitor was texted twice");
    let row = world.database.session().await;
    assert_eq!((row.status, row.sid()), (Sent, session.sid()));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_signature_is_valid_with_a_path_in_public_url_and_behind_a_proxy() {
    let (world, mut gateway) = with_gateway_under_path(Setup::default(), "/invites").await;
    // The sandbox calls the URL with its path, as a proxy passes it on that keeps the path.
    world.invite(&world.request()).await.sent();
    let session = world.database.until_status(Delivered).await;
    // Without the path, as a proxy passes it on that removes the path.
    let path = status_path(&session);
    let form = [("MessageSid", session.sid()), ("MessageStatus", "sent")];
    let url = format!("http://{}/invites{path}", gateway.address);
    let signature = sms_provider::signature::sign(&world.provider.auth_token.clone().into(), &url, &form);
    assert_eq!(webhook_signed(&gateway, &path, &form, &signature).await.status, 204);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_visitor_who_texts_stop_while_the_text_waits_is_not_texted() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    world.provider.set(json!({"throttle": 1, "retry_after": 10})).await;
    world.broker.request(Message::json(&world.request()).id("waits").correlation("waits")).await;
    world.database.until_texts_are(1, TextState::Waiting).await;
    let answer = text_from(&world, &gateway, VISITOR, "STOP", "SM0123456789abcdef0123456789abcdef").await;
    assert_eq!(answer.status, 200);
    world.provider.set(json!({"throttle": 0})).await;
    world.broker.reply("waits").await.refused("rejected", "opted_out", 403);
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (1, 0));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_visitor_who_texts_stop_is_not_texted_until_start() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let inbound = async |body: &str| {
        let sid = format!("SM{}", uuid::Uuid::new_v4().simple());
        text_from(&world, &gateway, VISITOR, body, &sid).await
    };
    send(gateway.invite(&world)).await.ok();
    let answer = inbound(" Stop ").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/xml; charset=utf-8")));
    assert!(answer.body.contains("<Response></Response>"), "{}", answer.body);
    assert_eq!(inbound("STOP").await.status, 200);
    let refused = send(gateway.invite(&world)).await;
    assert_eq!(refused.problem(403, "opted_out").field, "smsPhone");
    assert_eq!(inbound("thank you, please do not stop").await.status, 200);
    send(gateway.invite(&world)).await.problem(403, "opted_out");
    assert_eq!(world.provider.posts().await, 1, "the worker refuses before it posts the text");
    assert_eq!(inbound("unstop").await.status, 200);
    send(gateway.invite(&world)).await.ok();
    let mut other = http_invite();
    other["smsPhone"] = json!("201-555-0123");
    send(gateway.invite_with(&world, &other)).await.ok();
    assert!(gateway.process.stop().success());
}

/// The problem of a gateway's receipts in its `/readyz`, which stays at 200; `None` if there is none.
async fn receipts_problem(gateway: &Gateway) -> Option<String> {
    let answer = send(gateway.request("GET", "/readyz")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    receipts_problem_in(&answer.json())
}

/// The same, once there is one.
async fn until_receipts_problem(gateway: &Gateway) -> String {
    until_within(Duration::from_secs(20), "the refusals are listed", || async {
        let answer = send(gateway.request("GET", "/readyz")).await;
        (answer.status == 200).then(|| receipts_problem_in(&answer.json())).flatten()
    })
    .await
}

fn receipts_problem_in(body: &Value) -> Option<String> {
    let mut problems = body["problems"].as_array().expect("a list").iter().filter_map(|text| text.as_str());
    problems.find(|problem| problem.contains("receipts are refused")).map(str::to_owned)
}

/// A world whose gateway has other settings than its worker, after a text whose receipt it has refused.
async fn with_refused_receipt(changes: &[(&str, &str)]) -> (World, Gateway, String) {
    let address = free_address();
    let world = Setup::default().set("PUBLIC_URL", &format!("http://{address}")).start().await;
    let changes: Vec<_> = [("GATEWAY_ADDR", address.as_str())].iter().chain(changes).copied().collect();
    let gateway = world.start_gateway(&changes).await;
    assert_eq!(receipts_problem(&gateway).await, None);
    world.invite(&world.request()).await.sent();
    let problem = until_receipts_problem(&gateway).await;
    (world, gateway, problem)
}

#[tokio::test]
async fn a_gateway_with_a_wrong_auth_token_lists_the_receipts_that_it_refuses() {
    let (world, mut gateway, problem) =
        with_refused_receipt(&[("TWILIO_AUTH_TOKEN", "not-the-accounts")]).await;
    for part in
        ["none was right since the start", "TWILIO_AUTH_TOKEN is not", "What to do: session-invite doctor"]
    {
        assert!(problem.contains(part), "{part:?} is not in {problem:?}");
    }
    assert!(gateway.process.stop().success());
    drop(world);
}

#[tokio::test]
async fn a_gateway_with_another_public_url_lists_the_address_that_the_provider_calls() {
    let (world, mut gateway, problem) =
        with_refused_receipt(&[("PUBLIC_URL", "https://wrong.example/base")]).await;
    let called = format!("http://{}", gateway.address);
    let part =
        format!("the provider calls {called}, and the gateway's PUBLIC_URL is https://wrong.example/base");
    assert!(problem.contains(&part) && problem.contains(&format!("PUBLIC_URL={called}, ")), "{problem}");
    assert!(gateway.process.stop().success());
    drop(world);
}

#[tokio::test]
async fn wrong_signatures_of_strangers_and_after_a_right_receipt_are_not_listed() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let form = [("MessageSid", session.sid()), ("MessageStatus", "delivered")];
    let stranger = format!("/webhooks/twilio/status/{}", uuid::Uuid::new_v4());
    webhook_signed(&gateway, &stranger, &form, "AAAA").await.problem(403, "signature_invalid");
    assert_eq!(receipts_problem(&gateway).await, None);
    webhook_signed(&gateway, &status_path(&session), &form, "AAAA").await.problem(403, "signature_invalid");
    assert!(receipts_problem(&gateway).await.is_some());
    assert_eq!(receipt(&world, &gateway, &session, "delivered").await.status, 204);
    assert_eq!(receipts_problem(&gateway).await, None);
    webhook_signed(&gateway, &status_path(&session), &form, "AAAA").await.problem(403, "signature_invalid");
    assert_eq!(receipts_problem(&gateway).await, None);
    assert!(gateway.process.stop().success());
}
