//! The contract's section 13: an invite over HTTP, which the gateway sends through the queue.

use crate::support::{
    SMS_INVITE, SentReply, World, claims, gjwt, gkey_until, http_invite as invite, now, send,
};
use serde_json::json;

#[tokio::test]
async fn the_documented_request_gives_the_documented_answer() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let body = r#"{"sessiontype": 1, "smsPhone": "111-000-0000",
 "sessionParams": {"camera": "back", "resolution": "352x288"}}"#;
    let answer = gateway.raw(format!(
        "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\
         Authorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        world.credential(),
        body.len(),
    ));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/json\r\n") && head.contains("idempotency-key: "),
        "{head}"
    );
    let sent = SentReply::read(&serde_json::from_str(body).unwrap());
    let session = world.database.session().await;
    assert_eq!(sent.session_key, session.key());
    assert_eq!(Some(&sent.invitation_text), session.invitation_text.as_ref());
    assert_eq!(sent.groupid, 72);
    assert_eq!(world.provider.text().await["body"], sent.invitation_text);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn every_type_of_credential_is_accepted_in_headers_of_any_case() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let token = world.run(&["tokens", "issue", "gssnid", "--group", "72"]).ok();
    let (website, jwt) = (token.trim(), gjwt(&claims(72), &world.jwt_secret));
    world.is_secret(website);
    world.is_secret(&jwt);
    let gssnid = format!("bearer  gssnid  {website}");
    for (name, value) in [
        ("AUTHORIZATION", world.credential().as_str()),
        ("authorization", &jwt),
        ("Authorization", &gssnid),
        ("x-GSSNID", website),
    ] {
        let request = gateway.request("POST", SMS_INVITE).header(name, value).body(invite().to_string());
        send(request).await.ok();
    }
    // The same credential twice is one credential.
    let request = gateway.invite(&world).header("Authorization", world.credential());
    send(request).await.ok();
    let in_body = world.request();
    send(gateway.request("POST", SMS_INVITE).body(in_body.to_string())).await.ok();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_repeat_by_idempotency_key_gets_the_same_answer_and_sends_no_second_text() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let first = send(gateway.invite(&world).header("Idempotency-Key", "order-17 é")).await;
    let again = send(gateway.invite(&world).header("idempotency-key", "order-17 é")).await;
    assert_eq!(first.ok(), again.ok());
    assert_eq!(again.headers["idempotency-key"].as_bytes(), "order-17 é".as_bytes());
    let mut other = invite();
    other["smsPhone"] = json!("201-555-0123");
    let conflict = send(gateway.invite_with(&world, &other).header("Idempotency-Key", "order-17 é")).await;
    assert_eq!(conflict.problem(409, "idempotency_conflict").field, "Idempotency-Key");
    // Without a key, the gateway generates one. A repeat by that key gets the same answer.
    let generated = send(gateway.invite(&world)).await;
    // The request id in the answer and in the log finds the row.
    let row = "select correlation_id from sessions order by created_at desc limit 1";
    assert_eq!(generated.header("x-request-id"), Some(world.database.value::<String>(row).await.as_str()));
    let key = generated.header("idempotency-key").unwrap();
    assert_eq!(send(gateway.invite(&world).header("Idempotency-Key", key)).await.ok(), generated.ok());
    assert_eq!(world.provider.texts().await.len(), 2);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn requests_that_the_gateway_refuses_reach_no_queue_and_leave_no_row() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let post = |credential: &str| {
        let request = gateway.request("POST", SMS_INVITE).header("Authorization", credential);
        request.header("Content-Type", "application/json")
    };
    let good = || world.credential();
    let expired = gkey_until(72, "12345", &world.api_key, now() - 1);
    let body = invite().to_string();
    let large = format!("{{\"x\":\"{}\"}}", "a".repeat(65_536));
    let with_type = |name: &str| {
        gateway.request("POST", SMS_INVITE).header("Authorization", good()).header("Content-Type", name)
    };
    for (request, status, code) in [
        (post(&good()).body("{"), 400, "request_malformed"),
        (post(&good()).body(""), 400, "request_malformed"),
        (post(&good()).body(r#"{"a":1,"a":2}"#), 400, "request_malformed"),
        (post(&good()).body(large), 413, "request_malformed"),
        (with_type("text/plain").body(body.clone()), 415, "request_malformed"),
        (with_type(&"x".repeat(300)).body(body.clone()), 415, "request_malformed"),
        (gateway.request("POST", SMS_INVITE).body(body.clone()), 401, "credential_missing"),
        (post("").body(body.clone()), 401, "credential_missing"),
        (post("Basic abc").body(body.clone()), 401, "credential_malformed"),
        (post(&format!("{}x", good())).body(body.clone()), 401, "credential_malformed"),
        (post(&expired).body(body.clone()), 401, "credential_expired"),
        (post(&good()).header("Authorization", &expired).body(body.clone()), 401, "credential_ambiguous"),
        (post(&good()).header("X-GSSNID", "other").body(body.clone()), 401, "credential_ambiguous"),
        (post(&good()).header("Idempotency-Key", "x".repeat(256)).body(body.clone()), 400, "field_invalid"),
        (
            post(&good()).header("Idempotency-Key", "a").header("Idempotency-Key", "a").body(body.clone()),
            400,
            "field_invalid",
        ),
    ] {
        send(request).await.problem(status, code);
    }
    let path = |query: &str| {
        let path = format!("/API/sessioninvitation/SMSINVITE{query}");
        gateway.request("POST", &path).header("Authorization", good()).body(invite().to_string())
    };
    assert_eq!(send(path("?groupid=73")).await.problem(403, "group_mismatch").field, "groupid");
    assert_eq!(send(path("?groupid=72&GROUPID=72")).await.problem(400, "field_invalid").field, "groupid");
    assert_eq!(world.database.sessions().await.len(), 0);
    // Once the sender is authenticated, the worker refuses, and the refusal has a row.
    assert_eq!(send(path("")).await.problem(400, "field_missing").field, "groupid");
    assert_eq!(send(path("?groupid=x")).await.problem(400, "field_invalid").field, "groupid");
    let mut wrong = invite();
    wrong["sessionParams"]["camera"] = json!("side");
    let refused = send(gateway.invite_with(&world, &wrong)).await;
    assert_eq!(refused.problem(400, "field_invalid").field, "sessionParams.camera");
    assert_eq!(world.database.sessions().await.len(), 3);
    send(path("?x=1&GroupId=72")).await.ok();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn refusals_of_the_worker_have_their_http_status_and_details() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let mut body = invite();
    body["smsPhone"] = json!("letters");
    let refused = send(gateway.invite_with(&world, &body)).await;
    let problem = refused.problem(400, "phone_invalid");
    assert_eq!((problem.field.as_str(), problem.retryable), ("smsPhone", Some(false)));
    world.provider.set(json!({"error_code": 21_610})).await;
    send(gateway.invite(&world)).await.problem(403, "opted_out");
    world.provider.set(json!({"error_code": 30_000})).await;
    body["smsPhone"] = json!("201-555-0123");
    let problem = send(gateway.invite_with(&world, &body)).await.problem(502, "provider_rejected");
    assert_eq!(problem.provider_code, Some(30_000));
    world.run(&["groups", "disable", "72"]).ok();
    crate::support::until("the group is switched off", || async {
        (send(gateway.invite_with(&world, &body)).await.status == 403).then_some(())
    })
    .await;
    send(gateway.invite_with(&world, &body)).await.problem(403, "group_disabled");
    assert!(gateway.process.stop().success());
}
