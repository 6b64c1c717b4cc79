//! `POST …/Messages.json`: accepts a message, or injects a fault.

use std::future;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use sms_provider::codes;
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use url::{Url, form_urlencoded};

use super::auth::AuthenticatedAccount;
use super::connection::ConnectionCutter;
use super::counters;
use super::error::ApiError;
use super::faults::{CreateOutcome, Fault};
use super::message::{AcceptedMessage, DeliveryOutcome, MessageDraft, MessageOrigin};
use super::state::SharedState;

/// The longest text, in characters.
const MAX_BODY: usize = 1600;
/// The longest, and default, time that a message may wait at the provider, in seconds.
const MAX_VALIDITY: u32 = 36_000;

pub(super) async fn create(
    State(state): State<SharedState>,
    ConnectInfo(cutter): ConnectInfo<ConnectionCutter>,
    account: AuthenticatedAccount,
    headers: HeaderMap,
    form: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    counters::count(&state.counters.posts);
    let form = form.map_err(|rejection| {
        ApiError::new(rejection.status(), codes::INVALID_PARAMETER, rejection.body_text())
    })?;
    let (outcome, latency, retry_after, deliver) = {
        let mut injector = state.injector();
        (injector.next_outcome(), injector.latency(), injector.retry_after(), injector.deliver())
    };
    state.counters.count_outcome(outcome);
    if !latency.is_zero() {
        sleep(latency).await;
    }

    let accept = || accept(&state, account, &headers, &form, deliver);
    match outcome {
        CreateOutcome::Success => accept().map(|message| created(&message)),
        CreateOutcome::Error { status, code } => {
            Err(ApiError::new(status, code, "The sandbox answers this error to every message"))
        }
        CreateOutcome::Fault(fault) => inject(fault, accept, retry_after, &cutter, &state.stopping).await,
    }
}

/// Answers with a fault. Some faults accept the message first.
async fn inject(
    fault: Fault,
    accept: impl FnOnce() -> Result<Arc<AcceptedMessage>, ApiError>,
    retry_after: u64,
    cutter: &ConnectionCutter,
    stopping: &CancellationToken,
) -> Result<Response, ApiError> {
    match fault {
        Fault::Throttle => {
            let error =
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, codes::TOO_MANY_REQUESTS, "Too Many Requests");
            Err(error.retry_after(retry_after))
        }
        Fault::DailyLimit => Err(ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            codes::DAILY_LIMIT_EXCEEDED,
            "Account exceeded the daily message limit",
        )),
        Fault::Fail => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(ApiError::new(status, codes::SERVICE_UNAVAILABLE, "Service unavailable"))
        }
        Fault::AcceptThenFail => {
            accept()?;
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(ApiError::new(status, codes::INTERNAL_SERVER_ERROR, "Internal server error"))
        }
        Fault::Cut => {
            accept()?;
            cutter.cut();
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Fault::CutBefore => {
            cutter.cut();
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Fault::Hang => {
            accept()?;
            // When the client disconnects, hyper drops this future. It also ends with the server.
            tokio::select! {
                () = future::pending() => {}
                () = stopping.cancelled() => cutter.cut(),
            }
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Fault::NoSid => {
            let message = accept()?;
            let mut resource = message.resource(OffsetDateTime::now_utc());
            resource.identity = None;
            Ok((StatusCode::CREATED, Json(resource)).into_response())
        }
        Fault::Redirect => Ok((StatusCode::FOUND, [(header::LOCATION, "/")]).into_response()),
        Fault::Garbage => Ok(Html("<html><body><h1>Welcome to the proxy</h1></body></html>").into_response()),
    }
}

fn accept(
    state: &SharedState,
    account: AuthenticatedAccount,
    headers: &HeaderMap,
    form: &[u8],
    deliver: DeliveryOutcome,
) -> Result<Arc<AcceptedMessage>, ApiError> {
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let draft = draft(account.account_sid, traceparent, form)?;
    let message = state.store().accept(draft, deliver);
    counters::count(&state.counters.accepted);
    if let (Some(callbacks), Some(_)) = (&state.callbacks, &message.draft.status_callback) {
        callbacks.follow(Arc::clone(&message), account.auth_token);
    }
    Ok(message)
}

fn created(message: &AcceptedMessage) -> Response {
    (StatusCode::CREATED, Json(message.resource(message.received))).into_response()
}

/// Checks a form, in the order of Twilio's own checks.
fn draft(account_sid: Box<str>, traceparent: Option<&str>, form: &[u8]) -> Result<MessageDraft, ApiError> {
    let (mut to, mut from, mut service, mut body) = (None, None, None, None);
    let (mut validity, mut callback) = (None, None);
    for (name, value) in form_urlencoded::parse(form) {
        let field = match &*name {
            "To" => &mut to,
            "From" => &mut from,
            "MessagingServiceSid" => &mut service,
            "Body" => &mut body,
            "ValidityPeriod" => &mut validity,
            "StatusCallback" => &mut callback,
            _ => continue,
        };
        *field = (!value.is_empty()).then(|| Box::from(&*value));
    }
    let to: Box<str> =
        to.ok_or_else(|| ApiError::bad_request(codes::TO_MISSING, "A 'To' phone number is required."))?;
    let sender = match (service, from) {
        (Some(service), _) => MessageOrigin::Service(service),
        (None, Some(from)) => MessageOrigin::From(from),
        (None, None) => {
            return Err(ApiError::bad_request(codes::FROM_MISSING, "A 'From' phone number is required."));
        }
    };
    let body: Box<str> =
        body.ok_or_else(|| ApiError::bad_request(codes::BODY_MISSING, "Message body is required."))?;
    if body.chars().count() > MAX_BODY {
        return Err(ApiError::bad_request(
            codes::BODY_TOO_LONG,
            "The message body exceeds the 1600 character limit.",
        ));
    }
    check_sender(&sender)?;
    check_recipient(&to)?;
    let validity_period = validity.map_or(Ok(MAX_VALIDITY), |seconds| validity_period(&seconds))?;
    if let Some(url) = &callback {
        check_callback(url)?;
    }
    let traceparent = traceparent.map(Box::from);
    Ok(MessageDraft {
        account_sid,
        to,
        sender,
        body,
        validity_period,
        status_callback: callback,
        traceparent,
    })
}

/// Twilio's test numbers to send from (<https://www.twilio.com/docs/iam/test-credentials>).
fn check_sender(sender: &MessageOrigin) -> Result<(), ApiError> {
    let MessageOrigin::From(number) = sender else { return Ok(()) };
    let (code, message) = match &**number {
        "+15005550001" => (codes::FROM_INVALID, "is not a valid sender"),
        "+15005550007" => (codes::FROM_CANNOT_SEND, "is not a number of this account that can send texts"),
        "+15005550008" => (codes::FROM_QUEUE_FULL, "has a full queue of texts"),
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(code, format!("The 'From' number {number} {message}.")))
}

/// Twilio's test numbers to send to. Other numbers must be in E.164.
fn check_recipient(number: &str) -> Result<(), ApiError> {
    let (code, message) = match number {
        "+15005550001" => (codes::TO_INVALID, "is not a valid phone number"),
        "+15005550002" => (codes::TO_NOT_REACHABLE_FROM, "cannot be reached from this sender"),
        "+15005550003" => (codes::REGION_NOT_ENABLED, "is in a region that this account may not text"),
        "+15005550004" => (codes::TO_UNSUBSCRIBED, "has opted out"),
        "+15005550009" => (codes::TO_NOT_MOBILE, "is not a mobile number"),
        _ if is_e164(number) => return Ok(()),
        _ => (codes::TO_INVALID, "is not a valid phone number"),
    };
    Err(ApiError::bad_request(code, format!("The 'To' number {number} {message}.")))
}

fn is_e164(number: &str) -> bool {
    number
        .strip_prefix('+')
        .is_some_and(|digits| (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn validity_period(seconds: &str) -> Result<u32, ApiError> {
    let parsed = seconds.parse().ok().filter(|seconds| (1..=MAX_VALIDITY).contains(seconds));
    parsed.ok_or_else(|| {
        ApiError::bad_request(
            codes::VALIDITY_PERIOD_INVALID,
            "ValidityPeriod must be from 1 to 36000 seconds.",
        )
    })
}

/// Twilio also refuses a host with an underscore.
fn check_callback(url: &str) -> Result<(), ApiError> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match parsed.as_ref().and_then(Url::host_str) {
        Some(host) if !host.contains('_') => Ok(()),
        _ => Err(ApiError::bad_request(
            codes::STATUS_CALLBACK_INVALID,
            "The 'StatusCallback' URL is not a valid URL.",
        )),
    }
}
