//! Variables whose names are almost those of settings. A setting with a wrong name has no effect, and nothing else tells why.

use std::{collections::BTreeSet, fmt};

/// A variable that no setting is named after, and the setting that it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MisspeltSetting {
    pub(crate) name: String,
    pub(crate) setting: String,
}

impl fmt::Display for MisspeltSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, setting } = self;
        write!(f, "{name} is set, and no setting has that name; {setting}, which is similar, is not set")
    }
}

/// Those of the environment. `settings` are the names of all settings.
pub(crate) fn misspelt_settings(settings: &BTreeSet<String>) -> Vec<MisspeltSetting> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = set.filter_map(|(name, _)| name.into_string().ok());
    let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    among(&names.filter(is_name).collect(), settings)
}

/// A setting that is set itself is not looked for under another name: a platform may set both.
fn among(names: &BTreeSet<String>, settings: &BTreeSet<String>) -> Vec<MisspeltSetting> {
    let missing: Vec<_> = settings.difference(names).collect();
    let unknown = names.difference(settings);
    unknown
        .filter_map(|name| {
            let nearest = missing.iter().min_by_key(|setting| distance(name, setting))?;
            let is_near = distance(name, nearest) <= allowed(nearest);
            is_near.then(|| MisspeltSetting { name: name.clone(), setting: (*nearest).clone() })
        })
        .collect()
}

/// The number of letters that are wrong, without regard to case.
fn distance(name: &str, setting: &str) -> usize {
    strsim::damerau_levenshtein(&name.to_ascii_uppercase(), setting)
}

/// One letter of a short name makes another word, as in `SMS_FROM`.
const fn allowed(setting: &str) -> usize {
    if setting.len() < 10 { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<(String, String)> {
        let settings = ["SMS_TIMEOUT", "SMS_FROM", "AMQP_URL", "PREFETCH", "HTTP_ADDR", "RETENTION"];
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let found = among(&set(names), &set(&settings));
        found.into_iter().map(|found| (found.name, found.setting)).collect()
    }

    #[test]
    fn a_name_with_a_wrong_letter_is_found() {
        for (name, setting) in [
            ("SMS_TIMOUT", "SMS_TIMEOUT"),
            ("SMS_TIME_OUT", "SMS_TIMEOUT"),
            ("SMS_FORM", "SMS_FROM"),
            ("AMQP_URI", "AMQP_URL"),
            ("PREFECTH", "PREFETCH"),
            ("sms_timeout", "SMS_TIMEOUT"),
        ] {
            assert_eq!(found(&[name]), [(name.to_owned(), setting.to_owned())]);
        }
    }

    #[test]
    fn other_names_are_not() {
        let names =
            ["PATH", "HOME", "SMTP_FROM_NAME", "HTTP_PROXY", "AMQPS", "RETENTION_DAYS", "SMS_TIMEOUT"];
        assert_eq!(found(&names), []);
        assert_eq!(found(&["AMQP_URI", "AMQP_URL"]), []);
    }
}
