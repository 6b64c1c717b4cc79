//! Groups as `list` and `show` print them.

use crate::{
    group::{
        options::Options,
        store::{
            self, Stored,
            keys::{self, Sealed},
        },
        template::{Values, Wording},
    },
    group_id::GroupId,
    output::Format,
    session_key::{SessionKey, Token},
};
use serde::Serialize;
use sms_provider::segments::segments;
use sqlx::PgPool;
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A group's options; durations as they are given (`10m`), `null` for what is not set.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupView {
    groupid: i64,
    enabled: bool,
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
struct Detail {
    #[serde(flatten)]
    group: GroupView,
    api_keys: Vec<KeyView>,
    jwt_secrets: Vec<KeyView>,
    example: Example,
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
}

#[derive(Serialize)]
struct Example {
    text: String,
    encoding: String,
    units: usize,
    segments: usize,
}

/// `groups list`.
pub(super) async fn list(format: Format, pool: &PgPool) -> anyhow::Result<()> {
    let groups: Vec<_> = store::list(pool).await?.into_iter().map(GroupView::from).collect();
    format.list(
        ["GROUP", "STATE", "REGION", "KEY", "TTL", "FROM", "PER NUMBER", "TEMPLATE"],
        &groups,
        |group| {
            [
                group.groupid.to_string(),
                state(group).to_owned(),
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
    let detail = Detail {
        group: stored.into(),
        api_keys: keys::active_api_keys(pool, Some(group)).await?.into_iter().map(KeyView::from).collect(),
        jwt_secrets: keys::active_jwt_secrets(pool, Some(group))
            .await?
            .into_iter()
            .map(KeyView::from)
            .collect(),
        example,
    };
    format.object(&detail, rows)
}

fn example(stored: &Stored, public_url: &str) -> anyhow::Result<Example> {
    let Options { template, link, key_length, .. } = &stored.options;
    let (key, token) = (SessionKey::example((*key_length).into()), Token::example());
    let values = Values { key: &key, token: &token, group: stored.id };
    let text = Wording::parse(template, link.as_deref(), public_url)?.render(&values);
    let cost = segments(text.as_str());
    Ok(Example {
        text: text.as_str().to_owned(),
        encoding: cost.encoding.to_string(),
        units: cost.units,
        segments: cost.segments,
    })
}

fn rows(detail: &Detail) -> Vec<(&'static str, String)> {
    let group = &detail.group;
    let or = |value: &Option<String>, otherwise: &str| value.clone().unwrap_or_else(|| otherwise.to_owned());
    let Example { text, encoding, units, segments } = &detail.example;
    vec![
        ("group", group.groupid.to_string()),
        ("state", state(group).to_owned()),
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
        ("API keys", key_lines(&detail.api_keys)),
        ("JWT secrets", key_lines(&detail.jwt_secrets)),
        ("example", text.clone()),
        ("", format!("segments: {segments}, of {units} {encoding} units in all")),
    ]
}

fn key_lines(keys: &[KeyView]) -> String {
    let lines = keys.iter().map(|KeyView { id, kid, created_at }| {
        let kid = kid.as_ref().map(|kid| format!(", kid {kid}")).unwrap_or_default();
        format!("{id}{kid}, added {}", rfc3339(*created_at))
    });
    std::iter::once(format!("{} active", keys.len())).chain(lines).collect::<Vec<_>>().join("\n")
}

const fn state(group: &GroupView) -> &'static str {
    if group.enabled { "enabled" } else { "disabled" }
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

impl From<Stored> for GroupView {
    fn from(Stored { id, enabled, options, created_at, updated_at }: Stored) -> Self {
        let duration = |duration: Duration| humantime::format_duration(duration).to_string();
        Self {
            groupid: id.get(),
            enabled,
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

impl From<Sealed> for KeyView {
    fn from(key: Sealed) -> Self {
        Self { id: key.id, kid: key.kid, created_at: key.created_at }
    }
}
