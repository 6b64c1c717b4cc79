//! The OpenAPI descriptions of addresses whose answers are not JSON. Their handlers are in other files.

use super::responses::{LinkProblems, OverloadProblems, WebhookProblems};
use crate::gateway::routes;

/// Open the visitor's page
///
/// The link in the text leads here.
#[utoipa::path(get, path = routes::VISITOR.shown, tag = "Visitors",
    params(("token" = String, Path, description = "From the link: 16 letters and digits. Punctuation, white space and invisible characters after them are cut off.", min_length = 16, example = "abcdefgh12345678")),
    responses(
        (status = 200, description = "The session's page. Opening it changes nothing.", body = String, content_type = "text/html"),
        (status = 404, description = "A friendly page: the link leads to no session.", body = String, content_type = "text/html"),
        (status = 410, description = "A friendly page: the session is over.", body = String, content_type = "text/html"),
        (status = 429, description = "Too many tokens from this address were wrong.", body = String, content_type = "text/html",
         headers(("Retry-After" = u64, description = "Seconds."))),
        LinkProblems,
    ))]
#[expect(dead_code, reason = "it only carries the description of a handler")]
pub(super) fn visitor() {}

/// Take a delivery receipt
///
/// The provider calls this address when the status of a text changes.
#[utoipa::path(post, path = routes::TWILIO_STATUS.shown, tag = "Provider",
    params(
        ("sessionId" = uuid::Uuid, Path, description = "As the worker put it into StatusCallback."),
        ("X-Twilio-Signature" = String, Header, description = "Over the URL under PUBLIC_URL and the fields."),
    ),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded"),
    responses((status = 204, description = "Taken."), WebhookProblems))]
#[expect(dead_code, reason = "it only carries the description of a handler")]
pub(super) fn twilio_status() {}

/// Take a text from a visitor
///
/// The provider calls this address when a visitor answers a text. STOP and START, and other words for them, opt the number
/// out and in.
#[utoipa::path(post, path = routes::TWILIO_INBOUND.shown, tag = "Provider",
    params(("X-Twilio-Signature" = String, Header, description = "Over the URL under PUBLIC_URL and the fields.")),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "Taken; nothing is texted back.", body = String, content_type = "text/xml"),
              WebhookProblems))]
#[expect(dead_code, reason = "it only carries the description of a handler")]
pub(super) fn twilio_inbound() {}

/// Read the reference
#[utoipa::path(get, operation_id = "docs", path = routes::DOCS.shown, tag = "Operating", responses(
    (status = 200, description = "A page that needs nothing from outside.", body = String, content_type = "text/html"),
    OverloadProblems,
))]
#[expect(dead_code, reason = "it only carries the description of a handler")]
pub(super) fn docs() {}
