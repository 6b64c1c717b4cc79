//! `groups remove`: a group with its sessions, keys and addresses.

use super::group_arg::GroupArg;
use crate::{
    audit::Operator,
    group::store::{
        self, StoreError,
        remove::{self, GroupBelongings, GroupRemains},
    },
    group_id::GroupId,
    output::Format,
    sessions::{
        self, Status,
        lookup::{self, CountedBy, Filter},
        removal::{self, GroupSessions},
    },
};
use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::PgPool;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long after a change of a group a worker may act on what it read before.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);
/// The pause before another look at invites in flight.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  What would be removed:
    session-invite groups remove 72

  Remove it:
    session-invite groups remove 72 --yes

The group is switched off first. Invites in flight get their outcome from a worker, and the command
waits for that, and until no session has changed for 3 minutes. Live sessions end. When the command
is stopped, run it again: it goes on.";

#[derive(Debug, clap::Args)]
pub(super) struct RemoveGroupArgs {
    #[command(flatten)]
    target: GroupArg,
    /// Remove it; without this the command only counts
    #[arg(long)]
    yes: bool,
    /// How long to wait for the outcomes of invites in flight
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    wait: Duration,
    /// How long a session must not have changed: a retry queue holds a message for 2 minutes, which then needs its outcome
    #[arg(long, default_value = "3m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    rest: Duration,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RemovalReport {
    groupid: i64,
    /// Whether anything was removed, or only counted.
    removed: bool,
    sessions: i64,
    /// Of those, how many an agent can join, or has joined.
    live: i64,
    in_flight: i64,
    #[serde(flatten)]
    belongings: GroupBelongings,
    stays: GroupRemains,
}

pub(super) async fn run(args: RemoveGroupArgs, operator: &Operator) -> anyhow::Result<()> {
    let pool = operator.pool();
    let GroupArg { group, format } = args.target;
    let mut report = count(pool, group).await?;
    if !report.belongings.group && report.sessions == 0 {
        return Err(StoreError::NoGroup(group).into());
    }
    if args.yes {
        let again = || format!("group {group} is not removed; `groups remove {group} --yes` goes on");
        report.sessions = remove_all(operator, group, args.wait, args.rest).await.with_context(again)?;
        report.removed = true;
    }
    print(&report, format)
}

async fn count(pool: &PgPool, group: GroupId) -> anyhow::Result<RemovalReport> {
    let filter = Filter { group: Some(group), ..Filter::default() };
    let by_status = lookup::count(pool, &filter, CountedBy { status: true, ..CountedBy::default() }).await?;
    let with = |wanted: &[Status]| -> i64 {
        let is_wanted =
            |status: &Option<String>| wanted.iter().any(|wanted| status.as_deref() == Some(wanted.as_str()));
        by_status.iter().filter(|row| is_wanted(&row.status)).map(|row| row.count).sum()
    };
    Ok(RemovalReport {
        groupid: group.get(),
        removed: false,
        sessions: by_status.iter().map(|row| row.count).sum(),
        live: with(&[Status::Sent, Status::Delivered, Status::Undelivered, Status::Unknown, Status::Joined]),
        in_flight: with(&[Status::Sending]),
        belongings: remove::belongings(pool, group).await?,
        stays: remove::remains(pool, group).await?,
    })
}

/// Removes the group; returns how many sessions it had. It begins with the sessions, so that a command that was stopped finds
/// what is left by the group.
async fn remove_all(
    operator: &Operator,
    group: GroupId,
    wait: Duration,
    rest: Duration,
) -> anyhow::Result<i64> {
    let pool = operator.pool();
    match store::disable(operator, group).await {
        Ok(()) => {
            // Invites that wait for the end of a pause go on, and are refused.
            store::resume(operator, group).await?;
            sessions::wake(pool, group).await?;
        }
        Err(StoreError::NoGroup(_)) => {}
        Err(error) => return Err(error.into()),
    }
    // Nothing begins any more. What has begun is settled by the workers, which need the group and its rows for that.
    let before = delete_until_none(pool, group, GroupSessions::InFlight, wait, rest).await?;
    remove::remove(operator, group).await?;
    // Until the workers have followed, they refuse invites of the group, and store that.
    Ok(before + delete_until_none(pool, group, GroupSessions::All, wait + rest, rest).await?)
}

/// Deletes sessions until none of this kind is left, and none can come any more.
async fn delete_until_none(
    pool: &PgPool,
    group: GroupId,
    which: GroupSessions,
    wait: Duration,
    rest: Duration,
) -> anyhow::Result<i64> {
    let begun = Instant::now();
    let (mut deleted, mut first) = (0, Uuid::nil());
    loop {
        deleted += delete_settled(pool, group, first, rest).await?;
        // All sessions before it are gone.
        first = removal::first_left(pool, group, GroupSessions::All, first).await?.unwrap_or(first);
        let is_over = removal::first_left(pool, group, which, first).await?.is_none();
        if is_over && begun.elapsed() >= FOLLOWED_WITHIN {
            return Ok(deleted);
        }
        if begun.elapsed() >= wait.max(3 * FOLLOWED_WITHIN) {
            bail!(
                "sessions still change, or are in flight, after {}; is a worker running?",
                humantime::format_duration(wait)
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Deletes the sessions that can go now. It pauses as long as it works, so that invites come first.
async fn delete_settled(
    pool: &PgPool,
    group: GroupId,
    from: Uuid,
    rest: Duration,
) -> Result<i64, sqlx::Error> {
    let mut deleted = 0;
    // The bound is not included, and no id is 0.
    let mut after = Uuid::from_u128(from.as_u128().saturating_sub(1));
    loop {
        let begun = Instant::now();
        let batch = removal::remove(pool, group, after, rest).await?;
        let Some(last) = batch.last else { return Ok(deleted) };
        deleted += batch.deleted;
        after = last;
        tokio::time::sleep(begun.elapsed()).await;
    }
}

fn print(report: &RemovalReport, format: Format) -> anyhow::Result<()> {
    let RemovalReport { groupid, removed, sessions, live, in_flight, belongings, stays } = report;
    format.object(report, |_| {
        let what = if *removed { "removed" } else { "would be removed" };
        let GroupBelongings { api_keys, jwt_secrets, addresses, .. } = belongings;
        vec![
            (format!("Group {groupid}"), what.to_owned()),
            ("sessions".to_owned(), format!("{sessions}, of them {live} live and {in_flight} in flight")),
            ("API keys".to_owned(), api_keys.to_string()),
            ("JWT secrets".to_owned(), jwt_secrets.to_string()),
            ("addresses".to_owned(), addresses.to_string()),
            ("stays: opt-outs from its From number".to_owned(), stays.optouts.to_string()),
            ("stays: website sessions".to_owned(), stays.website_sessions.to_string()),
        ]
    })?;
    if !removed && !format.json {
        crate::output::print(&format!(
            "\nNothing was changed. To remove it: session-invite groups remove {groupid} --yes"
        ))?;
    }
    Ok(())
}
