//! The responses that operations share: problems by status, each with the codes that it can have there.

use crate::{gateway::Own, refusal::Code};
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

/// Of the documented request: all that the contract's section 7 has.
pub struct OfInvites;

impl IntoResponses for OfInvites {
    fn responses() -> Responses {
        let own = [Own::RequestTimeout, Own::Unavailable, Own::ReplyTimeout];
        let mut responses = problems(&Code::ALL, &own, &BODIES);
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                let key = header("The invite's, given or made. Send it again to ask for the same invite.");
                response.headers.insert("Idempotency-Key".to_owned(), key);
            }
        }
        responses.extend(too_large_a_head());
        responses
    }
}

/// Of a look-up.
pub struct OfLookUps;

impl IntoResponses for OfLookUps {
    fn responses() -> Responses {
        let mut responses = problems(&ASKED_BY_KEY, &[Own::SessionNotFound, Own::Unavailable], &[]);
        responses.extend(too_large_a_head());
        responses
    }
}

/// Of joining.
pub struct OfJoins;

impl IntoResponses for OfJoins {
    fn responses() -> Responses {
        of_bodies(&[Own::SessionNotFound, Own::RequestTimeout, Own::Unavailable])
    }
}

/// Of ending.
pub struct OfEnds;

impl IntoResponses for OfEnds {
    fn responses() -> Responses {
        of_bodies(&[Own::SessionNotFound, Own::RequestTimeout, Own::SessionNotSettled, Own::Unavailable])
    }
}

/// Of what the provider sends.
pub struct OfWebhooks;

impl IntoResponses for OfWebhooks {
    fn responses() -> Responses {
        let own = [Own::RequestTimeout, Own::SignatureInvalid, Own::SessionNotFound, Own::Unavailable];
        let codes = [Code::RequestMalformed, Code::FieldMissing, Code::FieldInvalid, Code::InternalError];
        let mut responses = problems(&codes, &own, &BODIES);
        responses.extend(too_large_a_head());
        responses
    }
}

/// Of what asks for nothing: it can only come at a bad moment.
pub struct Busy;

impl IntoResponses for Busy {
    fn responses() -> Responses {
        let mut responses = problems(&[Code::InternalError], &[Own::Unavailable], &[]);
        responses.extend(too_large_a_head());
        responses
    }
}

/// Of a visitor's page, which is a page at bad moments too.
pub struct OfPages;

impl IntoResponses for OfPages {
    fn responses() -> Responses {
        let mut responses = Busy::responses();
        if let Some(RefOr::T(away)) = responses.get_mut("503") {
            let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
            let page = ContentBuilder::new().schema(Some(text)).build();
            away.content.insert("text/html".to_owned(), page);
        }
        responses
    }
}

/// Of what is answered whatever else is wrong.
pub struct TooLargeAHead;

impl IntoResponses for TooLargeAHead {
    fn responses() -> Responses {
        too_large_a_head()
    }
}

/// What a body can be refused for, beside 400.
const BODIES: [u16; 2] = [413, 415];

const ASKED_BY_KEY: [Code; 11] = [
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

fn of_bodies(own: &[Own]) -> Responses {
    let codes: Vec<_> = ASKED_BY_KEY.into_iter().chain([Code::RequestMalformed]).collect();
    let mut responses = problems(&codes, own, &BODIES);
    responses.extend(too_large_a_head());
    responses
}

/// Problems by status, each described by its codes. A malformed request has statuses beside its usual one.
pub(super) fn problems(codes: &[Code], own: &[Own], malformed: &[u16]) -> Responses {
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
        409 if codes.contains(&Own::SessionNotSettled.as_str()) => response.header("Retry-After", seconds()),
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

/// Before there is a request to make a problem of.
fn too_large_a_head() -> Responses {
    let description =
        "The request's head has more than 32 KiB or more than 100 headers. The connection is closed.";
    ResponsesBuilder::new().response("431", Response::new(description)).build().responses
}
