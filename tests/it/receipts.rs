//! What the provider says of a text, by its signed webhook: in any order, repeated, and before our own record.

use crate::support::{
    Message, Setup, at_home, at_home_quietly, at_home_under, http_invite, receipt, send, status_path, until,
    webhook, webhook_signed,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_delivered_text_is_known_as_delivered_by_itself() {
    let (world, mut gateway) = at_home(Setup::default()).await;
    let reply = send(gateway.invite(&world)).await.ok();
    until("the receipt is noted", || async {
        let row = world.database.session().await;
        (row["status"] == "delivered" && row["delivered_at"].is_string()).then_some(())
    })
    .await;
    // The reply of a repeat is what it was.
    let again = world.database.session().await["message_id"].as_str().unwrap().to_owned();
    assert_eq!(send(gateway.invite(&world).header("Idempotency-Key", again)).await.ok(), reply);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_undelivered_text_is_known_with_the_providers_code() {
    let (world, mut gateway) = at_home(Setup::default()).await;
    world.provider.set(json!({"deliver": "undelivered"})).await;
    world.invite(&world.request()).await.sent();
    until("the receipt is noted", || async {
        let row = world.database.session().await;
        (row["status"] == "undelivered" && row["undelivered_at"].is_string()).then_some(())
    })
    .await;
    assert_eq!(world.database.session().await["error_code"], "30003");
    let listed = world.run(&["sessions", "list"]).ok();
    assert!(listed.contains("undelivered") && listed.contains("30003"), "{listed}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn receipts_come_in_any_order_and_as_often_as_they_like() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    for (order, status) in [
        (vec!["sent", "delivered", "delivered", "sent"], "delivered"),
        (vec!["delivered", "sent", "queued"], "delivered"),
        (vec!["undelivered", "undelivered", "sent"], "undelivered"),
        (vec!["undelivered", "delivered"], "delivered"),
        (vec!["delivered", "undelivered"], "delivered"),
        (vec!["sending", "failed"], "undelivered"),
        (vec!["a status of the future"], "sent"),
    ] {
        let reply = world.invite(&world.request()).await.sent();
        let row = |id: &Value| {
            let id = id.as_str().unwrap().to_owned();
            let database = &world.database;
            async move {
                let rows = database.sessions().await;
                rows.into_iter().find(|row| row["id"] == id.as_str()).unwrap()
            }
        };
        let session = row(&reply["sessionId"]).await;
        for said in &order {
            assert_eq!(receipt(&world, &gateway, &session, said).await.status, 204, "{said}");
        }
        let after = row(&reply["sessionId"]).await;
        assert_eq!(after["status"], status, "{order:?}");
        assert_eq!(after["delivered_at"].is_string(), status == "delivered", "{order:?}");
        let code = if status == "undelivered" { json!("30003") } else { json!(null) };
        assert_eq!(after["error_code"], code, "{order:?}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_receipt_settles_what_nobody_knew_and_the_answer_stays() {
    let setup = Setup::default().never_sends_again().hurried();
    let (world, mut gateway) = at_home_quietly(setup).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["cut"]).await;
    let message = Message::json(&world.request()).id("lost");
    let reply = world.ask(message).await;
    reply.refused("failed", "outcome_unknown", 504);
    let session = world.database.session().await;
    assert_eq!(session["status"], "unknown");
    let sid = world.provider.text().await["sid"].as_str().unwrap().to_owned();
    let form = [("MessageSid", sid.as_str()), ("MessageStatus", "delivered")];
    assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
    let after = world.database.session().await;
    assert_eq!((&after["status"], &after["provider_message_id"]), (&json!("delivered"), &json!(sid)));
    // What was answered was answered.
    let again = world.ask(Message::json(&world.request()).id("lost")).await;
    assert_eq!(again.bytes, reply.bytes);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_receipt_before_our_own_record_ends_the_looking() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["cut"]).await;
    let correlation = "early";
    world.broker.request(Message::json(&world.request()).id("early").correlation(correlation)).await;
    let session = until("the text may have gone out", || async {
        let row = world.database.sessions().await.pop()?;
        (row["text_state"] == "unknown").then_some(row)
    })
    .await;
    assert_eq!(session["status"], "sending");
    let sid = world.provider.text().await["sid"].as_str().unwrap().to_owned();
    let form = [("MessageSid", sid.as_str()), ("MessageStatus", "sent")];
    assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
    let reply = world.broker.reply(correlation).await.sent();
    assert_eq!(reply["providerMessageId"], sid.as_str());
    assert_eq!(world.provider.posts().await, 1);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn only_the_provider_is_believed() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let sid = session["provider_message_id"].as_str().unwrap();
    let form = [("MessageSid", sid), ("MessageStatus", "delivered")];
    let path = status_path(&session);
    for signature in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        webhook_signed(&gateway, &path, &form, signature).await.problem(403, "signature_invalid");
    }
    // One for another URL, or by another token.
    let token = world.provider.auth_token.clone().into();
    for (url, token) in [
        (format!("http://{}/webhooks/twilio/inbound", gateway.address), &token),
        (format!("http://127.0.0.1:1{path}"), &token),
        (format!("http://{}{path}", gateway.address), &"other".into()),
    ] {
        let signature = sms_provider::signature::sign(token, &url, &form);
        webhook_signed(&gateway, &path, &form, &signature).await.problem(403, "signature_invalid");
    }
    let unsigned = gateway.request("POST", &path).header("Content-Type", "application/x-www-form-urlencoded");
    send(unsigned.body("MessageSid=x")).await.problem(403, "signature_invalid");
    send(gateway.request("POST", &path).body("{}")).await.problem(415, "request_malformed");
    assert_eq!(world.database.session().await["status"], "sent");

    // Signed, and of no use.
    webhook(&world, &gateway, &path, &[("MessageStatus", "delivered")]).await.problem(400, "field_missing");
    webhook(&world, &gateway, &path, &[("MessageSid", "a b"), ("MessageStatus", "delivered")])
        .await
        .problem(400, "field_invalid");
    let nobodys = format!("/webhooks/twilio/status/{}", uuid::Uuid::new_v4());
    webhook(&world, &gateway, &nobodys, &form).await.problem(404, "session_not_found");
    webhook(&world, &gateway, "/webhooks/twilio/status/x", &form).await.problem(404, "session_not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn another_text_of_the_same_session_is_told_to_the_operator() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let form = [("MessageSid", "SM00000000000000000000000000000bad"), ("MessageStatus", "delivered")];
    assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
    world.expect_error("a visitor was texted twice");
    let row = world.database.session().await;
    assert_eq!(
        (&row["status"], &row["provider_message_id"]),
        (&json!("sent"), &session["provider_message_id"])
    );
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_path_before_it_and_a_proxy_do_no_harm_to_the_signature() {
    let (world, mut gateway) = at_home_under(Setup::default(), "/invites").await;
    // The sandbox calls what the worker gave it: with the path, as a proxy that does not take it off passes it on.
    world.invite(&world.request()).await.sent();
    until("the receipt is noted", || async {
        (world.database.session().await["status"] == "delivered").then_some(())
    })
    .await;
    // And without, as one that does.
    let session = world.database.session().await;
    let path = status_path(&session);
    let form = [("MessageSid", session["provider_message_id"].as_str().unwrap()), ("MessageStatus", "sent")];
    let url = format!("http://{}/invites{path}", gateway.address);
    let signature = sms_provider::signature::sign(&world.provider.auth_token.clone().into(), &url, &form);
    assert_eq!(webhook_signed(&gateway, &path, &form, &signature).await.status, 204);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn who_says_stop_while_the_text_waits_is_not_texted() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    world.provider.set(json!({"throttle": 1, "retry_after": 2})).await;
    world.broker.request(Message::json(&world.request()).id("waits").correlation("waits")).await;
    until("the text waits", || async {
        (world.database.sessions().await.first()?["text_state"] == "waiting").then_some(())
    })
    .await;
    let form = [
        ("From", "+11110000000"),
        ("To", "+15005550006"),
        ("Body", "STOP"),
        ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
    ];
    assert_eq!(webhook(&world, &gateway, "/webhooks/twilio/inbound", &form).await.status, 200);
    world.provider.set(json!({"throttle": 0})).await;
    world.broker.reply("waits").await.refused("rejected", "opted_out", 403);
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (1, 0));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn who_says_stop_is_texted_no_more_until_start() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let inbound = |body: &'static str| {
        let sid = format!("SM{}", uuid::Uuid::new_v4().simple());
        let (world, gateway) = (&world, &gateway);
        async move {
            let form =
                [("From", "+11110000000"), ("To", "+15005550006"), ("Body", body), ("MessageSid", &sid)];
            webhook(world, gateway, "/webhooks/twilio/inbound", &form).await
        }
    };
    send(gateway.invite(&world)).await.ok();
    let answer = inbound(" Stop ").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/xml; charset=utf-8")));
    assert!(answer.body.contains("<Response></Response>"), "{}", answer.body);
    assert_eq!(inbound("STOP").await.status, 200);
    let refused = send(gateway.invite(&world)).await;
    assert_eq!(refused.problem(403, "opted_out")["field"], "smsPhone");
    assert_eq!(inbound("thank you, please do not stop").await.status, 200);
    send(gateway.invite(&world)).await.problem(403, "opted_out");
    assert_eq!(world.provider.posts().await, 1, "refused before any call");
    assert_eq!(inbound("unstop").await.status, 200);
    send(gateway.invite(&world)).await.ok();
    let mut other = http_invite();
    other["smsPhone"] = json!("201-555-0123");
    send(gateway.invite_with(&world, &other)).await.ok();
    assert!(gateway.process.stop().success());
}
