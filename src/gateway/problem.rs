//! Answers other than success: problem details (RFC 9457), with the codes of the contract's section 7 and a few of the
//! gateway's own.

use crate::refusal::{Code, MISCONFIGURED_RETRY_AFTER, Refusal};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, time::Duration};
use strum::{IntoStaticStr, VariantArray};
use utoipa::ToSchema;
use uuid::Uuid;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Seconds before a request is worth repeating, where nothing better is known.
const SOON: u64 = 1;

/// The codes that only the gateway has. [`Code`] has the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum GatewayCode {
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    SignatureInvalid,
    SessionNotFound,
    SessionNotSettled,
    Unavailable,
    ReplyTimeout,
}

impl GatewayCode {
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }

    pub(crate) const fn http_status(self) -> u16 {
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
    pub(crate) const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout | Self::SessionNotSettled | Self::Unavailable | Self::ReplyTimeout
        )
    }

    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::NotFound => "Nothing is at this address.",
            Self::MethodNotAllowed => "The address takes other methods; the header Allow names them.",
            Self::RequestTimeout => "The body did not arrive completely in time.",
            Self::SignatureInvalid => "The X-Twilio-Signature is not right for the request.",
            Self::SessionNotFound => "The group has no live session with this key.",
            Self::SessionNotSettled => {
                "The session's text is on its way to the provider; repeat the request."
            }
            Self::Unavailable => {
                "The broker or the database is away, or too many requests wait; nothing was begun. Repeat it after Retry-After."
            }
            Self::ReplyTimeout => {
                "No reply came within GATEWAY_TIMEOUT. The invite continues; the same Idempotency-Key gets its reply."
            }
        }
    }
}

/// An answer other than success. `Problem::write` makes its body, once the request's id is known.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    field: Option<String>,
    retryable: Option<bool>,
    provider_code: Option<i64>,
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(code: GatewayCode, detail: impl Into<String>) -> Self {
        let problem = Self::with(code.http_status(), Cow::Borrowed(code.as_str()), detail.into());
        Self { retryable: Some(code.is_retryable()), ..problem }
    }

    /// The broker or the database is away, or too many requests are in flight.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(GatewayCode::Unavailable, detail)
    }

    /// A bug of the gateway; the log has the cause.
    pub(crate) fn internal() -> Self {
        Refusal::new(Code::InternalError, "the gateway could not finish this request; its log says why")
            .into()
    }

    /// The request's path or a header of it cannot be read.
    pub(crate) fn unreadable(status: StatusCode) -> Self {
        Refusal::new(Code::RequestMalformed, "the request's address or one of its headers cannot be read")
            .status(status.as_u16())
            .into()
    }

    /// The request is worth repeating after this time, which is rounded up to a second.
    #[must_use]
    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.retry_after = Some(seconds.max(SOON));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// From the reply of a worker, which may be newer and have other codes.
    pub(super) fn from_reply(error: ReplyError) -> Self {
        // An HTTP client knows the message_id as its Idempotency-Key.
        let renamed =
            |field: String| if field == "message_id" { "Idempotency-Key".to_owned() } else { field };
        let mut problem = Self::with(error.status, Cow::Owned(error.code), error.message);
        problem.field = error.field.map(renamed);
        problem.retryable = error.retryable;
        problem.provider_code = error.provider_code;
        problem.retry_after = error.retry_after_seconds;
        if problem.code == Code::ProviderMisconfigured.as_str() {
            // A row of an older release has no such time.
            problem.retry_after =
                Some(problem.retry_after.unwrap_or_default().max(MISCONFIGURED_RETRY_AFTER.as_secs()));
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

    /// Writes the problem into the response that was made of it.
    pub(super) fn write(self, id: Uuid, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let is_repeated =
            matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if let Some(after) = self.retry_after.or(is_repeated.then_some(SOON)) {
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
pub(super) struct ReplyError {
    code: String,
    message: String,
    status: u16,
    field: Option<String>,
    retryable: Option<bool>,
    provider_code: Option<i64>,
    retry_after_seconds: Option<u64>,
}

/// Problem details (RFC 9457), with a code for programs.
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
    /// For programs; the table of codes has all values.
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
