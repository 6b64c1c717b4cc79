//! `RUST_LOG`: tracing's filters, in which a word that is neither a level nor a crate is an error. For tracing such a word is
//! a target, so that `erorr` would mean no log at all.

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates in the program, by the names that its log has: of `cargo tree`, as the test below asks it.
const CRATES: &str = include_str!("crates.txt");

/// Nobody needs to hear that a table exists already.
const ALWAYS: &str = "sqlx::postgres::notice=warn";

/// What no filter turns on: the AMQP client logs a returned message whole, with keys, numbers and credentials.
pub const NEVER: &str = "lapin";

/// A filter, and whether it asks for what is [`NEVER`] logged.
#[derive(Debug)]
pub struct Read {
    pub filter: EnvFilter,
    pub asks_in_vain: bool,
}

/// Reads a filter; one without a word in it is `default_level`.
pub fn parse(text: &str, default_level: &str) -> Result<Read, &'static str> {
    let directives: Vec<_> =
        text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if !directives.iter().all(|directive| is_known(directive)) {
        return Err(
            "has a word that is neither a level (off, error, warn, info, debug, trace) nor the name of a crate in \
                    this program, which has _ for -; such as info, or warn,session_invite=debug",
        );
    }
    let filter = if directives.is_empty() { default_level.to_owned() } else { directives.join(",") };
    let asks_in_vain = directives.iter().any(|directive| is_hidden(directive));
    // Or its warning would be filtered out.
    let warning = if asks_in_vain { ",session_invite::telemetry=warn" } else { "" };
    EnvFilter::try_new(format!("{filter},{ALWAYS}{warning}"))
        .map(|filter| Read { filter, asks_in_vain })
        .map_err(|_| "is not a filter such as info, or warn,session_invite=debug")
}

/// Whether the directive is more than a word, or a word that means something.
fn is_known(directive: &str) -> bool {
    let crate_name = directive.split("::").next().unwrap_or_default();
    directive.contains(['=', '['])
        || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive))
        || is_crate(crate_name)
}

fn is_crate(name: &str) -> bool {
    CRATES.lines().any(|known| known == name)
}

/// Whether a directive asks for what is never logged.
fn is_hidden(directive: &str) -> bool {
    directive.starts_with(NEVER)
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
    fn other_words_are_none() {
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
    fn the_default_holds_where_nothing_is_said() {
        for empty in ["", ",", " , "] {
            assert_eq!(
                parse(empty, "warn").unwrap().filter.to_string(),
                parse("warn", "info").unwrap().filter.to_string()
            );
        }
    }

    #[test]
    fn what_is_never_logged_is_asked_for_in_vain() {
        for (text, in_vain) in
            [("lapin", true), ("info,lapin::channel=trace", true), ("trace", false), ("sqlx=lapin", false)]
        {
            assert_eq!(parse(text, "info").is_ok_and(|read| read.asks_in_vain), in_vain, "{text}");
        }
    }

    /// `cargo tree` needs the sources of the crates, and no network. Where there is no cargo, there is nothing to compare with.
    #[test]
    fn the_list_of_crates_is_cargos() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let tree = "tree --package session-invite --offline --locked -e normal,no-proc-macro --target x86_64-unknown-linux-gnu --prefix none --format {lib}";
        let asked = std::process::Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(tree.split(' '))
            .output();
        let Ok(asked) = asked.map_err(|error| eprintln!("not compared: {error}")) else { return };
        if !asked.status.success() {
            eprintln!("not compared: {}", String::from_utf8_lossy(&asked.stderr));
            return;
        }
        let asked = String::from_utf8(asked.stdout).unwrap();
        let names = asked.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
        let expected: std::collections::BTreeSet<_> = names.collect();
        let listed: std::collections::BTreeSet<_> = CRATES.lines().collect();
        assert_eq!(
            listed, expected,
            "make the list anew: cargo {tree} | sed 's/ .*//' | grep . | sort -u > src/config/crates.txt"
        );
    }
}
