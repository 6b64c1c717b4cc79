//! Creating a message: its JSON, its errors, and the authentication.

use reqwest::Method;
use serde_json::{Value, json};

use super::{MESSAGES, TestSandbox, answer};
use crate::{Account, Settings};

#[tokio::test]
async fn a_created_message_has_twilios_members() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let message = sandbox.accept("+15551234567", &"x".repeat(161)).await;
    let sid = message["sid"].as_str().unwrap();
    assert_eq!((&sid[..2], sid.len()), ("SM", 34));
    for (member, expected) in [
        ("to", json!("+15551234567")),
        ("from", json!("+15005550006")),
        ("status", json!("queued")),
        ("num_segments", json!("2")),
        ("num_media", json!("0")),
        ("account_sid", json!("AC1")),
        ("direction", json!("outbound-api")),
        ("api_version", json!("2010-04-01")),
        ("price", Value::Null),
        ("error_code", Value::Null),
        ("error_message", Value::Null),
        ("date_sent", Value::Null),
        ("messaging_service_sid", Value::Null),
        ("uri", json!(format!("/2010-04-01/Accounts/AC1/Messages/{sid}.json"))),
    ] {
        assert_eq!(message.get(member), Some(&expected), "{member}");
    }
    assert!(message["date_created"].as_str().unwrap().ends_with(" +0000"));

    let again = sandbox.get(message["uri"].as_str().unwrap()).await;
    assert_eq!(again["sid"], sid);
}

#[tokio::test]
async fn a_messaging_service_sends_without_a_number() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let form = [("To", "+15551234567"), ("MessagingServiceSid", "MG1"), ("Body", "hi")];
    let (_, message) = answer(sandbox.create(&form)).await;
    assert_eq!((&message["status"], &message["from"]), (&json!("accepted"), &Value::Null));
    assert_eq!(message["messaging_service_sid"], "MG1");
}

#[tokio::test]
async fn each_fault_of_a_form_has_its_error_code() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let long = "é".repeat(1601);
    let good = [("To", "+15551234567"), ("From", "+15005550006"), ("Body", "hi")];
    for (field, value, code) in [
        ("To", "", 21604),
        ("From", "", 21603),
        ("Body", "", 21602),
        ("Body", &long, 21617),
        ("To", "5551234567", 21211),
        ("To", "+15005550001", 21211),
        ("To", "+15005550002", 21612),
        ("To", "+15005550003", 21408),
        ("To", "+15005550004", 21610),
        ("To", "+15005550009", 21614),
        ("From", "+15005550001", 21212),
        ("From", "+15005550007", 21606),
        ("From", "+15005550008", 21611),
        ("ValidityPeriod", "0", 90007),
        ("ValidityPeriod", "36001", 90007),
        ("StatusCallback", "http://my_host/x", 21609),
    ] {
        let mut form = good.to_vec();
        form.retain(|(name, _)| *name != field);
        form.push((field, value));
        let (status, error) = answer(sandbox.create(&form)).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{field}={value}: {error}");
        assert_eq!(error["status"], 400);
        assert!(error["message"].is_string() && error["more_info"].is_string());
    }
    assert_eq!(sandbox.get("/sandbox/stats").await["accepted"], 0);
}

#[tokio::test]
async fn only_the_configured_account_is_authorized() {
    let account = Account { sid: "AC1".into(), auth_token: "right".into() };
    let sandbox = TestSandbox::start(Settings { account: Some(account), ..Settings::default() }).await;
    let list = |path: &str| sandbox.client.get(format!("{}{path}", sandbox.base));
    let other = "/2010-04-01/Accounts/AC2/Messages.json";
    for (request, expected) in [
        (list(MESSAGES).basic_auth("AC1", Some("right")), 200),
        (list(MESSAGES).basic_auth("AC1", Some("wrong")), 401),
        (list(MESSAGES).basic_auth("AC2", Some("right")), 401),
        (list(other).basic_auth("AC1", Some("right")), 401),
        (list(MESSAGES).bearer_auth("right"), 401),
        (list(MESSAGES), 401),
    ] {
        let (status, body) = answer(request).await;
        assert_eq!(status, expected, "{body}");
        assert!(status == 200 || body["code"] == 20003);
    }
}

#[tokio::test]
async fn by_default_any_account_is_authorized_and_sees_its_own_messages() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let message = sandbox.accept("+15551234567", "mine").await;
    let other = MESSAGES.replace("AC1", "AC2");
    assert_eq!(sandbox.get(&other).await["messages"], json!([]));
    let uri = message["uri"].as_str().unwrap().replace("AC1", "AC2");
    let (status, error) = answer(sandbox.request(Method::GET, &uri)).await;
    assert_eq!((status, &error["code"]), (404, &json!(20404)));
    let anonymous = sandbox.client.get(format!("{}{MESSAGES}", sandbox.base)).basic_auth("AC1", Some(""));
    assert_eq!(answer(anonymous).await.0, 401);
}

#[tokio::test]
async fn unknown_paths_and_large_bodies_get_errors_of_the_same_format() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let (status, error) = answer(sandbox.request(Method::GET, "/2010-04-01/Nothing.json")).await;
    assert_eq!((status, &error["code"]), (404, &json!(20404)));
    let (status, error) = answer(sandbox.request(Method::DELETE, MESSAGES)).await;
    assert_eq!((status, &error["code"]), (405, &json!(20004)));
    let (status, _) = answer(sandbox.text("+15551234567", &"x".repeat(65 * 1024))).await;
    assert_eq!(status, 413);
}
