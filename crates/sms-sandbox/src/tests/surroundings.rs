//! The view for tests, the callbacks, the inbox and the shutdown.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use url::form_urlencoded;

use super::{DEADLINE, TestSandbox, answer, bodies, until};
use crate::Settings;
use sms_provider::signature::sign;

#[tokio::test]
async fn the_accepted_messages_and_their_count_are_visible_to_tests() {
    let sandbox = TestSandbox::start(Settings { keep: 3, ..Settings::default() }).await;
    let traced = sandbox.text("+15551234567", "one").header("traceparent", "00-abc-def-01");
    assert_eq!(answer(traced).await.0, 201);
    sandbox.accept("+15551234567", "two").await;
    sandbox.accept("+15551234567", "two").await;
    let messages = sandbox.get("/sandbox/messages").await;
    assert_eq!(bodies(&messages), ["one", "two", "two"]);
    assert_eq!(messages[0]["traceparent"], "00-abc-def-01");
    assert_eq!(messages[0]["validity_period"], 36_000);
    let stats = sandbox.get("/sandbox/stats").await;
    assert_eq!((&stats["posts"], &stats["accepted"], &stats["doubled"]), (&json!(3), &json!(3), &json!(1)));

    sandbox.accept("+15551234567", "three").await;
    assert_eq!(bodies(&sandbox.get("/sandbox/messages").await), ["two", "two", "three"]);
    let after = messages[2]["seq"].as_u64().unwrap();
    assert_eq!(bodies(&sandbox.get(&format!("/sandbox/messages?after={after}")).await), ["three"]);

    let cleared = sandbox.request(Method::DELETE, "/sandbox/messages").send().await.unwrap();
    assert_eq!(cleared.status(), StatusCode::NO_CONTENT);
    assert_eq!(sandbox.get("/sandbox/messages").await, json!([]));
}

#[tokio::test]
async fn each_status_after_the_first_has_a_signed_callback() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"deliver": "undelivered"})).await;
    let receiver = CallbackReceiver::start().await;
    let form = [
        ("To", "+15551234567"),
        ("From", "+15005550006"),
        ("Body", "hi"),
        ("StatusCallback", receiver.url.as_str()),
    ];
    assert_eq!(answer(sandbox.create(&form)).await.0, 201);
    let posts = [receiver.next().await, receiver.next().await];
    for (post, status) in posts.iter().zip(["sent", "undelivered"]) {
        assert!(post.contains(&format!("MessageStatus={status}")), "{post}");
        let (head, body) = post.split_once("\r\n\r\n").unwrap();
        let form: Vec<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let signature = sign(&"token".into(), &receiver.url, &form);
        assert!(head.lines().any(|line| line == format!("x-twilio-signature: {signature}")), "{head}");
    }
    assert!(posts[1].contains("ErrorCode=30003"));
    until(|| sandbox.get("/sandbox/stats"), |stats| stats["callbacks"]["delivered"] == 2).await;
}

#[tokio::test]
async fn the_inbox_runs_only_its_own_script() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    let page = sandbox.request(Method::GET, "/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let html = page.text().await.unwrap();
    assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!html.contains("{{"));
}

#[tokio::test]
async fn shutdown_ends_hanging_requests() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"next": ["hang"]})).await;
    let hanging = tokio::spawn(sandbox.text("+15551234567", "hi").send());
    until(|| sandbox.get("/sandbox/stats"), |stats| stats["accepted"] == 1).await;
    sandbox.stop.cancel();
    timeout(DEADLINE, sandbox.served).await.unwrap().unwrap().unwrap();
    assert!(timeout(DEADLINE, hanging).await.unwrap().unwrap().is_err());
}

/// Receives callbacks, one per connection, and answers 204.
struct CallbackReceiver {
    listener: TcpListener,
    url: String,
}

impl CallbackReceiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        Self { listener, url }
    }

    async fn next(&self) -> String {
        let (mut stream, _) = timeout(DEADLINE, self.listener.accept()).await.unwrap().unwrap();
        let mut request = Vec::new();
        while !is_complete(&request) {
            assert_ne!(timeout(DEADLINE, stream.read_buf(&mut request)).await.unwrap().unwrap(), 0);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    }
}

fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() == length.parse::<usize>().unwrap()
}
