//! The caller of an HTTP request. The worker's own code checks its credential.

use super::{Gateway, problem::Problem, query};
use crate::{
    db::{self, StatementError},
    invite::{Caller, Envelope, Request, envelope::HeaderValue},
    trouble::Trouble,
};
use axum::http::{HeaderMap, HeaderName, Uri, header::AUTHORIZATION};
use std::time::Duration;

/// How long a request waits for the database, for a credential or for an agent. Most credentials of invites need no
/// query.
const PATIENCE: Duration = Duration::from_secs(3);

const X_GSSNID: HeaderName = HeaderName::from_static("x-gssnid");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An envelope as the worker will see it, with the headers of the request and the `groupid` of its query.
pub(super) fn envelope(headers: &HeaderMap, groupid: Option<String>) -> Envelope {
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
pub(super) async fn admit(
    gateway: &Gateway,
    request: &Request<'_>,
    envelope: &Envelope,
) -> Result<Caller, Problem> {
    let authenticator = &gateway.services()?.authenticator;
    match within(PATIENCE, request.authenticate(envelope, authenticator)).await? {
        Ok(caller) => Ok(caller.inspect_err(|refusal| {
            gateway.refusal_log.note(envelope, request, None, refusal);
        })?),
        Err(trouble) => Err(problem(&trouble)),
    }
}

/// What an agent asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentRequest {
    LookUp,
    Join,
    /// A group that is switched off may still end what runs.
    End,
}

/// The caller of a request about sessions. Its group must be the query's `groupid`, and mostly switched on.
pub(super) async fn agent(
    gateway: &Gateway,
    headers: &HeaderMap,
    uri: &Uri,
    wanted: AgentRequest,
) -> Result<Caller, Problem> {
    let named = query::value(uri.query(), "groupid");
    let envelope = envelope(headers, named.clone().ok().flatten());
    let request = Request::without_body(&envelope);
    let caller = admit(gateway, &request, &envelope).await?;
    let enabled = if wanted == AgentRequest::End { Ok(()) } else { caller.ensure_enabled() };
    let checked = enabled.and_then(|()| named.map(drop)).and_then(|()| request.groupid.clone());
    checked.inspect_err(|refusal| {
        gateway.refusal_log.note(&envelope, &request, Some(caller.group.id), refusal);
    })?;
    Ok(caller)
}

/// A statement's result, or the problem that its error or a slow database is for the request.
pub(super) async fn from_database<T>(
    statement: impl Future<Output = Result<T, db::Error>>,
) -> Result<T, Problem> {
    from_database_within(PATIENCE, statement).await
}

/// The same with another limit of time.
pub(super) async fn from_database_within<T>(
    patience: Duration,
    statement: impl Future<Output = Result<T, db::Error>>,
) -> Result<T, Problem> {
    within(patience, statement).await?.map_err(|error| {
        if error.is_transient() {
            return Problem::unavailable("the database does not answer");
        }
        tracing::error!(error = %error.summary(), "a statement failed");
        Problem::internal()
    })
}

/// The future's output, or 503 when the database takes longer than `patience`.
async fn within<T>(patience: Duration, future: impl Future<Output = T>) -> Result<T, Problem> {
    let away = |_| Problem::unavailable("the database does not answer");
    tokio::time::timeout(patience, future).await.map_err(away)
}

fn problem(trouble: &Trouble) -> Problem {
    match trouble {
        Trouble::Stopping => Problem::unavailable("the gateway is stopping"),
        Trouble::Unsure(_) | Trouble::RowLost => Problem::unavailable("the database does not answer"),
        Trouble::Defect(what) => {
            tracing::error!(what, "the caller could not be authenticated");
            Problem::internal()
        }
    }
}
