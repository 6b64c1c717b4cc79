//! The contract's section 6: what is asked of the provider, and what follows from its answer.

use crate::support::{GROUP, Message, Setup, World, at_home_quietly, send};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn the_text_is_valid_as_long_as_its_session_and_calls_back_only_where_we_are_reached() {
    let world = Setup::default().group(&["--session-ttl", "5m"]).start().await;
    world.invite(&world.request()).await.sent();
    let text = world.provider.text().await;
    let validity = text["validity_period"].as_u64().unwrap();
    assert!((290..=300).contains(&validity), "{text}");
    assert!(text["status_callback"].is_null() && text["traceparent"].is_null(), "{text}");

    let world = Setup::default().set("PUBLIC_URL", "http://invite.test/").start().await;
    let reply = world.invite(&world.request()).await.sent();
    let text = world.provider.text().await;
    let id = reply["sessionId"].as_str().unwrap();
    let callback = text["status_callback"].as_str().unwrap();
    assert!(callback.starts_with("http://invite.test/") && callback.contains(id), "{callback}");
    assert!(text["body"].as_str().unwrap().contains("http://invite.test/s/"), "{text}");
}

#[tokio::test]
async fn a_trace_goes_on_to_the_provider_and_into_the_reply() {
    let world = World::start().await;
    let reply = world.ask(Message::json(&world.request()).text_header("traceparent", TRACE)).await;
    reply.sent();
    let text = world.provider.text().await;
    for passed_on in [reply.header("traceparent").unwrap(), text["traceparent"].as_str().unwrap().to_owned()]
    {
        assert!(passed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{passed_on}");
        assert!(!passed_on.contains("b7ad6b7169203331"), "the parent is a span of ours: {passed_on}");
    }
}

#[tokio::test]
async fn an_api_key_or_a_messaging_service_may_take_the_place_of_token_and_number() {
    let service = "MG00000000000000000000000000000001";
    let world = Setup::default().set("SMS_FROM", "").set("SMS_MESSAGING_SERVICE_SID", service).start().await;
    world.invite(&world.request()).await.sent();
    let text = world.provider.text().await;
    assert_eq!((&text["messaging_service_sid"], &text["from"]), (&json!(service), &json!(null)));
    world.run(&["groups", "set", "72", "--sms-from", "+12015550199"]).ok();
    crate::support::until("the change is noticed", || async {
        world.invite(&world.request()).await.sent();
        let texts = world.provider.texts().await;
        (texts.last()?["from"] == "+12015550199").then_some(())
    })
    .await;
}

#[tokio::test]
async fn wrong_credentials_of_the_operator_are_not_the_senders_fault() {
    let world =
        Setup::default().one_try().set("TWILIO_AUTH_TOKEN", "not-the-token-of-this-account").start().await;
    let error = world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    assert_eq!(error["retryable"], true);
    world.expect_error("the provider refuses the operator's account");
    assert_eq!(world.database.session().await["status"], "failed");
}

#[tokio::test]
async fn the_providers_test_numbers_are_answered_by_their_codes() {
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
        assert_eq!((&error["field"], &error["providerCode"]), (&json!("smsPhone"), &json!(provider_code)));
    }
    let rows = world.database.sessions().await;
    assert!(rows.iter().all(|row| row["status"] == "rejected" && row["key_held"] == false), "{rows:#?}");
}

#[tokio::test]
async fn a_code_decides_and_only_the_transient_is_retryable() {
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
        assert_eq!(error["retryable"], retryable, "{error}");
        if code == "provider_rejected" {
            assert_eq!(error["providerCode"], provider_code);
        }
    }
    world.expect_error("refuses this group's sender");
    world.expect_error("refuses the operator's account");
}

#[tokio::test]
async fn a_text_that_was_surely_not_taken_is_told_to_be_sent_again_later() {
    let world = Setup::default().one_try().start().await;
    for fault in ["throttle", "daily_limit"] {
        world.provider.next(&[fault]).await;
        let error = world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
        assert_eq!(error["retryable"], true, "{fault}");
    }
    assert!(world.provider.texts().await.is_empty());
    let rows = world.database.sessions().await;
    assert!(rows.iter().all(|row| row["status"] == "failed" && row["key_held"] == false), "{rows:#?}");
}

#[tokio::test]
async fn a_text_that_may_have_gone_out_is_looked_for_and_never_sent_again_where_the_operator_says_so() {
    let world = Setup::default().hurried().never_sends_again().start().await;
    let four = || {
        let invites = (0..4).map(|_| world.ask(Message::json(&world.request())));
        futures::future::join_all(invites)
    };
    world.provider.next(&["accept_then_fail", "cut", "hang", "no_sid"]).await;
    assert!(four().await.iter().all(|reply| reply.sent()["providerMessageId"].is_string()));
    world.provider.next(&["fail", "cut_before", "redirect", "garbage"]).await;
    for reply in four().await {
        assert_eq!(reply.refused("failed", "outcome_unknown", 504)["retryable"], false);
    }
    assert_eq!(world.provider.posts().await, 8, "each is tried once");
    let unknown: Vec<_> =
        world.database.sessions().await.into_iter().filter(|row| row["status"] == "unknown").collect();
    assert_eq!(unknown.len(), 4);
    for row in unknown {
        assert_eq!(
            (&row["key_held"], &row["error_code"]),
            (&json!(true), &json!("outcome_unknown")),
            "{row}"
        );
    }
}

#[tokio::test]
async fn nobody_listening_is_no_text() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = Setup::default().one_try().set("SMS_BASE_URL", &format!("http://{free}")).start().await;
    world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    assert_eq!(world.database.session().await["status"], "failed");
}

#[tokio::test]
async fn a_groups_template_and_link_make_its_text() {
    let options =
        ["--template", "G{group}: {key} {token} {link}", "--link", "https://join.test/{token}?g={group}"];
    let world = Setup::default().group(&options).start().await;
    let reply = world.invite(&world.request()).await.sent();
    let row = world.database.session().await;
    let (key, token) = (row["session_key"].as_str().unwrap(), row["token"].as_str().unwrap());
    let text = format!("G{GROUP}: {key} {token} https://join.test/{token}?g={GROUP}");
    assert_eq!(reply["invitationText"], text);
    assert!(token.len() == 16 && token.bytes().all(|b| b.is_ascii_alphanumeric()));
}

/// A provider that answers every request on its lines alike.
fn one_that_says(head: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for line in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut requests = BufReader::new(line.try_clone().expect("a socket can be shared"));
                while let Some(length) = length_of_body(&mut requests) {
                    requests.read_exact(&mut vec![0; length]).expect("a whole body");
                    (&line).write_all(answer.as_bytes()).expect("the worker reads");
                }
            });
        }
    });
    url
}

/// Reads a request's head.
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
async fn a_code_may_be_a_string_of_digits() {
    for (head, body, (status, code, http), provider_code) in [
        ("400 Bad Request", r#"{"code":"21211"}"#, ("rejected", "phone_invalid", 400), json!(21211)),
        ("400 Bad Request", r#"{"code":"21610"}"#, ("rejected", "opted_out", 403), json!(21610)),
        // A daily limit fails at once, however many tries there are.
        ("429 Too Many", r#"{"code":"63038"}"#, ("failed", "provider_unavailable", 503), json!(63038)),
        ("400 Bad Request", r#"{"code":"2x"}"#, ("rejected", "provider_rejected", 502), json!(null)),
    ] {
        let world = Setup::default().set("SMS_BASE_URL", &one_that_says(head, body)).start().await;
        let error = world.invite(&world.request()).await.refused(status, code, http);
        assert_eq!(error["providerCode"], provider_code, "{body}");
        assert_eq!(world.database.session().await["attempts"], 1, "{body}");
    }
}

#[tokio::test]
async fn a_408_may_have_been_sent_on_a_used_line_too() {
    let world = Setup::default().hurried().never_sends_again().start().await;
    world.invite(&world.request()).await.sent();
    for code in [20_001, 21_211] {
        world.provider.set(json!({"error_code": code, "error_status": 408})).await;
        let message = Message::json(&world.request()).id(&code.to_string());
        let error = world.ask(message).await.refused("failed", "outcome_unknown", 504);
        assert_eq!(error["retryable"], false);
    }
    assert_eq!(world.provider.posts().await, 3);
}

#[tokio::test]
async fn a_sender_that_the_operator_has_to_mend_is_asked_for_after_a_minute_at_the_least() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    world.provider.set(json!({"error_code": 21606})).await;
    let answer = send(gateway.invite(&world)).await;
    answer.problem(503, "provider_misconfigured");
    assert_eq!(answer.header("retry-after"), Some("60"));
    let error = world.invite(&world.request()).await.refused("failed", "provider_misconfigured", 503);
    assert_eq!(error["retryAfterSeconds"], 60);
    world.expect_error("refuses this group's sender");
    assert!(gateway.process.stop().success());
}
