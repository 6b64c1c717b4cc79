//! `session-invite groups`: tenants, their options and their keys.

mod group_arg;
mod option_args;
mod remove;
#[cfg(test)]
mod tests;
mod view;

use super::{
    WrongUsage,
    secret_input::{Secret, SecretInput},
};
use crate::{
    audit::Operator,
    config::{DatabaseArgs, Faults, SecretsArgs},
    group::{
        options::GroupOptions,
        store::{
            self,
            keys::{self, NewJwtSecret, OldKeys},
        },
        template::Wording,
    },
    group_id::GroupId,
    output::{Format, note},
    seal::SecretsKey,
    sessions,
};
use group_arg::GroupArg;
pub(super) use group_arg::group_id;
use option_args::OptionArgs;
use secrecy::ExposeSecret;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

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
    session-invite groups rotate-key 72 --finish

  No text of the group for a while, and nothing is lost:
    session-invite groups pause 72
    session-invite groups resume 72";

const ADD_EXAMPLES: &str = "\
Examples:
  An API key and a JWT secret are made, and shown this once:
    session-invite groups add 72

  With the partner's own key from a file, and texts to two countries only:
    session-invite groups add 72 --api-key @key.txt --countries US,CA";

const PAUSE_EXAMPLES: &str = "\
Examples:
  A campaign has gone wrong; look, and go on:
    session-invite groups pause 72
    session-invite groups show 72
    session-invite groups resume 72

Invites are taken and wait. One that gets too old meanwhile (INVITE_MAX_AGE, --session-ttl) is answered invite_expired at
its time. What may have been sent before is still looked for.";

/// How soon a worker sees a change: it reads the settings' version about once a second.
const FOLLOWS: &str = "Workers follow within a second or two.";

/// Groups: the tenants, with their options and keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct GroupsArgs {
    #[command(subcommand)]
    command: GroupsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum GroupsCommand {
    /// Add a group
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<AddGroupArgs>),
    /// List the groups
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show a group: its options, an example of its text, and its keys' ids (never the keys)
    Show(GroupArg),
    /// Change the given options of a group, and no others
    Set(Box<SetGroupArgs>),
    /// Switch a group off: its invites are answered `group_disabled`, its visitors' pages are closed, and agents can only end
    /// what runs
    Disable(GroupArg),
    /// Switch a group on again
    Enable(GroupArg),
    /// Send no text of a group for now: its invites wait, and none is lost
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause(GroupArg),
    /// End a group's pause: its invites that wait go on at once
    Resume(GroupArg),
    /// Add a key beside the old ones, or instead of them
    RotateKey(RotateKeyArgs),
    /// Remove a group with its sessions, keys and addresses; without --yes it only counts them
    #[command(after_help = remove::EXAMPLES)]
    Remove(remove::RemoveGroupArgs),
}

#[derive(Debug, clap::Args)]
struct AddGroupArgs {
    #[command(flatten)]
    target: GroupArg,
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
struct SetGroupArgs {
    #[command(flatten)]
    target: GroupArg,
    #[command(flatten)]
    options: OptionArgs,
}

#[derive(Debug, clap::Args)]
struct RotateKeyArgs {
    #[command(flatten)]
    target: GroupArg,
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

/// Runs the command. Only those that make or take a key need `SECRETS_KEY`.
pub(crate) async fn run(
    args: GroupsArgs,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
) -> anyhow::Result<()> {
    let operator = super::operator(database).await?;
    execute(args, &operator, || secrets.key(), &secrets.public_url()?.base).await
}

async fn execute(
    args: GroupsArgs,
    operator: &Operator,
    key: impl Fn() -> Result<SecretsKey, Faults>,
    public_url: &str,
) -> anyhow::Result<()> {
    match args.command {
        GroupsCommand::Add(args) => add(*args, operator, &key()?, public_url).await,
        GroupsCommand::List { format } => view::list(format, operator.pool()).await,
        GroupsCommand::Show(GroupArg { group, format }) => {
            view::show(format, operator.pool(), group, public_url).await
        }
        GroupsCommand::Set(args) => set(*args, operator, public_url).await,
        GroupsCommand::Disable(GroupArg { group, format }) => {
            store::disable(operator, group).await?;
            format.done(
                &json!({"groupid": group.get(), "enabled": false}),
                &format!("Group {group} is disabled. {FOLLOWS}"),
            )
        }
        GroupsCommand::Enable(GroupArg { group, format }) => {
            store::enable(operator, group).await?;
            format.done(
                &json!({"groupid": group.get(), "enabled": true}),
                &format!("Group {group} is enabled. {FOLLOWS}"),
            )
        }
        GroupsCommand::Pause(target) => pause(target, operator).await,
        GroupsCommand::Resume(target) => resume(target, operator).await,
        GroupsCommand::RotateKey(args) => rotate_key(args, operator, &key()?).await,
        GroupsCommand::Remove(args) => remove::run(args, operator).await,
    }
}

async fn add(
    args: AddGroupArgs,
    operator: &Operator,
    secrets: &SecretsKey,
    public_url: &str,
) -> anyhow::Result<()> {
    let GroupArg { group, format } = args.target;
    if let (Some(SecretInput::Stdin), Some(SecretInput::Stdin)) = (&args.api_key, &args.jwt_secret) {
        let what = "only one of --api-key and --jwt-secret can come from standard input; put the other into a file (@FILE)";
        return Err(WrongUsage::new(what).into());
    }
    let mut options = GroupOptions::default();
    args.options.apply(&mut options);
    Wording::check(&options.template, options.link.as_deref(), public_url).map_err(WrongUsage::new)?;
    let api_key = Secret::read_or_make("--api-key", args.api_key.as_ref())?;
    let jwt_secret = Secret::read_or_make("--jwt-secret", args.jwt_secret.as_ref())?;
    warn_if_short(&jwt_secret);

    let jwt = NewJwtSecret { kid: args.jwt_kid, secret: jwt_secret.secret().clone() };
    store::add(operator, secrets, group, &options, api_key.secret(), Some(&jwt)).await?;
    print_made(format, group, "is added.", Some(&api_key), Some(&jwt_secret))
}

async fn set(args: SetGroupArgs, operator: &Operator, public_url: &str) -> anyhow::Result<()> {
    let GroupArg { group, format } = args.target;
    args.options.check_wording(public_url)?;
    store::set(operator, group, |options| {
        args.options.apply(options);
        Wording::check(&options.template, options.link.as_deref(), public_url).map(drop)
    })
    .await?;
    format.done(&json!({"groupid": group.get()}), &format!("Group {group} is changed. {FOLLOWS}"))
}

async fn pause(GroupArg { group, format }: GroupArg, operator: &Operator) -> anyhow::Result<()> {
    let since = store::pause(operator, group).await?.format(&Rfc3339)?;
    format.done(
        &json!({"groupid": group.get(), "pausedAt": since}),
        &format!(
            "Group {group} is paused since {since}: its texts wait for `groups resume {group}`. {FOLLOWS}"
        ),
    )
}

async fn resume(GroupArg { group, format }: GroupArg, operator: &Operator) -> anyhow::Result<()> {
    store::resume(operator, group).await?;
    // After the commit: an invite that a worker holds from now on sees that the pause is over.
    let invites = sessions::wake(operator.pool(), group).await?;
    format.done(
        &json!({"groupid": group.get(), "pausedAt": null, "invites": invites}),
        &format!("Group {group} is resumed. Invites that go on: {invites}, the first within 5 s."),
    )
}

async fn rotate_key(args: RotateKeyArgs, operator: &Operator, secrets: &SecretsKey) -> anyhow::Result<()> {
    let GroupArg { group, format } = args.target;
    if args.finish {
        let revoked = keys::revoke_old(operator, group).await?;
        let object = json!({"groupid": group.get(), "revoked": revoked});
        return format
            .done(&object, &format!("Group {group}: old keys and secrets revoked: {revoked}. {FOLLOWS}"));
    }
    let old = if args.revoke_old { OldKeys::Revoke } else { OldKeys::Keep };
    if args.jwt || args.jwt_secret.is_some() || args.jwt_kid.is_some() {
        let secret = Secret::read_or_make("--jwt-secret", args.jwt_secret.as_ref())?;
        warn_if_short(&secret);
        let jwt = NewJwtSecret { kid: args.jwt_kid, secret: secret.secret().clone() };
        keys::rotate_jwt_secret(operator, secrets, group, &jwt, old).await?;
        print_made(format, group, &format!("has a new JWT secret. {FOLLOWS}"), None, Some(&secret))
    } else {
        let key = Secret::read_or_make("--api-key", args.api_key.as_ref())?;
        keys::rotate_api_key(operator, secrets, group, key.secret(), old).await?;
        print_made(format, group, &format!("has a new API key. {FOLLOWS}"), Some(&key), None)
    }
}

/// Prints the secrets that were made here, this once. Secrets that were given are not repeated.
fn print_made(
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
        note(&format!(
            "warning: a JWT secret under {JWT_SECRET_BYTES} bytes can be guessed; `openssl rand -base64 32` makes one"
        ));
    }
}

fn kid(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a kid has 1 to 255 characters".to_owned())
    }
}
