//! Groups as `list` and `show` print them.

use crate::{
    group::{
        options::GroupOptions,
        store::{
            self, StoredGroup,
            keys::{self, SealedKey},
            last_uses::{self, KeyKind},
            summaries::{self, RevokedKey},
        },
        template::{TemplateValues, Wording},
    },
    group_id::GroupId,
    invite::reply::to_the_second,
    output::Format,
    session_key::{SessionKey, Token},
    sessions,
};
use serde::Serialize;
use sms_provider::segments::segments;
use sqlx::PgPool;
use std::{collections::HashMap, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Revoked keys of each kind that are shown at most.
const REVOKED_SHOWN: i64 = 10;

/// A group's options; durations as they are given (`10m`), `null` for what is not set.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupView {
    groupid: i64,
    enabled: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    paused_at: Option<OffsetDateTime>,
    /// The open invites, while the group is paused.
    waiting: Option<i64>,
    region: String,
    phone_check: &'static str,
    countries: Vec<String>,
    key_length: u8,
    template: String,
    link: Option<String>,
    sms_from: Option<String>,
    session_ttl: String,
    session_max: String,
    key_rest: String,
    per_number: Option<String>,
    per_country: Option<String>,
    per_minute: Option<u32>,
    join_url: Option<String>,
    name: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupDetail {
    #[serde(flatten)]
    group: GroupView,
    api_keys: Vec<KeyView>,
    jwt_secrets: Vec<KeyView>,
    /// The newest of those that are no longer accepted.
    revoked_api_keys: Vec<RevokedKeyView>,
    revoked_jwt_secrets: Vec<RevokedKeyView>,
    example: TextExample,
}

/// An active key, without the key.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView {
    id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// `None` if no use is recorded.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

/// A key that was revoked, without the key.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RevokedKeyView {
    #[serde(flatten)]
    key: KeyView,
    #[serde(with = "time::serde::rfc3339")]
    revoked_at: OffsetDateTime,
}

#[derive(Serialize)]
struct TextExample {
    text: String,
    encoding: String,
    units: usize,
    segments: usize,
}

/// `groups list`.
pub(super) async fn list(format: Format, pool: &PgPool) -> anyhow::Result<()> {
    let waiting = sessions::waiting(pool).await?;
    let groups: Vec<_> =
        store::list(pool).await?.into_iter().map(|group| GroupView::of(group, &waiting)).collect();
    format.list(
        ["GROUP", "STATE", "REGION", "KEY", "TTL", "FROM", "PER NUMBER", "TEMPLATE"],
        &groups,
        |group| {
            [
                group.groupid.to_string(),
                state(group),
                group.region.clone(),
                group.key_length.to_string(),
                group.session_ttl.clone(),
                group.sms_from.clone().unwrap_or_else(|| "-".to_owned()),
                group.per_number.clone().unwrap_or_else(|| "no limit".to_owned()),
                group.template.clone(),
            ]
        },
    )
}

/// `groups show`.
pub(super) async fn show(
    format: Format,
    pool: &PgPool,
    group: GroupId,
    public_url: &str,
) -> anyhow::Result<()> {
    let stored = store::show(pool, group).await?;
    let example = example(&stored, public_url)?;
    let detail = GroupDetail {
        group: GroupView::of(stored, &sessions::waiting(pool).await?),
        api_keys: key_views(pool, KeyKind::ApiKey, group, keys::active_api_keys(pool, Some(group)).await?)
            .await?,
        jwt_secrets: key_views(
            pool,
            KeyKind::JwtSecret,
            group,
            keys::active_jwt_secrets(pool, Some(group)).await?,
        )
        .await?,
        revoked_api_keys: revoked_views(pool, KeyKind::ApiKey, group).await?,
        revoked_jwt_secrets: revoked_views(pool, KeyKind::JwtSecret, group).await?,
        example,
    };
    format.object(&detail, rows)
}

async fn key_views(
    pool: &PgPool,
    kind: KeyKind,
    group: GroupId,
    keys: Vec<SealedKey>,
) -> Result<Vec<KeyView>, sqlx::Error> {
    let mut uses = last_uses::of_group(pool, kind, group).await?;
    let view = |key: SealedKey| KeyView {
        id: key.id,
        kid: key.kid,
        created_at: key.created_at,
        last_used_at: uses.remove(&key.id),
    };
    Ok(keys.into_iter().map(view).collect())
}

async fn revoked_views(
    pool: &PgPool,
    kind: KeyKind,
    group: GroupId,
) -> Result<Vec<RevokedKeyView>, sqlx::Error> {
    let revoked = summaries::revoked_keys(pool, kind, group, REVOKED_SHOWN).await?;
    let view = |RevokedKey { id, kid, created_at, revoked_at, last_used_at }| RevokedKeyView {
        key: KeyView { id, kid, created_at, last_used_at },
        revoked_at,
    };
    Ok(revoked.into_iter().map(view).collect())
}

fn example(stored: &StoredGroup, public_url: &str) -> anyhow::Result<TextExample> {
    let GroupOptions { template, link, key_length, .. } = &stored.options;
    let (key, token) = (SessionKey::example((*key_length).into()), Token::example());
    let values = TemplateValues { key: &key, token: &token, group: stored.id };
    let text = Wording::parse(template, link.as_deref(), public_url)?.render(&values);
    let cost = segments(text.as_str());
    Ok(TextExample {
        text: text.as_str().to_owned(),
        encoding: cost.encoding.to_string(),
        units: cost.units,
        segments: cost.segments,
    })
}

fn rows(detail: &GroupDetail) -> Vec<(&'static str, String)> {
    let group = &detail.group;
    let or = |value: &Option<String>, otherwise: &str| value.clone().unwrap_or_else(|| otherwise.to_owned());
    let TextExample { text, encoding, units, segments } = &detail.example;
    vec![
        ("group", group.groupid.to_string()),
        ("state", state(group)),
        ("region", group.region.clone()),
        ("phone check", group.phone_check.to_owned()),
        ("countries", if group.countries.is_empty() { "any".to_owned() } else { group.countries.join(",") }),
        ("key length", group.key_length.to_string()),
        ("template", group.template.clone()),
        ("link", or(&group.link, "{PUBLIC_URL}/s/{token}")),
        ("sms from", or(&group.sms_from, "the worker's own")),
        ("session ttl", group.session_ttl.clone()),
        ("session max", group.session_max.clone()),
        ("key rest", group.key_rest.clone()),
        ("per number", or(&group.per_number, "no limit")),
        ("per country", or(&group.per_country, "no limit")),
        ("per minute", group.per_minute.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string())),
        ("join url", or(&group.join_url, "none")),
        ("name", or(&group.name, "none")),
        ("created", rfc3339(group.created_at)),
        ("changed", rfc3339(group.updated_at)),
        ("API keys", key_lines(&detail.api_keys, &detail.revoked_api_keys)),
        ("JWT secrets", key_lines(&detail.jwt_secrets, &detail.revoked_jwt_secrets)),
        ("example", text.clone()),
        ("", format!("segments: {segments}, of {units} {encoding} units in all")),
    ]
}

fn key_lines(keys: &[KeyView], revoked: &[RevokedKeyView]) -> String {
    let line = |KeyView { id, kid, created_at, last_used_at }: &KeyView| {
        let kid = kid.as_ref().map(|kid| format!(", kid {kid}")).unwrap_or_default();
        let used = last_used_at
            .map_or_else(|| "no use recorded".to_owned(), |at| format!("last used {}", to_the_second(at)));
        format!("{id}{kid}, added {}, {used}", to_the_second(*created_at))
    };
    let gone = |revoked: &RevokedKeyView| {
        format!("revoked {}: {}", to_the_second(revoked.revoked_at), line(&revoked.key))
    };
    let first = std::iter::once(format!("{} active", keys.len()));
    first.chain(keys.iter().map(line)).chain(revoked.iter().map(gone)).collect::<Vec<_>>().join("\n")
}

fn state(group: &GroupView) -> String {
    let switched = if group.enabled { "enabled" } else { "disabled" };
    match group.paused_at {
        Some(at) => {
            let waiting = group.waiting.unwrap_or_default();
            format!("{switched}, paused since {}, invites that wait: {waiting}", rfc3339(at))
        }
        None => switched.to_owned(),
    }
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

impl GroupView {
    /// `waiting` has the open invites of each paused group.
    fn of(stored: StoredGroup, waiting: &HashMap<i64, i64>) -> Self {
        let StoredGroup { id, enabled, paused_at, options, created_at, updated_at } = stored;
        let duration = |duration: Duration| humantime::format_duration(duration).to_string();
        Self {
            groupid: id.get(),
            enabled,
            paused_at,
            waiting: paused_at.map(|_| waiting.get(&id.get()).copied().unwrap_or_default()),
            region: options.region,
            phone_check: options.phone_check.as_str(),
            countries: options.countries,
            key_length: options.key_length,
            template: options.template,
            link: options.link,
            sms_from: options.sms_from,
            session_ttl: duration(options.session_ttl),
            session_max: duration(options.session_max),
            key_rest: duration(options.key_rest),
            per_number: options.per_number.map(|limit| limit.to_string()),
            per_country: options.per_country.map(|limit| limit.to_string()),
            per_minute: options.per_minute,
            join_url: options.join_url,
            name: options.name,
            created_at,
            updated_at,
        }
    }
}
