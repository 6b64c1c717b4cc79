//! A gateway where PUBLIC_URL says that it is, and the provider's webhooks to it.

use super::{Answer, Gateway, Setup, World, send};
use serde_json::Value;
use sms_provider::signature::sign;
use std::net::TcpListener;

/// A world whose links and callbacks lead to the gateway that is started in it.
pub async fn at_home(setup: Setup) -> (World, Gateway) {
    at_home_under(setup, "").await
}

/// The same, but the worker asks for no callbacks: nothing comes but what a test sends.
pub async fn at_home_quietly(setup: Setup) -> (World, Gateway) {
    let world = setup.start().await;
    let address = free_address();
    let url = format!("http://{address}");
    let gateway = world.start_gateway(&[("GATEWAY_ADDR", &address), ("PUBLIC_URL", &url)]).await;
    (world, gateway)
}

/// The same with a path in PUBLIC_URL.
pub async fn at_home_under(setup: Setup, path: &str) -> (World, Gateway) {
    let address = free_address();
    let world = setup.set("PUBLIC_URL", &format!("http://{address}{path}")).start().await;
    let gateway = world.start_gateway(&[("GATEWAY_ADDR", &address)]).await;
    (world, gateway)
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// The receipt's path of a session.
pub fn status_path(session: &Value) -> String {
    format!("/webhooks/twilio/status/{}", session["id"].as_str().expect("a session has an id"))
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
pub async fn receipt(world: &World, gateway: &Gateway, session: &Value, status: &str) -> Answer {
    let sid = session["provider_message_id"].as_str().expect("its text was taken");
    let form =
        [("MessageSid", sid), ("MessageStatus", status), ("ErrorCode", "30003"), ("To", "+11110000000")];
    let of_failure = matches!(status, "undelivered" | "failed");
    let form: Vec<_> = form.into_iter().filter(|(name, _)| *name != "ErrorCode" || of_failure).collect();
    webhook(world, gateway, &status_path(session), &form).await
}
