//! The contract's section 6: the request to the provider, and what follows from its answer.

use crate::support::{
    GROUP, Message,
    SessionStatus::{Failed, Rejected, Unknown},
    Setup, World, send, until, with_gateway,
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_text_is_valid_until_its_session_expires_and_has_a_callback_only_with_public_url() {
    let world = Setup::default().group(&["--session-ttl", "5m"]).start().await;
    world.invite(&world.request()).await.sent();
    let text = world.provider.text().await;
    let validity = text["validity_period"].as_u64().unwrap();
    assert!((290..=300).contains(&validity), "{text}");
    assert!(text["status_callback"].is_null() && text["traceparent"].is_null(), "{text}");

    let world = Setup::default().set("PUBLIC_URL", "http://invite.test/").start().await;
    let reply = world.invite(&world.request()).await.sent();
    let text = world.provider.text().await;
    let callback = text["status_callback"].as_str().unwrap();
    let id = reply.session_id.to_string();
    assert!(callback.starts_with("http://invite.test/") && callback.contains(&id), "{callback}");
    assert!(text["body"].as_str().unwrap().contains("http://invite.test/s/"), "{text}");
}

#[tokio::test]
async fn a_trace_continues_at_the_provider_and_in_the_reply() {
    let world = World::start().await;
    let reply = world.call(Message::json(&world.request()).text_header("traceparent", TRACE)).await;
    reply.sent();
    let text = world.provider.text().await;
    for passed_on in [reply.header("traceparent").unwrap(), text["traceparent"].as_str().unwrap().to_owned()]
    {
        assert!(passed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{passed_on}");
        assert!(!passed_on.contains("b7ad6b7169203331"), "the parent is the worker's own span: {passed_on}");
    }
}

#[tokio::test]
async fn a_messaging_service_may_replace_the_from_number() {
    let service = "MG00000000000000000000000000000001";
    let world = Setup::default().set("SMS_FROM", "").set("SMS_MESSAGING_SERVICE_SID", service).start().await;
    world.invite(&world.request()).await.sent();
    let text = world.provider.text().await;
    assert_eq!((&text["messaging_service_sid"], &text["from"]), (&json!(service), &json!(null)));
    world.run(&["groups", "set", "72", "--sms-from", "+12015550199"]).ok();
    until("the change is noticed", || async {
        world.invite(&world.request()).await.sent();
        let texts = world.provider.texts().await;
        (texts.last()?["from"] == "+12015550199").then_some(())
    })
    .await;
}

#[tokio::test]
async fn wrong_credentials_of_the_operator_fail_as_provider_unavailable() {
    let world =
        Setup::default().one_try().set("TWILIO_AUTH_TOKEN", "not-the-token-of-this-account").start().await;
    let error = world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    assert!(error.retryable);
    world.expect_error("the provider refuses the operator's account");
    assert_eq!(world.database.session().await.status, Failed);
}

#[tokio::test]
async fn each_of_the_providers_test_numbers_is_refused_with_its_code() {
    let world = World::start().await;
    for (to, code, http, provider_code) in [
        ("+15005550001", "phone_invalid", 400, 21211),
        ("+15005550009", "phone_invalid", 400, 21614),
        ("+15005550002", "phone_not_allowed", 403, 21612),
        ("+15005550003", "phone_not_allowed", 403, 21408),
        ("+15005550004", "opted_out", 403, 21610),
    ] {
        let reply = world.invite(&world.request_with(json!({ "smsPhone": to }))).await;
        let error = reply.refused("rejected", code, http);
        assert_eq!((error.field.as_str(), error.provider_code), ("smsPhone", Some(provider_code)));
    }
    let rows = world.database.sessions().await;
    assert!(rows.iter().all(|row| row.status == Rejected && !row.key_held), "{rows:#?}");
}

#[tokio::test]
async fn the_providers_code_decides_and_only_transient_ones_are_retryable() {
    let world = Setup::default().one_try().start().await;
    for (provider_code, status, code, http, retryable) in [
        (21602, "rejected", "provider_rejected", 502, false),
        (30007, "rejected", "provider_rejected", 502, false),
        (12345, "rejected", "provider_rejected", 502, false),
        (21606, "failed", "provider_misconfigured", 503, true),
        (21611, "failed", "provider_unavailable", 503, true),
        (20003, "failed", "provider_unavailable", 503, true),
    ] {
        world.provider.set(json!({ "error_code": provider_code })).await;
        let error = world.invite(&world.request()).await.refused(status, code, http);
        assert_eq!(error.retryable, retryable, "{error:?}");
        if code == "provider_rejected" {
            assert_eq!(error.provider_code, Some(provider_code));
        }
    }
    world.expect_error("refuses this group's From number");
    world.expect_error("refuses the operator's account");
}

#[tokio::test]
async fn a_text_that_the_provider_surely_did_not_take_is_retryable() {
    let world = Setup::default().one_try().start().await;
    for fault in ["throttle", "daily_limit"] {
        world.provider.next(&[fault]).await;
        let error = world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
        assert!(error.retryable, "{fault}");
    }
    assert!(world.provider.texts().await.is_empty());
    let rows = world.database.sessions().await;
    assert!(rows.iter().all(|row| row.status == Failed && !row.key_held), "{rows:#?}");
}

#[tokio::test]
async fn with_sms_when_unsure_fail_a_text_is_looked_for_and_never_sent_again() {
    let world = Setup::default().short_waits().never_sends_again().start().await;
    let four = || {
        let invites = (0..4).map(|_| world.call(Message::json(&world.request())));
        futures::future::join_all(invites)
    };
    world.provider.next(&["accept_then_fail", "cut", "hang", "no_sid"]).await;
    four().await.iter().for_each(|reply| drop(reply.sent()));
    world.provider.next(&["fail", "cut_before", "redirect", "garbage"]).await;
    for reply in four().await {
        assert!(!reply.refused("failed", "outcome_unknown", 504).retryable);
    }
    assert_eq!(world.provider.posts().await, 8, "each is tried once");
    let rows = world.database.sessions().await;
    let unknown: Vec<_> = rows.iter().filter(|row| row.status == Unknown).collect();
    assert_eq!(unknown.len(), 4);
    for row in unknown {
        assert_eq!((row.key_held, row.error_code()), (true, Some("outcome_unknown")), "{row:?}");
    }
}

#[tokio::test]
async fn a_provider_that_refuses_connections_sends_no_text() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = Setup::default().one_try().set("SMS_BASE_URL", &format!("http://{free}")).start().await;
    world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    assert_eq!(world.database.session().await.status, Failed);
}

#[tokio::test]
async fn the_text_is_made_from_the_groups_template_and_link() {
    let options =
        ["--template", "G{group}: {key} {token} {link}", "--link", "https://join.test/{token}?g={group}"];
    let world = Setup::default().group(&options).start().await;
    let reply = world.invite(&world.request()).await.sent();
    let row = world.database.session().await;
    let (key, token) = (row.key(), row.token());
    let text = format!("G{GROUP}: {key} {token} https://join.test/{token}?g={GROUP}");
    assert_eq!(reply.invitation_text, text);
    assert!(token.len() == 16 && token.bytes().all(|b| b.is_ascii_alphanumeric()));
}

/// A provider that gives every request the same answer. Returns its URL.
fn provider_with_answer(head: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut requests = BufReader::new(connection.try_clone().expect("a socket can be shared"));
                while let Some(length) = length_of_body(&mut requests) {
                    requests.read_exact(&mut vec![0; length]).expect("a whole body");
                    (&connection).write_all(answer.as_bytes()).expect("the worker reads");
                }
            });
        }
    });
    url
}

/// Reads a request's head; returns its Content-Length. `None` at the end of the connection.
fn length_of_body(requests: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            return Some(length);
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}

#[tokio::test]
async fn the_providers_code_may_be_a_string_of_digits() {
    for (head, body, (status, code, http), provider_code) in [
        ("400 Bad Request", r#"{"code":"21211"}"#, ("rejected", "phone_invalid", 400), Some(21211)),
        ("400 Bad Request", r#"{"code":"21610"}"#, ("rejected", "opted_out", 403), Some(21610)),
        // A daily limit fails at the first try.
        ("429 Too Many", r#"{"code":"63038"}"#, ("failed", "provider_unavailable", 503), Some(63038)),
        ("400 Bad Request", r#"{"code":"2x"}"#, ("rejected", "provider_rejected", 502), None),
    ] {
        let world = Setup::default().set("SMS_BASE_URL", &provider_with_answer(head, body)).start().await;
        let error = world.invite(&world.request()).await.refused(status, code, http);
        assert_eq!(error.provider_code, provider_code, "{body}");
        assert_eq!(world.database.session().await.attempts, 1, "{body}");
    }
}

#[tokio::test]
async fn a_408_on_a_reused_connection_leaves_the_outcome_unknown() {
    let world = Setup::default().short_waits().never_sends_again().start().await;
    world.invite(&world.request()).await.sent();
    for code in [20_001, 21_211] {
        world.provider.set(json!({"error_code": code, "error_status": 408})).await;
        let message = Message::json(&world.request()).id(&code.to_string());
        let error = world.call(message).await.refused("failed", "outcome_unknown", 504);
        assert!(!error.retryable);
    }
    assert_eq!(world.provider.posts().await, 3);
}

#[tokio::test]
async fn a_misconfigured_from_number_has_a_retry_after_of_a_minute() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    world.provider.set(json!({"error_code": 21606})).await;
    let answer = send(gateway.invite(&world)).await;
    answer.problem(503, "provider_misconfigured");
    assert_eq!(answer.header("retry-after"), Some("60"));
    let error = world.invite(&world.request()).await.refused("failed", "provider_misconfigured", 503);
    assert_eq!(error.retry_after_seconds, Some(60));
    world.expect_error("refuses this group's From number");
    assert!(gateway.process.stop().success());
}
