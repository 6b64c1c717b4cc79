//! Status callbacks: a signed form to a message's `StatusCallback` for each status after the first.

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

use super::message::{Deliver, Message, RECEIPT_AFTER, SENT_AFTER, Status};
use super::state;

/// How many messages may wait for their callbacks; those beyond get none.
const MAX_WAITING: usize = 10_000;
/// How many callbacks are under way at a time.
const MAX_POSTS: usize = 32;
/// How often a callback is tried, and how long each try may take.
const TRIES: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Sends callbacks, a bounded number at a time.
pub(super) struct Callbacks {
    waiting: Arc<Semaphore>,
    poster: Arc<Poster>,
    stopping: CancellationToken,
    dropped: AtomicU64,
}

struct Poster {
    client: reqwest::Client,
    posts: Semaphore,
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Callbacks {
    pub fn new(stopping: CancellationToken) -> io::Result<Self> {
        // It fails only if the process has a provider already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        let posts = Semaphore::new(MAX_POSTS);
        let poster = Poster { client, posts, delivered: AtomicU64::new(0), failed: AtomicU64::new(0) };
        Ok(Self {
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            poster: Arc::new(poster),
            stopping,
            dropped: AtomicU64::new(0),
        })
    }

    /// Sends the message's callbacks as their time comes.
    pub fn follow(&self, message: Arc<Message>, auth_token: SecretString) {
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            state::count(&self.dropped);
            return;
        };
        let poster = Arc::clone(&self.poster);
        let story = self.stopping.clone().run_until_cancelled_owned(async move {
            poster.tell(&message, &auth_token).await;
            drop(place);
        });
        tokio::spawn(story);
    }

    pub fn stats_json(&self) -> Value {
        json!({
            "delivered": state::get(&self.poster.delivered),
            "failed": state::get(&self.poster.failed),
            "dropped": state::get(&self.dropped),
        })
    }
}

impl Poster {
    async fn tell(&self, message: &Message, auth_token: &SecretString) {
        for after in [SENT_AFTER, RECEIPT_AFTER] {
            if after == RECEIPT_AFTER && message.deliver == Deliver::None {
                return;
            }
            let due = message.received + after;
            sleep((due - OffsetDateTime::now_utc()).try_into().unwrap_or(Duration::ZERO)).await;
            self.post(message, message.status(due), auth_token).await;
        }
    }

    async fn post(&self, message: &Message, status: Status, auth_token: &SecretString) {
        let Some(url) = message.draft.status_callback.as_deref() else { return };
        let form = form(message, status);
        let signature = sign(auth_token, url, &form);
        let Ok(_permit) = self.posts.acquire().await else { return };
        for _ in 0..TRIES {
            let request = self.client.post(url).header("X-Twilio-Signature", &signature).form(&form);
            let answer = request.send().await.and_then(reqwest::Response::error_for_status);
            if answer.is_ok() {
                state::count(&self.delivered);
                return;
            }
            sleep(RETRY_DELAY).await;
        }
        state::count(&self.failed);
    }
}

fn form(message: &Message, status: Status) -> Vec<(&'static str, String)> {
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
