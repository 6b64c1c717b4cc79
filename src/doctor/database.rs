//! Checks of PostgreSQL: whether it can be reached, its schema, rights and clock, and rows that show trouble.

use super::{
    finding::{CONNECTS_WITHIN, CheckStatus, Finding, PATIENCE},
    locks,
    processes::{self, CONNECTIONS, PROCESSES, SETTINGS},
};
use crate::{
    config::{DatabaseConfig, Faults, GatewayArgs, WorkerArgs},
    db::{
        self, Locks, NodeLook, Obstacle, Schema, StatementError,
        kinds::{self, StatementKind},
    },
    group::{
        directory::Directory,
        store::{self, StoredGroup, reseal},
    },
    group_id::GroupId,
    nodes::NodeState,
    optouts,
    seal::SealedBy,
    sessions::{
        self, Status, lookup,
        recent::{self, OutcomeCount},
    },
};
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::timeout;

const SERVER: &str = "database";
const NODE: &str = "database node";
const SCHEMA: &str = "schema";
const RIGHTS: &str = "rights";
const CLOCK: &str = "clock";
const GROUPS: &str = "groups";
const OPTOUTS: &str = "opt-outs";
const SECRETS: &str = "secrets";
const INVITES: &str = "invites";
const SESSIONS: &str = "sessions";
const EVENTS: &str = "events";
const LOSSES: &str = "losses";

/// The checks that need tables.
const OF_TABLES: [&str; 10] =
    [GROUPS, OPTOUTS, SECRETS, INVITES, SESSIONS, EVENTS, LOSSES, PROCESSES, SETTINGS, CONNECTIONS];

/// Invites that were hit longer ago are no longer a warning.
const HIT_LATELY: Duration = Duration::from_mins(10);

/// How long one check of the tables may take.
const CHECK_WITHIN: Duration = Duration::from_millis(1_200);
/// Sessions that are looked at for an unknown outcome, which no index has.
const NEWEST_SESSIONS: i64 = 30_000;
/// A lock that is held for so long is reported.
const HELD_FOR: Duration = Duration::from_millis(700);

/// Seconds by which the clocks may differ before a failure. Ages of invites and credentials depend on the clock.
const CLOCK_FAILURE: f64 = 30.0;

/// The name of the connections.
const APPLICATION: &str = "session-invite doctor";

pub(super) async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut faults = Faults::default();
    let Some(config) = args.database.check(&mut faults) else {
        return vec![Finding::skipped(SERVER, "DATABASE_URL is not usable")];
    };
    let config = in_short_time(config);
    let (mut findings, looks) =
        tokio::join!(examine_server(&config, args), db::look_at_nodes(&config, APPLICATION));
    findings.extend(node_findings(&looks));
    findings
}

/// The nodes are tried one after the other, so each has a part of the time.
fn in_short_time(mut config: DatabaseConfig) -> DatabaseConfig {
    let nodes = u32::try_from(config.address.nodes.len()).unwrap_or(1).max(1);
    let each = CONNECTS_WITHIN.min(CONNECTS_WITHIN * 2 / nodes);
    config.address.connect_timeout = config.address.connect_timeout.min(each);
    config
}

async fn examine_server(config: &DatabaseConfig, args: &WorkerArgs) -> Vec<Finding> {
    let checking = async {
        let pool = match db::connect(config, APPLICATION).await {
            Ok(pool) => pool,
            Err(error) => return unavailable(&error.to_string()),
        };
        match check_all(&pool, args).await {
            Ok(findings) => findings,
            Err(error) => unavailable(&error.summary()),
        }
    };
    match timeout(PATIENCE, checking).await {
        Ok(findings) => findings,
        Err(_) => unavailable(&format!("no answer in {:.1} s", PATIENCE.as_secs_f64())),
    }
}

/// A finding for each node, and one for what does not fit between them.
fn node_findings(looks: &[NodeLook]) -> Vec<Finding> {
    let facts = || looks.iter().filter_map(|look| look.facts.as_ref().ok().map(|facts| (look, facts)));
    let serves = facts().any(|(_, facts)| facts.state == NodeState::TakesWrites);
    let first = facts().find_map(|(look, facts)| Some((look.name.as_str(), facts.system.as_deref()?)));
    let mut findings: Vec<_> = looks.iter().map(|look| node_finding(look, serves, first)).collect();
    findings.extend(looks.iter().filter_map(|look| {
        Some(Finding::warning(NODE, look.clock_problem()?, "synchronize its clock and this machine's (NTP)"))
    }));
    if let Some(writers) = db::several_writers(looks) {
        findings.push(Finding::failed(NODE, writers, "stop all but the right one"));
    }
    findings
}

fn node_finding(look: &NodeLook, serves: bool, first: Option<(&str, &str)>) -> Finding {
    let name = &look.name;
    let facts = match &look.facts {
        Ok(facts) => facts,
        Err(why) => {
            let (found, remedy) =
                (format!("{name} is away: {why}"), "start it, or remove it from DATABASE_URL");
            return if serves {
                Finding::warning(NODE, found, remedy)
            } else {
                Finding::failed(NODE, found, remedy)
            };
        }
    };
    if let (Some((other, theirs)), Some(system)) = (first, &facts.system)
        && theirs != system
    {
        let found = format!(
            "{name} belongs to another cluster than {other} (system identifiers {system} and {theirs})"
        );
        return Finding::failed(NODE, found, "let DATABASE_URL name the nodes of one cluster");
    }
    let timeline = facts.timeline.map(|timeline| format!(", timeline {timeline}")).unwrap_or_default();
    let found = format!("{name}: {}{timeline}", facts.state.text());
    match facts.state {
        NodeState::TakesWrites => Finding::ok(NODE, found),
        NodeState::Standby if serves => Finding::ok(NODE, found),
        NodeState::Standby => Finding::failed(
            NODE,
            found,
            "let DATABASE_URL name the primary too, or promote it: select pg_promote()",
        ),
        _ => Finding::warning(NODE, found, "see the check rights, which has the statement that ends it"),
    }
}

fn unavailable(why: &str) -> Vec<Finding> {
    let rest = [SCHEMA, RIGHTS, CLOCK, locks::LOCKS].into_iter().chain(OF_TABLES);
    let rest = rest.map(|check| Finding::skipped(check, "needs the database"));
    std::iter::once(Finding::failed(SERVER, why, remedy_of(why))).chain(rest).collect()
}

/// What to do about a database that cannot be used, by the error's text.
fn remedy_of(why: &str) -> &'static str {
    if why.contains("too many connections") || why.contains("connection slots") {
        "see who has them: select usename, application_name, count(*) from pg_stat_activity group by 1, 2 order by 3 desc; \
         then lower DATABASE_MAX_CONNECTIONS of the processes, or raise the limit (alter role, alter database, \
         max_connections)"
    } else if why.contains("refuses the login") {
        "correct the user, the password or the database's name in DATABASE_URL"
    } else if why.contains("refused") {
        "nothing listens there: start the server, or correct the host and the port in DATABASE_URL"
    } else if why.contains("no answer") || why.contains("timed out") {
        "see whether it is stopped or cut off: pg_isready -d \"$DATABASE_URL\""
    } else {
        "is it running where DATABASE_URL points, and does it take this login?"
    }
}

async fn check_all(pool: &PgPool, args: &WorkerArgs) -> Result<Vec<Finding>, sqlx::Error> {
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
    findings.insert(1, schema);
    let skipped = |findings: &mut Vec<Finding>, why: &str| {
        findings.extend(OF_TABLES.map(|check| Finding::skipped(check, why)));
    };
    if missing > 0 {
        findings.push(Finding::skipped(RIGHTS, "needs the schema of this program"));
        skipped(&mut findings, "needs the schema of this program");
        return Ok(findings);
    }
    let informing = informing(args);
    let (rights, locks) = tokio::join!(rights(pool, &informing), in_time(locks::LOCKS, locks::examine(pool)));
    let rights = rights?;
    let is_allowed = rights.iter().all(|finding| finding.status != CheckStatus::Failed);
    findings.splice(2..2, rights);
    findings.extend(locks);
    if is_allowed {
        findings.extend(check_tables(pool, args).await);
    } else {
        skipped(&mut findings, "needs the rights");
    }
    Ok(findings)
}

/// The checks of the tables, side by side.
async fn check_tables(pool: &PgPool, args: &WorkerArgs) -> Vec<Finding> {
    let (groups, optouts, secrets, invites, sessions, events, losses, processes) = tokio::join!(
        in_time(GROUPS, groups(pool, args)),
        in_time(OPTOUTS, async { Ok(vec![opted_out(pool, args).await]) }),
        in_time(SECRETS, alone(sealing(pool, args))),
        in_time(INVITES, alone(invites(pool))),
        in_time(SESSIONS, alone(stuck_sessions(pool))),
        in_time(EVENTS, alone(events(pool))),
        in_time(LOSSES, alone(losses(pool))),
        in_time(PROCESSES, processes::examine(pool)),
    );
    [groups, optouts, secrets, invites, sessions, events, losses, processes].concat()
}

async fn alone(
    checking: impl Future<Output = Result<Finding, sqlx::Error>>,
) -> Result<Vec<Finding>, sqlx::Error> {
    Ok(vec![checking.await?])
}

/// The findings of one check, which has its own time limit.
async fn in_time(
    check: &'static str,
    checking: impl Future<Output = Result<Vec<Finding>, sqlx::Error>>,
) -> Vec<Finding> {
    match timeout(CHECK_WITHIN, checking).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => vec![unreadable(check, &error.summary())],
        Err(_) => vec![unreadable(check, &format!("no answer in {:.1} s", CHECK_WITHIN.as_secs_f64()))],
    }
}

fn unreadable(check: &'static str, why: &str) -> Finding {
    let remedy = "see what the server is busy with: select pid, state, wait_event, query_start, left(query, 60) from \
                  pg_stat_activity where state <> 'idle'";
    Finding::failed(check, why, remedy)
}

/// The finding, and the number of missing migrations.
async fn schema(pool: &PgPool) -> Result<(Finding, usize), sqlx::Error> {
    let schema = Schema::read(&mut *pool.acquire().await?).await?;
    let known = db::MIGRATIONS.iter().count();
    let finding = match schema {
        Schema { changed: Some(changed), .. } => Finding::failed(
            SCHEMA,
            format!("the migration {changed} differs from this program's"),
            "does DATABASE_URL name the right database?",
        ),
        Schema { hidden: Some(hidden), missing, .. } => {
            let error = db::UnusableDatabase::from(hidden).to_string();
            let (what, remedy) = error.split_once(": ").unwrap_or((error.as_str(), "grant it"));
            return Ok((Finding::failed(SCHEMA, what, remedy), missing));
        }
        Schema { missing: 0, newer: Some(newer), .. } => Finding::warning(
            SCHEMA,
            format!("of a newer release: it has the migration {newer}, which this program does not know"),
            "update the program, once all workers of the older release may be stopped",
        ),
        Schema { missing: 0, .. } => Finding::ok(SCHEMA, format!("up to date: {known} migrations")),
        Schema { missing, .. } => Finding::warning(
            SCHEMA,
            format!("{missing} of {known} migrations are missing"),
            "a worker applies them when it starts; or run session-invite migrate",
        ),
    };
    Ok((finding, schema.missing))
}

/// The table of migrations cannot be read.
async fn may_not_read_the_schema(pool: &PgPool, error: &sqlx::Error) -> Result<Finding, sqlx::Error> {
    let role: String = sqlx::query_scalar("select quote_ident(current_user)").fetch_one(pool).await?;
    Ok(Finding::failed(SCHEMA, error.summary(), format!("grant select on _sqlx_migrations to {role}")))
}

/// The rights that a worker or a gateway lacks, and locks that block them. Locks are checked twice, as only one that is held
/// for long counts.
/// `informing` are the statements without which a process does its work.
async fn rights(pool: &PgPool, informing: &[&'static StatementKind]) -> Result<Vec<Finding>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let kinds: Vec<_> = [kinds::WORKER_STATEMENTS, kinds::GATEWAY_STATEMENTS].concat();
    let mut locks = Locks::default();
    let mut found = db::obstacles(&mut connection, &kinds, &mut locks, HELD_FOR).await?;
    if !locks.is_empty() {
        tokio::time::sleep(HELD_FOR).await;
        found = db::obstacles(&mut connection, &kinds, &mut locks, HELD_FOR).await?;
    }
    if found.is_empty() {
        let lacking = db::obstacles(&mut connection, informing, &mut locks, HELD_FOR).await?;
        let Some(obstacle) = lacking.first() else {
            return Ok(vec![Finding::ok(RIGHTS, "workers and gateways have all that they need")]);
        };
        let (what, remedy) = split(obstacle);
        return Ok(vec![Finding::warning(RIGHTS, what, remedy)]);
    }
    let finding = |obstacle: &Obstacle| {
        let (what, remedy) = split(obstacle);
        Finding::failed(RIGHTS, what, remedy)
    };
    Ok(found.iter().map(finding).collect())
}

/// The statements for operators, with those of the console where there is one.
fn informing(args: &WorkerArgs) -> Vec<&'static StatementKind> {
    let has_console = GatewayArgs::beside(args).console.is_set();
    let console = if has_console { kinds::CONSOLE_STATEMENTS } else { &[] };
    [kinds::OPERATORS_STATEMENTS, console].concat()
}

/// What was found, and the remedy.
fn split(obstacle: &Obstacle) -> (&str, &str) {
    obstacle.message.split_once(": ").unwrap_or((&obstacle.message, "see the database's log"))
}

async fn clock(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let ours = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let before = ours();
    let theirs: f64 =
        sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8").fetch_one(pool).await?;
    let differs = theirs - f64::midpoint(before, ours());
    let found = format!("{:.1} s from the database's", differs.abs());
    let remedy = "run NTP on both machines: ages of invites and credentials are checked by this machine's clock, ends of \
                  sessions by the database's";
    Ok(match differs.abs() {
        off if off > CLOCK_FAILURE => Finding::failed(CLOCK, found, remedy),
        off if off > db::CLOCK_WARNING => Finding::warning(CLOCK, found, remedy),
        _ => Finding::ok(CLOCK, found),
    })
}

/// Whether there are groups, whose keys can be opened and whose templates can be parsed.
async fn groups(pool: &PgPool, args: &WorkerArgs) -> Result<Vec<Finding>, sqlx::Error> {
    let all = match store::list(pool).await {
        Ok(all) if all.is_empty() => {
            let remedy = "session-invite groups add 72";
            return Ok(vec![Finding::warning(GROUPS, "there are none, so every invite is refused", remedy)]);
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
            let remedy = "set the SECRETS_KEY that sealed them, after a comma if it is an old one";
            return Ok(vec![Finding::failed(GROUPS, error.to_string(), remedy)]);
        }
    };
    let snapshot = directory.snapshot();
    let waiting = sessions::waiting(pool).await?;
    let mut findings: Vec<_> = all.iter().filter_map(|group| paused_finding(group, &waiting)).collect();
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
                let remedy = "add the SECRETS_KEY that sealed them after a comma, or rotate its keys";
                let found = format!("group {id}: not all of its keys can be opened");
                findings.push(Finding::failed(GROUPS, found, remedy));
            }
            Some(group) if group.api_keys.is_empty() && group.jwt_secrets.is_empty() => {
                let remedy = format!("session-invite groups rotate-key {id}");
                findings.push(Finding::warning(GROUPS, format!("group {id} has no active key"), remedy));
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

/// What the pause of a group holds up.
fn paused_finding(group: &StoredGroup, waiting: &HashMap<i64, i64>) -> Option<Finding> {
    let (id, since) = (group.id, group.paused_at?.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()?);
    let waiting = waiting.get(&id.get()).unwrap_or(&0);
    let found =
        format!("group {id} is paused since {since}, and {waiting} of its invites wait: no text goes out");
    Some(Finding::warning(GROUPS, found, format!("session-invite groups resume {id}")))
}

/// Whose invites of the last hour are hit by what is wrong. Those that a request itself is to blame for are left out.
async fn invites(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let is_hit = |outcome: &OutcomeCount| outcome.status != Status::Rejected;
    let hit: Vec<_> = recent::last_hour(pool).await?.in_trouble.into_iter().filter(is_hit).collect();
    let Some(newest) = hit.iter().map(|outcome| outcome.newest).max() else {
        return Ok(Finding::ok(INVITES, "none of the last hour has failed, or waits for long"));
    };
    let mut by_group: BTreeMap<GroupId, Vec<String>> = BTreeMap::new();
    for OutcomeCount { group, status, code, count, .. } in hit {
        let status = if status == Status::Sending { "waiting" } else { status.as_str() };
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        by_group.entry(group).or_default().push(format!("{count} {status}{code}"));
    }
    let groups = by_group.iter().map(|(group, outcomes)| format!("group {group}: {}", outcomes.join(", ")));
    let since = OffsetDateTime::now_utc() - newest;
    let found = format!(
        "hit within the last hour, the newest of them {} min old: {}",
        since.whole_minutes().max(0),
        groups.collect::<Vec<_>>().join("; ")
    );
    if since > HIT_LATELY {
        return Ok(Finding::ok(INVITES, found));
    }
    let remedy = "the cause is in the other lines, if it lasts; to follow them: session-invite sessions count --by \
                  group,status,code --since 1h";
    Ok(Finding::warning(INVITES, found, remedy))
}

async fn opted_out(pool: &PgPool, args: &WorkerArgs) -> Finding {
    let Ok(secrets) = args.secrets.key() else {
        return Finding::skipped(OPTOUTS, "their key needs SECRETS_KEY");
    };
    match optouts::sealed_by(pool, &secrets).await {
        Ok(_) => Finding::ok(OPTOUTS, "can be read"),
        Err(error) => {
            Finding::failed(OPTOUTS, error.to_string(), "see docs/LIMITS.md: what is lost, and what to do")
        }
    }
}

/// Whether the first key of `SECRETS_KEY` has sealed everything, so that the others may be removed.
async fn sealing(pool: &PgPool, args: &WorkerArgs) -> Result<Finding, sqlx::Error> {
    let Ok(secrets) = args.secrets.key() else {
        return Ok(Finding::skipped(SECRETS, "what is sealed needs SECRETS_KEY"));
    };
    let tally = reseal::tally(pool, &secrets).await?;
    let by_older = matches!(optouts::sealed_by(pool, &secrets).await, Ok(Some(SealedBy::Older)));
    let older = tally.older + u64::from(by_older);
    Ok(if older > 0 {
        let found = format!(
            "{older} are sealed under an older key of SECRETS_KEY, which is needed until they are resealed"
        );
        Finding::warning(SECRETS, found, "session-invite secrets reseal")
    } else if tally.lost > 0 {
        let found = format!("no key of SECRETS_KEY opens {} keys in use", tally.lost);
        Finding::failed(
            SECRETS,
            found,
            "add the key that sealed them after a comma, or rotate the groups' keys",
        )
    } else if secrets.has_older() {
        Finding::ok(SECRETS, "all are sealed under the first key of SECRETS_KEY: the others may be removed")
    } else {
        Finding::ok(SECRETS, "all are sealed under SECRETS_KEY")
    })
}

/// Sessions that should have ended or gone on, and sessions whose text's outcome is unknown for good.
async fn stuck_sessions(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    // By the indexes of ids and of what is due: an open session is due when it expires.
    let (stuck, late, unknown, is_cut): (i64, i64, i64, bool) = sqlx::query_as(
        "with open as materialized (
             select s.* from (select coalesce(max(session_ttl), 0) as longest from groups) g cross join sessions s
              where s.key_held and s.due_at <= now() + make_interval(secs => g.longest)
                and s.status = 'sending' and s.created_at > now() - interval '1 day'),
         newest as materialized (
             select error_code, created_at from sessions where id >= $1 order by id desc limit $2)
         select (select count(*) from open where expires_at < now() - interval '2 minutes'),
                -- The worker resumes such an invite a minute after its time, when it is two minutes old.
                (select count(*) from open where expires_at > now() and created_at < now() - interval '4 minutes'
                                             and greatest(lease_until, unsure_from, updated_at) < now() - interval '4 minutes'),
                (select count(*) from newest where error_code = 'outcome_unknown' and created_at > now() - interval '1 day'),
                (select count(*) from newest) = $2",
    )
    .bind(lookup::first_id(OffsetDateTime::now_utc() - lookup::ID_IS_WITHIN - Duration::from_hours(24)))
    .bind(NEWEST_SESSIONS)
    .fetch_one(pool)
    .await?;
    let of_which =
        if is_cut { format!("of the newest {NEWEST_SESSIONS}") } else { "of the last day".to_owned() };
    Ok(match (stuck, late, unknown) {
        (0, 1.., _) => Finding::warning(
            SESSIONS,
            format!("{late} are open, and nothing was done about them for four minutes"),
            "is a worker running? It resumes those whose message the broker has lost: session-invite sessions list \
             --status sending",
        ),
        (0, 0, 0) => Finding::ok(SESSIONS, "none of the last day is stuck"),
        (0, 0, _) => Finding::warning(
            SESSIONS,
            format!("it is not known whether {unknown} {of_which} were texted"),
            "session-invite sessions list --status unknown",
        ),
        _ => Finding::warning(
            SESSIONS,
            format!("{stuck} have expired, and are still being sent"),
            "is a worker running? session-invite sessions list --status sending",
        ),
    })
}

/// Losses of committed rows that workers have noticed.
async fn losses(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let last: Option<(String, String)> = sqlx::query_as(
        "select to_char(noticed_at at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS\"Z\"'), why from database_rewinds
          where noticed_at > now() - interval '1 day' order by noticed_at desc limit 1",
    )
    .fetch_optional(pool)
    .await?;
    Ok(match last {
        None => Finding::ok(LOSSES, "the database has lost no committed rows within a day"),
        Some((at, why)) => Finding::warning(
            LOSSES,
            format!("the database had lost committed rows when a worker looked at {at}: {why}"),
            "let commits wait for a standby (synchronous_standby_names), and see docs/DELIVERY.md: what is not texted",
        ),
    })
}

async fn events(pool: &PgPool) -> Result<Finding, sqlx::Error> {
    let (late, oldest): (i64, f64) = sqlx::query_as(
        "select count(*), coalesce(extract(epoch from now() - min(at)), 0)::float8 from events
          where at < now() - interval '10 seconds'",
    )
    .fetch_one(pool)
    .await?;
    Ok(match late {
        0 => Finding::ok(EVENTS, "none waits to be published"),
        _ => Finding::warning(
            EVENTS,
            format!("{late} wait to be published, the oldest for {oldest:.0} s"),
            "a worker publishes them: session-invite ready says why the one on this machine does not; without any, start \
             one: session-invite worker",
        ),
    })
}
