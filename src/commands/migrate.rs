//! `session-invite migrate`: brings the schema up to date.

use crate::{audit::Operator, config::DatabaseArgs, db};
use serde_json::json;

const EXAMPLES: &str = "\
Example:
  DATABASE_URL=postgres://user:password@127.0.0.1/session_invite session-invite migrate

It is safe at any time, beside running workers and with many at once; a worker does the same when it starts.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let pool = super::connect(&args.database).await?;
    let schema = db::migrate(&pool).await?;
    if schema.missing > 0 {
        let after = json!({"migrations": schema.missing});
        Operator::new(pool).record(None, None, Some(after)).await?;
    }
    match schema.newer {
        None => crate::output::print("The schema is up to date."),
        Some(newer) => crate::output::print(&format!(
            "The schema is of a newer release (it has the migration {newer}), and this program works on it."
        )),
    }
}
