//! The HTTP client of the provider. One try is one request: nothing here sends a text twice.

use super::{
    Answer,
    answer::{self, Later},
    written::{Guard, Written},
};
use crate::{
    config::{ProviderConfig, Sender},
    invite::trace::TraceParent,
    trouble::Trouble,
};
use base64::Engine;
use reqwest::{
    Client,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use secrecy::ExposeSecret;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds of `ValidityPeriod`, in seconds
/// (<https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>).
const VALIDITY: std::ops::RangeInclusive<u64> = 1..=36_000;
/// An answer longer than this is no answer of a provider's.
const LARGEST_ANSWER: usize = 256 * 1024;

/// One text to hand over.
#[derive(Debug)]
pub struct Text<'a> {
    /// E.164.
    pub to: &'a str,
    /// The group's own sender, if it has one.
    pub from: Option<&'a str>,
    pub body: &'a str,
    /// What is left of the session: no text shall arrive after it.
    pub validity: Duration,
    pub callback: Option<String>,
    pub trace: Option<TraceParent>,
    /// After this it may not be written to the line any more: another worker may be at it.
    pub write_by: Instant,
}

/// The provider, with as many places as requests may be under way at once.
#[derive(Debug, Clone)]
pub struct Sms {
    pub(super) client: Client,
    /// Of the account's messages.
    pub(super) url: reqwest::Url,
    pub(super) authorization: HeaderValue,
    sender: Sender,
    places: Arc<Semaphore>,
    /// The provider's code or status with which it refuses the account; 0 while it does not.
    refused: Arc<AtomicI64>,
}

/// A place at the provider: whoever holds it may make a request.
#[derive(Debug)]
pub struct Place {
    pub(super) sms: Sms,
    _permit: OwnedSemaphorePermit,
}

impl Sms {
    /// Fails only if the TLS roots cannot be read or the URL cannot be one.
    pub fn new(config: &ProviderConfig) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(concat!("session-invite/", env!("CARGO_PKG_VERSION")))
            .timeout(config.timeout)
            .connect_timeout(config.timeout.min(Duration::from_secs(5)))
            .pool_max_idle_per_host(config.concurrency)
            // Shorter than servers keep idle connections: a request on a closing one would end as unknown.
            .pool_idle_timeout(Duration::from_secs(15))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .map_err(|error| format!("the HTTP client cannot be built: {error}"))?;
        let url = format!("{}/2010-04-01/Accounts/{}/Messages.json", config.base_url, config.account_sid);
        let url = reqwest::Url::parse(&url).map_err(|error| format!("SMS_BASE_URL: {error}"))?;
        let login = format!("{}:{}", config.user, config.password.expose_secret());
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
        let mut authorization =
            HeaderValue::from_str(&basic).map_err(|error| format!("TWILIO_AUTH_TOKEN: {error}"))?;
        authorization.set_sensitive(true);
        let places = Arc::new(Semaphore::new(config.concurrency));
        let (sender, refused) = (config.sender.clone(), Arc::default());
        Ok(Self { client, url, authorization, sender, places, refused })
    }

    /// The code or status with which the provider refuses the operator's account, if it does.
    pub fn account_refused(&self) -> Option<i64> {
        Some(self.refused.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    /// Tells a change, and not each try.
    fn account_is(&self, refused: Option<i64>) {
        let before = self.refused.swap(refused.unwrap_or_default(), Ordering::Relaxed);
        match refused {
            Some(code) if before == 0 => {
                tracing::error!(code, "the provider refuses the operator's account: check TWILIO_*");
            }
            None if before != 0 => tracing::info!("the provider takes the operator's account again"),
            _ => {}
        }
    }

    /// Waits for a place; a stopping worker gives none out any more.
    pub async fn place(&self) -> Result<Place, Trouble> {
        let permit = self.places.clone().acquire_owned().await.map_err(|_| Trouble::Stopping)?;
        Ok(Place { sms: self.clone(), _permit: permit })
    }

    /// Gives out no more places: what has none yet goes back to the queue.
    pub fn close(&self) {
        self.places.close();
    }
}

impl Place {
    /// Hands one text over, once.
    pub async fn send(self, text: &Text<'_>) -> Answer {
        let guard = Guard::until(text.write_by);
        let request = self.request(text, &guard);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unanswered(&error, guard.written()),
        };
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        match read_whole(&mut response, LARGEST_ANSWER).await {
            Ok(Some(body)) => {
                let answer = answer::read(status, header.as_deref(), &body);
                match &answer {
                    Answer::Later { why: Later::Account { provider_code }, .. } => {
                        self.sms.account_is(Some(provider_code.unwrap_or(i64::from(status))));
                    }
                    Answer::Accepted { .. } => self.sms.account_is(None),
                    _ => {}
                }
                answer
            }
            Ok(None) => {
                Answer::PerhapsSent { why: format!("the provider answered {status} at too great a length") }
            }
            Err(error) => Answer::PerhapsSent { why: describe(&error) },
        }
    }

    fn request(&self, text: &Text<'_>, guard: &Guard) -> reqwest::RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::with_capacity(256));
        form.append_pair("To", text.to);
        match (text.from, &self.sms.sender) {
            (Some(number), _) => form.append_pair("From", number),
            (None, Sender::Number(number)) => form.append_pair("From", number),
            (None, Sender::MessagingService(sid)) => form.append_pair("MessagingServiceSid", sid),
        };
        let validity = text.validity.as_secs().clamp(*VALIDITY.start(), *VALIDITY.end());
        form.append_pair("Body", text.body).append_pair("ValidityPeriod", &validity.to_string());
        if let Some(callback) = &text.callback {
            form.append_pair("StatusCallback", callback);
        }
        let request = self
            .sms
            .client
            .post(self.sms.url.clone())
            .header(AUTHORIZATION, self.sms.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(guard.body(form.finish()));
        match text.trace {
            Some(trace) => request.header("traceparent", trace.to_string()),
            None => request,
        }
    }
}

/// What is known of a request that has no answer. Only what was never written was surely not taken.
fn unanswered(error: &reqwest::Error, written: Written) -> Answer {
    match written {
        Written::Nothing => {
            tracing::debug!(error = describe(error), "the provider is not reached");
            Answer::Later { retry_after: None, why: Later::Unreachable }
        }
        Written::Withheld => Answer::Withheld,
        Written::Perhaps => Answer::PerhapsSent { why: describe(error) },
    }
}

/// The body of an answer; `None` for one that is longer than `limit` bytes.
pub(super) async fn read_whole(
    response: &mut reqwest::Response,
    limit: usize,
) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// In words that hold neither the URL nor the request.
pub(super) fn describe(error: &reqwest::Error) -> String {
    if error.is_connect() {
        "the provider cannot be connected to".to_owned()
    } else if error.is_timeout() {
        "the provider did not answer in time".to_owned()
    } else {
        "the line to the provider was cut".to_owned()
    }
}
