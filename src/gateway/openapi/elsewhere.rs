//! What the documents say of addresses whose answers are not JSON.

use super::responses::{OfPages, OfWebhooks};
use crate::gateway::routes;

/// The page that the link in the text opens
#[utoipa::path(get, path = routes::VISITOR.shown, tag = "Visitors",
    params(("token" = String, Path, description = "From the link.", pattern = "^[0-9A-Za-z]{16}$", example = "abcdefgh12345678")),
    responses(
        (status = 200, description = "The session's page. Opening it changes nothing.", body = String, content_type = "text/html"),
        (status = 404, description = "No such session, said kindly.", body = String, content_type = "text/html"),
        (status = 410, description = "The session is over, said kindly.", body = String, content_type = "text/html"),
        (status = 429, description = "Too many tokens from this address were wrong.", body = String, content_type = "text/html",
         headers(("Retry-After" = u64, description = "Seconds."))),
        OfPages,
    ))]
#[expect(dead_code, reason = "what the documents say of a handler")]
pub fn visitor() {}

/// A text's status callback
#[utoipa::path(post, path = routes::TWILIO_STATUS.shown, tag = "Provider",
    params(
        ("sessionId" = uuid::Uuid, Path, description = "As the worker put it into StatusCallback."),
        ("X-Twilio-Signature" = String, Header, description = "Over the URL under PUBLIC_URL and the fields."),
    ),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded"),
    responses((status = 204, description = "Taken."), OfWebhooks))]
#[expect(dead_code, reason = "what the documents say of a handler")]
pub fn twilio_status() {}

/// A text that a visitor sent: STOP, START and their kin
#[utoipa::path(post, path = routes::TWILIO_INBOUND.shown, tag = "Provider",
    params(("X-Twilio-Signature" = String, Header, description = "Over the URL under PUBLIC_URL and the fields.")),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "Taken; nothing is texted back.", body = String, content_type = "text/xml"),
              OfWebhooks))]
#[expect(dead_code, reason = "what the documents say of a handler")]
pub fn twilio_inbound() {}
