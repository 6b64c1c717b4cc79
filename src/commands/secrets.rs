//! `session-invite secrets reseal`: everything that is sealed, under the first key of `SECRETS_KEY`.

use crate::{
    config::{DatabaseArgs, SecretsArgs},
    group::store::reseal::{self, SealTally},
    optouts,
    output::{Format, note},
    seal::SealedBy,
};
use anyhow::bail;
use serde_json::json;

const EXAMPLES: &str = "\
To change SECRETS_KEY:
  1. Make a key:             openssl rand -base64 32
  2. Put it first:           SECRETS_KEY=<new>,<old> for each process; restart workers and gateways
  3. Seal everything again:  session-invite secrets reseal
  4. When it says so, remove the old key: SECRETS_KEY=<new>; restart each";

const RESEAL_EXAMPLES: &str = "\
Examples:
  SECRETS_KEY=<new>,<old> session-invite secrets reseal --dry-run
  SECRETS_KEY=<new>,<old> session-invite secrets reseal

It seals the groups' API keys and JWT secrets, the revoked ones too, and the key of the opt-outs.
Workers and gateways may run meanwhile, if each of them has both keys already: a process with only
the old key cannot open what is sealed under the new one. The command can be run again at any time,
also after it was killed. With exit code 0 everything is sealed under the first key, and the old
keys may be removed.";

/// What is sealed with SECRETS_KEY
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SecretsCommandArgs {
    #[command(subcommand)]
    command: SecretsCommand,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum SecretsCommand {
    /// Seal everything under the first key of SECRETS_KEY, so that the others can be removed
    #[command(after_help = RESEAL_EXAMPLES)]
    Reseal {
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(
    args: SecretsCommandArgs,
    database: &DatabaseArgs,
    secrets: &SecretsArgs,
) -> anyhow::Result<()> {
    let SecretsCommand::Reseal { dry_run } = args.command;
    let secrets = secrets.key()?;
    let operator = super::operator(database).await?;
    let pool = operator.pool().clone();
    let mut sealed = 0;
    if !dry_run {
        let before = reseal::tally(&pool, &secrets).await?;
        let all = before.first + before.older + before.lost + before.lost_revoked;
        sealed = reseal::reseal(&pool, &secrets, |done| note(&format!("{done} of {all}"))).await?;
        sealed += u64::from(optouts::reseal(&pool, &secrets).await?);
        let after = (sealed > 0).then(|| json!({ "sealed": sealed }));
        operator.record(None, None, after).await?;
    }
    // Count again: another process may have sealed something meanwhile.
    let mut tally = reseal::tally(&pool, &secrets).await?;
    let optouts_lost = match optouts::sealed_by(&pool, &secrets).await {
        Ok(by) => {
            tally.first += u64::from(by == Some(SealedBy::First));
            tally.older += u64::from(by == Some(SealedBy::Older));
            false
        }
        Err(optouts::OptOutsError::WrongSecretsKey) => true,
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
    let lost = UnopenableSecrets::of(&tally, optouts_lost.then_some("the key of the opt-outs"));
    args.format.done(&object, &report(sealed, &tally, &lost, secrets.has_older()))?;
    if !lost.0.is_empty() {
        bail!(
            "{} are opened by no key of SECRETS_KEY: add the key that sealed them after a comma; if it is lost, \
             docs/OPERATING.md says how groups get other keys, and what becomes of the opt-outs",
            lost.named()
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

/// The secrets that no key opens, in words.
struct UnopenableSecrets(Vec<String>);

impl UnopenableSecrets {
    fn of(tally: &SealTally, optouts: Option<&str>) -> Self {
        let mut lost = Vec::new();
        if tally.lost > 0 {
            let groups: Vec<_> = tally.groups.iter().map(ToString::to_string).collect();
            lost.push(format!("{} keys in use (groups {})", tally.lost, groups.join(", ")));
        }
        lost.extend(optouts.map(str::to_owned));
        Self(lost)
    }

    fn named(&self) -> String {
        self.0.join(" and ")
    }
}

fn report(sealed: u64, tally: &SealTally, lost: &UnopenableSecrets, has_older: bool) -> String {
    let all = tally.first + tally.older;
    if !lost.0.is_empty() {
        let count = tally.lost + u64::from(lost.0.len() > usize::from(tally.lost > 0));
        let first = tally.first;
        return format!(
            "{count} are opened by no key of SECRETS_KEY: {}.\n{sealed} sealed again; {first} are sealed under the first key, {} \
             under an older one. Take no key out of SECRETS_KEY.",
            lost.named(),
            tally.older
        );
    }
    let revoked = match tally.lost_revoked {
        0 => String::new(),
        count => format!(" {count} revoked keys stay sealed by a key that is not here; they are not needed."),
    };
    let may_go =
        if has_older { "the older keys in SECRETS_KEY may go" } else { "SECRETS_KEY holds no other key" };
    match tally.older {
        0 if sealed > 0 => {
            format!("{sealed} sealed again. All {all} are sealed under the first key: {may_go}.{revoked}")
        }
        0 => format!("All {all} are sealed under the first key: {may_go}.{revoked}"),
        older => format!(
            "{older} of {all} are sealed under an older key, which must stay until they are sealed again.{revoked}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_what_no_key_opens() {
        let tally = SealTally { first: 3, lost: 2, groups: [72, 73].into(), ..SealTally::default() };
        let cases = [
            (&tally, None, "2 are opened by no key of SECRETS_KEY: 2 keys in use (groups 72, 73)."),
            (&SealTally::default(), Some("the key"), "1 are opened by no key of SECRETS_KEY: the key."),
            (
                &tally,
                Some("the key"),
                "3 are opened by no key of SECRETS_KEY: 2 keys in use (groups 72, 73) and the key.",
            ),
        ];
        for (tally, optouts, expected) in cases {
            let report = report(1, tally, &UnopenableSecrets::of(tally, optouts), true);
            assert_eq!(report.lines().next(), Some(expected));
            assert!(!report.contains("All") && !report.contains("may go"), "{report}");
        }
        let none = SealTally { lost: 0, ..tally };
        assert!(report(1, &none, &UnopenableSecrets::of(&none, None), true).contains("All 3 are sealed"));
    }
}
