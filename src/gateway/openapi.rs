//! `/openapi.json`: the gateway's requests and answers, made from the code that handles them.

mod codes;
mod other_routes;
pub(super) mod responses;
mod schemas;

use super::{Gateway, agents, health, invite, problem, routes};
use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock, OnceLock};
use utoipa::OpenApi;

pub(super) use codes::error_codes;

const INTRODUCTION: &str = "\
Invites one visitor into one session with an agent: a text with a link and a key goes to the visitor's phone, and an agent \
joins by the key.

**Credentials.** The header `Authorization: Bearer TYPE value`, where TYPE is GKEY (a login key), GJWT (a web token) or \
GSSNID (a website session id), or the header `X-GSSNID` with such an id alone. There must be exactly one credential; the \
same one in both places counts as one. \
The operator gives you your group id, and an API key for GKEY or a secret for GJWT.

**A GKEY** reads `group&user&$1$expiry$signature`. `user` is any name of yours, URL-encoded, 1 to 255 characters. `expiry` \
is Unix seconds, at most a day ahead. `signature` is the HMAC-SHA256, keyed with your API key, of group, user (not encoded), \
`1` and expiry with nothing between them, in base64url without padding. In a shell:

```sh
group=72 user=12345 expiry=$(($(date +%s) + 3600))
signature=$(printf %s \"${group}${user}1${expiry}\" | openssl dgst -sha256 -hmac \"$API_KEY\" -binary | base64 | tr +/ -_ | tr -d =)
curl -H \"Authorization: Bearer GKEY $group&$user&\\$1\\$$expiry\\$$signature\" -H 'Content-Type: application/json' \\
     -H 'Idempotency-Key: order-17' -d '{\"sessiontype\": 1, \"smsPhone\": \"111-000-0000\"}' \\
     \"https://invite.example/api/SessionInvitation/smsInvite/?groupid=$group\"
```

To check yours: the API key `test-api-key`, group 72, user `984-ABC é/&` and expiry 1589912963 make the signature \
`PIIfL5_qu9swCay7iGavgCBRGXqrsW_Jh0Gryn8XWtk`.

**A GJWT** is a JSON web token, signed by HS256 with your group's secret. Claims: `exp` (at most 120 minutes ahead), `groupid` \
(an integer) and `sub` (the user); `iat` and `nbf` if you like.

**Addresses** match in any case, with or without the last slash; so do the names of parameters. At each of them, a request \
of HTTP/1.1 without a `Host`, or any with two or an invalid one, is 400 `request_malformed`.

**Idempotency.** Give each invite an `Idempotency-Key`, and send the same key when you repeat the request: the repeat gets \
the first answer, and the visitor gets no second text. So repeat a request whose answer was lost, or did not come in time. \
Without a key the gateway makes one, and returns it.

**Schemas.** Each request that the gateway takes is valid by the schemas here. A valid one can still be refused: no schema \
says which texts are phone numbers, which credentials are good, or how many bytes a body has.

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
        other_routes::visitor,
        other_routes::twilio_status,
        other_routes::twilio_inbound,
        health::healthz,
        health::readyz,
        serve,
        other_routes::docs,
    ),
    components(schemas(problem::ProblemBody)),
    tags(
        (name = "Invites", description = "The documented request, by way of the queue."),
        (name = "Sessions", description = "What agents do with a session key."),
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

/// Get the OpenAPI document
#[utoipa::path(get, operation_id = "openapi", path = routes::OPENAPI.shown, tag = "Operating", responses(
    (status = 200, description = "OpenAPI 3.1.", body = Object, content_type = "application/json"),
    responses::OverloadProblems,
))]
pub(super) async fn serve(State(gateway): State<Arc<Gateway>>) -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| written(document(), &gateway.prefix));
    ([(CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// The document as text, its addresses in the order in which an integrator needs them: programs that show it keep the order.
/// `prefix` is the path of `PUBLIC_URL`.
fn written(document: &Value, prefix: &str) -> String {
    let member = |name: &str, value: &str| format!("{}:{value}", Value::from(name));
    let paths =
        routes::ALL.map(|route| member(route.published(), &document["paths"][route.published()].to_string()));
    let paths = format!("{{{}}}", paths.join(","));
    let members = document.as_object().into_iter().flatten();
    let members = members.map(|(name, value)| match name.as_str() {
        "paths" => member(name, &paths),
        "servers" => member(name, &servers(prefix).to_string()),
        _ => member(name, &value.to_string()),
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn servers(prefix: &str) -> Value {
    json!([{"url": format!("{prefix}/"), "description": "The gateway that serves this document."}])
}

/// Adds what the macros cannot express.
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
    document["servers"] = servers("");
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let paths = paths.map(|(path, methods)| (path.trim_end_matches('/').to_owned(), methods.take()));
    document["paths"] = Value::Object(paths.collect());
    // In every answer but one.
    let id = json!({"description": "The request's id, as the gateway's log has it.", "schema": {"type": "string", "format": "uuid"}});
    for operation in operations(document) {
        if operation["requestBody"].is_object() {
            operation["requestBody"]["required"] = true.into();
        }
        // An empty list says that the operation needs no credential.
        if operation["security"].is_null() {
            operation["security"] = json!([]);
        }
        let Some(responses) = operation["responses"].as_object_mut() else { continue };
        for (status, response) in responses {
            // The HTTP library answers it before the request has an id.
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
        let mut known: Vec<_> = routes::ALL.iter().map(|route| route.published().to_owned()).collect();
        known.sort_unstable();
        let mut sorted = documented;
        sorted.sort_unstable();
        assert_eq!(sorted, known);
    }

    #[test]
    fn the_text_is_the_document() {
        let text = written(document(), "");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), *document());
        let at = |route: &routes::Route| text.find(&format!("\"{}\":", route.published())).unwrap();
        assert!(routes::ALL.map(at).is_sorted());
        assert!(written(document(), "/invite").contains(r#""url":"/invite/""#));
    }
}
