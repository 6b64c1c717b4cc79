//! What a request is told when it cannot have what it asked for: RFC 9457's problem details, with the codes of the
//! contract's section 7 and a few of the gateway's own.

use crate::refusal::{Code, MENDED_AFTER, Refusal};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, time::Duration};
use utoipa::ToSchema;
use uuid::Uuid;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What a request without another hint waits before it asks again.
const SOON: u64 = 1;

/// Codes that only the gateway has, beside [`Code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    SignatureInvalid,
    SessionNotFound,
    SessionNotSettled,
    Unavailable,
    ReplyTimeout,
}

impl Own {
    pub const ALL: [Self; 8] = [
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::SignatureInvalid,
        Self::SessionNotFound,
        Self::SessionNotSettled,
        Self::Unavailable,
        Self::ReplyTimeout,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::SignatureInvalid => "signature_invalid",
            Self::SessionNotFound => "session_not_found",
            Self::SessionNotSettled => "session_not_settled",
            Self::Unavailable => "unavailable",
            Self::ReplyTimeout => "reply_timeout",
        }
    }

    pub const fn http_status(self) -> u16 {
        match self {
            Self::NotFound | Self::SessionNotFound => 404,
            Self::SignatureInvalid => 403,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::SessionNotSettled => 409,
            Self::Unavailable => 503,
            Self::ReplyTimeout => 504,
        }
    }

    /// Whether sending the same request again is sensible.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout | Self::SessionNotSettled | Self::Unavailable | Self::ReplyTimeout
        )
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotFound => "Nothing is at this address.",
            Self::MethodNotAllowed => "The address takes other methods; the header Allow names them.",
            Self::RequestTimeout => "The body did not come whole in time.",
            Self::SignatureInvalid => "The X-Twilio-Signature is not right for the request.",
            Self::SessionNotFound => "There is no such live session: the group has none with this key.",
            Self::SessionNotSettled => "The session's text is on its way to the provider; ask again.",
            Self::Unavailable => {
                "The broker or the database is away, or too much waits; nothing was begun. Ask again after Retry-After."
            }
            Self::ReplyTimeout => {
                "No reply came within GATEWAY_TIMEOUT. The invite goes on; the same Idempotency-Key asks for its reply."
            }
        }
    }
}

/// An answer that is no success. `Problem::write` makes its body, once the request's id is known.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    field: Option<String>,
    retryable: Option<bool>,
    provider_code: Option<i64>,
    retry_after: Option<u64>,
}

impl Problem {
    pub fn new(code: Own, detail: impl Into<String>) -> Self {
        let problem = Self::with(code.http_status(), Cow::Borrowed(code.as_str()), detail.into());
        Self { retryable: Some(code.is_retryable()), ..problem }
    }

    /// The broker or the database is away, or too much is in hand.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Own::Unavailable, detail)
    }

    /// A fault of ours, which is in the log.
    pub fn internal() -> Self {
        Refusal::new(Code::InternalError, "the gateway failed over this request; its log says why").into()
    }

    /// The request's path or a header of it cannot be read.
    pub fn unreadable(status: StatusCode) -> Self {
        Refusal::new(Code::RequestMalformed, "the request's address or one of its headers cannot be read")
            .status(status.as_u16())
            .into()
    }

    /// Worth asking again after this.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.retry_after = Some(seconds.max(SOON));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// From a reply of a worker, which may be newer and have other codes.
    pub(super) fn replied(error: Replied) -> Self {
        // A message_id is what an HTTP client knows as its key.
        let renamed =
            |field: String| if field == "message_id" { "Idempotency-Key".to_owned() } else { field };
        let mut problem = Self::with(error.status, Cow::Owned(error.code), error.message);
        problem.field = error.field.map(renamed);
        problem.retryable = error.retryable;
        problem.provider_code = error.provider_code;
        problem.retry_after = error.retry_after_seconds;
        if problem.code == Code::ProviderMisconfigured.as_str() {
            // A row from before this was stored says no time.
            problem.retry_after = Some(problem.retry_after.unwrap_or_default().max(MENDED_AFTER.as_secs()));
        }
        problem
    }

    fn with(status: u16, code: Cow<'static, str>, detail: String) -> Self {
        let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            detail,
            field: None,
            retryable: None,
            provider_code: None,
            retry_after: None,
        }
    }

    /// Puts the problem into the response that stands for it.
    pub(super) fn write(self, id: Uuid, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let asks_again =
            matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if let Some(after) = self.retry_after.or(asks_again.then_some(SOON)) {
            headers.insert(header::RETRY_AFTER, after.into());
        }
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: &self.code,
            field: self.field.as_deref(),
            retryable: self.retryable,
            provider_code: self.provider_code,
            retry_after_seconds: self.retry_after,
            request_id: id,
        };
        // Strings and numbers always serialize.
        *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
        *response.status_mut() = self.status;
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::with(refusal.status, Cow::Borrowed(refusal.code.as_str()), refusal.message);
        problem.field = refusal.field;
        problem.retryable = Some(refusal.retryable);
        problem.provider_code = refusal.provider_code;
        problem.retry_after = refusal.retry_after_seconds;
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The `error` of a worker's reply.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replied {
    code: String,
    message: String,
    status: u16,
    field: Option<String>,
    retryable: Option<bool>,
    provider_code: Option<i64>,
    retry_after_seconds: Option<u64>,
}

/// Problem details (RFC 9457), with the code that a program goes by.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem, example = json!({
    "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "sessiontype is missing",
    "code": "field_missing", "field": "sessiontype", "retryable": false,
    "requestId": "01a20b80-29bb-75db-be48-b9bc3223500c",
}))]
pub(super) struct ProblemBody<'a> {
    #[schema(value_type = String)]
    r#type: &'static str,
    /// The status in words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// One sentence for the sender's developer.
    #[schema(value_type = String)]
    detail: &'a str,
    /// What a program goes by; the table of codes has them all.
    #[schema(value_type = String)]
    code: &'a str,
    /// What is at fault: a field, with dots, or the name of a parameter or header.
    #[schema(value_type = Option<String>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// Whether sending the same request again is sensible.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    /// The provider's own code, when the provider refused.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_code: Option<i64>,
    /// Seconds after which the same request is worth sending again.
    #[schema(nullable = false, minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
    /// As in the header X-Request-Id, and in the gateway's log.
    request_id: Uuid,
}
