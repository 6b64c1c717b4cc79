//! The sandbox by its front door: real HTTP on a port of its own.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::form_urlencoded;

use super::callback::sign;
use super::{Account, Settings, serve};

const MESSAGES: &str = "/2010-04-01/Accounts/AC1/Messages.json";
const DEADLINE: Duration = Duration::from_secs(10);

struct Sandbox {
    base: String,
    client: Client,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _guard: DropGuard,
}

impl Sandbox {
    async fn start(settings: Settings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, settings, stop.clone().cancelled_owned()));
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { base, client, stop: stop.clone(), served, _guard: stop.drop_guard() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).basic_auth("AC1", Some("token"))
    }

    fn create(&self, form: &[(&str, &str)]) -> RequestBuilder {
        self.request(Method::POST, MESSAGES).form(form)
    }

    fn text(&self, to: &str, body: &str) -> RequestBuilder {
        self.create(&[("To", to), ("From", "+15005550006"), ("Body", body)])
    }

    async fn accept(&self, to: &str, body: &str) -> Value {
        let (status, message) = answer(self.text(to, body)).await;
        assert_eq!(status, 201, "{message}");
        message
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = answer(self.request(Method::GET, path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn put_faults(&self, changes: Value) -> (u16, Value) {
        let body = serde_json::to_vec(&changes).unwrap();
        let request = self.request(Method::PUT, "/sandbox/faults");
        answer(request.header("Content-Type", "application/json").body(body)).await
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

fn bodies(messages: &Value) -> Vec<&str> {
    messages.as_array().unwrap().iter().map(|message| message["body"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_created_message_is_shaped_as_twilio_shapes_it() {
    let sandbox = Sandbox::start(Settings::default()).await;
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
async fn a_messaging_service_sends_without_a_number_of_its_own() {
    let sandbox = Sandbox::start(Settings::default()).await;
    let form = [("To", "+15551234567"), ("MessagingServiceSid", "MG1"), ("Body", "hi")];
    let (_, message) = answer(sandbox.create(&form)).await;
    assert_eq!((&message["status"], &message["from"]), (&json!("accepted"), &Value::Null));
    assert_eq!(message["messaging_service_sid"], "MG1");
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_said_by_code() {
    let sandbox = Sandbox::start(Settings::default()).await;
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
async fn only_the_account_gets_in() {
    let account = Account { sid: "AC1".into(), auth_token: "right".into() };
    let sandbox = Sandbox::start(Settings { account: Some(account), ..Settings::default() }).await;
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
async fn any_account_gets_in_by_default_and_sees_its_own_messages() {
    let sandbox = Sandbox::start(Settings::default()).await;
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
async fn unknown_paths_and_large_bodies_get_errors_of_the_same_shape() {
    let sandbox = Sandbox::start(Settings::default()).await;
    let (status, error) = answer(sandbox.request(Method::GET, "/2010-04-01/Nothing.json")).await;
    assert_eq!((status, &error["code"]), (404, &json!(20404)));
    let (status, error) = answer(sandbox.request(Method::DELETE, MESSAGES)).await;
    assert_eq!((status, &error["code"]), (405, &json!(20004)));
    let (status, _) = answer(sandbox.text("+15551234567", &"x".repeat(65 * 1024))).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn the_list_is_newest_first_and_leads_from_page_to_page() {
    let sandbox = Sandbox::start(Settings::default()).await;
    for body in ["a", "b", "c", "d", "e"] {
        sandbox.accept("+15551234567", body).await;
        sandbox.accept("+15557654321", "other").await;
    }
    let mut path = Some(format!("{MESSAGES}?To=%2B15551234567&PageSize=2"));
    let mut seen = Vec::new();
    while let Some(next) = path {
        let page = sandbox.get(&next).await;
        seen.push(bodies(&page["messages"]).concat());
        // A text that comes in between moves nothing.
        sandbox.accept("+15551234567", "late").await;
        path = page["next_page_uri"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ["ed", "cb", "a"]);

    let second = sandbox.get(&format!("{MESSAGES}?To=%2B15557654321&PageSize=2&Page=2")).await;
    assert_eq!(second["messages"].as_array().unwrap().len(), 1);
    assert_eq!((&second["page"], &second["page_size"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn the_list_is_filtered_by_day_and_sender() {
    let sandbox = Sandbox::start(Settings::default()).await;
    sandbox.accept("+15551234567", "today").await;
    let messages = sandbox.get("/sandbox/messages").await;
    let today = &messages[0]["received"].as_str().unwrap()[..10];
    let tomorrow = "9999-12-31";
    for (query, expected) in [
        (format!("DateSent%3E={today}"), 1),
        (format!("DateSent%3E={tomorrow}"), 0),
        (format!("DateSent%3C={tomorrow}"), 1),
        (format!("DateSent={today}"), 1),
        (format!("DateSent={tomorrow}"), 0),
        ("From=%2B15005550006".to_owned(), 1),
        ("From=%2B15005550007".to_owned(), 0),
    ] {
        let page = sandbox.get(&format!("{MESSAGES}?{query}")).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), expected, "{query}");
    }
    for query in ["PageSize=0", "PageSize=1001", "DateSent=yesterday", "PageToken=x"] {
        let request = sandbox.request(Method::GET, &format!("{MESSAGES}?{query}"));
        assert_eq!(answer(request).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn faults_that_answer_do_so_and_accept_as_they_say() {
    let sandbox = Sandbox::start(Settings::default()).await;
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
        assert!(!text.contains("SM"), "{fault} tells no sid: {text}");
        let stats = sandbox.get("/sandbox/stats").await;
        assert_eq!(stats["accepted"].as_u64().unwrap() - before, accepts, "{fault}");
        assert_eq!(stats["faults"][fault], 1, "{fault}");
    }
}

#[tokio::test]
async fn cut_lines_give_no_byte_of_an_answer() {
    let sandbox = Sandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"next": ["cut", "cut_before"]})).await;
    let host = sandbox.base.strip_prefix("http://").unwrap();
    for accepted in [1, 1] {
        let mut line = tokio::net::TcpStream::connect(host).await.unwrap();
        let form = "To=%2B15551234567&From=%2B15005550006&Body=hi";
        let request = format!(
            "POST {MESSAGES} HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Basic QUMxOng=\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        );
        line.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let end = timeout(DEADLINE, line.read_to_end(&mut got)).await.unwrap();
        assert!(end.is_err() || got.is_empty(), "{}", String::from_utf8_lossy(&got));
        assert!(got.is_empty());
        assert_eq!(sandbox.get("/sandbox/stats").await["accepted"], accepted);
    }
}

#[tokio::test]
async fn a_hanging_text_is_accepted_and_lets_go_when_the_client_leaves() {
    let sandbox = Sandbox::start(Settings::default()).await;
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
async fn an_error_code_answers_every_text_until_it_is_taken_back() {
    let sandbox = Sandbox::start(Settings::default()).await;
    let (_, faults) = sandbox.put_faults(json!({"error_code": 20003, "error_status": 401})).await;
    assert_eq!(faults["error_code"], 20003);
    let (status, error) = answer(sandbox.text("+15551234567", "hi")).await;
    assert_eq!((status, &error["code"], &error["status"]), (401, &json!(20003), &json!(401)));
    sandbox.put_faults(json!({"error_code": null})).await;
    sandbox.accept("+15551234567", "hi").await;
    assert_eq!(sandbox.get("/sandbox/stats").await["faults"]["error"], 1);
}

#[tokio::test]
async fn a_wrong_fault_is_refused_by_name_and_changes_nothing() {
    let sandbox = Sandbox::start(Settings::default()).await;
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
async fn a_lagging_list_shows_a_text_later() {
    let sandbox = Sandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"list_lag_ms": 3_600_000})).await;
    sandbox.accept("+15551234567", "hi").await;
    assert_eq!(sandbox.get(MESSAGES).await["messages"], json!([]));
    sandbox.put_faults(json!({"list_lag_ms": 10})).await;
    until(|| sandbox.get(MESSAGES), |page| page["messages"].as_array().unwrap().len() == 1).await;
}

#[tokio::test]
async fn tests_see_what_was_accepted_and_how_often() {
    let sandbox = Sandbox::start(Settings { keep: 3, ..Settings::default() }).await;
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
async fn status_callbacks_are_signed_and_tell_each_status_after_the_first() {
    let sandbox = Sandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"deliver": "undelivered"})).await;
    let receiver = Receiver::start().await;
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
async fn the_inbox_is_a_page_that_runs_no_script_but_its_own() {
    let sandbox = Sandbox::start(Settings::default()).await;
    let page = sandbox.request(Method::GET, "/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let html = page.text().await.unwrap();
    assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!html.contains("{{"));
}

#[tokio::test]
async fn shutdown_ends_hanging_requests_too() {
    let sandbox = Sandbox::start(Settings::default()).await;
    sandbox.put_faults(json!({"next": ["hang"]})).await;
    let hanging = tokio::spawn(sandbox.text("+15551234567", "hi").send());
    until(|| sandbox.get("/sandbox/stats"), |stats| stats["accepted"] == 1).await;
    sandbox.stop.cancel();
    timeout(DEADLINE, sandbox.served).await.unwrap().unwrap().unwrap();
    assert!(timeout(DEADLINE, hanging).await.unwrap().unwrap().is_err());
}

/// Asks until the answer is as wanted.
async fn until<F: Future<Output = Value>>(ask: impl Fn() -> F, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Takes callbacks, one connection each, and answers 204.
struct Receiver {
    listener: TcpListener,
    url: String,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        Self { listener, url }
    }

    async fn next(&self) -> String {
        let (mut line, _) = timeout(DEADLINE, self.listener.accept()).await.unwrap().unwrap();
        let mut got = Vec::new();
        while !is_whole(&got) {
            assert_ne!(timeout(DEADLINE, line.read_buf(&mut got)).await.unwrap().unwrap(), 0);
        }
        line.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        String::from_utf8(got).unwrap()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() == length.parse::<usize>().unwrap()
}
