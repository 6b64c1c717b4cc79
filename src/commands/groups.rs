//! `session-invite groups`: tenants, their options and their keys.

mod option_args;
#[cfg(test)]
mod tests;
mod view;

use super::secret_input::{Secret, SecretInput};
use crate::{
    config::{DatabaseArgs, Faults, SecretsArgs},
    group::{
        options::Options,
        store::{
            self,
            keys::{self, NewSecret, Old},
        },
        template::Wording,
    },
    group_id::GroupId,
    output::Format,
    seal::SecretsKey,
};
use anyhow::ensure;
use option_args::OptionArgs;
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::PgPool;

/// Bytes below which an HS256 secret is weaker than its hash (RFC 7518, section 3.2).
const JWT_SECRET_BYTES: usize = 32;

const EXAMPLES: &str = "\
Examples:
  A group whose API key and JWT secret are made and shown once:
    session-invite groups add 72

  With the key that the partner has already, from a file:
    session-invite groups add 72 --api-key @key.txt --region US --countries US,CA

  Another text and link; then back to the link's default:
    session-invite groups set 72 --template 'Your agent waits: {link}' --link 'https://example.com/j/{token}'
    session-invite groups set 72 --link ''

  A new key beside the old one, and, once the partner uses it, without the old one:
    session-invite groups rotate-key 72
    session-invite groups rotate-key 72 --finish";

const ADD_EXAMPLES: &str = "\
Examples:
  An API key and a JWT secret are made, and shown this once:
    session-invite groups add 72

  With the partner's own key from a file, and texts to two countries only:
    session-invite groups add 72 --api-key @key.txt --countries US,CA";

/// How soon a worker sees a change: it asks for the settings' version about once a second.
const FOLLOWS: &str = "Workers follow within a second or two.";

/// Groups: who may ask for sessions, and how theirs are made
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add a group
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<Add>),
    /// List the groups
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show a group: its options, an example of its text, and its keys' ids (never the keys)
    Show(One),
    /// Change the given options of a group, and no others
    Set(Box<Set>),
    /// Switch a group off: its invites are answered `group_disabled`
    Disable(One),
    /// Switch a group on again
    Enable(One),
    /// Add a key beside the old ones, or instead of them
    RotateKey(RotateKey),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The group's id
    #[arg(value_parser = group_id)]
    group: GroupId,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    one: One,
    /// The key that signs login keys: itself, @FILE, or - for standard input; made and shown once if left out
    #[arg(long, value_name = "K")]
    api_key: Option<SecretInput>,
    /// The secret that signs JSON web tokens: itself, @FILE, or -; made and shown once if left out
    #[arg(long, value_name = "S")]
    jwt_secret: Option<SecretInput>,
    /// The `kid` by which a token picks the JWT secret
    #[arg(long, value_name = "N", value_parser = kid)]
    jwt_kid: Option<String>,
    #[command(flatten)]
    options: OptionArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    mut_group("OptionArgs", |options| options.required(true)),
    override_usage = "session-invite groups set [OPTIONS] <GROUP>"
)]
struct Set {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    options: OptionArgs,
}

#[derive(Debug, clap::Args)]
struct RotateKey {
    #[command(flatten)]
    one: One,
    /// The new API key: itself, @FILE, or -; made and shown once if left out
    #[arg(long, value_name = "K", conflicts_with_all = ["jwt", "jwt_secret", "jwt_kid"])]
    api_key: Option<SecretInput>,
    /// Rotate the JWT secret instead of the API key
    #[arg(long)]
    jwt: bool,
    /// The new JWT secret: itself, @FILE, or -
    #[arg(long, value_name = "S")]
    jwt_secret: Option<SecretInput>,
    /// The `kid` of the new JWT secret
    #[arg(long, value_name = "N", value_parser = kid)]
    jwt_kid: Option<String>,
    /// Revoke the old ones at once, as after a leak
    #[arg(long)]
    revoke_old: bool,
    /// Add nothing, and revoke all but the newest API key and the newest JWT secret
    #[arg(long, conflicts_with_all = ["api_key", "jwt", "jwt_secret", "jwt_kid", "revoke_old"])]
    finish: bool,
}

/// Only what makes or takes a key needs `SECRETS_KEY`.
pub async fn run(args: Args, database: &DatabaseArgs, secrets: &SecretsArgs) -> anyhow::Result<()> {
    let pool = super::database(database).await?;
    execute(args, &pool, || secrets.key(), &secrets.public_url()?.base).await
}

async fn execute(
    args: Args,
    pool: &PgPool,
    key: impl Fn() -> Result<SecretsKey, Faults>,
    public_url: &str,
) -> anyhow::Result<()> {
    match args.command {
        Command::Add(args) => add(*args, pool, &key()?, public_url).await,
        Command::List { format } => view::list(format, pool).await,
        Command::Show(One { group, format }) => view::show(format, pool, group, public_url).await,
        Command::Set(args) => set(*args, pool, public_url).await,
        Command::Disable(One { group, format }) => {
            store::disable(pool, group).await?;
            format.done(
                &json!({"groupid": group.get(), "enabled": false}),
                &format!("Group {group} is disabled. {FOLLOWS}"),
            )
        }
        Command::Enable(One { group, format }) => {
            store::enable(pool, group).await?;
            format.done(
                &json!({"groupid": group.get(), "enabled": true}),
                &format!("Group {group} is enabled. {FOLLOWS}"),
            )
        }
        Command::RotateKey(args) => rotate_key(args, pool, &key()?).await,
    }
}

async fn add(args: Add, pool: &PgPool, secrets: &SecretsKey, public_url: &str) -> anyhow::Result<()> {
    let One { group, format } = args.one;
    ensure!(
        !matches!((&args.api_key, &args.jwt_secret), (Some(SecretInput::Stdin), Some(SecretInput::Stdin))),
        "only one of --api-key and --jwt-secret can come from standard input; put the other into a file (@FILE)"
    );
    let mut options = Options::default();
    args.options.apply(&mut options);
    Wording::check(&options.template, options.link.as_deref(), public_url)?;
    let api_key = Secret::read_or_make("--api-key", args.api_key.as_ref())?;
    let jwt_secret = Secret::read_or_make("--jwt-secret", args.jwt_secret.as_ref())?;
    warn_if_short(&jwt_secret);

    let jwt = NewSecret { kid: args.jwt_kid, secret: jwt_secret.secret().clone() };
    store::add(pool, secrets, group, &options, api_key.secret(), Some(&jwt)).await?;
    tell_made(format, group, "is added.", Some(&api_key), Some(&jwt_secret))
}

async fn set(args: Set, pool: &PgPool, public_url: &str) -> anyhow::Result<()> {
    let One { group, format } = args.one;
    store::set(pool, group, |options| {
        args.options.apply(options);
        Wording::check(&options.template, options.link.as_deref(), public_url).map(drop)
    })
    .await?;
    format.done(&json!({"groupid": group.get()}), &format!("Group {group} is changed. {FOLLOWS}"))
}

async fn rotate_key(args: RotateKey, pool: &PgPool, secrets: &SecretsKey) -> anyhow::Result<()> {
    let One { group, format } = args.one;
    if args.finish {
        let revoked = keys::revoke_old(pool, group).await?;
        let object = json!({"groupid": group.get(), "revoked": revoked});
        return format
            .done(&object, &format!("Group {group}: old keys and secrets revoked: {revoked}. {FOLLOWS}"));
    }
    let old = if args.revoke_old { Old::Revoke } else { Old::Keep };
    if args.jwt || args.jwt_secret.is_some() || args.jwt_kid.is_some() {
        let secret = Secret::read_or_make("--jwt-secret", args.jwt_secret.as_ref())?;
        warn_if_short(&secret);
        let jwt = NewSecret { kid: args.jwt_kid, secret: secret.secret().clone() };
        keys::rotate_jwt_secret(pool, secrets, group, &jwt, old).await?;
        tell_made(format, group, &format!("has a new JWT secret. {FOLLOWS}"), None, Some(&secret))
    } else {
        let key = Secret::read_or_make("--api-key", args.api_key.as_ref())?;
        keys::rotate_api_key(pool, secrets, group, key.secret(), old).await?;
        tell_made(format, group, &format!("has a new API key. {FOLLOWS}"), Some(&key), None)
    }
}

/// Shows what was made here, once; what was given is not repeated.
fn tell_made(
    format: Format,
    group: GroupId,
    what: &str,
    api_key: Option<&Secret>,
    jwt_secret: Option<&Secret>,
) -> anyhow::Result<()> {
    let mut object = json!({"groupid": group.get()});
    let mut lines = vec![format!("Group {group} {what}")];
    for (field, name, secret) in [("apiKey", "API key", api_key), ("jwtSecret", "JWT secret", jwt_secret)] {
        if let Some(made) = secret.and_then(Secret::made) {
            object[field] = made.into();
            lines.push(format!("{name}, shown this once: {made}"));
        }
    }
    format.done(&object, &lines.join("\n"))
}

fn warn_if_short(secret: &Secret) {
    if secret.secret().expose_secret().len() < JWT_SECRET_BYTES {
        eprintln!(
            "warning: a JWT secret under {JWT_SECRET_BYTES} bytes can be guessed; `openssl rand -base64 32` makes one"
        );
    }
}

/// A group's id as an argument.
pub(super) fn group_id(text: &str) -> Result<GroupId, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .and_then(GroupId::new)
        .ok_or_else(|| format!("a group's id is a whole number from 1 to {}", GroupId::MAX))
}

fn kid(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a kid has 1 to 255 characters".to_owned())
    }
}
