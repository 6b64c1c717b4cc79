//! Faults on purpose.

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{DEADLINE, MESSAGES, TestSandbox, answer, until};
use crate::Settings;

#[tokio::test]
async fn each_fault_with_an_answer_has_its_status_and_accepts_the_message_or_not() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    for (fault, status, code, accepts) in [
        ("throttle", 429, json!(20429), 0),
        ("daily_limit", 429, json!(63038), 0),
        ("fail", 503, json!(20503), 0),
        ("accept_then_fail", 500, json!(20500), 1),
        ("redirect", 302, Value::Null, 0),
        ("garbage", 200, Value::Null, 0),
        ("no_sid", 201, Value::Null, 1),
    ] {
        assert_eq!(sandbox.put_faults(json!({"next": [fault], "retry_after": 7})).await.0, 200);
        let before = sandbox.get("/sandbox/stats").await["accepted"].as_u64().unwrap();
        let response = sandbox.text("+15551234567", fault).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{fault}");
        let retry_after =
            response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(retry_after.as_deref(), (fault == "throttle").then_some("7"), "{fault}");
        let text = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(body["code"], code, "{fault}");
        assert!(!text.contains("SM"), "{fault} has a sid in its answer: {text}");
        let stats = sandbox.get("/sandbox/stats").await;
        assert_eq!(stats["accepted"].as_u64().unwrap() - before, accepts, "{fault}");
        assert_eq!(stats["faults"][fault], 1, "{fault}");
    }
}

#[tokio::test]
async fn a_cut_connection_carries_no_byte_of_an_answer() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"next": ["cut", "cut_before"]})).await;
    let host = sandbox.base.strip_prefix("http://").unwrap();
    for accepted in [1, 1] {
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let form = "To=%2B15551234567&From=%2B15005550006&Body=hi";
        let request = format!(
            "POST {MESSAGES} HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Basic QUMxOng=\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(sandbox.get("/sandbox/stats").await["accepted"], accepted);
    }
}

#[tokio::test]
async fn a_hanging_request_is_accepted_and_ends_when_the_client_disconnects() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"next": ["hang"]})).await;
    let client = Client::builder().no_proxy().build().unwrap();
    let form = [("To", "+15551234567"), ("From", "+15005550006"), ("Body", "hi")];
    let request =
        client.post(format!("{}{MESSAGES}", sandbox.base)).basic_auth("AC1", Some("token")).form(&form);
    let hanging = tokio::spawn(request.send());
    until(|| sandbox.get("/sandbox/stats"), |stats| stats["accepted"] == 1).await;
    hanging.abort();
    drop(client);
    let stats = until(|| sandbox.get("/sandbox/stats"), |stats| stats["open_connections"] == 1).await;
    assert_eq!(stats["accepted"], 1);
}

#[tokio::test]
async fn an_error_code_answers_every_text_until_it_is_removed() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let (_, faults) = sandbox.put_faults(json!({"error_code": 20003, "error_status": 401})).await;
    assert_eq!(faults["error_code"], 20003);
    let (status, error) = answer(sandbox.text("+15551234567", "hi")).await;
    assert_eq!((status, &error["code"], &error["status"]), (401, &json!(20003), &json!(401)));
    sandbox.put_faults(json!({"error_code": null})).await;
    sandbox.accept("+15551234567", "hi").await;
    assert_eq!(sandbox.get("/sandbox/stats").await["faults"]["error"], 1);
}

#[tokio::test]
async fn an_invalid_setting_is_named_and_changes_nothing() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let before = sandbox.get("/sandbox/faults").await;
    for (changes, field) in [
        (json!({"latency_ms": 5, "trottle": 1}), json!("trottle")),
        (json!({"cut": 2, "latency_ms": 5}), json!("cut")),
        (json!([]), Value::Null),
    ] {
        let (status, refusal) = sandbox.put_faults(changes).await;
        assert!((400..500).contains(&status));
        assert_eq!(refusal["field"], field);
    }
    assert_eq!(sandbox.get("/sandbox/faults").await, before);
}

#[tokio::test]
async fn a_lagging_list_shows_a_text_after_the_lag() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"list_lag_ms": 3_600_000})).await;
    sandbox.accept("+15551234567", "hi").await;
    assert_eq!(sandbox.get(MESSAGES).await["messages"], json!([]));
    sandbox.put_faults(json!({"list_lag_ms": 10})).await;
    until(|| sandbox.get(MESSAGES), |page| page["messages"].as_array().unwrap().len() == 1).await;
}
