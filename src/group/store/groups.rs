//! The table `groups`.

use super::error::StoreError;
use crate::{
    db,
    group::{options::Options, template::TemplateError},
    group_id::GroupId,
    rate_limit::RateLimit,
};
use sqlx::{PgExecutor, PgPool};
use std::time::Duration;
use time::OffsetDateTime;

/// A group as it is stored, without its keys.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: GroupId,
    pub enabled: bool,
    pub options: Options,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// A row of `groups`; durations are whole seconds.
struct Row {
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
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = row.id;
        read(row).ok_or(StoreError::Unreadable(id))
    }
}

/// `None` where the table's own checks were bypassed.
fn read(row: Row) -> Option<Stored> {
    let duration = |seconds: i32| u64::try_from(seconds).ok().map(Duration::from_secs);
    let limit = |count: i32, window: i32| {
        let (count, window) = (u32::try_from(count).ok()?, duration(window)?);
        Some((count > 0).then_some(RateLimit { count, window }))
    };
    Some(Stored {
        id: GroupId::new(row.id)?,
        enabled: row.enabled,
        options: Options {
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

/// Changes a group's options; `change` sees them as they are, and may refuse.
pub async fn set(
    pool: &PgPool,
    group: GroupId,
    change: impl FnOnce(&mut Options) -> Result<(), TemplateError>,
) -> Result<(), StoreError> {
    let mut tx = db::begin(pool).await?;
    // The lock makes the second of two changes read what the first wrote. It lets keys be added meanwhile, whose
    // foreign key would else wait for this, and this for the version that they have bumped.
    sqlx::query!("select id from groups where id = $1 for no key update", group.get())
        .fetch_optional(&mut *tx)
        .await?;
    let mut options = show(&mut *tx, group).await?.options;
    change(&mut options)?;
    write(&mut *tx, group, &options).await?;
    tx.commit().await?;
    Ok(())
}

/// Writes every option of a group that is there.
pub(super) async fn write(
    db: impl PgExecutor<'_>,
    group: GroupId,
    options: &Options,
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
pub async fn enable(pool: &PgPool, group: GroupId) -> Result<(), StoreError> {
    switch(pool, group, true).await
}

/// Switches a group off: its invites are answered `group_disabled`. Nothing of it is lost.
pub async fn disable(pool: &PgPool, group: GroupId) -> Result<(), StoreError> {
    switch(pool, group, false).await
}

async fn switch(pool: &PgPool, group: GroupId, enabled: bool) -> Result<(), StoreError> {
    let switched = sqlx::query!(
        "update groups set enabled = $2, updated_at = now() where id = $1",
        group.get(),
        enabled
    )
    .execute(pool)
    .await?;
    if switched.rows_affected() == 0 { Err(StoreError::NoGroup(group)) } else { Ok(()) }
}

/// One group.
pub async fn show(db: impl PgExecutor<'_>, group: GroupId) -> Result<Stored, StoreError> {
    sqlx::query_as!(
        Row,
        "select id, enabled, region, phone_check, countries, key_length, template, link, sms_from, session_ttl,
                session_max, key_rest, per_number_count, per_number_window, per_country_count, per_country_window, per_minute, join_url,
                name, created_at, updated_at
           from groups where id = $1",
        group.get()
    )
        .fetch_optional(db)
        .await?
        .ok_or(StoreError::NoGroup(group))?
        .try_into()
}

/// Every group, by id.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Stored>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "select id, enabled, region, phone_check, countries, key_length, template, link, sms_from, session_ttl,
                session_max, key_rest, per_number_count, per_number_window, per_country_count, per_country_window, per_minute, join_url,
                name, created_at, updated_at
           from groups order by id"
    )
    .fetch_all(db)
    .await?;
    // One that a newer release wrote, or a hand that went past the table's checks, is that group's problem alone.
    let readable = |row| {
        Stored::try_from(row)
            .inspect_err(|error| tracing::error!(%error, "a group is left out: its invites fail"))
            .ok()
    };
    Ok(rows.into_iter().filter_map(readable).collect())
}

/// The number that grows with each change to groups, keys and addresses.
pub async fn version(db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!("select version from settings_version").fetch_one(db).await
}
