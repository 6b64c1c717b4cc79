//! `GET …/Messages.json` and `GET …/Messages/{sid}.json`: the accepted messages, as Twilio lists them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sms_provider::codes;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use tokio::time::sleep;
use url::form_urlencoded;

use super::auth::AuthenticatedAccount;
use super::counters;
use super::error::ApiError;
use super::message::{AcceptedMessage, MessageResource, MessageSid};
use super::state::SharedState;

const MAX_PAGE_SIZE: usize = 1000;
const DEFAULT_PAGE_SIZE: usize = 50;

/// A page of the list, newest first.
#[derive(Serialize)]
struct MessagePage<'a> {
    messages: Vec<MessageResource<'a>>,
    page: usize,
    page_size: usize,
    start: usize,
    end: usize,
    uri: &'a str,
    first_page_uri: String,
    previous_page_uri: Option<String>,
    next_page_uri: Option<String>,
}

pub(super) async fn list(
    State(state): State<SharedState>,
    account: AuthenticatedAccount,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    counters::count(&state.counters.lists);
    let query = ListQuery::parse(query.as_deref().unwrap_or_default())?;
    let (latency, lag, status) = {
        let injector = state.injector();
        (injector.latency(), injector.list_lag(), injector.list_status())
    };
    if !latency.is_zero() {
        sleep(latency).await;
    }
    if let Some(status) = status {
        return Err(ApiError::new(
            status,
            codes::INTERNAL_SERVER_ERROR,
            "The sandbox answers this to every list",
        ));
    }

    let now = OffsetDateTime::now_utc();
    let (found, more) = query.find(&state, &account.account_sid, now - lag);
    let path = uri.path();
    let start = query.page * query.page_size;
    let next_page_uri = found.last().filter(|_| more).map(|last| {
        let token = format!("PA{}", last.sid);
        query.page_uri(path, query.page + 1, Some(&token))
    });
    let page = MessagePage {
        messages: found.iter().map(|message| message.resource(now)).collect(),
        page: query.page,
        page_size: query.page_size,
        start,
        end: start + found.len().saturating_sub(1),
        uri: uri.path_and_query().map_or(path, |uri| uri.as_str()),
        first_page_uri: query.page_uri(path, 0, None),
        previous_page_uri: query.page.checked_sub(1).map(|page| query.page_uri(path, page, None)),
        next_page_uri,
    };
    Ok(Json(page).into_response())
}

pub(super) async fn fetch(
    State(state): State<SharedState>,
    account: AuthenticatedAccount,
    Path((_, file)): Path<(String, String)>,
    uri: axum::http::Uri,
) -> Result<Response, ApiError> {
    let sid = file.strip_suffix(".json").and_then(MessageSid::parse);
    let found = sid.and_then(|sid| state.store().find(sid).cloned());
    let message = found.filter(|message| message.draft.account_sid == account.account_sid);
    let message = message.ok_or_else(|| ApiError::not_found(uri.path()))?;
    Ok(Json(message.resource(OffsetDateTime::now_utc())).into_response())
}

/// The parameters of a list request.
#[derive(Default)]
struct ListQuery {
    to: Option<String>,
    from: Option<String>,
    /// The first and the last UTC day, inclusive.
    since: Option<Date>,
    until: Option<Date>,
    page: usize,
    page_size: usize,
    /// The page begins after this message.
    after: Option<MessageSid>,
    /// The filters as the request wrote them, for the links to other pages.
    filters: Vec<(String, String)>,
}

impl ListQuery {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let mut query = Self { page_size: DEFAULT_PAGE_SIZE, ..Self::default() };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let invalid = || {
                ApiError::bad_request(
                    codes::INVALID_PARAMETER,
                    format!("{name} has an invalid value: {value}"),
                )
            };
            match &*name {
                "To" => query.to = Some(value.clone().into_owned()),
                "From" => query.from = Some(value.clone().into_owned()),
                "DateSent" => {
                    query.since = Some(day(&value).ok_or_else(invalid)?);
                    query.until = query.since;
                }
                "DateSent>" => query.since = Some(day(&value).ok_or_else(invalid)?),
                "DateSent<" => query.until = Some(day(&value).ok_or_else(invalid)?),
                "PageSize" => {
                    let size = value.parse().ok().filter(|size| (1..=MAX_PAGE_SIZE).contains(size));
                    query.page_size = size.ok_or_else(invalid)?;
                    continue;
                }
                "Page" => {
                    query.page = value.parse::<u32>().map_err(|_| invalid())? as usize;
                    continue;
                }
                "PageToken" => {
                    query.after =
                        Some(value.strip_prefix("PA").and_then(MessageSid::parse).ok_or_else(invalid)?);
                    continue;
                }
                _ => continue,
            }
            query.filters.push((name.into_owned(), value.into_owned()));
        }
        Ok(query)
    }

    /// The page's messages, received at or before `visible`, and whether more follow.
    fn find(
        &self,
        state: &SharedState,
        account: &str,
        visible: OffsetDateTime,
    ) -> (Vec<Arc<AcceptedMessage>>, bool) {
        let store = state.store();
        let before = match self.after {
            None => u64::MAX,
            // A message that is no longer kept was older than all kept messages.
            Some(sid) => store.find(sid).map_or(0, |message| message.seq),
        };
        let skipped = if self.after.is_some() { 0 } else { self.page * self.page_size };
        let matching = store
            .newest_first(self.to.as_deref())
            .filter(|message| message.seq < before && message.received <= visible)
            .filter(|message| *message.draft.account_sid == *account && self.matches(message));
        let mut found: Vec<_> = matching.skip(skipped).take(self.page_size + 1).cloned().collect();
        let more = found.len() > self.page_size;
        found.truncate(self.page_size);
        (found, more)
    }

    fn matches(&self, message: &AcceptedMessage) -> bool {
        let day = message.received.date();
        self.from.as_deref().is_none_or(|from| message.from() == Some(from))
            && self.since.is_none_or(|since| day >= since)
            && self.until.is_none_or(|until| day <= until)
    }

    fn page_uri(&self, path: &str, page: usize, token: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.filters);
        query.append_pair("PageSize", &self.page_size.to_string());
        query.append_pair("Page", &page.to_string());
        if let Some(token) = token {
            query.append_pair("PageToken", token);
        }
        format!("{path}?{}", query.finish())
    }
}

fn day(text: &str) -> Option<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).ok()
}
