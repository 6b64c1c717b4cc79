//! Who may use the gateway's console.

use super::{
    ReplyToAllow,
    read::{Faults, nonempty},
};
use crate::masked::debug_shows;
use clap::Args;
use secrecy::SecretString;

/// Characters of `CONSOLE_TOKEN` at least and at most.
const TOKEN_CHARS: std::ops::RangeInclusive<usize> = 20..=512;

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Console")]
pub struct ConsoleArgs {
    /// The token by which operators log in at /console, 20 characters or more; without it and CONSOLE_USER_HEADER there is
    /// no console
    #[arg(long, env = "CONSOLE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub console_token: Option<String>,
    /// The header in which a proxy of TRUSTED_PROXIES names the operator, such as X-Forwarded-User [default: none]
    #[arg(long, env = "CONSOLE_USER_HEADER", hide_env_values = true, value_name = "NAME")]
    pub console_user_header: Option<String>,
    /// Where the console may replay replies to, as the workers have it [default: *]
    #[arg(long, env = "REPLY_TO_ALLOW", hide_env_values = true, value_name = "PATTERN")]
    pub reply_to_allow: Option<String>,
}

debug_shows!(ConsoleArgs { console_user_header });

/// By what an operator may come in: at least one of the two.
#[derive(Clone)]
pub struct ConsoleConfig {
    pub token: Option<SecretString>,
    /// In lower case. Only a proxy of `TRUSTED_PROXIES` is believed.
    pub user_header: Option<String>,
    pub reply_to_allow: ReplyToAllow,
}

debug_shows!(ConsoleConfig { user_header });

impl ConsoleArgs {
    /// Whether there shall be a console.
    pub(crate) fn is_set(&self) -> bool {
        [&self.console_token, &self.console_user_header]
            .into_iter()
            .any(|raw| nonempty(raw.as_ref()).is_some())
    }

    /// `Some(None)` if there shall be no console. `has_proxies` is whether `TRUSTED_PROXIES` names any.
    #[expect(clippy::option_option, reason = "a fault, no console, or who may use it")]
    pub(super) fn check(&self, faults: &mut Faults, has_proxies: bool) -> Option<Option<ConsoleConfig>> {
        let token = faults.secret("CONSOLE_TOKEN", self.console_token.as_ref())?;
        let header = nonempty(self.console_user_header.as_ref());
        let is_long = |token: &str| TOKEN_CHARS.contains(&token.chars().count());
        if token.is_some_and(|token| !is_long(token) || token.contains(char::is_control)) {
            let what = format!(
                "must have {} to {} characters; `openssl rand -base64 24` makes one",
                TOKEN_CHARS.start(),
                TOKEN_CHARS.end()
            );
            faults.add("CONSOLE_TOKEN", what);
            return None;
        }
        if header.is_some_and(|name| !is_header_name(name)) {
            faults.add("CONSOLE_USER_HEADER", "must be the name of a header, such as X-Forwarded-User");
            return None;
        }
        if header.is_some() && !has_proxies {
            let what = "needs TRUSTED_PROXIES, and there no network of all addresses: anyone could send that header and be an operator";
            faults.add("CONSOLE_USER_HEADER", what);
            return None;
        }
        let allow = faults.read("REPLY_TO_ALLOW", self.reply_to_allow.as_ref(), "*", ReplyToAllow::parse)?;
        let config = ConsoleConfig {
            reply_to_allow: allow,
            token: token.map(SecretString::from),
            user_header: header.map(str::to_ascii_lowercase),
        };
        Some((token.is_some() || header.is_some()).then_some(config))
    }
}

/// Headers that clients and proxies send for other reasons, with values that a client may choose.
const SENT_ANYWAY: [&str; 17] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "connection",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "referer",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// A token of RFC 9110, section 5.6.2, except headers that are sent anyway.
fn is_header_name(name: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_sent_anyway = SENT_ANYWAY.iter().any(|other| name.eq_ignore_ascii_case(other));
    name.len() <= 64 && name.bytes().all(is_allowed) && !is_sent_anyway
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(token: &str, header: &str, has_proxies: bool) -> Vec<String> {
        let args = ConsoleArgs {
            console_token: Some(token.to_owned()),
            console_user_header: Some(header.to_owned()),
            reply_to_allow: None,
        };
        let mut faults = Faults::default();
        let config = args.check(&mut faults, has_proxies);
        assert_eq!(config.is_none(), !faults.lines().is_empty());
        faults.lines().to_vec()
    }

    #[test]
    fn a_short_token_and_a_header_that_anyone_can_send_are_refused_without_their_values() {
        assert!(faults("", "", false).is_empty());
        assert!(faults("0123456789012345678x", "", false).is_empty());
        assert!(faults("", "X-Forwarded-User", true).is_empty());
        for (token, header, has_proxies, name) in [
            ("nineteen-characters", "", false, "CONSOLE_TOKEN"),
            ("0123456789 0123456789\u{7}", "", false, "CONSOLE_TOKEN"),
            ("", "X-Forwarded-User", false, "CONSOLE_USER_HEADER"),
            ("", "X Forwarded User", true, "CONSOLE_USER_HEADER"),
            ("", "Cookie", true, "CONSOLE_USER_HEADER"),
            ("", "X-Forwarded-For", true, "CONSOLE_USER_HEADER"),
        ] {
            let faults = faults(token, header, has_proxies);
            assert!(faults.len() == 1 && faults[0].starts_with(name), "{faults:?}");
            assert!(token.is_empty() || !faults[0].contains(token), "{faults:?}");
        }
    }
}
