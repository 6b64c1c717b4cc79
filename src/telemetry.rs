//! Logs, to standard error.

use crate::config::{Faults, LogArgs};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What no filter may turn on: the client library logs a returned reply whole, with key and phone number. Nor does
/// anybody need to hear that a table exists already.
const NEVER: &str = "lapin=off,sqlx::postgres::notice=warn";

/// Starts logging as the flags say.
pub fn start(args: &LogArgs, default_level: &str) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let parse = |filter: &str| EnvFilter::try_new(format!("{filter},{NEVER}"));
    let filter = faults.read("RUST_LOG", args.rust_log.as_ref(), default_level, parse);
    let json = faults.read("LOG_FORMAT", args.log_format.as_ref(), "text", |format| match format {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err(format!("{format:?} must be text or json")),
    });
    let (filter, json) = faults.finish(filter.zip(json))?;
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start, as in tests, keeps the first.
    let _ = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
    };
    Ok(())
}
