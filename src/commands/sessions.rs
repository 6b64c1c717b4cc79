//! `session-invite sessions list | count | show | lookup | export | forget`: what became of the invites, and what is stored
//! about a phone number.

mod export;
mod forget;
mod person;

use super::{WrongUsage, groups::group_id};
use crate::masked::debug_shows;
use crate::{
    audit::Operator,
    config::DatabaseArgs,
    group::options,
    group_id::GroupId,
    invite::reply::to_the_second,
    moment::Moment,
    output::{Format, plain},
    phone::{self, NumberSearch},
    sessions::{
        Status,
        lookup::{self, CountedBy, Filter, SessionCount, SessionDetails},
    },
    story::{self, words::shown},
};
use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value};
use sqlx::PgPool;
use strum::VariantNames;
use time::OffsetDateTime;
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  session-invite sessions list --group 72 --status unknown
  session-invite sessions count --by group,code --since 1h
  session-invite sessions show 01936d5e-9f0a-7c3e-8a55-0c8f6f6d1c7b
  session-invite sessions lookup --group 72 --key 123456
  session-invite sessions export --phone '111-000-0000' --json
  session-invite sessions forget --phone '111-000-0000'";

const LIST_EXAMPLES: &str = "\
Examples:
  What became of the invites to a number:
    session-invite sessions list --phone '111-000-0000'

  Which texts may have gone out since yesterday:
    session-invite sessions list --code outcome_unknown --since 1d

  Between two times, for a program:
    session-invite sessions list --since 2026-11-30T08:00:00Z --until 2026-11-30T09:00:00Z --limit 10000 --json";

const COUNT_EXAMPLES: &str = "\
Examples:
  session-invite sessions count --by status --since 1h
  session-invite sessions count --by group,status,code --since 1d
  session-invite sessions count --by code --group 72 --since 1d --json

Without --since all sessions are read, which takes about a second for a million.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum SessionsCommand {
    /// List sessions, the newest first
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
        limit: u16,
    },
    /// Count sessions, by their group, status and code
    #[command(after_help = COUNT_EXAMPLES)]
    Count {
        /// What to count by, in the order of the columns; without it there is one number
        #[arg(long, value_delimiter = ',', value_name = "group,status,code")]
        by: Vec<CountColumn>,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Show one session
    Show {
        #[arg(value_parser = session_id)]
        id: Uuid,
    },
    /// Show the live session that has a key
    Lookup {
        #[arg(long, value_parser = group_id)]
        group: GroupId,
        #[arg(long)]
        key: String,
    },
    /// Show all that is stored about a phone number
    #[command(after_help = export::EXAMPLES)]
    Export(Box<export::ExportArgs>),
    /// Erase what is stored about a phone number
    #[command(after_help = forget::EXAMPLES)]
    Forget(Box<forget::ForgetArgs>),
}

debug_shows!(SessionsCommand {});

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CountColumn {
    Group,
    Status,
    Code,
}

#[derive(clap::Args)]
struct FilterArgs {
    /// Only sessions of this group
    #[arg(long, value_parser = group_id)]
    group: Option<GroupId>,
    /// Only sessions with this status
    #[arg(long, value_parser = statuses())]
    status: Option<Status>,
    /// Only sessions with this error code, such as opted_out, or the provider's own
    #[arg(long)]
    code: Option<String>,
    /// Only sessions of this number, in any format
    #[arg(long)]
    phone: Option<String>,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    /// Only sessions with this message id
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Only sessions that were created at this time or later: how long ago (2h, 1d), or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only sessions that were created before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

debug_shows!(FilterArgs { group, status, code, since, until });

impl FilterArgs {
    async fn read(self, pool: &PgPool) -> anyhow::Result<Filter> {
        let phones = self.phone.as_deref().map(|phone| both_forms(phone, &self.region)).transpose()?;
        let now = match (self.since, self.until) {
            (None, None) => OffsetDateTime::UNIX_EPOCH,
            _ => lookup::now(pool).await?,
        };
        Ok(Filter {
            group: self.group,
            status: self.status,
            message_id: self.message_id,
            phones,
            code: self.code,
            since: self.since.map(|since| since.at(now)),
            until: self.until.map(|until| until.at(now)),
            before: None,
        })
    }
}

fn session_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| {
        "a session's id is a UUID, such as 01936d5e-9f0a-7c3e-8a55-0c8f6f6d1c7b; `trace` takes other ids"
            .to_owned()
    })
}

/// The number in E.164, and the other form of a mobile number that has two: a request may have had either.
fn both_forms(phone: &str, region: &str) -> anyhow::Result<Vec<String>> {
    let number = phone::parse_either_form(phone, region)
        .map_err(|refusal| WrongUsage::of("--phone", &refusal.message))?;
    Ok(NumberSearch::new(&number).forms())
}

pub(crate) async fn run(args: SessionsArgs) -> anyhow::Result<()> {
    let pool = super::database(&args.database).await?;
    match args.command {
        SessionsCommand::List { filter, limit } => {
            let rows = lookup::list(&pool, &filter.read(&pool).await?, limit.into()).await?;
            let header = ["CREATED", "ID", "GROUP", "KEY", "STATUS", "PHONE", "REQUESTED BY", "ERROR"];
            args.format.list(header, &rows, cells)
        }
        SessionsCommand::Count { by, filter } => count(&pool, &by, filter, args.format).await,
        SessionsCommand::Show { id } => {
            let row = lookup::show(&pool, id)
                .await?
                .with_context(|| format!("there is no session {id}; `sessions list` shows the newest"))?;
            args.format.object(&row, story::fields)
        }
        SessionsCommand::Lookup { group, key } => {
            let row = lookup::by_key(&pool, group, &key)
                .await?
                .with_context(|| format!("group {group} has no live session with the key {key:?}"))?;
            args.format.object(&row, story::fields)
        }
        SessionsCommand::Export(of) => Box::pin(export::run(*of, &pool, args.format)).await,
        SessionsCommand::Forget(of) => Box::pin(forget::run(*of, &Operator::new(pool), args.format)).await,
    }
}

async fn count(pool: &PgPool, by: &[CountColumn], filter: FilterArgs, format: Format) -> anyhow::Result<()> {
    let has = |column| by.contains(&column);
    let columns = CountedBy {
        group: has(CountColumn::Group),
        status: has(CountColumn::Status),
        code: has(CountColumn::Code),
    };
    let mut counts = lookup::count(pool, &filter.read(pool).await?, columns).await?;
    if counts.is_empty() && by.is_empty() {
        counts.push(SessionCount::default());
    }
    let header = by.iter().map(|column| column.name().to_uppercase()).chain(["SESSIONS".to_owned()]);
    let row = |count: &SessionCount| {
        by.iter().map(|column| column.text(count)).chain([count.count.to_string()]).collect()
    };
    let objects: Vec<Value> = counts.iter().map(|count| object(count, by)).collect();
    format.table(header.collect(), counts.iter().map(row).collect(), &objects)
}

fn object(count: &SessionCount, by: &[CountColumn]) -> Value {
    let fields = by.iter().map(|column| (column.name().to_owned(), column.json(count)));
    Value::Object(fields.chain([("sessions".to_owned(), count.count.into())]).collect::<Map<_, _>>())
}

impl CountColumn {
    const fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Status => "status",
            Self::Code => "code",
        }
    }

    fn json(self, count: &SessionCount) -> Value {
        match self {
            Self::Group => count.group.into(),
            Self::Status => count.status.clone().into(),
            Self::Code => count.code.clone().into(),
        }
    }

    fn text(self, count: &SessionCount) -> String {
        match self {
            Self::Group => shown(count.group.map(|group| group.to_string())),
            Self::Status => shown(count.status.as_ref()),
            Self::Code => shown(count.code.as_ref()),
        }
    }
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::VARIANTS).try_map(|word| word.parse().map_err(|_| "unknown status"))
}

fn cells(row: &SessionDetails) -> [String; 8] {
    [
        to_the_second(row.created_at),
        row.id.to_string(),
        row.group_id.to_string(),
        shown(row.session_key.as_ref()),
        row.status.as_str().to_owned(),
        shown(row.phone.as_ref()),
        plain(&row.requested_by),
        shown(row.error_code.as_ref()),
    ]
}
