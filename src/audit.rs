//! The record of what operators change. Every command that changes something has an [`Operator`], which writes a row of
//! `audit_log` in the same transaction.

use crate::{db, group_id::GroupId, masked::debug_shows, output::quoted};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};
use std::{collections::BTreeSet, fs, net::IpAddr, os::unix::fs::MetadataExt, sync::OnceLock};
use strum::VariantArray as _;
use time::OffsetDateTime;

/// The command of this process. There is one at most.
static COMMAND: OnceLock<TypedCommand> = OnceLock::new();

/// A command as it was typed.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypedCommand {
    /// Its name, such as `groups disable`.
    pub(crate) action: String,
    /// The whole line, without secrets and phone numbers.
    pub(crate) line: String,
    /// The person whom it is run for.
    pub(crate) acting_as: Option<String>,
}

/// Sets the command that this process was started with.
pub(crate) fn set_command(command: TypedCommand) {
    let _ = COMMAND.set(command);
}

/// A person who uses the console.
#[derive(Debug)]
pub(crate) struct ConsolePerson {
    pub(crate) name: String,
    pub(crate) name_from: NameSource,
    pub(crate) address: IpAddr,
}

/// Who says that a person has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NameSource {
    /// A trusted proxy of the console, which knows the person.
    Proxy,
    /// The holder of the console's token, who typed it beside the token.
    Token,
    /// The person who ran the command, by `--acting-as` or `ACTING_AS`.
    Option,
}

impl NameSource {
    /// What the lines of such changes begin with. No command begins so, as none is called `console`.
    const fn line_begins(self) -> &'static str {
        match self {
            Self::Proxy => "console (proxy) ",
            Self::Token => "console (token) ",
            Self::Option => "",
        }
    }
}

/// The person or script that runs a command, and their way to change the database: no store takes a change from a plain pool.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pool: PgPool,
    command: TypedCommand,
}

/// What a change has done. If `before` and `after` are equal, it has changed nothing.
#[derive(Debug)]
pub(crate) struct Change<T> {
    pub(crate) value: T,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

impl Operator {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, command: COMMAND.get().cloned().unwrap_or_default() }
    }

    /// A person who uses the console. `line` is what a command would be for the same, such as `groups pause 72`, and `action`
    /// its name.
    pub(crate) fn of_console(pool: PgPool, person: &ConsolePerson, action: &str, line: &str) -> Self {
        let ConsolePerson { name, name_from, address } = person;
        let command = TypedCommand {
            action: action.to_owned(),
            line: format!("{}{address}: {line}", name_from.line_begins()),
            acting_as: Some(name.clone()),
        };
        Self { pool, command }
    }

    /// For what only reads.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Makes a change and its record in one transaction.
    pub(crate) async fn change<T, E: From<sqlx::Error>>(
        &self,
        group: Option<GroupId>,
        change: impl AsyncFnOnce(&mut PgConnection) -> Result<Change<T>, E>,
    ) -> Result<T, E> {
        let mut tx = db::begin(&self.pool).await?;
        let Change { value, before, after } = change(&mut tx).await?;
        if before != after {
            self.write(&mut tx, group, before, after).await?;
        }
        tx.commit().await?;
        Ok(value)
    }

    /// Records what is done outside of the database, or in several transactions.
    pub(crate) async fn record(
        &self,
        group: Option<GroupId>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), sqlx::Error> {
        self.change(group, async |_| Ok(Change { value: (), before, after })).await
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        group: Option<GroupId>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), sqlx::Error> {
        let TypedCommand { action, line, acting_as } = &self.command;
        sqlx::query!(
            "insert into audit_log (os_user, acting_as, host, action, command, group_id, before, after)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            os_user(),
            acting_as.as_deref(),
            host(),
            action,
            line,
            group.map(GroupId::get),
            before,
            after,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The user that the process runs as, by name or number; with sudo also the user who ran that.
fn os_user() -> String {
    let uid = fs::metadata("/proc/self").map(|process| process.uid()).ok();
    let name = uid.map_or_else(|| "?".to_owned(), |uid| user_name(uid).unwrap_or_else(|| uid.to_string()));
    match std::env::var("SUDO_USER") {
        Ok(sudo) if !sudo.is_empty() && sudo != name => format!("{name} (sudo by {sudo})"),
        _ => name,
    }
}

fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "?".to_owned() } else { name.trim().to_owned() }
}

/// One row.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditRow {
    pub(crate) id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    pub(crate) os_user: String,
    pub(crate) acting_as: Option<String>,
    pub(crate) host: String,
    pub(crate) db_role: String,
    pub(crate) action: String,
    pub(crate) command: String,
    #[serde(rename = "groupid")]
    pub(crate) group_id: Option<i64>,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

debug_shows!(AuditRow { id, action });

impl AuditRow {
    /// Who made the change. A name is in quotes: it may read like more than a name.
    pub(crate) fn who(&self) -> String {
        let Some((name, source)) = self.acting_as.as_ref().zip(self.name_from()) else {
            return self.os_user.clone();
        };
        let how = match source {
            NameSource::Proxy => " (named by a trusted proxy)",
            NameSource::Token => " (typed beside the console's token)",
            NameSource::Option => "",
        };
        format!("{}{how}, as {}", quoted(name), self.os_user)
    }

    /// Who says that the person has this name; `None` without a name.
    pub(crate) fn name_from(&self) -> Option<NameSource> {
        self.acting_as.as_ref()?;
        let sources = NameSource::VARIANTS.iter();
        sources.copied().find(|source| self.command.starts_with(source.line_begins()))
    }

    /// The members that differ, as `name: before → after`.
    pub(crate) fn changes(&self) -> Vec<String> {
        let member =
            |state: &Option<Value>, name: &str| state.as_ref().and_then(|state| state.get(name)).cloned();
        let names: BTreeSet<_> = [&self.before, &self.after]
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .flat_map(|all| all.keys())
            .collect();
        let line = |name: &String| {
            let (before, after) = (member(&self.before, name), member(&self.after, name));
            // Each change of a group has another.
            let differs = before != after && name != "updated_at";
            let shown =
                |value: Option<Value>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            match self.before {
                _ if !differs => None,
                None => Some(format!("{name}: {}", shown(after))),
                Some(_) => Some(format!("{name}: {} → {}", shown(before), shown(after))),
            }
        };
        names.into_iter().filter_map(line).collect()
    }
}

/// Which rows to list; `None` for any.
#[derive(Debug)]
pub(crate) struct AuditFilter {
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) group: Option<GroupId>,
    /// An action, or what it begins with, such as `groups`.
    pub(crate) action: Option<String>,
    /// Only rows before the one with this id.
    pub(crate) before: Option<i64>,
    /// Only the row with this id, and later ones.
    pub(crate) from: Option<i64>,
    pub(crate) limit: i64,
}

/// The id that the next row will have, or a later one.
pub(crate) async fn next_id(db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select coalesce(max(id), 0) + 1 as "next!" from audit_log"#).fetch_one(db).await
}

/// The newest rows first.
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    filter: &AuditFilter,
) -> Result<Vec<AuditRow>, sqlx::Error> {
    sqlx::query_as!(
        AuditRow,
        "select id, at, os_user, acting_as, host, db_role, action, command, group_id, before, after
           from audit_log
          where ($1::timestamptz is null or at >= $1) and ($2::bigint is null or group_id = $2)
            and ($3::text is null or action = $3 or starts_with(action, $3 || ' '))
            and id < $4 and id >= $6
          order by id desc limit $5",
        filter.since,
        filter.group.map(GroupId::get),
        filter.action,
        filter.before.unwrap_or(i64::MAX),
        filter.limit,
        filter.from.unwrap_or(i64::MIN),
    )
    .fetch_all(db)
    .await
}
