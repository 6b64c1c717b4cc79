//! Status callbacks: for each status after the first, a signed form goes to the message's `StatusCallback`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use reqwest::redirect;
use secrecy::SecretString;
use serde_json::{Value, json};
use sms_provider::signature::sign;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::counters;
use super::message::{AcceptedMessage, DeliveryOutcome, MessageStatus, RECEIPT_AFTER, SENT_AFTER};

/// How many messages may wait for their callbacks. Further messages get no callbacks.
const MAX_WAITING: usize = 10_000;
/// How many callbacks are sent at the same time.
const MAX_POSTS: usize = 32;
/// How often a callback is tried.
const TRIES: u32 = 3;
/// How long each try may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Schedules callbacks, for a bounded number of messages.
pub(super) struct CallbackSender {
    permits: Arc<Semaphore>,
    poster: Arc<CallbackPoster>,
    stopping: CancellationToken,
    dropped: AtomicU64,
}

/// Posts callbacks, a bounded number at a time.
struct CallbackPoster {
    client: reqwest::Client,
    posts: Semaphore,
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl CallbackSender {
    pub(crate) fn new(stopping: CancellationToken) -> io::Result<Self> {
        // An error means that the process already has a TLS provider. That one is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        let posts = Semaphore::new(MAX_POSTS);
        let poster =
            CallbackPoster { client, posts, delivered: AtomicU64::new(0), failed: AtomicU64::new(0) };
        Ok(Self {
            permits: Arc::new(Semaphore::new(MAX_WAITING)),
            poster: Arc::new(poster),
            stopping,
            dropped: AtomicU64::new(0),
        })
    }

    /// Sends the message's callbacks when they are due. Without a free permit, none are sent.
    pub(crate) fn follow(&self, message: Arc<AcceptedMessage>, auth_token: SecretString) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            counters::count(&self.dropped);
            return;
        };
        let poster = Arc::clone(&self.poster);
        let callbacks = self.stopping.clone().run_until_cancelled_owned(async move {
            poster.post_all(&message, &auth_token).await;
            drop(permit);
        });
        tokio::spawn(callbacks);
    }

    pub(crate) fn stats_json(&self) -> Value {
        json!({
            "delivered": counters::get(&self.poster.delivered),
            "failed": counters::get(&self.poster.failed),
            "dropped": counters::get(&self.dropped),
        })
    }
}

impl CallbackPoster {
    async fn post_all(&self, message: &AcceptedMessage, auth_token: &SecretString) {
        for after in [SENT_AFTER, RECEIPT_AFTER] {
            if after == RECEIPT_AFTER && message.deliver == DeliveryOutcome::None {
                return;
            }
            let due = message.received + after;
            sleep((due - OffsetDateTime::now_utc()).try_into().unwrap_or(Duration::ZERO)).await;
            self.post(message, message.status(due), auth_token).await;
        }
    }

    async fn post(&self, message: &AcceptedMessage, status: MessageStatus, auth_token: &SecretString) {
        let Some(url) = message.draft.status_callback.as_deref() else { return };
        let form = form(message, status);
        let signature = sign(auth_token, url, &form);
        let Ok(_permit) = self.posts.acquire().await else { return };
        for _ in 0..TRIES {
            let request = self.client.post(url).header("X-Twilio-Signature", &signature).form(&form);
            let answer = request.send().await.and_then(reqwest::Response::error_for_status);
            if answer.is_ok() {
                counters::count(&self.delivered);
                return;
            }
            sleep(RETRY_DELAY).await;
        }
        counters::count(&self.failed);
    }
}

fn form(message: &AcceptedMessage, status: MessageStatus) -> Vec<(&'static str, String)> {
    let sid = message.sid.to_string();
    let mut form = vec![
        ("AccountSid", message.draft.account_sid.to_string()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("MessageSid", sid.clone()),
        ("MessageStatus", status.name().to_owned()),
        ("SmsSid", sid),
        ("SmsStatus", status.name().to_owned()),
        ("To", message.draft.to.to_string()),
    ];
    if let Some(from) = message.from() {
        form.push(("From", from.to_owned()));
    }
    if let Some(code) = status.error_code() {
        form.push(("ErrorCode", code.to_string()));
    }
    form
}
