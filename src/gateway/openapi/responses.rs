//! The responses that operations share: problems by status, each with the codes that it can have there.

use crate::{gateway::GatewayCode, refusal::Code};
use std::collections::BTreeMap;
use utoipa::{
    IntoResponses,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        ResponsesBuilder,
        schema::{SchemaType, Type},
    },
};

type Responses = BTreeMap<String, RefOr<Response>>;

/// Problems of an invite: all codes of the contract's section 7.
pub(crate) struct InviteProblems;

impl IntoResponses for InviteProblems {
    fn responses() -> Responses {
        let own = [GatewayCode::RequestTimeout, GatewayCode::Unavailable, GatewayCode::ReplyTimeout];
        let mut responses = problems(Code::ALL, &own, &BODIES);
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                let key = header(
                    "The key of the invite, given by the client or made by the gateway. Send it again to repeat the invite.",
                );
                response.headers.insert("Idempotency-Key".to_owned(), key);
            }
        }
        responses.extend(head_too_large());
        responses
    }
}

/// Problems of a look-up.
pub(crate) struct LookUpProblems;

impl IntoResponses for LookUpProblems {
    fn responses() -> Responses {
        let mut responses =
            problems(&SESSION_CODES, &[GatewayCode::SessionNotFound, GatewayCode::Unavailable], &[]);
        responses.extend(head_too_large());
        responses
    }
}

/// Problems of joining.
pub(crate) struct JoinProblems;

impl IntoResponses for JoinProblems {
    fn responses() -> Responses {
        of_bodies(&[GatewayCode::SessionNotFound, GatewayCode::RequestTimeout, GatewayCode::Unavailable])
    }
}

/// Problems of ending.
pub(crate) struct EndProblems;

impl IntoResponses for EndProblems {
    fn responses() -> Responses {
        of_bodies(&[
            GatewayCode::SessionNotFound,
            GatewayCode::RequestTimeout,
            GatewayCode::SessionNotSettled,
            GatewayCode::Unavailable,
        ])
    }
}

/// Problems of the provider's webhooks.
pub(crate) struct WebhookProblems;

impl IntoResponses for WebhookProblems {
    fn responses() -> Responses {
        let own = [
            GatewayCode::RequestTimeout,
            GatewayCode::SignatureInvalid,
            GatewayCode::SessionNotFound,
            GatewayCode::Unavailable,
        ];
        let codes = [Code::RequestMalformed, Code::FieldMissing, Code::FieldInvalid, Code::InternalError];
        let mut responses = problems(&codes, &own, &BODIES);
        responses.extend(head_too_large());
        responses
    }
}

/// Problems of an address without parameters: overload, and bugs.
pub(crate) struct OverloadProblems;

impl IntoResponses for OverloadProblems {
    fn responses() -> Responses {
        let mut responses = problems(&[Code::InternalError], &[GatewayCode::Unavailable], &[]);
        responses.extend(head_too_large());
        responses
    }
}

/// Problems of a visitor's link. Its 503 is a page too.
pub(crate) struct LinkProblems;

impl IntoResponses for LinkProblems {
    fn responses() -> Responses {
        let mut responses = OverloadProblems::responses();
        if let Some(RefOr::T(away)) = responses.get_mut("503") {
            let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
            let page = ContentBuilder::new().schema(Some(text)).build();
            away.content.insert("text/html".to_owned(), page);
        }
        responses
    }
}

/// The only problem of an address that always answers.
pub(crate) struct HeadTooLarge;

impl IntoResponses for HeadTooLarge {
    fn responses() -> Responses {
        head_too_large()
    }
}

/// Statuses of a malformed body, beside 400.
const BODIES: [u16; 2] = [413, 415];

const SESSION_CODES: [Code; 11] = [
    Code::FieldMissing,
    Code::FieldInvalid,
    Code::CredentialMissing,
    Code::CredentialAmbiguous,
    Code::CredentialMalformed,
    Code::CredentialInvalid,
    Code::CredentialExpired,
    Code::GroupMismatch,
    Code::GroupDisabled,
    Code::RateLimited,
    Code::InternalError,
];

fn of_bodies(own: &[GatewayCode]) -> Responses {
    let codes: Vec<_> = SESSION_CODES.into_iter().chain([Code::RequestMalformed]).collect();
    let mut responses = problems(&codes, own, &BODIES);
    responses.extend(head_too_large());
    responses
}

/// Problems by status, each described by its codes. A malformed request has statuses beside its usual one.
pub(super) fn problems(codes: &[Code], own: &[GatewayCode], malformed: &[u16]) -> Responses {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let codes = codes.iter().map(|code| (code.http_status(), code.as_str()));
    let own = own.iter().map(|code| (code.http_status(), code.as_str()));
    let malformed = malformed.iter().map(|status| (*status, Code::RequestMalformed.as_str()));
    for (status, code) in codes.chain(own).chain(malformed) {
        by_status.entry(status).or_default().push(code);
    }
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), RefOr::T(problem(status, &codes))))
        .collect()
}

fn problem(status: u16, codes: &[&str]) -> Response {
    let described: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response =
        ResponseBuilder::new().description(described.join(", ")).content("application/problem+json", content);
    let response = match status {
        401 => response.header("WWW-Authenticate", header("The scheme, Bearer.")),
        429 | 503 => response.header("Retry-After", seconds()),
        409 if codes.contains(&GatewayCode::SessionNotSettled.as_str()) => {
            response.header("Retry-After", seconds())
        }
        _ => response,
    };
    response.build()
}

fn header(description: &str) -> utoipa::openapi::Header {
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    HeaderBuilder::new().schema(text).description(Some(description)).build()
}

fn seconds() -> utoipa::openapi::Header {
    let whole = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).minimum(Some(0));
    HeaderBuilder::new().schema(whole).description(Some("Seconds.")).build()
}

/// The HTTP library answers it before there is a request, so it is not a problem document.
fn head_too_large() -> Responses {
    let description =
        "The request's head has more than 32 KiB or more than 100 headers. The connection is closed.";
    ResponsesBuilder::new().response("431", Response::new(description)).build().responses
}
