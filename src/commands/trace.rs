//! `session-invite trace`: the story of one invite, shown from its row, its steps, the dead letters and the outbox.

mod report;

use super::groups::group_id;
use crate::{
    config::{BrokerArgs, BrokerConfig, DatabaseArgs, SecretsArgs},
    db::StatementError,
    dead_letters::{self, InviteLetters, LetterFetch, LettersOf, ReadLimits},
    group::options,
    group_id::GroupId,
    masked::debug_shows,
    moment::Moment,
    optouts::{self, OptOutRow},
    output::{Format, plain},
    phone::PhoneNumber,
    queue::dead::MAX_READ,
    sessions::{lookup, trace::Wanted},
    story::{self, Found, SessionFindings, id, words},
};
use anyhow::{anyhow, bail};
use report::TraceReport;
use sqlx::PgPool;
use std::time::Duration;

/// How long the dead letters are read.
const LETTERS_WITHIN: Duration = Duration::from_secs(20);

const EXAMPLES: &str = "\
Examples:
  session-invite trace order-17
  session-invite trace 123456 --group 72
  session-invite trace '111-000-0000'
  session-invite trace SM0123456789abcdef0123456789abcdef --since 7d --json

ID is a session's id, a message id, a key that is held, or a phone number in any format: these are
found by an index. If none is found, the sessions since --since are read, about a million in a
second, for a provider's id, a correlation id, or a key that was released. That ends after 30 s.

If several sessions match, the one that answers for the message id is shown, or else the newest, and
the others are listed. The exit code is 0 for any
answer, also if nothing is found, and 1 if the database cannot be asked.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TraceArgs {
    /// A session's id, a message or correlation id, the provider's id of the text, a key, or a phone number
    #[arg(value_parser = id)]
    id: String,
    /// Only sessions of this group
    #[arg(long, value_parser = group_id)]
    group: Option<GroupId>,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    /// How far back to look for what has no index: how long ago (2h, 30d), or RFC 3339
    #[arg(long, value_name = "TIME", default_value = "1d")]
    since: Moment,
    /// How many other sessions to list at most
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1_000), value_name = "N")]
    limit: u16,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
    #[command(flatten)]
    format: Format,
}

// The id may be a phone number.
debug_shows!(TraceArgs { group, region, since, limit });

pub(crate) async fn run(args: TraceArgs) -> anyhow::Result<()> {
    let broker = super::broker(&args.broker)?;
    let pool = super::database(&args.database).await?;
    let since = args.since.at(lookup::now(&pool).await?);
    // One is shown, and one more shows that there are others.
    let limit = i64::from(args.limit) + 2;
    let (wanted, format) =
        (story::wanted(args.id.clone(), &args.region, args.group, since, limit), args.format);
    let SessionFindings { mut found, has_read } = find(&pool, &wanted).await?;
    let is_cut = found.len() > usize::from(args.limit) + 1;
    let others = found.split_off(found.len().min(1));
    let newest = found.pop();
    let letters = letters(broker, &wanted, newest.as_ref()).await;
    let others = others.into_iter().take(args.limit.into()).collect();
    let searched_since = has_read.then_some(wanted.since);
    let mut report = TraceReport::new(wanted, searched_since, others, is_cut, &letters);
    if let Some(found) = newest {
        let sources = story::sources(&mut *pool.acquire().await?, found.session.id).await?;
        let opt_outs = opt_outs(&pool, &args.secrets, &found).await;
        report.tell(found, &sources, &letters);
        report.add(opt_outs.iter().map(story::opt_out));
    }
    format.done(&report, &report.text())
}

async fn find(pool: &PgPool, wanted: &Wanted) -> anyhow::Result<SessionFindings> {
    match story::find(&mut *pool.acquire().await?, wanted).await {
        Ok(findings) => Ok(findings),
        // The connection's `statement_timeout`.
        Err(error) if error.is_canceled() => bail!(
            "no index finds it, and the sessions since {} could not be read within 30 s; `--since 1h` reads fewer",
            words::time(wanted.since)
        ),
        Err(error) => Err(anyhow!("the sessions could not be read: {}", error.summary())),
    }
}

/// The opt-outs of the session's number. Without the SECRETS_KEY that their hashes need, none is shown.
async fn opt_outs(pool: &PgPool, secrets: &SecretsArgs, found: &Found) -> Vec<OptOutRow> {
    let number = found.session.phone.as_deref().and_then(PhoneNumber::from_e164);
    match number.zip(secrets.key().ok()) {
        Some((number, key)) => optouts::of_number(pool, &key, &number, None).await.unwrap_or_default(),
        None => Vec::new(),
    }
}

/// The dead letters of the session or, if there is none, those that name the id. Or why they cannot be read.
async fn letters(
    broker: BrokerConfig,
    wanted: &Wanted,
    newest: Option<&Found>,
) -> Result<InviteLetters, String> {
    let of = newest.map_or_else(|| LettersOf::id(wanted), |found| LettersOf::session(&found.session));
    let limits = ReadLimits { fetch: LetterFetch::Together, most: MAX_READ, within: LETTERS_WITHIN };
    let reading = dead_letters::matching(broker, limits, &of);
    reading.await.map_err(|error| plain(&error.to_string()))
}
