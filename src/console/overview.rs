//! The first page: what is wrong now and whose invites it hits, then how invites go.

use super::{
    access::ConsoleUser,
    facts::Facts,
    layout::{self, Section, columns, table},
    problem_list::{PROBLEM_CHARS, problem_list},
    problems::{not_known, problems},
    state::Console,
    words::{self, IN_A_TABLE, NAME, moment, not_read, number, span, text},
};
use crate::{
    db::{PAGE_LIMIT, SharedReading},
    processes,
    queue::QueueDepth,
    sessions::{
        self, Status,
        recent::{self, LastHour, MinuteCount, OutcomeCount},
    },
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// How long all operators are shown the same facts. The script asks every 5 s.
const SHOWN_FOR: Duration = Duration::from_secs(2);
/// How long the broker may take.
const BROKER_WITHIN: Duration = Duration::from_secs(2);
/// Processes that are listed.
const PROCESSES: usize = 30;
/// Statuses of invites that did not go well.
const BAD: [Status; 4] = [Status::Failed, Status::Rejected, Status::Unknown, Status::Undelivered];

/// `GET /`.
pub(super) async fn page(State(console): State<Arc<Console>>, user: ConsoleUser) -> Response {
    let facts = gathered(&console).await;
    let main = html! {
        p.row #refreshing {}
        div #live data-source=(console.link("/live")) { (shown(&console, &facts)) }
    };
    layout::page(&console, Some(&user), (Section::Overview, "Overview"), StatusCode::OK, &main)
}

/// `GET /live`: the same without the frame, for the script.
pub(super) async fn live(State(console): State<Arc<Console>>, _: ConsoleUser) -> Response {
    let facts = gathered(&console).await;
    let mut response = shown(&console, &facts).into_string().into_response();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// The facts, which are gathered for all operators at once.
async fn gathered(console: &Console) -> Arc<Facts> {
    let mut last = console.facts.lock().await;
    if let Some((at, facts)) = &*last
        && at.elapsed() < SHOWN_FOR
    {
        return facts.clone();
    }
    let facts = Arc::new(gather(console).await);
    *last = Some((Instant::now(), facts.clone()));
    facts
}

async fn gather(console: &Console) -> Facts {
    let gateway = &console.gateway;
    let snapshot = gateway.services().ok().map(|services| services.directory.snapshot());
    let paused = snapshot.iter().flat_map(|snapshot| snapshot.paused());
    let mut paused: Vec<_> = paused.filter_map(|group| Some((group.id, group.paused_at?))).collect();
    paused.sort_unstable();
    // The cheap ones first: all three share one limit.
    let from_database = console.read(|db| {
        Box::pin(async move {
            let mut shared = SharedReading::new(db, PAGE_LIMIT);
            Ok((
                shared.read(|db| Box::pin(processes::list(db))).await,
                shared.read(|db| Box::pin(sessions::outbox_depth(db))).await,
                shared.read(|db| Box::pin(recent::last_hour(db))).await,
            ))
        })
    });
    let (depths, from_database) = tokio::join!(depths(console), from_database);
    let (processes, outbox, last_hour) = from_database.unwrap_or_else(|why| (Err(why), Err(why), Err(why)));
    let (minutes, in_trouble) = match last_hour {
        Ok(LastHour { minutes, in_trouble }) => (Ok(minutes), Ok(in_trouble)),
        Err(why) => (Err(why), Err(why)),
    };
    let (own_problems, sighting) = (gateway.problems(), gateway.sighting());
    let at = OffsetDateTime::now_utc();
    Facts { at, own_problems, sighting, paused, processes, depths, outbox, minutes, in_trouble }
}

async fn depths(console: &Console) -> Option<Vec<QueueDepth>> {
    let mut reader = console.depths.lock().await;
    tokio::time::timeout(BROKER_WITHIN, reader.read()).await.ok()?.ok()
}

fn shown(console: &Console, facts: &Facts) -> Markup {
    html! {
        p.soft { "As of " (moment(facts.at)) "." }
        h2 { "What is wrong now" }
        @let (found, not_known) = (problems(facts), not_known(facts));
        @if found.is_empty() && not_known.is_empty() {
            p.notice.good {
                "Nothing: no worker and no gateway reports a problem, and no queue is stuck. Whether senders send is below."
            }
        } @else {
            (problem_list(console, &found, &not_known))
        }
        h2 { "Whose invites it hits" }
        @match &facts.in_trouble { Ok(found) => (in_trouble(console, facts, found)), Err(why) => (not_read(*why)) }
        h2 { "How invites go" }
        @match &facts.minutes { Ok(minutes) => (outcomes(minutes)), Err(why) => (not_read(*why)) }
        h2 { "Queues and events" }
        (queues(facts))
        h2 { "Workers and gateways" }
        (process_list(facts))
        @if let Some(sighting) = &facts.sighting { p.hint { "This gateway: " (text(sighting, PROBLEM_CHARS)) "." } }
    }
}

fn in_trouble(console: &Console, facts: &Facts, found: &[OutcomeCount]) -> Markup {
    let under_way = facts.minutes.iter().flatten().filter(|minute| minute.status == Status::Sending);
    let under_way: i64 = under_way.map(|minute| minute.count).sum();
    let dead = facts.depth("dead").map_or(0, |depth| depth.messages);
    html! {
        @if found.is_empty() {
            p {
                "No invite of the last hour was refused or failed, and none has waited for half a minute. Without a text yet: "
                (number(under_way)) "."
            }
        } @else {
            (trouble_table(console, found))
        }
        @if dead > 0 {
            p { "Not among these, as dead letters: " (number(dead)) ". " a href=(console.link("/dead")) { "Their groups" } "." }
        }
    }
}

fn trouble_table(console: &Console, found: &[OutcomeCount]) -> Markup {
    table(
        "Invites of the last hour that were refused or failed, or have waited for half a minute; the most frequent first",
        &html! {
            (columns(&["Group", "Status", "Code", "Invites", "The last one"]))
            tbody {
                @for outcome in found {
                    tr {
                        th scope="row" { a href=(console.link(&format!("/groups/{}", outcome.group))) { (outcome.group) } }
                        td { (<&str>::from(outcome.status)) }
                        td { (text(outcome.code.as_deref().unwrap_or("–"), IN_A_TABLE)) }
                        td.number { a href=(sessions_of(console, outcome)) { (number(outcome.count)) } }
                        td { (moment(outcome.newest)) }
                    }
                }
            }
        },
    )
}

/// The list of these sessions.
fn sessions_of(console: &Console, outcome: &OutcomeCount) -> String {
    let group = outcome.group.to_string();
    let status: &str = outcome.status.into();
    let code = outcome.code.as_deref().map(|code| ("code", code));
    let query: Vec<_> = [("group", group.as_str()), ("status", status)].into_iter().chain(code).collect();
    console.link_with("/sessions", &[&query[..], &[("since", "1h")]].concat())
}

/// How many invites have a status, of those that began in the last 5 and 60 minutes.
fn totals(minutes: &[MinuteCount]) -> BTreeMap<Status, (i64, i64)> {
    let mut totals = BTreeMap::new();
    for minute in minutes {
        let (five, sixty) = totals.entry(minute.status).or_insert((0, 0));
        *sixty += minute.count;
        if minute.minutes_ago < 5 {
            *five += minute.count;
        }
    }
    totals
}

fn outcomes(minutes: &[MinuteCount]) -> Markup {
    let totals = totals(minutes);
    let (five, sixty) = totals.values().fold((0, 0), |(five, sixty), (a, b)| (five + a, sixty + b));
    if sixty == 0 {
        return html! { p { "No invite began in the last hour." } };
    }
    html! {
        p { strong { (number(five)) } " invites began in the last 5 minutes, " strong { (number(sixty)) } " in the last 60." }
        @if five == 0 {
            p.notice {
                "None began in the last 5 minutes. If senders are at work, see whether they publish, and whether the queue "
                code { ".requests" } " below has a consumer."
            }
        }
        @if sixty >= recent::ROWS {
            @if let Some(since) = minutes.iter().map(|minute| minute.since).min() {
                p.hint { "There were more: only the newest " (number(recent::ROWS)) " are counted, which began since " (moment(since)) "." }
            }
        }
        (chart(minutes))
        (table("Invites by what became of them", &html! {
            (columns(&["Status", "Last 5 minutes", "Last 60 minutes"]))
            tbody {
                @for (status, (five, sixty)) in &totals {
                    tr {
                        th scope="row" { (<&str>::from(*status)) }
                        td.number { (number(*five)) }
                        td.number { (number(*sixty)) }
                    }
                }
            }
        }))
    }
}

/// A bar for each minute of the last hour, the newest on the right; what did not go well is below, in red. The table has the
/// numbers.
fn chart(minutes: &[MinuteCount]) -> Markup {
    let mut bars = [(0_i64, 0_i64); 60];
    for minute in minutes {
        let Some((all, bad)) = usize::try_from(minute.minutes_ago).ok().and_then(|at| bars.get_mut(at))
        else {
            continue;
        };
        *all += minute.count;
        *bad += if BAD.contains(&minute.status) { minute.count } else { 0 };
    }
    let most = bars.iter().map(|(all, _)| *all).max().unwrap_or_default().max(1);
    // Hundredths of the height, rounded up: no bar with an invite is invisible.
    let height = |count: i64| (count * 100 + most - 1) / most;
    html! {
        svg.chart viewBox="0 0 600 100" preserveAspectRatio="none" aria-hidden="true" {
            @for (ago, (all, bad)) in bars.iter().enumerate() {
                rect x=((59 - ago) * 10) width="8" y=(100 - height(*all)) height=(height(*all)) {}
                rect.bad-bar x=((59 - ago) * 10) width="8" y=(100 - height(*bad)) height=(height(*bad)) {}
            }
        }
        p.hint { "Each bar is a minute, the newest on the right: at most " (number(most)) " invites. Red is what brought no text." }
    }
}

fn queues(facts: &Facts) -> Markup {
    let Some(depths) = &facts.depths else {
        return html! { p.notice role="status" { "Not read: the broker did not answer within 2 s." } };
    };
    html! {
        (table("Messages and consumers of each queue", &html! {
            (columns(&["Queue", "Messages", "Consumers"]))
            tbody {
                @for depth in depths {
                    tr {
                        th scope="row" { "." (depth.queue) }
                        td.number { (number(depth.messages)) }
                        td.number { (number(depth.consumers)) }
                    }
                }
            }
        }))
        @match &facts.outbox {
            Ok(outbox) if outbox.events > 0 => p {
                "Events that wait to be published: " (number(outbox.events)) ", the first for " (span(outbox.oldest)) "."
            },
            Ok(_) => p { "No event waits to be published." },
            Err(why) => (not_read(*why)),
        }
    }
}

fn process_list(facts: &Facts) -> Markup {
    let rows = match &facts.processes {
        Ok(rows) => rows,
        Err(why) => return words::not_read(*why),
    };
    html! {
        (table("Processes that report to the database", &html! {
            (columns(&["Process", "State", "Version", "Runs for", "Last report", "Problems"]))
            tbody {
                @for row in rows.iter().take(PROCESSES) {
                    tr {
                        th scope="row" { (text(&row.name(), IN_A_TABLE)) }
                        td { (text(&row.state, NAME)) }
                        td { (text(&row.version, NAME)) }
                        td { (span(row.runs_for)) }
                        td { (span(row.silent_for)) " ago" }
                        td.number { (row.problems.len()) }
                    }
                }
            }
        }))
        @if rows.len() > PROCESSES { p { (rows.len() - PROCESSES) " more." } }
    }
}
