//! The list of groups.

use super::state_words::{invites_are_counted, state};
use crate::console::{
    access::ConsoleUser,
    layout::{self, Section, columns, table},
    params::FormValues,
    state::Console,
    words::{self, IN_A_TABLE, maybe_moment, number, text},
};
use crate::{
    group::store::summaries::{self, GroupSummary},
    group_id::GroupId,
    sessions::recent,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use std::{collections::HashMap, sync::Arc};

/// Rows of a page.
const ROWS: usize = 50;

const PAGE: (Section, &str) = (Section::Groups, "Groups");

/// `GET /groups`, with `after`, or with the number of one `group`.
pub(in crate::console) async fn list(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    query: FormValues,
) -> Response {
    if let Some(group) = query.number("group").and_then(GroupId::new) {
        return Redirect::to(&console.link(&format!("/groups/{group}"))).into_response();
    }
    let after = query.number("after").unwrap_or(0);
    let most = i64::try_from(ROWS).unwrap_or(i64::MAX) + 1;
    let read = console.read(move |db| Box::pin(summaries::page(db, after, most))).await;
    let groups = match read {
        Ok(groups) => groups,
        Err(why) => return layout::could_not_read(&console, &user, PAGE, why),
    };
    let ids: Vec<i64> = groups.iter().map(|group| group.id.get()).collect();
    let counted = console.read(move |db| Box::pin(async move { recent::by_group(db, &ids).await })).await;
    let counted = counted.map(HashMap::from_iter);
    let main = html! {
        (search(&console, query.get("group")))
        @if groups.is_empty() {
            p { "No group is here. " code { "session-invite groups add 72" } " adds one." }
        } @else {
            (rows_of(&console, &groups, counted.as_ref().ok()))
            @match &counted {
                Ok(_) => p.hint { (invites_are_counted()) },
                Err(why) => (words::not_read(*why)),
            }
        }
        @if let Some(last) = groups.get(ROWS - 1).filter(|_| groups.len() > ROWS) {
            p { a.button href=(console.link_with("/groups", &[("after", &last.id.to_string())])) { "More groups" } }
        }
    };
    layout::page(&console, Some(&user), PAGE, StatusCode::OK, &main)
}

fn search(console: &Console, given: Option<&str>) -> Markup {
    html! {
        form.row method="get" action=(console.link("/groups")) role="search" {
            div {
                label for="group" { "Group" }
                input #group name="group" inputmode="numeric" size="12" required value=[given.map(|given| text(given, IN_A_TABLE))];
            }
            button type="submit" { "Show" }
        }
        @if given.is_some() { p.notice role="status" { "A group has a number, such as 72." } }
    }
}

/// `counts` has the invites of the last hour, if they could be read.
fn rows_of(console: &Console, groups: &[GroupSummary], counts: Option<&HashMap<GroupId, i64>>) -> Markup {
    let count = |id: GroupId| counts.map(|counts| counts.get(&id).copied().unwrap_or_default());
    table(
        "Groups by their numbers",
        &html! {
            (columns(&["Group", "Name", "State", "Invites in the last hour", "API keys", "JWT secrets", "Last use of a key"]))
            tbody {
                @for group in groups.iter().take(ROWS) {
                    tr {
                        th scope="row" { a href=(console.link(&format!("/groups/{}", group.id))) { (group.id) } }
                        td { (text(group.name.as_deref().unwrap_or("–"), IN_A_TABLE)) }
                        td { (state(group.enabled, group.paused_at)) }
                        td.number { @match count(group.id) { Some(count) => (number(count)), None => "–" } }
                        td.number { (number(group.api_keys)) }
                        td.number { (number(group.jwt_secrets)) }
                        td { (maybe_moment(group.last_used_at)) }
                    }
                }
            }
        },
    )
}
