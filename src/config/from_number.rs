//! From numbers and messaging services, as settings and options write them.

use super::read::{Faults, nonempty};
use clap::Args;

/// The worker's From number, for a command that needs no other setting of the provider.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FromNumberArgs {
    #[arg(long, env = "SMS_FROM", hide = true)]
    sms_from: Option<String>,
    #[arg(long, env = "SMS_MESSAGING_SERVICE_SID", hide = true)]
    sms_messaging_service_sid: Option<String>,
}

impl FromNumberArgs {
    /// The From number or messaging service; `None` if neither is set.
    pub(crate) fn check(&self) -> Result<Option<String>, Faults> {
        let mut faults = Faults::default();
        let named =
            [("SMS_FROM", &self.sms_from), ("SMS_MESSAGING_SERVICE_SID", &self.sms_messaging_service_sid)];
        let set = named.into_iter().find(|(_, raw)| nonempty(raw.as_ref()).is_some());
        let from = match set {
            Some((name, raw)) => faults.read(name, raw.as_ref(), "", from_number).map(Some),
            None => Some(None),
        };
        faults.finish(from)
    }
}

/// A From number as the tables of limits and opt-outs have it: a number or name, a messaging service, or `*` for any.
pub(crate) fn from_number(text: &str) -> Result<String, String> {
    let service = text.starts_with("MG") && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if text == "*" || service { Ok(text.to_owned()) } else { number_or_name(text) }
}

/// A number in E.164, a short code, or an alphanumeric sender id
/// (<https://www.twilio.com/docs/glossary/what-alphanumeric-sender-id>).
pub(super) fn number_or_name(text: &str) -> Result<String, String> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let id = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ');
    let fits = match text.strip_prefix('+') {
        Some(number) => (7..=15).contains(&number.len()) && digits(number),
        None if text.bytes().all(|b| b.is_ascii_digit()) => (3..=8).contains(&text.len()) && digits(text),
        None => text.len() <= 11 && id(text),
    };
    let rule =
        "must be a number such as +15550001111, a short code, or a name of at most 11 letters and digits";
    if fits { Ok(text.to_owned()) } else { Err(rule.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_from_number_is_a_number_a_name_a_service_or_any() {
        for good in ["*", "MG00000000000000000000000000000001", "+15550001111", "12345", "My Shop"] {
            assert_eq!(from_number(good).as_deref(), Ok(good));
        }
        for bad in ["", "+0155500", "MG-1", "a name that is too long", "1"] {
            assert!(from_number(bad).is_err(), "{bad:?}");
        }
    }
}
