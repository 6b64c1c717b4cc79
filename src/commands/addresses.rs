//! `session-invite addresses`: the addresses that stand for a group's user in a login key.

use super::groups::group_id;
use crate::masked::debug_shows;
use crate::{
    config::DatabaseArgs,
    credential::gkey::fold_address,
    group::store::addresses::{self, Address},
    group_id::GroupId,
    output::Format,
};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  session-invite addresses add joegreen.glance.net --group 72 --user 12345
  session-invite addresses list --group 72 --json
  session-invite addresses remove joegreen.glance.net";

/// Addresses that name a group and a user in a login key
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AddressesArgs {
    #[command(subcommand)]
    command: AddressesCommand,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum AddressesCommand {
    /// Let an address stand for a group's user
    Add {
        /// The address, in any case
        #[arg(value_parser = address)]
        address: String,
        /// The group's id
        #[arg(long, value_parser = group_id)]
        group: GroupId,
        /// The user in that group, 1 to 255 characters
        #[arg(long, value_parser = user)]
        user: String,
    },
    /// List the addresses
    List {
        /// Of this group only
        #[arg(long, value_parser = group_id)]
        group: Option<GroupId>,
    },
    /// Remove an address
    Remove {
        #[arg(value_parser = address)]
        address: String,
    },
}

debug_shows!(AddressesCommand {});

/// Runs the command.
pub(crate) async fn run(args: AddressesArgs, database: &DatabaseArgs) -> anyhow::Result<()> {
    let operator = &super::operator(database).await?;
    match args.command {
        AddressesCommand::Add { address, group, user } => {
            addresses::add(operator, &address, group, &user).await?;
            let sentence = format!("{address} stands for user {user} of group {group}.");
            args.format.done(&json!({"address": address, "groupid": group.get(), "user": user}), &sentence)
        }
        AddressesCommand::List { group } => {
            let addresses = addresses::list(operator.pool(), group).await?;
            let objects: Vec<_> = addresses.iter().map(object).collect();
            let cell = |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
            args.format.list(["ADDRESS", "GROUP", "USER"], &objects, |row| {
                [cell(&row["address"]), cell(&row["groupid"]), cell(&row["user"])]
            })
        }
        AddressesCommand::Remove { address } => {
            addresses::remove(operator, &address).await?;
            args.format.done(&json!({"address": address, "removed": true}), &format!("{address} is removed."))
        }
    }
}

fn object(row: &Address) -> serde_json::Value {
    json!({"address": row.address, "groupid": row.group_id, "user": row.partner_user_id})
}

fn address(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '~' || c == '&')
    {
        return Err("an address has no spaces, ~ or &, such as joegreen.glance.net".to_owned());
    }
    fold_address(text).map_err(|refusal| refusal.message)
}

/// A user's name, as a credential may carry it.
pub(super) fn user(text: &str) -> Result<String, String> {
    if (1..=255).contains(&text.chars().count()) && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err("a user has 1 to 255 characters".to_owned())
    }
}
