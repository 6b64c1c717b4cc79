//! Worlds with a gateway at the address of PUBLIC_URL, and the provider's webhooks to it.

use super::{Answer, Gateway, SessionRow, Setup, World, send};
use sms_provider::signature::sign;
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// The path of visitors' texts.
pub const INBOUND: &str = "/webhooks/twilio/inbound";

/// A world with a gateway. Links in texts and the provider's callbacks lead to it.
pub async fn with_gateway_and_callbacks(setup: Setup) -> (World, Gateway) {
    with_gateway_under_path(setup, "").await
}

/// A world with a gateway. The worker requests no callbacks, so the gateway gets only the webhooks that the test sends.
pub async fn with_gateway(setup: Setup) -> (World, Gateway) {
    let world = setup.start().await;
    let address = free_address();
    let url = format!("http://{address}");
    let gateway = world.start_gateway(&[("GATEWAY_ADDR", &address), ("PUBLIC_URL", &url)]).await;
    (world, gateway)
}

/// Like `with_gateway_and_callbacks`, with a path in PUBLIC_URL.
pub async fn with_gateway_under_path(setup: Setup, path: &str) -> (World, Gateway) {
    let address = free_address();
    let world = setup.set("PUBLIC_URL", &format!("http://{address}{path}")).start().await;
    let gateway = world.start_gateway(&[("GATEWAY_ADDR", &address)]).await;
    (world, gateway)
}

/// An address of this machine on which nothing listens. A process that the test starts may listen there.
pub fn free_address() -> String {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of sockets");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = socket.local_addr().expect("an address").to_string();
    // It stays bound until the tests' process ends, so that no other test gets the port. A listener has SO_REUSEADDR.
    std::mem::forget(socket);
    address
}

/// The path of a session's receipts.
pub fn status_path(session: &SessionRow) -> String {
    format!("/webhooks/twilio/status/{}", session.id)
}

/// A webhook as the provider sends it, signed for the URL that it was given.
pub async fn webhook(world: &World, gateway: &Gateway, path: &str, form: &[(&str, &str)]) -> Answer {
    send(webhook_request(world, gateway, path, form)).await
}

/// The same, not sent yet.
pub fn webhook_request(
    world: &World,
    gateway: &Gateway,
    path: &str,
    form: &[(&str, &str)],
) -> reqwest::RequestBuilder {
    let url = format!("http://{}{path}", gateway.address);
    signed(gateway, path, form, &sign(&world.provider.auth_token.clone().into(), &url, form))
}

/// The same with any signature.
pub async fn webhook_signed(gateway: &Gateway, path: &str, form: &[(&str, &str)], signature: &str) -> Answer {
    send(signed(gateway, path, form, signature)).await
}

fn signed(gateway: &Gateway, path: &str, form: &[(&str, &str)], signature: &str) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    gateway
        .request("POST", path)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Twilio-Signature", signature)
        .body(body)
}

/// The receipt of a session's own text.
pub async fn receipt(world: &World, gateway: &Gateway, session: &SessionRow, status: &str) -> Answer {
    let form = [
        ("MessageSid", session.sid()),
        ("MessageStatus", status),
        ("ErrorCode", "30003"),
        ("To", "+11110000000"),
    ];
    let of_failure = matches!(status, "undelivered" | "failed");
    let form: Vec<_> = form.into_iter().filter(|(name, _)| *name != "ErrorCode" || of_failure).collect();
    webhook(world, gateway, &status_path(session), &form).await
}

/// A visitor's text to the world's From number, as the provider hands it over.
pub async fn text_from(world: &World, gateway: &Gateway, from: &str, body: &str, sid: &str) -> Answer {
    let form = [("From", from), ("To", "+15005550006"), ("Body", body), ("MessageSid", sid)];
    webhook(world, gateway, INBOUND, &form).await
}
