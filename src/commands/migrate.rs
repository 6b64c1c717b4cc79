//! `session-invite migrate`: brings the schema up to date.

use crate::{config::DatabaseArgs, db};

const EXAMPLES: &str = "\
Example:
  DATABASE_URL=postgres://user:password@127.0.0.1/session_invite session-invite migrate

It is safe at any time, beside running workers and with many at once; a worker does the same when it starts.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: &Args) -> anyhow::Result<()> {
    let pool = super::connect(&args.database).await?;
    match db::migrate(&pool).await?.newer {
        None => crate::output::print("The schema is up to date."),
        Some(newer) => crate::output::print(&format!(
            "The schema is of a newer release (it has the migration {newer}), and this program works on it."
        )),
    }
}
