//! `session-invite optouts list | add | remove | import`: who wants no texts.

mod import;

use crate::masked::debug_shows;
use crate::{
    config::{DatabaseArgs, OwnSenderArgs, SecretsArgs, sender_name},
    group::options,
    invite::reply::to_the_second,
    optouts::{self, ANY_SENDER, OptOuts, Source},
    output::Format,
    phone::{self, PhoneNumber},
};
use anyhow::{anyhow, ensure};
use serde_json::json;
use sqlx::PgPool;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  session-invite optouts list --limit 50
  session-invite optouts add 111-000-0000
  session-invite optouts remove +442079460958 --sender +15550001111
  session-invite optouts import stopped.csv

The numbers themselves are not stored, only a keyed hash and the last two digits.";

const ADD_EXAMPLES: &str = "\
Examples:
  From the worker's own sender:
    session-invite optouts add 111-000-0000

  From whomever:
    session-invite optouts add +442079460958 --sender '*'

The number's invites are answered opted_out from now on, and the provider is not asked.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  session-invite optouts remove 111-000-0000
  session-invite optouts remove 0151 23456789 --region DE --sender MG00000000000000000000000000000001

The provider has a list of its own: whoever said STOP there has to say START, or is refused by it again.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  session-invite optouts import stopped.txt
  session-invite optouts import - --sender '*' < stopped.txt

CSV in UTF-8: one number a line, and after a comma the sender, if it is another.
Quotes, semicolons, tabs, a first line of names and one such as sep=; are understood:
  +14155550100
  \"+44 20 7946 0958\",+15550001111

If any line is wrong, nothing is imported, and the wrong lines are named.";

/// Visitors who want no texts, by whom those would come from
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the opt-outs, newest first, with the last digits of their numbers
    List {
        /// From this sender's texts only: a number, a messaging service, or * for those from any
        #[arg(long, value_name = "SENDER", value_parser = sender_name)]
        sender: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
        limit: u32,
    },
    /// Text a number no more
    #[command(after_help = ADD_EXAMPLES)]
    Add(One),
    /// Let a number be texted again
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(One),
    /// Add the numbers of a file
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// The file, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        from: From,
    },
}

#[derive(clap::Args)]
struct One {
    /// The number, in any format
    #[arg(required = true, num_args = 1.., value_name = "PHONE")]
    phone: Vec<String>,
    #[command(flatten)]
    from: From,
}

debug_shows!(One { from });

#[derive(Debug, clap::Args)]
struct From {
    /// Whom the texts are from: a number, a messaging service, or * for any [default: SMS_FROM or
    /// SMS_MESSAGING_SERVICE_SID; * if neither is set]
    #[arg(long, value_name = "SENDER", value_parser = sender_name)]
    sender: Option<String>,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    #[command(flatten)]
    own: OwnSenderArgs,
}

impl From {
    fn sender(&self) -> anyhow::Result<String> {
        match &self.sender {
            Some(sender) => Ok(sender.clone()),
            None => Ok(self.own.check()?.unwrap_or_else(|| ANY_SENDER.to_owned())),
        }
    }

    /// A number in E.164.
    fn read(&self, text: &str) -> Result<PhoneNumber, String> {
        phone::parse_either_form(text, &self.region).map_err(|refusal| refusal.message)
    }
}

/// Runs the command. Only `list` needs no `SECRETS_KEY`, as it hashes no number.
pub async fn run(args: Args, database: &DatabaseArgs, secrets: &SecretsArgs) -> anyhow::Result<()> {
    let format = args.format;
    match args.command {
        Command::List { sender, limit } => {
            let pool = super::database(database).await?;
            let listed = optouts::list(&pool, sender.as_deref(), limit.into()).await?;
            format.list(["SINCE", "NUMBER", "SENDER", "SOURCE"], &listed, |row| {
                let number = format!("…{}", row.last_digits);
                [to_the_second(row.created_at), number, row.sender.clone(), row.source.clone()]
            })
        }
        Command::Add(one) => {
            let (optouts, sender, phone) = prepared(&one, database, secrets).await?;
            let added = optouts.record(&sender, phone.as_e164(), Source::Command).await?;
            let (digits, from) = (last_digits(&phone), from(&sender));
            let what = if added { "is on the list" } else { "was on the list already" };
            let object = json!({"sender": sender, "lastDigits": digits, "added": added});
            format.done(&object, &format!("The number …{digits} {what}: it gets no texts from {from}."))
        }
        Command::Remove(one) => {
            let (optouts, sender, phone) = prepared(&one, database, secrets).await?;
            let (digits, from) = (last_digits(&phone), from(&sender));
            ensure!(
                optouts.remove(&sender, phone.as_e164()).await?,
                "the number …{digits} is not on the list for texts from {from}; `optouts list` shows whose there are"
            );
            let object = json!({"sender": sender, "lastDigits": digits, "removed": true});
            format.done(&object, &format!("The number …{digits} is off the list: it gets texts from {from}."))
        }
        Command::Import { file, from } => {
            let text = import::read(&file)?;
            let import::File { rows, has_header } =
                import::parse(&text, &from.sender()?, |number| from.read(number))?;
            let optouts = opened(super::database(database).await?, secrets).await?;
            let new = optouts.import(&rows, |done| import::tell(done, rows.len())).await?;
            let object = json!({"read": rows.len(), "added": new});
            let header = if has_header { " The first line was taken for the columns' names." } else { "" };
            format.done(
                &object,
                &format!("{} numbers read, {new} of them new on the list.{header}", rows.len()),
            )
        }
    }
}

async fn prepared(
    one: &One,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
) -> anyhow::Result<(OptOuts, String, PhoneNumber)> {
    let sender = one.from.sender()?;
    // Written with spaces, it comes in several arguments.
    let phone = one.from.read(&one.phone.join(" ")).map_err(|message| anyhow!("PHONE: {message}"))?;
    Ok((opened(super::database(database).await?, secrets).await?, sender, phone))
}

async fn opened(pool: PgPool, secrets: &SecretsArgs) -> anyhow::Result<OptOuts> {
    Ok(OptOuts::open(pool, &secrets.key()?).await?)
}

fn last_digits(phone: &PhoneNumber) -> &str {
    let e164 = phone.as_e164();
    &e164[e164.len().saturating_sub(2)..]
}

fn from(sender: &str) -> &str {
    if sender == ANY_SENDER { "any sender" } else { sender }
}
