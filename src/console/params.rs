//! The parameters of a query, and the fields of a form.

use super::{
    access::{ConsoleUser, FORM_TOKEN},
    guard::user_of,
    layout,
    state::Console,
};
use crate::gateway::RequestBody;
use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::PathRejection},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use std::{collections::HashMap, convert::Infallible, str::FromStr, sync::Arc};
use url::form_urlencoded;

/// Parameters and fields at most, and bytes of a query. The gateway bounds a form.
const MOST: usize = 100;
const LONGEST_QUERY: usize = 8 * 1024;

/// Names and values. The first of one name counts.
#[derive(Default)]
pub(super) struct FormValues(HashMap<String, String>);

impl FormValues {
    fn read(encoded: &[u8]) -> Self {
        let mut params = HashMap::new();
        for (name, value) in form_urlencoded::parse(encoded).take(MOST) {
            params.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self(params)
    }

    /// The value without white space around it; `None` if it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The value as a text to look for. PostgreSQL takes none with a zero byte; what stands for it here is found nowhere.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.replace('\0', "\u{fffd}"))
    }

    /// The value as a number, such as an id; `None` if it is none.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

/// The parameters of a page's address. A query that is too long has none.
impl<S: Sync> FromRequestParts<S> for FormValues {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().filter(|query| query.len() <= LONGEST_QUERY);
        Ok(query.map_or_else(Self::default, |query| Self::read(query.as_bytes())))
    }
}

/// The path of a change: the name of a thing, and of what is done with it.
pub(super) type ChangePath = Result<Path<(String, String)>, PathRejection>;

/// The thing and the verb of a change's address, if it has such. `thing` reads the thing's name.
pub(super) fn thing_and_verb<T, V: FromStr>(
    path: ChangePath,
    thing: impl FnOnce(&str) -> Option<T>,
) -> Option<(T, V)> {
    let Path((named, verb)) = path.ok()?;
    Some((thing(&named)?, verb.parse().ok()?))
}

/// A form of this console, which its operator has sent from a page of the console. Only what has one may change something.
pub(super) struct ConsoleForm {
    pub(super) user: ConsoleUser,
}

/// The form of the login, before there is an operator.
pub(super) struct LoginForm(pub(super) FormValues);

impl FromRequest<Arc<Console>> for ConsoleForm {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let user = ConsoleUser::from_request_parts(&mut parts, console).await?;
        let (headers, uri) = (parts.headers.clone(), parts.uri.clone());
        let fields = fields(Request::from_parts(parts, body), console, &headers, Some(&user)).await?;
        if !fields.get(FORM_TOKEN).is_some_and(|token| is_own(console, &user, &uri, token)) {
            let text = "The form is not one of this login, or the gateway's keys have changed since. Nothing was changed. \
                        Open the page again, and send its form.";
            return Err(layout::refused(
                console,
                Some(&user),
                StatusCode::FORBIDDEN,
                "Nothing was changed",
                text,
            ));
        }
        Ok(Self { user })
    }
}

fn is_own(console: &Console, user: &ConsoleUser, uri: &Uri, token: &str) -> bool {
    console.access.is_form_token(user, uri.path(), token)
}

impl FromRequest<Arc<Console>> for LoginForm {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let user = user_of(&mut parts, console).await.ok();
        let headers = parts.headers.clone();
        let request = Request::from_parts(parts, body);
        Ok(Self(fields(request, console, &headers, user.as_ref()).await?))
    }
}

/// The fields of a form that no other site has sent.
async fn fields(
    request: Request,
    console: &Arc<Console>,
    headers: &HeaderMap,
    user: Option<&ConsoleUser>,
) -> Result<FormValues, Response> {
    if console.access.is_from_elsewhere(headers) {
        tracing::warn!("a form for the console came from another site, and was refused");
        let text = "Your browser says that another site sent this form. Nothing was changed. If it was sent from a page of \
                    this console, then the proxy before the gateway changes the header Host, and PUBLIC_URL has to be the \
                    address that you use.";
        return Err(layout::refused(console, user, StatusCode::FORBIDDEN, "Nothing was changed", text));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let (status, text) =
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The request is not a form. Nothing was changed.");
        return Err(layout::refused(console, user, status, "Nothing was changed", text));
    }
    let body = RequestBody::from_request(request, console).await.map_err(IntoResponse::into_response)?;
    Ok(FormValues::read(&body.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_name_counts_and_an_empty_one_is_none() {
        let params = FormValues::read(b"a=1&a=2&b=+&c=%3Cscript%3E&d=x&=&%ff=%ff");
        assert_eq!((params.number("a"), params.get("b"), params.number("d")), (Some(1), None, None));
        assert_eq!((params.get("c"), params.get("e")), (Some("<script>"), None));
    }

    #[test]
    fn more_parameters_than_any_form_has_are_left_out() {
        let many: Vec<_> = (0..1_000).map(|n| format!("n{n}=1")).collect();
        assert_eq!(FormValues::read(many.join("&").as_bytes()).0.len(), MOST);
    }
}
