//! `session-invite tokens issue`: a credential, to try the system with or to hand to a partner. `session-invite tokens hash`:
//! the hash by which the log shows one.

use super::{WrongUsage, addresses::user, groups::group_id};
use crate::masked::debug_shows;
use crate::{
    audit::Operator,
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
use std::{
    io::{self, Read as _},
    time::Duration,
};
use time::OffsetDateTime;

const EXAMPLES: &str = "\
Examples:
  A login key, in the header that carries it:
    curl -H \"Authorization: Bearer GKEY $(session-invite tokens issue gkey --group 72 --user 12345)\" …

  A JSON web token for ten minutes:
    session-invite tokens issue gjwt --group 72 --user 12345 --ttl 10m

  A website session, which is put into the table as well:
    session-invite tokens issue gssnid --group 72 --user joe";

/// A request, and so a credential, is not larger.
const CREDENTIAL_AT_MOST: u64 = 64 * 1_024;

/// Make credentials
#[derive(Debug, clap::Args)]
pub struct TokensArgs {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokensCommand {
    /// Print a token, as it is written after its type
    #[command(after_help = EXAMPLES)]
    Issue(IssueArgs),
    /// Print the hash by which the log shows a credential when it is refused
    #[command(after_help = HASH_EXAMPLES)]
    Hash {
        #[command(flatten)]
        format: Format,
    },
}

const HASH_EXAMPLES: &str = "\
Examples:
  The lines of the log about a credential that a partner has sent:
    grep \"$(session-invite tokens hash < credential.txt)\" worker.log

The credential is read from standard input, with or without its scheme and type.";

#[derive(Debug, clap::Args)]
struct IssueArgs {
    #[command(subcommand)]
    kind: TokenKind,
}

#[derive(Debug, clap::Subcommand)]
enum TokenKind {
    /// A login key, signed with the group's newest API key; for a day at most
    Gkey {
        #[command(flatten)]
        bearer: BearerArgs,
        /// How long it is good, up to 1day
        #[arg(long, default_value = "1h", value_parser = |text: &str| seconds(text, 1..=86_400))]
        ttl: Duration,
    },
    /// A JSON web token, signed with the group's newest JWT secret; for 120 minutes at most
    Gjwt {
        #[command(flatten)]
        bearer: BearerArgs,
        /// How long it is good, up to 2h
        #[arg(long, default_value = "1h", value_parser = |text: &str| seconds(text, 1..=7_200))]
        ttl: Duration,
    },
    /// A website session id, with its row in `website_sessions`
    Gssnid {
        #[command(flatten)]
        bearer: BearerArgs,
        /// How long it is good, up to 1year
        #[arg(long, default_value = "1h", value_parser = |text: &str| seconds(text, 1..=31_557_600))]
        ttl: Duration,
    },
}

/// The group and the user of a token.
#[derive(clap::Args)]
struct BearerArgs {
    /// The group's id
    #[arg(long, value_parser = group_id)]
    group: GroupId,
    /// The user in that group
    #[arg(long, default_value = "1", value_parser = user)]
    user: String,
    #[command(flatten)]
    format: Format,
}

debug_shows!(BearerArgs { group });

/// Prints a token. A website session needs no `SECRETS_KEY`.
pub(crate) async fn run(
    args: TokensArgs,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
) -> anyhow::Result<()> {
    execute(args, async || super::operator(database).await, || secrets.key()).await
}

pub(super) async fn execute(
    args: TokensArgs,
    operator: impl AsyncFnOnce() -> anyhow::Result<Operator>,
    key: impl Fn() -> Result<SecretsKey, Faults>,
) -> anyhow::Result<()> {
    match args.command {
        TokensCommand::Issue(IssueArgs { kind }) => issue(kind, &operator().await?, key).await,
        TokensCommand::Hash { format } => print_hash(&key()?, format),
    }
}

/// Prints the hash of the credential on standard input, whose last word is its value.
fn print_hash(secrets: &SecretsKey, format: Format) -> anyhow::Result<()> {
    let text =
        io::read_to_string(io::stdin().take(CREDENTIAL_AT_MOST)).context("cannot read standard input")?;
    let value = text.split_whitespace().next_back().context("there is no credential on standard input")?;
    let hash = secrets.credential_hash(value);
    format.done(&json!({"credential": hash}), &hash)
}

async fn issue(
    kind: TokenKind,
    operator: &Operator,
    key: impl Fn() -> Result<SecretsKey, Faults>,
) -> anyhow::Result<()> {
    let pool = operator.pool();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let (kind, bearer, token) = match kind {
        TokenKind::Gkey { bearer, ttl } => {
            let key = newest_api_key(pool, &key()?, bearer.group).await?;
            let token =
                gkey::mint(bearer.group, &bearer.user, key.expose_secret().as_bytes(), until(now, ttl));
            ("GKEY", bearer, token)
        }
        TokenKind::Gjwt { bearer, ttl } => {
            store::show(pool, bearer.group).await?;
            let (secret, kid) = newest_jwt_secret(pool, &key()?, bearer.group).await?;
            let secret = secret.expose_secret().as_bytes();
            let token = gjwt::mint(bearer.group, &bearer.user, secret, kid.as_deref(), now, until(now, ttl));
            ("GJWT", bearer, token)
        }
        TokenKind::Gssnid { bearer, ttl } => {
            let token = gssnid::mint(&bearer.user, now, Some(bearer.group));
            let parsed = GssnidToken::parse(&token).map_err(|_| {
                WrongUsage::of("--user", "a website session's person has no dots and no spaces")
            })?;
            store::show(pool, bearer.group).await?;
            website_sessions::insert(operator, parsed.sha256(), bearer.group, &bearer.user, ttl).await?;
            ("GSSNID", bearer, token)
        }
    };
    // A website session's row has recorded it already.
    if kind != "GSSNID" {
        let issued = json!({"type": kind, "user": bearer.user});
        operator.record(Some(bearer.group), None, Some(issued)).await?;
    }
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
