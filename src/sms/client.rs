//! The HTTP client for the provider. One try is one request: nothing here sends a text twice.

use super::{
    answer::{self, RetryReason, TryResult},
    connections::{ProviderConnections, RequestError},
    faults::{ProviderHealth, ProviderReport},
    metrics,
    write_guard::{BodyProgress, GuardedBody, WriteGuard},
};
use crate::{
    config::{FromNumber, ProviderConfig},
    masked::debug_shows,
    phone::PhoneNumber,
    sms_text::SmsText,
    traceparent::TraceParent,
    trouble::Trouble,
};
use base64::Engine;
use hyper::{
    Method, Request, Uri,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
    },
    http::uri::InvalidUri,
};
use secrecy::ExposeSecret;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::{Position, Url};

/// The bounds of `ValidityPeriod`, in seconds
/// (<https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>).
const VALIDITY: std::ops::RangeInclusive<u64> = 1..=36_000;
/// A longer answer does not come from a provider.
const LARGEST_ANSWER: usize = 256 * 1024;

/// One text to hand over.
pub(crate) struct OutgoingText<'a> {
    pub(crate) to: &'a PhoneNumber,
    /// The group's own From number, if it has one.
    pub(crate) from: Option<&'a str>,
    pub(crate) body: &'a SmsText,
    /// The text must not arrive later than this from now.
    pub(crate) validity: Duration,
    pub(crate) callback: Option<String>,
    pub(crate) trace: Option<TraceParent>,
    /// After this it must not be written to the connection: another worker may have the claim.
    pub(crate) write_by: Instant,
}

debug_shows!(OutgoingText<'_> { validity });

/// The provider, with a permit for each request that may be under way at once.
#[derive(Debug, Clone)]
pub struct Sms(Arc<Provider>);

pub(super) struct Provider {
    pub(super) connections: ProviderConnections,
    /// Of the account's messages.
    pub(super) url: Url,
    /// The same, as a path.
    path: Uri,
    /// Of every request.
    pub(super) headers: HeaderMap,
    sender: FromNumber,
    /// The sender's name.
    sender_name: Arc<str>,
    permits: Arc<Semaphore>,
    pub(super) health: ProviderHealth,
}

debug_shows!(Provider { url });

/// The permit to make one request to the provider.
#[derive(Debug)]
pub(crate) struct ProviderPermit {
    pub(super) provider: Arc<Provider>,
    _permit: OwnedSemaphorePermit,
}

impl Sms {
    /// # Errors
    ///
    /// A text for the operator if the TLS roots cannot be read, or the settings make no URL or header.
    pub(crate) fn new(config: &ProviderConfig) -> Result<Self, String> {
        let url = format!("{}/2010-04-01/Accounts/{}/Messages.json", config.base_url, config.account_sid);
        let url = Url::parse(&url).map_err(|error| format!("SMS_BASE_URL: {error}"))?;
        let connections = ProviderConnections::new(&url, config.timeout)
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
            connections,
            health: ProviderHealth::new(url.origin().ascii_serialization()),
            url,
            headers,
            sender_name: config.from_number.as_str().into(),
            sender: config.from_number.clone(),
            permits: Arc::new(Semaphore::new(config.concurrency)),
        })))
    }

    /// What is wrong with the provider, for `/readyz`.
    pub(crate) fn report(&self) -> ProviderReport {
        self.0.health.report()
    }

    /// The From number or messaging service of a group's texts; `own` is the group's, if it has one.
    pub(crate) fn sender(&self, own: Option<&str>) -> Arc<str> {
        own.map_or_else(|| self.0.sender_name.clone(), Arc::from)
    }

    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// [`Trouble::Stopping`] once the worker stops.
    pub(crate) async fn permit(&self) -> Result<ProviderPermit, Trouble> {
        let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| Trouble::Stopping)?;
        Ok(ProviderPermit { provider: self.0.clone(), _permit: permit })
    }

    /// Gives out no more permits: invites that wait for one go back to the queue.
    pub(crate) fn close(&self) {
        self.0.permits.close();
    }
}

impl Provider {
    /// A GET of a path.
    pub(super) fn get(&self, path: Uri, body: GuardedBody) -> Request<GuardedBody> {
        let mut request = Request::new(body);
        *request.uri_mut() = path;
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

impl ProviderPermit {
    /// Makes one try to hand a text over.
    pub(crate) async fn send(self, text: &OutgoingText<'_>) -> TryResult {
        let health = &self.provider.health;
        let _under_way = health.begin();
        let guard = WriteGuard::until(text.write_by);
        let request = self.request(text, &guard);
        let answered = self.provider.connections.request(request, LARGEST_ANSWER).await;
        metrics::answered(answered.as_ref().map(|(head, _)| head.status.as_u16()));
        let (head, body) = match answered {
            Ok(answer) => answer,
            Err(error) => {
                let result = unanswered(&error, guard.progress());
                health.unanswered(&error, &result);
                return result;
            }
        };
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let status = head.status.as_u16();
        let result = answer::read(status, retry_after, &body);
        let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        health.answered(status, location, &body, &result);
        result
    }

    fn request(&self, text: &OutgoingText<'_>, guard: &WriteGuard) -> Request<GuardedBody> {
        let mut form = url::form_urlencoded::Serializer::new(String::with_capacity(256));
        form.append_pair("To", text.to.as_e164());
        match (text.from, &self.provider.sender) {
            (Some(number), _) => form.append_pair("From", number),
            (None, FromNumber::Number(number)) => form.append_pair("From", number),
            (None, FromNumber::MessagingService(sid)) => form.append_pair("MessagingServiceSid", sid),
        };
        let validity = text.validity.as_secs().clamp(*VALIDITY.start(), *VALIDITY.end());
        form.append_pair("Body", text.body.as_str()).append_pair("ValidityPeriod", &validity.to_string());
        if let Some(callback) = &text.callback {
            form.append_pair("StatusCallback", callback);
        }
        let mut request = self.provider.get(self.provider.path.clone(), guard.body(form.finish()));
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

/// What is known of a request without an answer. Only one that was never written was surely not taken.
fn unanswered(error: &RequestError, progress: BodyProgress) -> TryResult {
    match progress {
        BodyProgress::NotRead => {
            TryResult::Later { status: None, retry_after: None, why: RetryReason::Unreachable }
        }
        BodyProgress::Withheld => TryResult::Withheld,
        BodyProgress::PerhapsWritten => TryResult::PerhapsSent { why: error.to_string() },
    }
}
