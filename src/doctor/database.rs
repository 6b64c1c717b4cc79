//! PostgreSQL: reached, migrated, in step with our clock; and what its rows say of trouble.

use super::finding::{Finding, PATIENCE, Verdict};
use crate::{
    config::{Faults, WorkerArgs},
    db::{self, Locks, Obstacle, Passing, Schema, kinds},
    group::{
        directory::Directory,
        store::{self, reseal},
    },
    optouts,
    seal::SealedBy,
};
use sqlx::PgPool;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

const SERVER: &str = "database";
const SCHEMA: &str = "schema";
const RIGHTS: &str = "rights";
const CLOCK: &str = "clock";
const GROUPS: &str = "groups";
const OPTOUTS: &str = "opt-outs";
const SECRETS: &str = "secrets";
const SESSIONS: &str = "sessions";
const EVENTS: &str = "events";

/// Seconds by which the clocks may differ without notice, and at all: ages and credentials suffer.
const CLOCKS_DIFFER: f64 = 2.0;
const CLOCKS_DIFFER_AT_MOST: f64 = 30.0;

pub(super) async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut faults = Faults::default();
    let Some(config) = args.database.check(&mut faults) else {
        return vec![Finding::skipped(SERVER, "DATABASE_URL is not usable")];
    };
    let connecting = db::connect(&config, "session-invite doctor");
    let pool = match timeout(PATIENCE, connecting).await {
        Ok(Ok(pool)) => pool,
        Ok(Err(error)) => return away(&error.to_string()),
        Err(_) => return away(&format!("no answer in {} s", PATIENCE.as_secs())),
    };
    match timeout(PATIENCE, look(&pool, args)).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => away(&error.summary()),
        Err(_) => away(&format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

fn away(why: &str) -> Vec<Finding> {
    let mend = "is it running where DATABASE_URL points, and does it take this login?";
    let rest = [SCHEMA, RIGHTS, CLOCK, GROUPS, OPTOUTS, SECRETS, SESSIONS, EVENTS];
    let rest = rest.map(|check| Finding::skipped(check, "needs the database"));
    std::iter::once(Finding::failed(SERVER, why, mend)).chain(rest).collect()
}

async fn look(pool: &PgPool, args: &WorkerArgs) -> Result<Vec<Finding>, sqlx::Error> {
    let (version, most): (String, String) =
        sqlx::query_as("select current_setting('server_version'), current_setting('max_connections')")
            .fetch_one(pool)
            .await?;
    let mut findings = vec![
        Finding::ok(SERVER, format!("PostgreSQL {version}, {most} connections at most")),
        clock(pool).await?,
    ];
    let (schema, missing) = match schema(pool).await {
        Err(error)
            if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42501")) =>
        {
            (may_not_read_the_schema(pool, &error).await?, usize::MAX)
        }
        found => found?,
    };
    let is_there = missing == 0;
    findings.insert(1, schema);
    if !is_there {
        let rest = [RIGHTS, GROUPS, OPTOUTS, SECRETS, SESSIONS, EVENTS];
        findings.extend(rest.map(|check| Finding::skipped(check, "needs the schema of this program")));
        return Ok(findings);
    }
    let rights = rights(pool).await?;
    let is_allowed = rights.iter().all(|finding| finding.verdict == Verdict::Ok);
    findings.splice(2..2, rights);
    if !is_allowed {
        let rest = [GROUPS, OPTOUTS, SECRETS, SESSIONS, EVENTS];
        findings.extend(rest.map(|check| Finding::skipped(check, "needs the rights")));
        return Ok(findings);
    }
    findings.extend(groups(pool, args).await?);
    findings.push(opted_out(pool, args).await);
    findings.push(sealing(pool, args).await?);
    findings.push(sessions(pool).await?);
    findings.push(events(pool).await?);
    Ok(findings)
}

/// With the number of migrations that are to come.
async fn schema(pool: &PgPool) -> Result<(Finding, usize), sqlx::Error> {
    let schema = Schema::read(&mut *pool.acquire().await?).await?;
    let known = db::MIGRATIONS.iter().count();
    let finding = match schema {
        Schema { changed: Some(changed), .. } => Finding::failed(
            SCHEMA,
            format!("the migration {changed} is another than this program's"),
            "does DATABASE_URL name the right database?",
        ),
        Schema { hidden: Some(hidden), missing, .. } => {
            let error = db::Unusable::from(hidden).to_string();
            let (what, mend) = error.split_once(": ").unwrap_or((error.as_str(), "grant it"));
            return Ok((Finding::failed(SCHEMA, what, mend), missing));
        }
        Schema { missing: 0, newer: Some(newer), .. } => Finding::warning(
            SCHEMA,
            format!("of a newer release: it has the migration {newer}, which this program does not know"),
            "update the program, once all workers of the release before may go",
        ),
        Schema { missing: 0, .. } => Finding::ok(SCHEMA, format!("up to date: {known} migrations")),
        Schema { missing, .. } => Finding::warning(
            SCHEMA,
            format!("{missing} of {known} migrations are to come"),
            "a worker does that when it starts; or run session-invite migrate",
        ),
    };
    Ok((finding, schema.missing))
}

/// The table of migrations cannot be read.
async fn may_not_read_the_schema(pool: &PgPool, error: &sqlx::Error) -> Result<Finding, sqlx::Error> {
    let role: String = sqlx::query_scalar("select quote_ident(current_user)").fetch_one(pool).await?;
    Ok(Finding::failed(SCHEMA, error.summary(), format!("grant select on _sqlx_migrations to {role}")))
}

/// What a worker and a gateway could not do. A lock is looked for twice: one that is held for long is in the way.
async fn rights(pool: &PgPool) -> Result<Vec<Finding>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let kinds: Vec<_> = [kinds::OF_THE_WORKER, kinds::OF_THE_GATEWAY].concat();
    let mut locks = Locks::default();
    let mut found = db::obstacles(&mut connection, &kinds, &mut locks, db::HELD_FOR).await?;
    if !locks.is_empty() {
        tokio::time::sleep(db::HELD_FOR).await;
        found = db::obstacles(&mut connection, &kinds, &mut locks, db::HELD_FOR).await?;
    }
    if found.is_empty() {
        return Ok(vec![Finding::ok(RIGHTS, "all that workers and gateways do can be done")]);
    }
    let finding = |obstacle: &Obstacle| {
        let (what, mend) =
            obstacle.message.split_once(": ").unwrap_or((&obstacle.message, "see the database's log"));
        Finding::failed(RIGHTS, what, mend)
    };
    Ok(found.iter().map(finding).collect())
}

async fn clock(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let ours = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let before = ours();
    let theirs: f64 =
        sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8").fetch_one(pool).await?;
    let differs = theirs - f64::midpoint(before, ours());
    let found = format!("{:.1} s from the database's", differs.abs());
    let mend =
        "run NTP on both machines: invites' ages and credentials go by this clock, sessions by that one";
    Ok(match differs.abs() {
        off if off > CLOCKS_DIFFER_AT_MOST => Finding::failed(CLOCK, found, mend),
        off if off > CLOCKS_DIFFER => Finding::warning(CLOCK, found, mend),
        _ => Finding::ok(CLOCK, found),
    })
}

/// Whether there are groups, and each has keys that open and templates that parse.
async fn groups(pool: &PgPool, args: &WorkerArgs) -> Result<Vec<Finding>, sqlx::Error> {
    let all = match store::list(pool).await {
        Ok(all) if all.is_empty() => {
            let mend = "session-invite groups add 72";
            return Ok(vec![Finding::warning(GROUPS, "there are none, so nobody can invite", mend)]);
        }
        Ok(all) => all,
        Err(error) => {
            return Ok(vec![Finding::failed(GROUPS, error.to_string(), "session-invite groups list")]);
        }
    };
    let Ok(secrets) = args.secrets.key() else {
        return Ok(vec![Finding::skipped(GROUPS, "their keys need SECRETS_KEY")]);
    };
    let Ok(url) = args.secrets.public_url().map(|url| url.base) else {
        return Ok(vec![Finding::skipped(GROUPS, "their links need PUBLIC_URL")]);
    };
    let directory = match Directory::open(pool.clone(), secrets, url).await {
        Ok(directory) => directory,
        Err(error) => {
            let mend = "set the SECRETS_KEY that sealed them, after a comma if it is an old one";
            return Ok(vec![Finding::failed(GROUPS, error.to_string(), mend)]);
        }
    };
    let snapshot = directory.snapshot();
    let mut findings = Vec::new();
    for stored in &all {
        let id = stored.id;
        let show = format!("session-invite groups show {id}");
        match snapshot.group(id) {
            None => findings.push(Finding::failed(
                GROUPS,
                format!("group {id}: its templates are unusable"),
                show,
            )),
            Some(group) if group.keys_missing => {
                let mend = "add the SECRETS_KEY that sealed them after a comma, or rotate its keys";
                findings.push(Finding::failed(GROUPS, format!("group {id}: not all of its keys open"), mend));
            }
            Some(group) if group.api_keys.is_empty() && group.jwt_secrets.is_empty() => {
                let mend = format!("session-invite groups rotate-key {id}");
                findings.push(Finding::warning(GROUPS, format!("group {id} has no active key"), mend));
            }
            Some(_) => {}
        }
    }
    if findings.is_empty() {
        let disabled = all.iter().filter(|group| !group.enabled).count();
        findings.push(Finding::ok(GROUPS, format!("{}, {disabled} of them switched off", all.len())));
    }
    Ok(findings)
}

async fn opted_out(pool: &PgPool, args: &WorkerArgs) -> Finding {
    let Ok(secrets) = args.secrets.key() else {
        return Finding::skipped(OPTOUTS, "their key needs SECRETS_KEY");
    };
    match optouts::sealed_by(pool, &secrets).await {
        Ok(_) => Finding::ok(OPTOUTS, "can be read"),
        Err(error) => {
            Finding::failed(OPTOUTS, error.to_string(), "docs/LIMITS.md says what is lost, and what to do")
        }
    }
}

/// Whether the first key of `SECRETS_KEY` has sealed everything, so that the others may go.
async fn sealing(pool: &PgPool, args: &WorkerArgs) -> Result<Finding, sqlx::Error> {
    let Ok(secrets) = args.secrets.key() else {
        return Ok(Finding::skipped(SECRETS, "what is sealed needs SECRETS_KEY"));
    };
    let tally = reseal::tally(pool, &secrets).await?;
    let by_older = matches!(optouts::sealed_by(pool, &secrets).await, Ok(Some(SealedBy::Older)));
    let older = tally.older + u64::from(by_older);
    Ok(if older > 0 {
        let found =
            format!("{older} are sealed under an older key of SECRETS_KEY, which must stay until then");
        Finding::warning(SECRETS, found, "session-invite secrets reseal")
    } else if tally.lost > 0 {
        let found = format!("{} keys in use are opened by no key of SECRETS_KEY", tally.lost);
        Finding::failed(
            SECRETS,
            found,
            "add the key that sealed them after a comma, or rotate the groups' keys",
        )
    } else if secrets.has_older() {
        Finding::ok(SECRETS, "all are sealed under the first key of SECRETS_KEY: the others may go")
    } else {
        Finding::ok(SECRETS, "all are sealed under SECRETS_KEY")
    })
}

/// What should have come to an end, and what never will.
async fn sessions(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let (stuck, unknown): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where status = 'sending' and expires_at < now() - interval '2 minutes'),
                count(*) filter (where error_code = 'outcome_unknown')
           from sessions where created_at > now() - interval '1 day'",
    )
    .fetch_one(pool)
    .await?;
    Ok(match (stuck, unknown) {
        (0, 0) => Finding::ok(SESSIONS, "of the last day, none is stuck"),
        (0, _) => Finding::warning(
            SESSIONS,
            format!("{unknown} of the last day may have been texted, and nobody knows"),
            "session-invite sessions list --status unknown",
        ),
        _ => Finding::warning(
            SESSIONS,
            format!("{stuck} are over and still being sent"),
            "is a worker running? session-invite sessions list --status sending",
        ),
    })
}

async fn events(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let late: i64 = sqlx::query_scalar("select count(*) from events where at < now() - interval '1 minute'")
        .fetch_one(pool)
        .await?;
    Ok(match late {
        0 => Finding::ok(EVENTS, "none waits to be published"),
        _ => Finding::warning(
            EVENTS,
            format!("{late} have waited for a minute and more"),
            "is a worker running, and does it reach the broker? Its log says why",
        ),
    })
}
