//! `session-invite tokens issue`: a credential, to try the system with or to hand to a partner.

use super::{addresses::user, groups::group_id};
use crate::masked::debug_shows;
use crate::{
    config::{DatabaseArgs, Faults, SecretsArgs},
    credential::{GssnidToken, gjwt, gkey, gssnid},
    group::{
        options::seconds,
        store::{self, keys, website_sessions},
    },
    group_id::GroupId,
    output::{Format, print},
    seal::{Purpose, SecretsKey},
};
use anyhow::Context as _;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;
use time::OffsetDateTime;

const EXAMPLES: &str = "\
Examples:
  A login key, in the header that carries it:
    curl -H \"Authorization: Bearer GKEY $(session-invite tokens issue gkey --group 72 --user 12345)\" …

  A JSON web token for ten minutes:
    session-invite tokens issue gjwt --group 72 --user 12345 --ttl 10m

  A website session, which is put into the table as well:
    session-invite tokens issue gssnid --group 72 --user joe";

/// Make credentials
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a token, as it follows its type
    #[command(after_help = EXAMPLES)]
    Issue(Issue),
}

#[derive(Debug, clap::Args)]
struct Issue {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// A login key, signed with the group's newest API key; for a day at most
    Gkey {
        #[command(flatten)]
        bearer: Bearer,
        /// How long it is good, up to 1day
        #[arg(long, default_value = "1h", value_parser = |text: &str| seconds(text, 1..=86_400))]
        ttl: Duration,
    },
    /// A JSON web token, signed with the group's newest JWT secret; for 120 minutes at most
    Gjwt {
        #[command(flatten)]
        bearer: Bearer,
        /// How long it is good, up to 2h
        #[arg(long, default_value = "1h", value_parser = |text: &str| seconds(text, 1..=7_200))]
        ttl: Duration,
    },
    /// A website session id, with its row in `website_sessions`
    Gssnid {
        #[command(flatten)]
        bearer: Bearer,
        /// How long it is good, up to 1year
        #[arg(long, default_value = "1h", value_parser = |text: &str| seconds(text, 1..=31_557_600))]
        ttl: Duration,
    },
}

/// For whom it is.
#[derive(clap::Args)]
struct Bearer {
    /// The group's id
    #[arg(long, value_parser = group_id)]
    group: GroupId,
    /// The user in that group
    #[arg(long, default_value = "1", value_parser = user)]
    user: String,
    #[command(flatten)]
    format: Format,
}

debug_shows!(Bearer { group });

/// Prints a token. A website session needs no `SECRETS_KEY`.
pub async fn run(args: Args, database: &DatabaseArgs, secrets: &SecretsArgs) -> anyhow::Result<()> {
    let pool = super::database(database).await?;
    execute(args, &pool, || secrets.key()).await
}

pub(super) async fn execute(
    args: Args,
    pool: &PgPool,
    key: impl Fn() -> Result<SecretsKey, Faults>,
) -> anyhow::Result<()> {
    let Command::Issue(Issue { kind }) = args.command;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let (kind, bearer, token) = match kind {
        Kind::Gkey { bearer, ttl } => {
            let key = newest_api_key(pool, &key()?, bearer.group).await?;
            let token =
                gkey::mint(bearer.group, &bearer.user, key.expose_secret().as_bytes(), until(now, ttl));
            ("GKEY", bearer, token)
        }
        Kind::Gjwt { bearer, ttl } => {
            store::show(pool, bearer.group).await?;
            let (secret, kid) = newest_jwt_secret(pool, &key()?, bearer.group).await?;
            let secret = secret.expose_secret().as_bytes();
            let token = gjwt::mint(bearer.group, &bearer.user, secret, kid.as_deref(), now, until(now, ttl));
            ("GJWT", bearer, token)
        }
        Kind::Gssnid { bearer, ttl } => {
            store::show(pool, bearer.group).await?;
            let token = gssnid::mint(&bearer.user, now, Some(bearer.group));
            let parsed = GssnidToken::parse(&token).map_err(|_| {
                anyhow::anyhow!("--user: a website session's person has no dots and no spaces")
            })?;
            website_sessions::insert(pool, parsed.sha256(), bearer.group, &bearer.user, ttl).await?;
            ("GSSNID", bearer, token)
        }
    };
    if bearer.format.json {
        return bearer.format.done(&json!({"type": kind, "token": token}), "");
    }
    print(&token)
}

fn until(now: i64, ttl: Duration) -> i64 {
    now.saturating_add_unsigned(ttl.as_secs())
}

pub(super) async fn newest_api_key(
    pool: &PgPool,
    secrets: &SecretsKey,
    group: GroupId,
) -> anyhow::Result<SecretString> {
    store::show(pool, group).await?;
    let key = keys::active_api_keys(pool, Some(group)).await?.pop();
    let key =
        key.with_context(|| format!("group {group} has no API key; `groups rotate-key {group}` adds one"))?;
    Ok(secrets.open(group, Purpose::ApiKey, &key.sealed)?)
}

async fn newest_jwt_secret(
    pool: &PgPool,
    secrets: &SecretsKey,
    group: GroupId,
) -> anyhow::Result<(SecretString, Option<String>)> {
    let key = keys::active_jwt_secrets(pool, Some(group)).await?.pop();
    let key = key.with_context(|| {
        format!("group {group} has no JWT secret; `groups rotate-key {group} --jwt` adds one")
    })?;
    Ok((secrets.open(group, Purpose::JwtSecret, &key.sealed)?, key.kid))
}
