//! HTTP basic authentication (RFC 7617), which the provider requires.

use axum::extract::{FromRequestParts, Path};
use axum::http::{header, request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::state::SharedState;

/// The account of a request, and the password that it gave. The password signs the account's callbacks.
#[derive(Debug)]
pub(super) struct AuthenticatedAccount {
    pub account_sid: Box<str>,
    pub auth_token: SecretString,
}

#[derive(Deserialize)]
struct AccountPath {
    sid: Box<str>,
}

impl FromRequestParts<SharedState> for AuthenticatedAccount {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, state: &SharedState) -> Result<Self, ApiError> {
        let (user, password) = credentials(parts).ok_or_else(ApiError::unauthorized)?;
        let Path(AccountPath { sid }) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found(parts.uri.path()))?;
        if let Some(account) = &state.account {
            let token = account.auth_token.expose_secret().as_bytes();
            let matches = user.as_bytes().ct_eq(account.sid.as_bytes())
                & password.expose_secret().as_bytes().ct_eq(token)
                & sid.as_bytes().ct_eq(account.sid.as_bytes());
            if !bool::from(matches) {
                return Err(ApiError::unauthorized());
            }
        }
        Ok(Self { account_sid: sid, auth_token: password })
    }
}

/// The user and the password. Neither may be empty.
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
