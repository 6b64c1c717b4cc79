//! Logs, to standard error.

use crate::config::{Faults, LogArgs, log_filter};
use tracing::Metadata;
use tracing_subscriber::{filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with(log_filter::NEVER)
}

/// Starts logging as the flags say.
pub fn start(args: &LogArgs, default_level: &str) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let parse = |filter: &str| log_filter::parse(filter, default_level);
    let filter = faults.read("RUST_LOG", args.rust_log.as_ref(), "", parse);
    let json = faults.read("LOG_FORMAT", args.log_format.as_ref(), "text", |format| match format {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("must be text or json"),
    });
    let (log_filter::Read { filter, asks_in_vain }, json) = faults.finish(filter.zip(json))?;
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(may_be_logged));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start, as in tests, keeps the first.
    let _ = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
    };
    if asks_in_vain {
        tracing::warn!(
            "RUST_LOG names {}, whose log stays off at every level: it prints messages whole, with their credentials",
            log_filter::NEVER
        );
    }
    Ok(())
}
