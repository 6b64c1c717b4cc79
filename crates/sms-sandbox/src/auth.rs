//! HTTP basic auth (RFC 7617), as the provider asks for it.

use axum::extract::{FromRequestParts, Path};
use axum::http::{header, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::state::Shared;

/// A request's account, with the password that opened it, which signs the account's callbacks.
#[derive(Debug)]
pub(super) struct Caller {
    pub account_sid: Box<str>,
    pub auth_token: SecretString,
}

#[derive(Deserialize)]
struct InPath {
    sid: Box<str>,
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, state: &Shared) -> Result<Self, ApiError> {
        let (user, password) = credentials(parts).ok_or_else(ApiError::unauthorized)?;
        let Path(InPath { sid }) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found(parts.uri.path()))?;
        if let Some(account) = &state.account {
            let token = account.auth_token.expose_secret().as_bytes();
            let good = user.as_bytes().ct_eq(account.sid.as_bytes())
                & password.expose_secret().as_bytes().ct_eq(token)
                & sid.as_bytes().ct_eq(account.sid.as_bytes());
            if !bool::from(good) {
                return Err(ApiError::unauthorized());
            }
        }
        Ok(Self { account_sid: sid, auth_token: password })
    }
}

/// The user and the password, neither of them empty.
fn credentials(parts: &request::Parts) -> Option<(String, SecretString)> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim_start()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (!user.is_empty() && !password.is_empty()).then(|| (user.to_owned(), password.into()))
}
