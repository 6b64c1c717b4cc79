//! `RUST_LOG`: tracing's filters, in which a word that is neither a level nor a crate is an error. For tracing such a word is
//! a target, so that `erorr` would mean no log at all.

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates that the program may be built of.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Nobody needs to hear that a table exists already.
const ALWAYS: &str = "sqlx::postgres::notice=warn";

/// Reads a filter; one without a word in it is `default_level`.
pub fn parse(text: &str, default_level: &str) -> Result<EnvFilter, &'static str> {
    let directives: Vec<_> =
        text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if !directives.iter().all(|directive| is_known(directive)) {
        return Err(
            "has a word that is neither a level (off, error, warn, info, debug, trace) nor the name of a crate in \
                    this program, which has _ for -; such as info, or warn,session_invite=debug",
        );
    }
    let filter = if directives.is_empty() { default_level.to_owned() } else { directives.join(",") };
    EnvFilter::try_new(format!("{filter},{ALWAYS}"))
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
    let names = LOCK.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.map(|package| package.replace('-', "_")).any(|known| known == name)
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
        for bad in
            ["erorr", "info,SECRET", "warning", "session-invite", "5", "true", "info debug", "x=erorr", "all"]
        {
            let fault = parse(bad, "info").unwrap_err();
            assert!(!fault.contains("SECRET"), "{bad}");
        }
    }

    #[test]
    fn the_default_holds_where_nothing_is_said() {
        for empty in ["", ",", " , "] {
            assert_eq!(parse(empty, "warn").unwrap().to_string(), parse("warn", "info").unwrap().to_string());
        }
    }
}
