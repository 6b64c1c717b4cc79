//! `session-invite optouts list | check | add | remove | import`: visitors who want no texts.

mod import;

use super::WrongUsage;
use crate::masked::debug_shows;
use crate::{
    audit::Operator,
    config::{DatabaseArgs, FromNumberArgs, SecretsArgs, from_number},
    group::options,
    invite::reply::to_the_second,
    optouts::{self, ANY_SENDER, OptOuts},
    output::Format,
    phone::{self, PhoneNumber},
};
use anyhow::{bail, ensure};
use serde_json::json;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  session-invite optouts list --limit 50
  session-invite optouts check 111-000-0000
  session-invite optouts add 111-000-0000
  session-invite optouts remove +442079460958 --sender +15550001111
  session-invite optouts import stopped.csv

The numbers themselves are not stored, only a keyed hash and the last two digits.";

const CHECK_EXAMPLES: &str = "\
Examples:
  session-invite optouts check 111-000-0000
  session-invite optouts check +442079460958 --sender +15550001111 --json

  In a script, which then sends nothing when the check fails either:
    session-invite optouts check --exit-code +442079460958 && send_the_text

The provider has a list of its own, which this command does not see.";

const ADD_EXAMPLES: &str = "\
Examples:
  From the worker's own sender:
    session-invite optouts add 111-000-0000

  From any sender:
    session-invite optouts add +442079460958 --sender '*'

Invites to the number are answered opted_out from now on, without a request to the provider.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  session-invite optouts remove 111-000-0000
  session-invite optouts remove 0151 23456789 --region DE --sender MG00000000000000000000000000000001

The provider has a list of its own. A visitor who texted STOP has to text START, or the provider
refuses the number again.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  session-invite optouts import stopped.txt
  session-invite optouts import - --sender '*' < stopped.txt

CSV in UTF-8: one number a line, and after a comma the sender, if it is another.
Quotes, semicolons, tabs, a first line of names and one such as sep=; are understood:
  +14155550100
  \"+44 20 7946 0958\",+15550001111

If any line is wrong, nothing is imported, and the error names the wrong lines.";

/// Visitors who want no texts, by the sender of those texts
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct OptoutsArgs {
    #[command(subcommand)]
    command: OptoutsCommand,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum OptoutsCommand {
    /// List the opt-outs, newest first, with the last digits of their numbers
    List {
        /// Only opt-outs from this sender: a number, a messaging service, or * for those from any sender
        #[arg(long, value_name = "SENDER", value_parser = from_number)]
        sender: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
        limit: u32,
    },
    /// Say whether a number wants no texts, and since when
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Send no more texts to a number
    #[command(after_help = ADD_EXAMPLES)]
    Add(NumberArgs),
    /// Allow texts to a number again
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(NumberArgs),
    /// Add the numbers of a file
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// The file, or - for standard input
        file: PathBuf,
        #[command(flatten)]
        from: OptoutSenderArgs,
    },
}

#[derive(clap::Args)]
struct NumberArgs {
    /// The number, in any format
    #[arg(required = true, num_args = 1.., value_name = "PHONE")]
    phone: Vec<String>,
    #[command(flatten)]
    from: OptoutSenderArgs,
}

debug_shows!(NumberArgs { from });

#[derive(clap::Args)]
struct CheckArgs {
    /// The number, in any format
    #[arg(required = true, num_args = 1.., value_name = "PHONE")]
    phone: Vec<String>,
    /// Only opt-outs that hold for this sender: a number or a messaging service [default: any]
    #[arg(long, value_name = "SENDER", value_parser = from_number)]
    sender: Option<String>,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    /// Exit with 1 if the number wants no texts
    #[arg(long)]
    exit_code: bool,
}

debug_shows!(CheckArgs { sender, region });

#[derive(Debug, clap::Args)]
struct OptoutSenderArgs {
    /// The sender of the texts: a number, a messaging service, or * for any [default: SMS_FROM or
    /// SMS_MESSAGING_SERVICE_SID; * if neither is set]
    #[arg(long, value_name = "SENDER", value_parser = from_number)]
    sender: Option<String>,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    #[command(flatten)]
    own: FromNumberArgs,
}

impl OptoutSenderArgs {
    fn sender(&self) -> anyhow::Result<String> {
        match &self.sender {
            Some(sender) => Ok(sender.clone()),
            None => Ok(self.own.check()?.unwrap_or_else(|| ANY_SENDER.to_owned())),
        }
    }

    fn read(&self, text: &str) -> Result<PhoneNumber, String> {
        read_number(text, &self.region)
    }
}

fn read_number(text: &str, region: &str) -> Result<PhoneNumber, String> {
    phone::parse_either_form(text, region).map_err(|refusal| refusal.message)
}

/// A number that is written with spaces is several arguments.
fn joined(words: &[String], region: &str) -> anyhow::Result<PhoneNumber> {
    Ok(read_number(&words.join(" "), region).map_err(|message| WrongUsage::of("PHONE", &message))?)
}

/// Runs the command. Only `list` needs no `SECRETS_KEY`, as it hashes no number.
pub(crate) async fn run(
    args: OptoutsArgs,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
) -> anyhow::Result<()> {
    let format = args.format;
    match args.command {
        OptoutsCommand::List { sender, limit } => {
            let pool = super::database(database).await?;
            let listed = optouts::list(&pool, sender.as_deref(), limit.into()).await?;
            format.list(["SINCE", "NUMBER", "SENDER", "SOURCE"], &listed, |row| {
                let number = format!("…{}", row.last_digits);
                [to_the_second(row.created_at), number, row.sender.clone(), row.source.clone()]
            })
        }
        OptoutsCommand::Check(args) => check(args, database, secrets, format).await,
        OptoutsCommand::Add(number) => {
            let (operator, optouts, sender, phone) = prepared(&number, database, secrets).await?;
            let added = optouts.add(&operator, &sender, phone.as_e164()).await?;
            let (digits, from) = (last_digits(&phone), from(&sender));
            let what = if added { "is on the list" } else { "was on the list already" };
            let object = json!({"sender": sender, "lastDigits": digits, "added": added});
            format.done(&object, &format!("The number …{digits} {what}: it gets no texts from {from}."))
        }
        OptoutsCommand::Remove(number) => {
            let (operator, optouts, sender, phone) = prepared(&number, database, secrets).await?;
            let (digits, from) = (last_digits(&phone), from(&sender));
            ensure!(
                optouts.remove(&operator, &sender, phone.as_e164()).await?,
                "the number …{digits} is not on the list for texts from {from}; `optouts list` shows those that are"
            );
            let object = json!({"sender": sender, "lastDigits": digits, "removed": true});
            format.done(&object, &format!("The number …{digits} is off the list: it gets texts from {from}."))
        }
        OptoutsCommand::Import { file, from } => {
            let text = import::read(&file)?;
            let import::ImportFile { rows, has_header } =
                import::parse(&text, &from.sender()?, |number| from.read(number))?;
            let (operator, optouts) = open(database, secrets).await?;
            let new =
                optouts.import(&operator, &rows, |done| import::show_progress(done, rows.len())).await?;
            let object = json!({"read": rows.len(), "added": new});
            let header = if has_header { " The first line was taken for the columns' names." } else { "" };
            format.done(
                &object,
                &format!("{} numbers read, {new} of them new on the list.{header}", rows.len()),
            )
        }
    }
}

async fn check(
    args: CheckArgs,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
    format: Format,
) -> anyhow::Result<()> {
    let phone = joined(&args.phone, &args.region)?;
    let pool = super::database(database).await?;
    let found = optouts::of_number(&pool, &secrets.key()?, &phone, args.sender.as_deref()).await?;
    let digits = last_digits(&phone);
    let lines = found.iter().map(|row| {
        let (from, since) = (from(&row.sender), to_the_second(row.created_at));
        format!("The number …{digits} wants no texts from {from} since {since} ({}).", row.source)
    });
    let sentence = match found.len() {
        0 => format!(
            "The number …{digits} has not opted out of texts from {}.",
            args.sender.as_deref().unwrap_or("any sender")
        ),
        _ => lines.collect::<Vec<_>>().join("\n"),
    };
    let object = json!({"lastDigits": digits, "optedOut": !found.is_empty(), "optOuts": found});
    format.done(&object, &sentence)?;
    if args.exit_code && !found.is_empty() {
        bail!("the number wants no texts");
    }
    Ok(())
}

async fn prepared(
    number: &NumberArgs,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
) -> anyhow::Result<(Operator, OptOuts, String, PhoneNumber)> {
    let sender = number.from.sender()?;
    let phone = joined(&number.phone, &number.from.region)?;
    let (operator, optouts) = open(database, secrets).await?;
    Ok((operator, optouts, sender, phone))
}

async fn open(database: &DatabaseArgs, secrets: &SecretsArgs) -> anyhow::Result<(Operator, OptOuts)> {
    let operator = super::operator(database).await?;
    let optouts = OptOuts::open(operator.pool().clone(), &secrets.key()?).await?;
    Ok((operator, optouts))
}

fn last_digits(phone: &PhoneNumber) -> &str {
    let e164 = phone.as_e164();
    &e164[e164.len().saturating_sub(2)..]
}

fn from(sender: &str) -> &str {
    if sender == ANY_SENDER { "any sender" } else { sender }
}
