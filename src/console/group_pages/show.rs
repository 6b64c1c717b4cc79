//! One group: its state, its keys, its settings, and how its invites end.

use super::state_words::{invites_are_counted, state};
use crate::{
    console::{
        access::ConsoleUser,
        layout::{self, Section, columns, table},
        params::FormValues,
        problem_list::problem_list,
        problems::{problems_of, processes_not_known},
        state::Console,
        words::{self, IN_A_TABLE, IN_FULL, maybe_moment, moment, number, text},
    },
    db::{NotRead, PAGE_LIMIT, SharedReading},
    group::store::{
        self, StoreError, StoredGroup,
        summaries::{self, KeySummary},
    },
    group_id::GroupId,
    processes::{self, ProcessRow},
    sessions::{
        self,
        recent::{self, OutcomeCount},
    },
};
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use std::sync::Arc;

/// Keys that are shown.
const KEYS: i64 = 20;

/// A group with its keys.
pub(super) struct FoundGroup {
    pub(super) group: StoredGroup,
    keys: Vec<KeySummary>,
}

/// The group of a path.
pub(super) fn group_of(path: &str) -> Option<GroupId> {
    path.parse().ok().and_then(GroupId::new)
}

/// The group, or the page that says why it is not there.
pub(super) async fn find(
    console: &Console,
    user: &ConsoleUser,
    group: Option<GroupId>,
) -> Result<FoundGroup, Box<Response>> {
    let Some(group) = group else { return Err(Box::new(layout::no_such_page(console, Some(user)))) };
    let title = format!("Group {group}");
    let read = console.read(move |db| {
        Box::pin(async move {
            match store::show(&mut *db, group).await {
                Err(StoreError::Database(error)) => Err(error),
                Err(_) => Ok(None),
                Ok(found) => Ok(Some((found, summaries::active_keys(db, group, KEYS).await?))),
            }
        })
    });
    match read.await {
        Ok(Some((group, keys))) => Ok(FoundGroup { group, keys }),
        Ok(None) => Err(Box::new(layout::no_such_page(console, Some(user)))),
        Err(why) => Err(Box::new(layout::could_not_read(console, user, (Section::Groups, &title), why))),
    }
}

/// `GET /groups/{group}`.
pub(in crate::console) async fn show(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    path: Result<Path<String>, PathRejection>,
    query: FormValues,
) -> Response {
    let group = path.ok().and_then(|Path(path)| group_of(&path));
    let FoundGroup { group, keys } = match find(&console, &user, group).await {
        Ok(found) => found,
        Err(page) => return *page,
    };
    let id = group.id;
    let read = console.read(move |db| {
        Box::pin(async move {
            let mut shared = SharedReading::new(db, PAGE_LIMIT);
            let open = shared.read(move |db| Box::pin(sessions::waiting_in_group(db, id))).await;
            let processes = shared.read(|db| Box::pin(processes::list(db))).await;
            Ok((open, shared.read(move |db| Box::pin(recent::of_group(db, id))).await, processes))
        })
    });
    let (open, outcomes, processes) = read.await.unwrap_or_else(|why| (Err(why), Err(why), Err(why)));
    let main = html! {
        @if let Some(done) = query.get("done") { (flash(done, query.number("invites"))) }
        (facts(&group, open))
        p.actions { (actions(&console, &group)) }
        h2 { "What is wrong with it now" }
        (wrong(&console, id, &processes))
        h2 { "Outcomes of the last hour" }
        @match &outcomes {
            Ok(outcomes) => { (outcomes_of(outcomes)) p.hint { (invites_are_counted()) } },
            Err(why) => (words::not_read(*why)),
        }
        h2 { "Keys" }
        (keys_of(&keys))
        h2 { "Settings" }
        (settings(&group))
        h2 { "More" }
        ul {
            li { a href=(console.link_with("/sessions", &[("group", &id.to_string()), ("since", "1h")])) { "Its invites of the last hour" } }
            li { a href=(console.link_with("/audit", &[("group", &id.to_string())])) { "What operators changed of it" } }
        }
    };
    layout::page(&console, Some(&user), (Section::Groups, &format!("Group {id}")), StatusCode::OK, &main)
}

/// What was done, after the redirect. Only these words are shown, whatever the address says.
fn flash(done: &str, invites: Option<i64>) -> Markup {
    html! {
        @match done {
            "pause" => p.notice.good role="status" { "The group is paused. Workers follow within a second or two." },
            "resume" => p.notice.good role="status" {
                "The group is resumed. Invites that go on: " (number(invites.unwrap_or_default()))
                ", the first within 5 s."
            },
            "disable" => p.notice.good role="status" { "The group is disabled. Workers follow within a second or two." },
            "enable" => p.notice.good role="status" { "The group is enabled. Workers follow within a second or two." },
            _ => {}
        }
    }
}

fn facts(group: &StoredGroup, open: Result<i64, NotRead>) -> Markup {
    html! {
        dl {
            dt { "Name" } dd { (text(group.options.name.as_deref().unwrap_or("none"), IN_FULL)) }
            dt { "State" } dd { (state(group.enabled, group.paused_at)) }
            dt { "Invites without an outcome" } dd { @match open { Ok(open) => (number(open)), Err(_) => "not read" } }
            dt { "Added" } dd { (moment(group.created_at)) }
            dt { "Changed" } dd { (moment(group.updated_at)) }
        }
    }
}

/// What processes report of the group. What is wrong with all groups is on the overview.
fn wrong(console: &Console, group: GroupId, processes: &Result<Vec<ProcessRow>, NotRead>) -> Markup {
    let found = problems_of(group, processes, &console.gateway.problems());
    let not_known = Vec::from_iter(processes_not_known(processes));
    html! {
        @if found.is_empty() && not_known.is_empty() {
            p { "No worker and no gateway lists a problem of this group. Of each kind of problem they list ten groups at most." }
        } @else {
            (problem_list(console, &found, &not_known))
        }
        p { a href=(console.link("")) { "What else is wrong now" } }
    }
}

/// Each leads to a page that says what it would do.
fn actions(console: &Console, group: &StoredGroup) -> Markup {
    let action = |verb: &str, name: &str| {
        html! { a.button.plain href=(console.link(&format!("/groups/{}/{verb}", group.id))) { (name) } }
    };
    html! {
        @if group.paused_at.is_some() { (action("resume", "Resume…")) } @else { (action("pause", "Pause…")) }
        @if group.enabled { (action("disable", "Disable…")) } @else { (action("enable", "Enable…")) }
    }
}

pub(super) fn outcomes_of(outcomes: &[OutcomeCount]) -> Markup {
    if outcomes.is_empty() {
        return html! { p { "No invite of the group began in the last hour." } };
    }
    table(
        "Invites by status and code, the most frequent first",
        &html! {
            (columns(&["Status", "Code", "Invites", "The last one"]))
            tbody {
                @for outcome in outcomes {
                    tr {
                        th scope="row" { (<&str>::from(outcome.status)) }
                        td { (text(outcome.code.as_deref().unwrap_or("–"), IN_A_TABLE)) }
                        td.number { (number(outcome.count)) }
                        td { (moment(outcome.newest)) }
                    }
                }
            }
        },
    )
}

fn keys_of(keys: &[KeySummary]) -> Markup {
    if keys.is_empty() {
        return html! { p { "It has no active key: each of its invites is refused." } };
    }
    table(
        "Active keys and secrets, the newest first",
        &html! {
            (columns(&["Kind", "Id", "kid", "Added", "Last used"]))
            tbody {
                @for key in keys {
                    tr {
                        th scope="row" { (key.kind) }
                        td.number { (key.id) }
                        td { (text(key.kid.as_deref().unwrap_or("–"), IN_A_TABLE)) }
                        td { (moment(key.created_at)) }
                        td { (maybe_moment(key.last_used_at)) }
                    }
                }
            }
        },
    )
}

/// As `groups show` has them.
fn settings(group: &StoredGroup) -> Markup {
    let options = &group.options;
    let duration = |duration| humantime::format_duration(duration).to_string();
    let or = |value: Option<String>, otherwise: &str| value.unwrap_or_else(|| otherwise.to_owned());
    let any = |list: &[String]| if list.is_empty() { "any".to_owned() } else { list.join(", ") };
    let rows = [
        ("Region", options.region.clone()),
        ("Phone check", options.phone_check.as_str().to_owned()),
        ("Countries", any(&options.countries)),
        ("Digits of a key", options.key_length.to_string()),
        ("Template", options.template.clone()),
        ("Link", or(options.link.clone(), "{PUBLIC_URL}/s/{token}")),
        ("From", or(options.sms_from.clone(), "the worker's own")),
        ("Session ttl", duration(options.session_ttl)),
        ("Session max", duration(options.session_max)),
        ("Key rest", duration(options.key_rest)),
        ("Per number", or(options.per_number.map(|limit| limit.to_string()), "no limit")),
        ("Per country", or(options.per_country.map(|limit| limit.to_string()), "no limit")),
        ("Per minute", or(options.per_minute.map(|limit| limit.to_string()), "no limit")),
        ("Join URL", or(options.join_url.clone(), "none")),
    ];
    html! { dl { @for (name, value) in rows { dt { (name) } dd { (text(&value, IN_FULL)) } } } }
}
