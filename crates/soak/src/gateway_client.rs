//! Upstream systems that use HTTP. They repeat a request with the same key until it is answered.

use crate::invite::Invite;
use rand::RngExt;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use session_invite::internals::{Refusal, Reply};
use std::time::Duration;
use tokio::time::sleep;

/// Longer than GATEWAY_TIMEOUT, so only a frozen gateway reaches it.
const TIMEOUT: Duration = Duration::from_secs(35);
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Sends each request to one of the gateways, chosen at random.
#[derive(Debug, Clone)]
pub(crate) struct GatewayClient {
    addresses: Vec<String>,
    client: reqwest::Client,
}

impl GatewayClient {
    pub(crate) fn new(addresses: Vec<String>) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        Self { addresses, client: client.expect("an HTTP client") }
    }

    /// Sends an invite until it is answered. Gives the reply as the queue would carry it.
    pub(crate) async fn send(&self, invite: &Invite, body: &[u8]) -> Vec<u8> {
        let (authorization, body) = split_credential(body);
        loop {
            let gateway = &self.addresses[rand::rng().random_range(0..self.addresses.len())];
            let path = "/api/SessionInvitation/smsInvite/";
            let mut request = self
                .client
                .post(format!("http://{gateway}{path}?groupid={}", invite.group))
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
            if let Some(id) = invite.id() {
                request = request.header("Idempotency-Key", id);
            }
            if let Some(authorization) = &authorization {
                request = request.header("Authorization", authorization);
            }
            if let Some(reply) = reply(request).await {
                return reply;
            }
            sleep(RETRY_DELAY).await;
        }
    }
}

/// `None` if the request has to be repeated: no connection, or a gateway that has no reply from a worker.
async fn reply(request: reqwest::RequestBuilder) -> Option<Vec<u8>> {
    let response = request.send().await.ok()?;
    let is_sent = response.status().is_success();
    let body = response.bytes().await.ok()?;
    if is_sent {
        return Some(body.to_vec());
    }
    let problem: Value = serde_json::from_slice(&body).ok()?;
    if matches!(problem["code"].as_str(), Some("unavailable" | "reply_timeout" | "request_timeout")) {
        return None;
    }
    let mut error = problem.clone();
    error["message"] = problem["detail"].clone();
    if error["field"] == "Idempotency-Key" {
        error["field"] = "message_id".into();
    }
    let refusal: Refusal = serde_json::from_value(error).ok()?;
    Some(Reply::refused(&refusal).body)
}

/// The credential of the body, for the header, and the body without it.
fn split_credential(body: &[u8]) -> (Option<String>, Vec<u8>) {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut fields)) => {
            let authorization = fields.remove("authorization");
            let authorization = authorization.and_then(|text| text.as_str().map(str::to_owned));
            (authorization, json!(fields).to_string().into())
        }
        _ => (None, body.to_vec()),
    }
}
