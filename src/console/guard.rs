//! The operator of a request, as handlers take one.

use super::{
    access::{ConsoleUser, NoAccess},
    layout, login_page,
    state::Console,
};
use crate::gateway::{ClientAddress, RequestSender};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::Response,
};
use std::{convert::Infallible, sync::Arc};

/// Who sends a request.
pub(super) async fn user_of(parts: &mut Parts, console: &Arc<Console>) -> Result<ConsoleUser, NoAccess> {
    let Ok(ClientAddress(address)) = ClientAddress::from_request_parts(parts, console).await;
    let sender = parts.extensions.get().copied().unwrap_or(RequestSender::Other);
    console.access.user(&parts.headers, sender, address)
}

/// Every page but that of the login needs an operator. Others get that page, and come back by it.
impl FromRequestParts<Arc<Console>> for ConsoleUser {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        user_of(parts, console).await.map_err(|why| match why {
            NoAccess::NotLoggedIn => login_page::first(console, parts),
            NoAccess::NoName => {
                let text = "The proxy before the gateway names you in a way that cannot be used: the header of \
                            CONSOLE_USER_HEADER is empty, repeated, longer than 64 characters, or has characters that \
                            cannot be seen. The people who run the proxy can correct that.";
                layout::refused(console, None, StatusCode::FORBIDDEN, "You have no name", text)
            }
        })
    }
}

/// An operator, or nobody: for pages that show less to nobody.
pub(super) struct MaybeUser(pub(super) Option<ConsoleUser>);

impl FromRequestParts<Arc<Console>> for MaybeUser {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Infallible> {
        Ok(Self(user_of(parts, console).await.ok()))
    }
}
