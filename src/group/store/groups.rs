//! The table `groups`.

use super::error::StoreError;
use crate::{
    audit::{Change, Operator},
    group::{options::GroupOptions, template::TemplateError},
    group_id::GroupId,
    rate_limit::RateLimit,
};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use std::time::Duration;
use time::OffsetDateTime;

/// A group as it is stored, without its keys.
#[derive(Debug, Clone)]
pub(crate) struct StoredGroup {
    pub id: GroupId,
    pub enabled: bool,
    pub paused_at: Option<OffsetDateTime>,
    pub options: GroupOptions,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A row of `groups`; durations are whole seconds.
struct GroupRow {
    id: i64,
    enabled: bool,
    region: String,
    phone_check: String,
    countries: Vec<String>,
    key_length: i16,
    template: String,
    link: Option<String>,
    sms_from: Option<String>,
    session_ttl: i32,
    session_max: i32,
    key_rest: i32,
    per_number_count: i32,
    per_number_window: i32,
    per_country_count: i32,
    per_country_window: i32,
    per_minute: Option<i32>,
    join_url: Option<String>,
    name: Option<String>,
    paused_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<GroupRow> for StoredGroup {
    type Error = StoreError;

    fn try_from(row: GroupRow) -> Result<Self, StoreError> {
        let id = row.id;
        read(row).ok_or(StoreError::Unreadable(id))
    }
}

/// `None` if a value is out of range, which the table's checks prevent unless they are bypassed.
fn read(row: GroupRow) -> Option<StoredGroup> {
    let duration = |seconds: i32| u64::try_from(seconds).ok().map(Duration::from_secs);
    let limit = |count: i32, window: i32| {
        let (count, window) = (u32::try_from(count).ok()?, duration(window)?);
        Some((count > 0).then_some(RateLimit { count, window }))
    };
    Some(StoredGroup {
        id: GroupId::new(row.id)?,
        enabled: row.enabled,
        paused_at: row.paused_at,
        options: GroupOptions {
            region: row.region,
            phone_check: row.phone_check.parse().ok()?,
            countries: row.countries,
            key_length: u8::try_from(row.key_length).ok()?,
            template: row.template,
            link: row.link,
            sms_from: row.sms_from,
            session_ttl: duration(row.session_ttl)?,
            session_max: duration(row.session_max)?,
            key_rest: duration(row.key_rest)?,
            per_number: limit(row.per_number_count, row.per_number_window)?,
            per_country: limit(row.per_country_count, row.per_country_window)?,
            per_minute: row.per_minute.map(u32::try_from).transpose().ok()?,
            join_url: row.join_url,
            name: row.name,
        },
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// Makes a change of a group, which may make the group, and records it with the group's state before and after.
pub(super) async fn change<T>(
    operator: &Operator,
    group: GroupId,
    change: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let change = async |tx: &mut PgConnection| {
        // The lock makes the second of two changes read what the first wrote. It is `no key update`, which lets a transaction
        // add keys meanwhile: its foreign key would else wait for this one, and this one for the version row that it has locked.
        sqlx::query!("select id from groups where id = $1 for no key update", group.get())
            .fetch_optional(&mut *tx)
            .await?;
        let before = state(&mut *tx, group).await?;
        let value = change(&mut *tx).await?;
        let after = state(&mut *tx, group).await?;
        Ok(Change { value, before, after })
    };
    operator.change(Some(group), change).await
}

/// A group as the audit shows it, with the ids of its active keys.
async fn state(db: impl PgExecutor<'_>, group: GroupId) -> Result<Option<Value>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(g) || jsonb_build_object(
                   'api_keys', (select coalesce(jsonb_agg(k.id order by k.id), '[]') from group_api_keys k
                                 where k.group_id = g.id and k.revoked_at is null),
                   'jwt_secrets', (select coalesce(jsonb_agg(s.id order by s.id), '[]') from group_jwt_secrets s
                                    where s.group_id = g.id and s.revoked_at is null)) as "state!"
          from groups g where g.id = $1
        "#,
        group.get()
    )
    .fetch_optional(db)
    .await
}

/// Changes a group's options. `change` gets the current ones, and may refuse.
pub(crate) async fn set(
    operator: &Operator,
    group: GroupId,
    change_options: impl FnOnce(&mut GroupOptions) -> Result<(), TemplateError>,
) -> Result<(), StoreError> {
    change(operator, group, async |tx| {
        let mut options = show(&mut *tx, group).await?.options;
        change_options(&mut options)?;
        write(&mut *tx, group, &options).await
    })
    .await
}

/// Writes every option of an existing group.
pub(super) async fn write(
    db: impl PgExecutor<'_>,
    group: GroupId,
    options: &GroupOptions,
) -> Result<(), StoreError> {
    let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX);
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let count = |limit: Option<RateLimit>| limit.map_or(0, |limit| number(limit.count));
    let window =
        |limit: Option<RateLimit>| seconds(limit.map_or(Duration::from_hours(1), |limit| limit.window));
    sqlx::query!(
        "update groups
            set region = $2, phone_check = $3, countries = $4, key_length = $5, template = $6, link = $7,
                sms_from = $8, session_ttl = $9, session_max = $10, key_rest = $11, per_number_count = $12,
                per_number_window = $13, per_minute = $14, join_url = $15, per_country_count = $16,
                per_country_window = $17, name = $18, updated_at = now()
          where id = $1",
        group.get(),
        options.region,
        options.phone_check.as_str(),
        &options.countries,
        i16::from(options.key_length),
        options.template,
        options.link,
        options.sms_from,
        seconds(options.session_ttl),
        seconds(options.session_max),
        seconds(options.key_rest),
        count(options.per_number),
        window(options.per_number),
        options.per_minute.map(number),
        options.join_url,
        count(options.per_country),
        window(options.per_country),
        options.name,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Switches a group on.
pub(crate) async fn enable(operator: &Operator, group: GroupId) -> Result<(), StoreError> {
    switch(operator, group, true).await
}

/// Switches a group off: its invites are answered `group_disabled`. Its data is kept.
pub(crate) async fn disable(operator: &Operator, group: GroupId) -> Result<(), StoreError> {
    switch(operator, group, false).await
}

async fn switch(operator: &Operator, group: GroupId, enabled: bool) -> Result<(), StoreError> {
    change(operator, group, async |tx| {
        let switched = sqlx::query!(
            "update groups set enabled = $2, updated_at = now() where id = $1",
            group.get(),
            enabled
        )
        .execute(tx)
        .await?;
        if switched.rows_affected() == 0 { Err(StoreError::NoGroup(group)) } else { Ok(()) }
    })
    .await
}

/// Pauses a group: none of its texts goes out, and its invites wait. Returns since when it is paused.
pub(crate) async fn pause(operator: &Operator, group: GroupId) -> Result<OffsetDateTime, StoreError> {
    change(operator, group, async |tx| {
        sqlx::query_scalar!(
            r#"update groups set paused_at = coalesce(paused_at, now()), updated_at = now() where id = $1
               returning paused_at as "paused_at!""#,
            group.get()
        )
        .fetch_optional(tx)
        .await?
        .ok_or(StoreError::NoGroup(group))
    })
    .await
}

/// Ends a group's pause. Its invites that wait do not go on by this alone.
pub(crate) async fn resume(operator: &Operator, group: GroupId) -> Result<(), StoreError> {
    change(operator, group, async |tx| {
        let resumed =
            sqlx::query!("update groups set paused_at = null, updated_at = now() where id = $1", group.get())
                .execute(tx)
                .await?;
        if resumed.rows_affected() == 0 { Err(StoreError::NoGroup(group)) } else { Ok(()) }
    })
    .await
}

/// Reads one group.
pub(crate) async fn show(db: impl PgExecutor<'_>, group: GroupId) -> Result<StoredGroup, StoreError> {
    sqlx::query_as!(
        GroupRow,
        "select id, enabled, region, phone_check, countries, key_length, template, link, sms_from, session_ttl,
                session_max, key_rest, per_number_count, per_number_window, per_country_count, per_country_window, per_minute, join_url,
                name, paused_at, created_at, updated_at
           from groups where id = $1",
        group.get()
    )
        .fetch_optional(db)
        .await?
        .ok_or(StoreError::NoGroup(group))?
        .try_into()
}

/// Reads all groups, in the order of their ids. One that cannot be read is logged and left out.
pub(crate) async fn list(db: impl PgExecutor<'_>) -> Result<Vec<StoredGroup>, StoreError> {
    let rows = sqlx::query_as!(
        GroupRow,
        "select id, enabled, region, phone_check, countries, key_length, template, link, sms_from, session_ttl,
                session_max, key_rest, per_number_count, per_number_window, per_country_count, per_country_window, per_minute, join_url,
                name, paused_at, created_at, updated_at
           from groups order by id"
    )
    .fetch_all(db)
    .await?;
    // A newer release, or a change that bypassed the table's checks, may have written such a row. Other groups go on working.
    let readable = |row| {
        StoredGroup::try_from(row)
            .inspect_err(|error| tracing::error!(%error, "a group is left out: its invites fail"))
            .ok()
    };
    Ok(rows.into_iter().filter_map(readable).collect())
}

/// The version of all groups, keys and addresses, which grows with each change.
pub(crate) async fn version(db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!("select version from settings_version").fetch_one(db).await
}
