//! Turning raw text into typed values. Faults are collected, so that one run shows them all.

use super::secret_file;
use std::{collections::HashMap, fmt, time::Duration};

/// The faults of the configuration, a line for each; and the defaults that are in force.
#[derive(Debug, Default)]
pub struct Faults {
    lines: Vec<String>,
    defaults: HashMap<String, String>,
}

impl Faults {
    pub fn add(&mut self, name: &str, what: impl fmt::Display) {
        self.lines.push(format!("{name}: {what}"));
    }

    /// Notes the default of a setting that is not set.
    pub(super) fn note_default(&mut self, name: &str, default: &str) {
        self.defaults.insert(name.to_owned(), default.to_owned());
    }

    /// The defaults that are in force, by their settings' names.
    pub(super) fn defaults(&self) -> &HashMap<String, String> {
        &self.defaults
    }

    /// Whether the setting's value is wrong.
    pub(super) fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
    }

    /// A line for each fault.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The value, or all faults, if there are any.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.lines.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// A value that must be set. An empty variable counts as unset: Docker Compose passes an unset variable so.
    pub fn required(&mut self, name: &str, raw: Option<&String>, hint: &str) -> Option<String> {
        let value = self.secret(name, raw)?.map(str::to_owned);
        if value.is_none() {
            self.add(name, format_args!("is not set; {hint}"));
        }
        value
    }

    /// A value that may come from a file, and may be left out. `None` when the file is wrong.
    #[expect(clippy::option_option, reason = "a wrong file, no value, or the value")]
    pub(super) fn secret<'a>(&mut self, name: &str, raw: Option<&'a String>) -> Option<Option<&'a str>> {
        match secret_file::fault_of(name) {
            None => Some(nonempty(raw)),
            Some(fault) => {
                self.lines.push(fault.to_owned());
                None
            }
        }
    }

    /// A value with a default. The error of `parse` must describe a right value, and must not show the wrong one.
    pub fn read<T, E: fmt::Display>(
        &mut self,
        name: &str,
        raw: Option<&String>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let given = self.secret(name, raw)?;
        if given.is_none() && !default.is_empty() {
            self.note_default(name, default);
        }
        match parse(given.unwrap_or(default)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(name, error);
                None
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines.as_slice() {
            [one] => write!(f, "the configuration is wrong: {one}"),
            many => {
                write!(f, "the configuration is wrong in {} places:", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}

/// The text, unless it is empty.
pub(super) fn nonempty(raw: Option<&String>) -> Option<&str> {
    raw.map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// `10s`, `10m`, `24h`, `2y`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "is not a duration such as 10s, 10m or 24h".to_owned())
}

/// A duration that is at least `least` and at most `most`.
pub(super) fn duration_within(least: Duration, most: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = duration(text)?;
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        let (least, most) = (span(least), span(most));
        Err(format!("must be from {least} to {most}"))
    }
}

/// The duration in its largest whole unit, in the form that [`duration`] reads.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let whole = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{}ms", duration.as_millis()),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn whole(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match text.parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

/// A number from `least` to `most`.
pub(super) fn decimal(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> {
    move |text| match text.parse::<f64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}

/// `true` or `false`, in the spellings that people use.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// An absolute http(s) URL without query, fragment or credentials, its scheme in any case. A slash at its end is removed.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") || rest.starts_with(['/', '?', '#']) {
        return Err("must be an absolute http:// or https:// URL".to_owned());
    }
    // The URL parser would correct these, but links begin with the text as it is written.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || "\\{}<>\"".contains(c)) {
        return Err("holds white space, a backslash, a brace or a quote; percent-encode it".to_owned());
    }
    let base = format!("{scheme}://{rest}");
    let url = url::Url::parse(&base).map_err(|error| format!("is not a URL ({error})"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must have no query and no fragment".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no credentials".to_owned());
    }
    Ok(base.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_listed_together_and_name_their_variables() {
        let mut faults = Faults::default();
        faults.required("SECRETS_KEY", None, "make one with `openssl rand -base64 32`");
        faults.read("PREFETCH", Some(&"0".to_owned()), "1000", whole(1, 65_535));
        let text = faults.finish(Some(())).unwrap_err().to_string();
        assert!(
            text.contains("in 2 places") && text.contains("SECRETS_KEY") && text.contains("PREFETCH"),
            "{text}"
        );
    }

    #[test]
    fn urls_are_checked_without_showing_their_credentials() {
        assert_eq!(base_url("https://api.twilio.com/").unwrap(), "https://api.twilio.com");
        assert_eq!(base_url("HTTPS://x.example:443/P/").unwrap(), "https://x.example:443/P");
        for bad in [
            "api.twilio.com",
            "ftp://x",
            "http://u:secret@x/",
            "http://x/?a=1",
            "http://",
            "http:///x",
            "http:x",
            "https:\\\\x",
            "https://x/a b",
            "https://x /",
            "https://x/{secret}",
            "https://x\t.example",
            "",
        ] {
            let fault = base_url(bad).unwrap_err();
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let mut faults = Faults::default();
        assert_eq!(faults.read("PREFETCH", Some(&String::new()), "7", whole(1, 10)), Some(7));
    }
}
