//! `RUST_LOG`: tracing's filters, but a word that is neither a level nor a crate is an error. tracing would take such a word
//! for a target, so that `erorr` would turn the log off.

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates in the program, by their names in the log. A test compares the list with `cargo tree`.
const CRATES: &str = include_str!("crates.txt");

/// PostgreSQL's notices are not logged: a migration gets one for each table that exists already. Nor does the pool log each
/// connection that our own hook refuses: the watch of the database reports the cause once.
const ALWAYS: &str = "sqlx::postgres::notice=warn,sqlx_core::pool::inner=off";

/// The crate whose log no filter turns on: the AMQP client logs a returned message whole, with keys, numbers and credentials.
pub(crate) const NEVER_LOGGED: &str = "lapin";

/// A parsed `RUST_LOG`.
#[derive(Debug)]
pub(crate) struct LogFilter {
    pub filter: EnvFilter,
    pub names_never_logged: bool,
}

/// Parses a filter; an empty one is `default_level`.
pub(crate) fn parse(text: &str, default_level: &str) -> Result<LogFilter, &'static str> {
    let directives: Vec<_> =
        text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if !directives.iter().all(|directive| is_known(directive)) {
        return Err(
            "has a word that is neither a level (off, error, warn, info, debug, trace) nor the name of a crate in \
                    this program (with _ for -); write for example info, or warn,session_invite=debug",
        );
    }
    let filter = if directives.is_empty() { default_level.to_owned() } else { directives.join(",") };
    let names_never_logged = directives.iter().any(|directive| directive.starts_with(NEVER_LOGGED));
    // So that the filter does not hide the warning about itself.
    let warning = if names_never_logged { ",session_invite::telemetry=warn" } else { "" };
    EnvFilter::try_new(format!("{filter},{ALWAYS}{warning}"))
        .map(|filter| LogFilter { filter, names_never_logged })
        .map_err(|_| "is not a filter such as info, or warn,session_invite=debug")
}

/// Whether the directive is a level, a crate, or more than one word.
fn is_known(directive: &str) -> bool {
    let crate_name = directive.split("::").next().unwrap_or_default();
    directive.contains(['=', '['])
        || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive))
        || is_crate(crate_name)
}

fn is_crate(name: &str) -> bool {
    CRATES.lines().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_crates_and_directives_are_filters() {
        for good in [
            "",
            " ",
            ",",
            "info",
            "WARN",
            "off",
            "session_invite",
            "sqlx",
            "session_invite::queue",
            "lapin,info",
            " warn , session_invite=debug ",
            "hyper=trace",
            "anything=debug",
            "[span]",
            "info,x[span{a=1}]=trace",
        ] {
            assert!(parse(good, "info").is_ok(), "{good:?}");
        }
    }

    #[test]
    fn other_words_are_refused() {
        for bad in [
            "erorr",
            "info,SECRET",
            "warning",
            "session-invite",
            "5",
            "true",
            "info debug",
            "x=erorr",
            "all",
            "proptest",
            "windows_sys",
        ] {
            let fault = parse(bad, "info").unwrap_err();
            assert!(!fault.contains("SECRET"), "{bad}");
        }
    }

    #[test]
    fn an_empty_filter_is_the_default_level() {
        for empty in ["", ",", " , "] {
            assert_eq!(
                parse(empty, "warn").unwrap().filter.to_string(),
                parse("warn", "info").unwrap().filter.to_string()
            );
        }
    }

    #[test]
    fn a_filter_that_names_the_amqp_client_is_noticed() {
        for (text, expected) in
            [("lapin", true), ("info,lapin::channel=trace", true), ("trace", false), ("sqlx=lapin", false)]
        {
            assert_eq!(parse(text, "info").is_ok_and(|read| read.names_never_logged), expected, "{text}");
        }
    }

    /// `cargo tree` needs the sources of the crates, but no network. Without cargo the test compares nothing.
    #[test]
    fn the_list_of_crates_is_that_of_cargo_tree() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let tree = "tree --package session-invite --offline --locked -e normal,no-proc-macro --target x86_64-unknown-linux-gnu --prefix none --format {lib}";
        let output = std::process::Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(tree.split(' '))
            .output();
        let Ok(output) = output.map_err(|error| eprintln!("not compared: {error}")) else { return };
        if !output.status.success() {
            eprintln!("not compared: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        let output = String::from_utf8(output.stdout).unwrap();
        let names = output.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
        let expected: std::collections::BTreeSet<_> = names.collect();
        let listed: std::collections::BTreeSet<_> = CRATES.lines().collect();
        assert_eq!(
            listed, expected,
            "write the list again: cargo {tree} | sed 's/ .*//' | grep . | sort -u > src/config/crates.txt"
        );
    }
}
