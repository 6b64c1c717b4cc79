//! The HTTP client of the provider. One try is one request: nothing here sends a text twice.

use super::{
    Answer,
    answer::{self, Later},
    lines::{Failed, Lines},
    written::{Guard, Guarded, Written},
};
use crate::masked::debug_shows;
use crate::{
    config::{ProviderConfig, Sender},
    phone::PhoneNumber,
    sms_text::SmsText,
    traceparent::TraceParent,
    trouble::Trouble,
};
use base64::Engine;
use hyper::{
    Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
    http::uri::InvalidUri,
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
use url::{Position, Url};

/// The bounds of `ValidityPeriod`, in seconds
/// (<https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>).
const VALIDITY: std::ops::RangeInclusive<u64> = 1..=36_000;
/// An answer longer than this is no answer of a provider's.
const LARGEST_ANSWER: usize = 256 * 1024;

/// One text to hand over.
pub struct Text<'a> {
    pub to: &'a PhoneNumber,
    /// The group's own sender, if it has one.
    pub from: Option<&'a str>,
    pub body: &'a SmsText,
    /// What is left of the session: no text shall arrive after it.
    pub validity: Duration,
    pub callback: Option<String>,
    pub trace: Option<TraceParent>,
    /// After this it may not be written to the line any more: another worker may be at it.
    pub write_by: Instant,
}

debug_shows!(Text<'_> { validity });

/// The provider, with as many places as requests may be under way at once.
#[derive(Debug, Clone)]
pub struct Sms(Arc<Provider>);

pub(super) struct Provider {
    pub lines: Lines,
    /// Of the account's messages.
    pub url: Url,
    /// The same, as a path.
    path: Uri,
    /// What every request says.
    pub headers: HeaderMap,
    sender: Sender,
    /// The sender's name.
    sender_name: Arc<str>,
    places: Arc<Semaphore>,
    /// The provider's code or status with which it refuses the account; 0 while it does not.
    refused: AtomicI64,
}

debug_shows!(Provider { url });

/// A place at the provider: whoever holds it may make a request.
#[derive(Debug)]
pub struct Place {
    pub(super) provider: Arc<Provider>,
    _permit: OwnedSemaphorePermit,
}

impl Sms {
    /// Fails only if the TLS roots cannot be read or the URL cannot be one.
    pub fn new(config: &ProviderConfig) -> Result<Self, String> {
        let url = format!("{}/2010-04-01/Accounts/{}/Messages.json", config.base_url, config.account_sid);
        let url = Url::parse(&url).map_err(|error| format!("SMS_BASE_URL: {error}"))?;
        let lines = Lines::new(&url, config.timeout)
            .map_err(|error| format!("the HTTP client cannot be built: {error}"))?;
        let login = format!("{}:{}", config.user, config.password.expose_secret());
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
        let mut authorization =
            HeaderValue::from_str(&basic).map_err(|error| format!("TWILIO_AUTH_TOKEN: {error}"))?;
        authorization.set_sensitive(true);
        let agent = HeaderValue::from_static(concat!("session-invite/", env!("CARGO_PKG_VERSION")));
        let any = HeaderValue::from_static("*/*");
        let headers =
            HeaderMap::from_iter([(AUTHORIZATION, authorization), (USER_AGENT, agent), (ACCEPT, any)]);
        Ok(Self(Arc::new(Provider {
            path: path_of(&url).map_err(|error| format!("SMS_BASE_URL: {error}"))?,
            lines,
            url,
            headers,
            sender_name: config.sender.as_str().into(),
            sender: config.sender.clone(),
            places: Arc::new(Semaphore::new(config.concurrency)),
            refused: AtomicI64::new(0),
        })))
    }

    /// The code or status with which the provider refuses the operator's account, if it does.
    pub fn account_refused(&self) -> Option<i64> {
        Some(self.0.refused.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    /// Whom a text is from, for a group that may have a sender of its own.
    pub fn sender(&self, own: Option<&str>) -> Arc<str> {
        own.map_or_else(|| self.0.sender_name.clone(), Arc::from)
    }

    /// Waits for a place; a stopping worker gives none out any more.
    pub async fn place(&self) -> Result<Place, Trouble> {
        let permit = self.0.places.clone().acquire_owned().await.map_err(|_| Trouble::Stopping)?;
        Ok(Place { provider: self.0.clone(), _permit: permit })
    }

    /// Gives out no more places: what has none yet goes back to the queue.
    pub fn close(&self) {
        self.0.places.close();
    }
}

impl Provider {
    /// A GET of a path.
    pub fn to(&self, path: Uri, body: Guarded) -> Request<Guarded> {
        let mut request = Request::new(body);
        *request.uri_mut() = path;
        request.headers_mut().clone_from(&self.headers);
        request
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
}

impl Place {
    /// Hands one text over, once.
    pub async fn send(self, text: &Text<'_>) -> Answer {
        let guard = Guard::until(text.write_by);
        let (head, body) = match self.provider.lines.ask(self.request(text, &guard), LARGEST_ANSWER).await {
            Ok(answer) => answer,
            Err(failed) => return unanswered(failed, guard.written()),
        };
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let status = head.status.as_u16();
        let answer = answer::read(status, retry_after, &body);
        match &answer {
            Answer::Later { why: Later::Account { provider_code }, .. } => {
                self.provider.account_is(Some(provider_code.unwrap_or(i64::from(status))));
            }
            Answer::Accepted { .. } => self.provider.account_is(None),
            _ => {}
        }
        answer
    }

    fn request(&self, text: &Text<'_>, guard: &Guard) -> Request<Guarded> {
        let mut form = url::form_urlencoded::Serializer::new(String::with_capacity(256));
        form.append_pair("To", text.to.as_e164());
        match (text.from, &self.provider.sender) {
            (Some(number), _) => form.append_pair("From", number),
            (None, Sender::Number(number)) => form.append_pair("From", number),
            (None, Sender::MessagingService(sid)) => form.append_pair("MessagingServiceSid", sid),
        };
        let validity = text.validity.as_secs().clamp(*VALIDITY.start(), *VALIDITY.end());
        form.append_pair("Body", text.body.as_str()).append_pair("ValidityPeriod", &validity.to_string());
        if let Some(callback) = &text.callback {
            form.append_pair("StatusCallback", callback);
        }
        let mut request = self.provider.to(self.provider.path.clone(), guard.body(form.finish()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(trace) = text.trace.and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok()) {
            headers.insert("traceparent", trace);
        }
        request
    }
}

/// A URL's path and query. Those of a URI have at most 64 KiB.
pub(super) fn path_of(url: &Url) -> Result<Uri, InvalidUri> {
    url[Position::BeforePath..Position::AfterQuery].parse()
}

/// What is known of a request that has no answer. Only what was never written was surely not taken.
fn unanswered(failed: Failed, written: Written) -> Answer {
    match written {
        Written::Nothing => Answer::Later { retry_after: None, why: Later::Unreachable },
        Written::Withheld => Answer::Withheld,
        Written::Perhaps => Answer::PerhapsSent { why: failed.to_string() },
    }
}
