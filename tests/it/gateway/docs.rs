//! The gateway's OpenAPI document and its page, CORS, metrics, log and traces.

use crate::support::{World, send, until};
use serde_json::{Value, json};
use session_invite::internals::{Code, routes};
use std::collections::BTreeSet;

#[tokio::test]
async fn the_openapi_document_has_every_address_and_every_error_code() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let document = send(gateway.request("GET", "/openapi.json")).await.ok();
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&json!("3.1.0"), &json!(env!("CARGO_PKG_VERSION")))
    );
    let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(documented, routes::ALL.iter().map(|route| route.published()).collect());
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    let codes = document["x-error-codes"].as_array().unwrap();
    for &code in Code::ALL {
        let listed = codes.iter().find(|listed| listed["code"] == code.as_str());
        assert_eq!(
            listed.map(|listed| listed["status"].clone()),
            Some(json!(code.http_status())),
            "{code:?}"
        );
    }
    // With another method, each address names the documented ones.
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{token}", "abcdefgh12345678").replace("{sessionId}", "x");
        let allowed = send(gateway.request("PATCH", &path)).await;
        allowed.problem(405, "method_not_allowed");
        let allowed = allowed.header("allow").unwrap().to_ascii_lowercase();
        for method in methods.as_object().unwrap().keys() {
            assert!(allowed.split(',').any(|allowed| allowed == method), "{method} {path}: {allowed}");
        }
    }
    // Every reference has a target.
    let text = document.to_string();
    for (at, _) in text.match_indices("\"$ref\":\"#") {
        let pointer = text[at + 9..].split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let docs = send(gateway.request("GET", "/docs")).await;
    assert_eq!((docs.status, docs.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for part in [
        "/api/SessionInvitation/smsInvite",
        "sessionParams.camera",
        "credential_expired",
        "reply_timeout",
        "Idempotency-Key",
        "352x288",
    ] {
        assert!(docs.body.contains(part), "{part}");
    }
    for outside in ["<script", "src=", "href=\"http", "url(", "@import", "<link"] {
        assert!(!docs.body.contains(outside), "{outside}");
    }
    assert!(docs.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn answers_match_their_schemas() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let document = send(gateway.request("GET", "/openapi.json")).await.ok();
    let assert_valid = |name: &str, instance: &Value| {
        let schema =
            json!({"$ref": format!("#/components/schemas/{name}"), "components": document["components"]});
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
        let errors: Vec<_> = validator.iter_errors(instance).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{instance}: {errors:?}");
    };
    assert_valid("Invite", &crate::support::http_invite());
    let sent = send(gateway.invite(&world)).await.ok();
    assert_valid("Sent", &sent);
    let key = sent["sessionKey"].as_str().unwrap();
    assert_valid("Session", &send(gateway.look_up(&world, key)).await.ok());
    let without_credential = gateway.request("GET", "/api/SessionInvitation/session/?groupid=72");
    assert_valid("Problem", &send(without_credential).await.json());
    let mut wrong = crate::support::http_invite();
    wrong["smsPhone"] = json!("letters");
    assert_valid("Problem", &send(gateway.invite_with(&world, &wrong)).await.json());
    assert_valid("Readiness", &send(gateway.request("GET", "/readyz")).await.json());
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn only_the_configured_origins_may_send_requests_from_browsers() {
    let world = World::start().await;
    let mut closed = world.start_gateway(&[]).await;
    let preflight = |gateway: &crate::support::Gateway, origin: &str| {
        gateway
            .request("OPTIONS", crate::support::SMS_INVITE)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
    };
    let refused = send(preflight(&closed, "https://app.example")).await;
    refused.problem(405, "method_not_allowed");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert!(closed.process.stop().success());

    let origins = ("GATEWAY_CORS_ORIGINS", "https://app.example, https://other.example");
    let mut gateway = world.start_gateway(&[origins]).await;
    let allowed = send(preflight(&gateway, "https://app.example")).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    let headers = allowed.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("authorization") && headers.contains("idempotency-key"), "{headers}");
    let stranger = send(preflight(&gateway, "https://evil.example")).await;
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    let answer = send(gateway.invite(&world).header("Origin", "https://other.example")).await;
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://other.example"));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("idempotency-key"), "{exposed}");
    let problem =
        send(gateway.request("POST", crate::support::SMS_INVITE).header("Origin", "https://app.example"))
            .await;
    problem.problem(400, "request_malformed");
    assert_eq!(problem.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_status_and_the_log_has_nothing_private() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[("RUST_LOG", "debug")]).await;
    let sent = send(gateway.invite(&world)).await;
    let key = sent.sent().session_key;
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    send(gateway.request("GET", &path)).await.problem(401, "credential_missing");
    send(gateway.look_up(&world, &key)).await.ok();
    send(gateway.request("GET", "/no/such/address?secret=hidden-in-a-query")).await.problem(404, "not_found");
    let metrics = gateway.operators("/metrics").await.body;
    for line in [
        r#"session_invite_http_requests_total{route="/api/SessionInvitation/smsInvite/",status="200"} 1"#,
        r#"session_invite_http_requests_total{route="/api/SessionInvitation/session/",status="401"} 1"#,
        r#"session_invite_http_requests_total{route="none",status="404"} 1"#,
        r#"session_invite_http_request_duration_seconds_count{route="/api/SessionInvitation/smsInvite/"} 1"#,
        "session_invite_http_requests_in_flight 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let id = sent.header("x-request-id").unwrap();
    until("the request is in the log", || async { gateway.process.log().contains(id).then_some(()) }).await;
    let log = gateway.process.log();
    let line = log.lines().find(|line| line.contains(id)).unwrap();
    assert!(line.contains("smsInvite") && line.contains("status=200"), "{line}");
    assert!(!log.contains(&format!("Key={key}")) && !log.contains("hidden-in-a-query"), "{log}");
    assert!(!log.contains("/no/such/address"), "{log}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_trace_continues_in_the_worker() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    send(gateway.invite(&world).header("traceparent", &parent)).await.ok();
    send(gateway.invite(&world).header("traceparent", "nonsense")).await.ok();
    until("the worker logs the trace", || async {
        let lines = world.log.lines();
        lines.iter().any(|line| line.contains("request{") && line.contains(trace)).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}
