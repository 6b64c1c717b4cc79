//! `/openapi.json`: what the gateway takes and answers, from the code that does it.

mod codes;
mod elsewhere;
pub(super) mod responses;
mod schemas;

use super::{agents, docs, health, invite, problem, routes};
use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi;

pub(super) use codes::error_codes;

const INTRODUCTION: &str = "\
Invites one visitor into one session with an agent: a text with a link and a key goes to the visitor's phone, and an agent \
joins by the key.

**Credentials.** The header `Authorization: Bearer TYPE value`, where TYPE is GKEY (a login key), GJWT (a web token) or \
GSSNID (a website session id), or the header `X-GSSNID` with such an id alone. Exactly one; two that are equal are one.

**Addresses** match in any case, with or without the last slash; so do the names of parameters. At each of them, a request \
of HTTP/1.1 without a `Host`, or any with two or an invalid one, is 400 `request_malformed`.

**Idempotency.** Give each invite an `Idempotency-Key`, and send the same one whenever you ask again: a repeat gets the \
first answer, and nobody is texted twice. Without one the gateway makes one, and returns it. An answer that is lost, or \
that did not come in time, can so be asked for again.

**Errors** are problem details (RFC 9457). `code` is for programs: the table of codes has them all; later releases may \
have more.

";

#[derive(OpenApi)]
#[openapi(
    info(title = "Session Invite", description = "Invites by text."),
    paths(
        invite::sms_invite,
        agents::look_up,
        agents::join,
        agents::end,
        elsewhere::visitor,
        elsewhere::twilio_status,
        elsewhere::twilio_inbound,
        health::healthz,
        health::readyz,
        serve,
        docs::serve,
    ),
    components(schemas(problem::ProblemBody)),
    tags(
        (name = "Invites", description = "The documented request, by way of the queue."),
        (name = "Sessions", description = "What agents ask by a session's key."),
        (name = "Visitors", description = "What the link in the text opens."),
        (name = "Provider", description = "Webhooks of the Twilio-style provider."),
        (name = "Operating", description = "Health and these documents."),
    ),
)]
struct Document;

/// The document, made once.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        // A document of strings always serializes.
        let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
        complete(&mut document);
        document
    });
    &DOCUMENT
}

/// This document
#[utoipa::path(get, operation_id = "openapi", path = routes::OPENAPI.shown, tag = "Operating", responses(
    (status = 200, description = "OpenAPI 3.1.", body = Object, content_type = "application/json"),
    responses::Busy,
))]
pub async fn serve() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// What the macros cannot say.
fn complete(document: &mut Value) {
    document["info"]["description"] = format!("{INTRODUCTION}{}", codes::table()).into();
    document["info"]["license"] = json!({"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"});
    document["x-error-codes"] = serde_json::to_value(error_codes()).unwrap_or_default();
    document["components"]["schemas"]["Invite"] = schemas::invite();
    document["components"]["securitySchemes"] = json!({
        "authorization": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "TYPE value",
            "description": "Bearer GKEY …, Bearer GJWT … or Bearer GSSNID …",
        },
        "gssnid": {
            "type": "apiKey",
            "in": "header",
            "name": "X-GSSNID",
            "description": "A website session id alone.",
        },
    });
    // Wherever a problem is answered.
    let id = json!({"description": "The request's id, as the gateway's log has it.", "schema": {"type": "string", "format": "uuid"}});
    for operation in operations(document) {
        if operation["requestBody"].is_object() {
            operation["requestBody"]["required"] = true.into();
        }
        let Some(responses) = operation["responses"].as_object_mut() else { continue };
        for (status, response) in responses {
            // That one comes before there is a request.
            if status != "431" {
                response["headers"]["X-Request-Id"] = id.clone();
            }
        }
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    paths.filter_map(Value::as_object_mut).flat_map(|methods| methods.values_mut())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_in_the_document_and_no_other() {
        let documented: Vec<_> = document()["paths"].as_object().unwrap().keys().cloned().collect();
        let mut known: Vec<_> = routes::ALL.iter().map(|route| route.shown.to_owned()).collect();
        known.sort_unstable();
        let mut sorted = documented;
        sorted.sort_unstable();
        assert_eq!(sorted, known);
    }
}
