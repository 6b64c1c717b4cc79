//! What operators changed, the newest first.

use super::{
    access::ConsoleUser,
    layout::{self, Section, columns, table},
    params::FormValues,
    state::Console,
    words::{self, IN_A_TABLE, NAME, moment, number, text},
};
use crate::{
    audit::{self, AuditFilter, AuditRow},
    group_id::GroupId,
};
use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use std::sync::Arc;

/// Rows of a page.
const ROWS: usize = 50;
/// Rows that a page looks at. No index has their groups and actions.
const LOOKED_AT: i64 = 50_000;
/// Members of one change that are shown, and characters of each.
const MEMBERS: usize = 4;
const MEMBER_CHARS: usize = 80;

const PAGE: (Section, &str) = (Section::Audit, "Audit");

/// `GET /audit`, with `group`, `action` and `before`.
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    query: FormValues,
) -> Response {
    let mut filter = AuditFilter {
        since: None,
        group: query.number("group").and_then(GroupId::new),
        action: query.text("action"),
        before: query.number("before"),
        from: None,
        limit: i64::try_from(ROWS).unwrap_or(i64::MAX) + 1,
    };
    let read = console.read(move |db| {
        Box::pin(async move {
            let before = match filter.before {
                Some(before) => before,
                None => audit::next_id(&mut *db).await?,
            };
            let from = before.saturating_sub(LOOKED_AT);
            (filter.before, filter.from) = (Some(before), Some(from));
            Ok((audit::list(db, &filter).await?, from))
        })
    });
    let content = match read.await {
        Ok((rows, from)) => html! { (rows_of(&console, &rows)) (older(&console, &query, &rows, from)) },
        Err(why) => words::not_read(why),
    };
    let main = html! {
        p { "Each change that a command or this console made. Nobody can change or delete a row." }
        (search(&console, &query))
        (content)
    };
    layout::page(&console, Some(&user), PAGE, StatusCode::OK, &main)
}

fn search(console: &Console, query: &FormValues) -> Markup {
    html! {
        form.row method="get" action=(console.link("/audit")) role="search" {
            div {
                label for="group" { "Group" }
                input #group name="group" inputmode="numeric" size="10" value=[query.get("group").map(|group| text(group, NAME))];
            }
            div {
                label for="action" { "Command, such as groups or groups pause" }
                input #action name="action" size="24" value=[query.get("action").map(|action| text(action, IN_A_TABLE))];
            }
            button type="submit" { "Show" }
        }
    }
}

fn rows_of(console: &Console, rows: &[AuditRow]) -> Markup {
    if rows.is_empty() {
        return html! { p { "No change was found." } };
    }
    table(
        "The newest changes first",
        &html! {
            (columns(&["When", "Who", "Host", "Command", "Group", "Change"]))
            tbody {
                @for row in rows.iter().take(ROWS) {
                    tr {
                        th scope="row" { (moment(row.at)) }
                        td.long { (text(&row.who(), IN_A_TABLE * 2)) }
                        td { (text(&row.host, NAME)) }
                        td.long { code { (text(&row.command, IN_A_TABLE)) } }
                        td { @match row.group_id {
                            Some(group) => a href=(console.link(&format!("/groups/{group}"))) { (group) },
                            None => "–",
                        } }
                        td.long { (change(row)) }
                    }
                }
            }
        },
    )
}

fn change(row: &AuditRow) -> Markup {
    let members = row.changes();
    html! {
        @for member in members.iter().take(MEMBERS) { div { (text(member, MEMBER_CHARS)) } }
        @if members.len() > MEMBERS {
            div.soft { (members.len() - MEMBERS) " more; " code { "audit list --json" } " has all" }
        }
    }
}

/// The way to the next page, if there are more rows. `from` is the first one that was looked at, and their ids begin with 1.
fn older(console: &Console, query: &FormValues, rows: &[AuditRow], from: i64) -> Markup {
    let link = |before: i64| {
        let before = before.to_string();
        let kept = ["group", "action"].into_iter().filter_map(|name| Some((name, query.get(name)?)));
        console.link_with("/audit", &kept.chain([("before", before.as_str())]).collect::<Vec<_>>())
    };
    html! {
        @if let Some(last) = rows.get(ROWS - 1).filter(|_| rows.len() > ROWS) {
            p { a.button href=(link(last.id)) { "Older changes" } }
        } @else if from > 1 {
            p.notice role="status" { "A page looks at " (number(LOOKED_AT)) " changes. There are older ones." }
            p { a.button href=(link(from)) { "Look further back" } }
        }
    }
}
