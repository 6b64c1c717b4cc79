//! Checks of the table `processes`: workers and gateways that are silent, what is wrong with them, settings that must agree,
//! and whether their connections fit.

use super::finding::{Finding, with_remedy};
use crate::processes::{self, ProcessRow};
use sqlx::PgPool;
use std::collections::BTreeMap;

pub(super) const PROCESSES: &str = "processes";
pub(super) const SETTINGS: &str = "settings";
pub(super) const CONNECTIONS: &str = "connections";

/// Settings that the processes of one database have in common, and why.
const SHARED: [(&str, &str); 5] = [
    ("SECRETS_KEY", "what one process seals, the other has to open"),
    ("PUBLIC_URL", "links and signatures of receipts are made with it"),
    ("TWILIO_AUTH_TOKEN", "a gateway with another one refuses all receipts and STOPs"),
    ("CONSOLE_TOKEN", "a login at one gateway is none at another"),
    ("TWILIO_ACCOUNT_SID", "texts are looked for in one account"),
];

pub(super) async fn examine(pool: &PgPool) -> Result<Vec<Finding>, sqlx::Error> {
    let rows = processes::list(pool).await?;
    let (silent, live): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.silence().is_some());
    let mut findings: Vec<_> = silent.iter().filter_map(silent_finding).collect();
    findings.extend(live.iter().flat_map(live_findings));
    if !live.iter().any(|row| row.kind == "worker") {
        let remedy = "session-invite worker starts one; if one runs, its log says why it does not report";
        findings.push(Finding::warning(PROCESSES, "no worker reports to this database", remedy));
    }
    findings.push(settings(&live));
    findings.push(connections(pool, &live).await?);
    Ok(findings)
}

fn silent_finding(row: &ProcessRow) -> Option<Finding> {
    let (found, remedy) = row.silence()?;
    Some(Finding::failed(PROCESSES, found, remedy))
}

/// One finding for each problem of a process, or a single one that it is well.
fn live_findings(row: &ProcessRow) -> Vec<Finding> {
    let name = row.name();
    if row.problems.is_empty() {
        let found = format!("{name}: {}, version {}, for {}", row.state, row.version, span(row.runs_for));
        return vec![Finding::ok(PROCESSES, found)];
    }
    let finding = |problem: &String| {
        let (found, remedy) = with_remedy(problem);
        let remedy =
            remedy.unwrap_or_else(|| format!("look at the log of process {} on {}", row.pid, row.host));
        Finding::warning(PROCESSES, format!("{name} ({}): {found}", row.state), remedy)
    };
    row.problems.iter().map(finding).collect()
}

/// Whether the processes have the same values of the settings that they share.
fn settings(live: &[ProcessRow]) -> Finding {
    let differing = SHARED.into_iter().find_map(|(name, why)| {
        let mut by_value: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in live {
            if let Some(value) = row.settings[name].as_str() {
                by_value.entry(value).or_default().push(row.name());
            }
        }
        (by_value.len() > 1).then_some((name, why, by_value))
    });
    let Some((name, why, by_value)) = differing else {
        return Finding::ok(SETTINGS, format!("those of {} processes agree", live.len()));
    };
    let sides: Vec<_> = by_value.into_values().map(|names| names.join(", ")).collect();
    let found = format!("{name} of {} differs: {why}", sides.join(" and of "));
    let remedy = format!(
        "see which is right, set {name} to it where it differs, and restart only those; during a change of the key it \
         differs for a while"
    );
    Finding::warning(SETTINGS, found, remedy)
}

#[derive(sqlx::FromRow)]
struct ConnectionLimits {
    role: String,
    /// What the server leaves to roles without special rights.
    server: i64,
    /// `-1` for none, as in the catalog.
    of_role: i64,
    of_database: i64,
    open: i64,
}

/// Whether the connections that all processes may open fit into the limits.
async fn connections(pool: &PgPool, live: &[ProcessRow]) -> Result<Finding, sqlx::Error> {
    let limits: ConnectionLimits = sqlx::query_as(
        "select quote_ident(r.rolname) as role, r.rolconnlimit::int8 as of_role, d.datconnlimit::int8 as of_database,
                current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 as server,
                (select count(*) from pg_stat_activity a where a.usename = current_user) as open
           from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()",
    )
    .fetch_one(pool)
    .await?;
    let wanted = |row: &ProcessRow| row.settings["DATABASE_MAX_CONNECTIONS"].as_i64().unwrap_or_default();
    let needed: i64 = live.iter().map(wanted).sum();
    let bounds = [
        (limits.server, "the server".to_owned()),
        (limits.of_role, format!("the role {}", limits.role)),
        (limits.of_database, "the database".to_owned()),
    ];
    let bounds = bounds.into_iter().filter(|(limit, _)| *limit >= 0);
    let Some((limit, whose)) = bounds.min_by_key(|(limit, _)| *limit) else {
        return Ok(Finding::ok(CONNECTIONS, "not limited"));
    };
    let processes = i64::try_from(live.len()).unwrap_or(i64::MAX).max(1);
    let found = format!(
        "{} processes open up to {needed} (DATABASE_MAX_CONNECTIONS); {whose} allows {limit}, and {} are open",
        live.len(),
        limits.open
    );
    if needed <= limit {
        return Ok(Finding::ok(CONNECTIONS, found));
    }
    let each = (limit / processes).max(2);
    let remedy =
        format!("set DATABASE_MAX_CONNECTIONS={each} for each process, and restart one after the other");
    Ok(Finding::warning(CONNECTIONS, found, remedy))
}

fn span(seconds: f64) -> String {
    let seconds = std::time::Duration::try_from_secs_f64(seconds.floor()).unwrap_or_default();
    humantime::format_duration(seconds).to_string()
}
