//! Upstream systems that ask over HTTP, and ask again by the same key until there is an answer.

use crate::invite::Invite;
use rand::RngExt;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use session_invite::{invite::Reply, refusal::Refusal};
use std::time::Duration;
use tokio::time::sleep;

/// Longer than GATEWAY_TIMEOUT: a gateway that is frozen is given up then.
const PATIENCE: Duration = Duration::from_secs(35);
const AGAIN: Duration = Duration::from_millis(200);

/// The gateways, any of which will do.
#[derive(Debug, Clone)]
pub struct Gateways {
    addresses: Vec<String>,
    client: reqwest::Client,
}

impl Gateways {
    pub fn new(addresses: Vec<String>) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        Self { addresses, client: client.expect("an HTTP client") }
    }

    /// The reply, as the queue would have brought it.
    pub async fn ask(&self, invite: &Invite, body: &[u8]) -> Vec<u8> {
        let (authorization, body) = in_header(body);
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
            if let Some(reply) = answer(request).await {
                return reply;
            }
            sleep(AGAIN).await;
        }
    }
}

/// `None` for what is to be asked again: a lost connection, a gateway that has no reply, or nobody to ask.
async fn answer(request: reqwest::RequestBuilder) -> Option<Vec<u8>> {
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

/// The body's credential, to go into the header, and the body without it.
fn in_header(body: &[u8]) -> (Option<String>, Vec<u8>) {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut fields)) => {
            let authorization = fields.remove("authorization");
            (
                authorization.and_then(|text| text.as_str().map(str::to_owned)),
                json!(fields).to_string().into(),
            )
        }
        _ => (None, body.to_vec()),
    }
}
