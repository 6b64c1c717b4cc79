//! Logs, to standard error.

use crate::config::{Faults, LogArgs, log_filter};
use std::{fmt, io::Write as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::Metadata;
use tracing_subscriber::{filter::filter_fn, fmt::layer, layer::SubscriberExt, util::SubscriberInitExt};

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with(log_filter::NEVER_LOGGED)
}

/// Whether the log is JSON: by the flag or the variable `LOG_FORMAT`.
pub(crate) fn is_json(args: Option<&LogArgs>) -> bool {
    let given = args.and_then(|args| args.log_format.clone()).or_else(|| std::env::var("LOG_FORMAT").ok());
    given.is_some_and(|format| format == "json")
}

/// Writes the last line of a process that cannot go on: for people, or as the log's other lines are written.
pub(crate) fn fatal(json: bool, error: &dyn fmt::Display) {
    // Not by `eprintln!`, which panics if nobody reads it.
    let mut out = std::io::stderr().lock();
    if !json {
        let _ = writeln!(out, "error: {error:#}");
        return;
    }
    let timestamp = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let message = format!("{error:#}");
    let line = serde_json::json!({
        "timestamp": timestamp, "level": "ERROR", "message": message, "fatal": true, "target": "session_invite",
    });
    let _ = writeln!(out, "{line}");
}

/// Logs panics as JSON: the default hook writes lines of text.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(tracing::field::display);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(panic = message, location, thread, "panicked");
    }));
}

/// Starts the log with these settings.
pub(crate) fn start(args: &LogArgs, default_level: &str) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let parse = |filter: &str| log_filter::parse(filter, default_level);
    let filter = faults.read("RUST_LOG", args.rust_log.as_ref(), "", parse);
    let json = faults.read("LOG_FORMAT", args.log_format.as_ref(), "text", |format| match format {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("must be text or json"),
    });
    let (log_filter::LogFilter { filter, names_never_logged }, json) = faults.finish(filter.zip(json))?;
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(may_be_logged));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start, as in tests, does nothing. An error of the log would go to the same place, and panic there.
    let _ = if json {
        log_panics();
        registry
            .with(layer().json().flatten_event(true).log_internal_errors(false).with_writer(std::io::stderr))
            .try_init()
    } else {
        registry
            .with(layer().with_ansi(colours).log_internal_errors(false).with_writer(std::io::stderr))
            .try_init()
    };
    if names_never_logged {
        tracing::warn!(
            "RUST_LOG names {}, whose log stays off at every level: it prints messages whole, with their credentials",
            log_filter::NEVER_LOGGED
        );
    }
    Ok(())
}
