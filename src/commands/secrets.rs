//! `session-invite secrets reseal`: everything that is sealed, under the first key of `SECRETS_KEY`.

use crate::{
    config::{DatabaseArgs, SecretsArgs},
    group::{
        seal::SealedBy,
        store::reseal::{self, Tally},
    },
    optouts,
    output::Format,
};
use anyhow::bail;
use serde_json::json;

const EXAMPLES: &str = "\
To change SECRETS_KEY:
  1. Make a key:             openssl rand -base64 32
  2. Put it first:           SECRETS_KEY=<new>,<old> for each process; restart workers and gateways
  3. Seal everything anew:   session-invite secrets reseal
  4. When it says so, take the old key away: SECRETS_KEY=<new>; restart each";

const RESEAL_EXAMPLES: &str = "\
Examples:
  SECRETS_KEY=<new>,<old> session-invite secrets reseal --dry-run
  SECRETS_KEY=<new>,<old> session-invite secrets reseal

It seals the groups' API keys and JWT secrets, the revoked ones too, and the key of the opt-outs.
Workers and gateways may run meanwhile, if each of them has both keys already: one that has only
the old key opens nothing that was sealed anew. It can be run again at any time, also after it was
killed. With exit code 0 all is sealed under the first key, and the old ones may go.";

/// What is sealed with SECRETS_KEY
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
    /// Seal everything under the first key of SECRETS_KEY, so that the others can be taken away
    #[command(after_help = RESEAL_EXAMPLES)]
    Reseal {
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub async fn run(args: Args, database: &DatabaseArgs, secrets: &SecretsArgs) -> anyhow::Result<()> {
    let Command::Reseal { dry_run } = args.command;
    let secrets = secrets.key()?;
    let pool = super::database(database).await?;
    let mut sealed = 0;
    if !dry_run {
        let before = reseal::tally(&pool, &secrets).await?;
        let all = before.first + before.older + before.lost + before.lost_revoked;
        sealed = reseal::reseal(&pool, &secrets, |done| eprintln!("{done} of {all}")).await?;
        sealed += u64::from(optouts::reseal(&pool, &secrets).await?);
    }
    // Read again: what another process sealed meanwhile counts too.
    let mut tally = reseal::tally(&pool, &secrets).await?;
    let optouts_lost = match optouts::sealed_by(&pool, &secrets).await {
        Ok(by) => {
            tally.first += u64::from(by == Some(SealedBy::First));
            tally.older += u64::from(by == Some(SealedBy::Older));
            false
        }
        Err(optouts::Unusable::WrongSecretsKey) => true,
        Err(error) => return Err(error.into()),
    };
    let object = json!({
        "sealed": sealed,
        "first": tally.first,
        "older": tally.older,
        "lost": tally.lost + u64::from(optouts_lost),
        "lostRevoked": tally.lost_revoked,
        "groups": tally.groups,
    });
    args.format.done(&object, &report(sealed, &tally, secrets.has_older()))?;
    if optouts_lost {
        bail!(optouts::Unusable::WrongSecretsKey);
    }
    if tally.lost > 0 {
        let groups: Vec<_> = tally.groups.iter().map(ToString::to_string).collect();
        bail!(
            "{} keys in use are opened by no key of SECRETS_KEY (groups {}): add the key that sealed them after a comma; if it \
             is lost, give the groups other keys: session-invite groups rotate-key",
            tally.lost,
            groups.join(", ")
        );
    }
    if tally.older > 0 && !dry_run {
        bail!(
            "{} were sealed under an older key meanwhile: is a process without the new key running?",
            tally.older
        );
    }
    Ok(())
}

fn report(sealed: u64, tally: &Tally, has_older: bool) -> String {
    let all = tally.first + tally.older;
    let revoked = match tally.lost_revoked {
        0 => String::new(),
        count => format!(" {count} revoked keys stay sealed by a key that is not here; nobody needs them."),
    };
    let may_go =
        if has_older { "the older keys in SECRETS_KEY may go" } else { "SECRETS_KEY holds no other key" };
    match tally.older {
        0 if sealed > 0 => {
            format!("{sealed} sealed anew. All {all} are sealed under the first key: {may_go}.{revoked}")
        }
        0 => format!("All {all} are sealed under the first key: {may_go}.{revoked}"),
        older => format!(
            "{older} of {all} are sealed under an older key, which must stay until they are sealed anew.{revoked}"
        ),
    }
}
