//! Who asks: the credential of an HTTP request, by the worker's own code.

use super::{Gateway, problem::Problem, query};
use crate::{
    db::{self, Passing},
    invite::{Caller, Envelope, Request, envelope::HeaderValue},
    trouble::Trouble,
};
use axum::http::{HeaderMap, HeaderName, Uri, header::AUTHORIZATION};
use std::time::Duration;

/// How long the database may take where it has to be asked about a credential, or for an agent. An invite's caller
/// mostly needs none of it.
pub const PATIENCE: Duration = Duration::from_secs(3);

const X_GSSNID: HeaderName = HeaderName::from_static("x-gssnid");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An envelope with what the headers and the query say, as the worker will see it.
pub fn envelope(headers: &HeaderMap, groupid: Option<String>) -> Envelope {
    let mut read = Vec::with_capacity(2);
    for name in [AUTHORIZATION, X_GSSNID, TRACEPARENT] {
        for value in headers.get_all(&name) {
            read.push((name.as_str().to_owned(), text(value.as_bytes())));
        }
    }
    read.extend(groupid.map(|groupid| ("groupid".to_owned(), HeaderValue::Text(groupid))));
    Envelope { headers: read, ..Envelope::default() }
}

fn text(bytes: &[u8]) -> HeaderValue {
    std::str::from_utf8(bytes).map_or(HeaderValue::Other, |text| HeaderValue::Text(text.to_owned()))
}

/// Credential and group, in the worker's order of checks.
pub async fn admit(gateway: &Gateway, request: &Request<'_>, envelope: &Envelope) -> Result<Caller, Problem> {
    let authenticator = &gateway.services()?.authenticator;
    match in_time(request.authenticate(envelope, authenticator)).await? {
        Ok(admitted) => Ok(admitted?),
        Err(trouble) => Err(failed(&trouble)),
    }
}

/// The caller of a request about sessions: of a group that is switched on, and that the query names.
pub async fn agent(gateway: &Gateway, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Problem> {
    let named = query::value(uri.query(), "groupid");
    let envelope = envelope(headers, named.clone().ok().flatten());
    let request = Request::without_body(&envelope);
    let caller = admit(gateway, &request, &envelope).await?;
    caller.enabled()?;
    named?;
    request.groupid?;
    Ok(caller)
}

/// What the database answers soon, or the refusal to wait for it.
pub async fn in_time<T>(asking: impl Future<Output = T>) -> Result<T, Problem> {
    within(PATIENCE, asking).await
}

/// The same, for another time.
pub async fn within<T>(patience: Duration, asking: impl Future<Output = T>) -> Result<T, Problem> {
    let away = |_| Problem::unavailable("the database does not answer");
    tokio::time::timeout(patience, asking).await.map_err(away)
}

fn failed(trouble: &Trouble) -> Problem {
    match trouble {
        Trouble::Stopping => Problem::unavailable("the gateway is stopping"),
        Trouble::Unsure(_) => Problem::unavailable("the database does not answer"),
        Trouble::Defect(what) => {
            tracing::error!(what, "a caller could not be authenticated");
            Problem::internal()
        }
    }
}

/// The answer of a statement, or what its error means for the request.
pub fn answered<T>(result: Result<T, db::Error>) -> Result<T, Problem> {
    result.map_err(|error| {
        if error.passes() {
            return Problem::unavailable("the database does not answer");
        }
        tracing::error!(error = %error.summary(), "a statement failed");
        Problem::internal()
    })
}
