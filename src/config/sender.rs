//! Whom a text is from, as it is written.

use super::read::{Faults, given};
use clap::Args;

/// The worker's sender, for a command that only needs its name.
#[derive(Args, Clone, Debug, Default)]
pub struct OwnSenderArgs {
    #[arg(long, env = "SMS_FROM", hide = true)]
    sms_from: Option<String>,
    #[arg(long, env = "SMS_MESSAGING_SERVICE_SID", hide = true)]
    sms_messaging_service_sid: Option<String>,
}

impl OwnSenderArgs {
    /// `None` if neither is set.
    pub fn check(&self) -> Result<Option<String>, Faults> {
        let mut faults = Faults::default();
        let named =
            [("SMS_FROM", &self.sms_from), ("SMS_MESSAGING_SERVICE_SID", &self.sms_messaging_service_sid)];
        let set = named.into_iter().find(|(_, raw)| given(raw.as_ref()).is_some());
        let sender = match set {
            Some((name, raw)) => faults.read(name, raw.as_ref(), "", sender_name).map(Some),
            None => Some(None),
        };
        faults.finish(sender)
    }
}

/// A sender as the tables of limits and opt-outs name it: a number or name, a messaging service, or `*` for any.
pub fn sender_name(text: &str) -> Result<String, String> {
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
    fn a_sender_is_a_number_a_name_a_service_or_any() {
        for good in ["*", "MG00000000000000000000000000000001", "+15550001111", "12345", "My Shop"] {
            assert_eq!(sender_name(good).as_deref(), Ok(good));
        }
        for bad in ["", "+0155500", "MG-1", "a name that is too long", "1"] {
            assert!(sender_name(bad).is_err(), "{bad:?}");
        }
    }
}
