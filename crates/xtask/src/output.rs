//! What people read: progress on standard output, failures as one line on standard error.

use anyhow::{Context, Result};
use std::{
    fs,
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

static IN_STEP: AtomicBool = AtomicBool::new(false);
static TO_STANDARD_ERROR: AtomicBool = AtomicBool::new(false);

/// Standard output is left to the command that runs.
pub(crate) fn use_standard_error() {
    TO_STANDARD_ERROR.store(true, Relaxed);
}

/// Whether a step runs, whose output is indented under its label.
pub(crate) fn is_in_step() -> bool {
    IN_STEP.load(Relaxed)
}

/// Prints lines. A reader that has gone away does not matter.
pub(crate) fn say(text: impl AsRef<str>) {
    let indent = if is_in_step() { "    " } else { "" };
    for line in text.as_ref().split('\n') {
        let line = if line.is_empty() { "" } else { &format!("{indent}{line}") };
        if TO_STANDARD_ERROR.load(Relaxed) {
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

/// Does the work, with its output indented under the label, and prints how long it took. An error names the step.
pub(crate) fn step<T>(label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    say(format!("\n— {label}"));
    IN_STEP.store(true, Relaxed);
    let result = work();
    if result.is_ok() {
        let took = begun.elapsed();
        say(format!("({}.{} s)", took.as_secs(), took.subsec_millis() / 100));
    }
    IN_STEP.store(false, Relaxed);
    result.with_context(|| format!("failed at: {label}"))
}

/// Prints the last lines of a log on standard error.
pub(crate) fn show_end(log: &Path, lines: usize) {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        eprintln!("    {line}");
    }
}

/// A URL without its password.
pub(crate) fn without_password(url: &str) -> String {
    let masked = || {
        let (scheme, rest) = url.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        let (user_info, _) = authority.rsplit_once('@')?;
        let (user, _) = user_info.split_once(':')?;
        Some(format!("{scheme}://{user}:***{}", &rest[user_info.len()..]))
    };
    masked().unwrap_or_else(|| url.to_owned())
}

/// A word for a shell, quoted where it has to be.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_./:@%+=,-".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A JSON object with each field on a line of its own. A quote inside a value has a backslash before it, so only names
/// match.
pub(crate) fn field_a_line(json: &str) -> String {
    let mut lines = String::new();
    for (place, part) in json.split(",\"").enumerate() {
        let name = part.split_once("\":").map_or("", |(name, _)| name);
        let is_name =
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '_');
        match place {
            0 => {}
            _ if is_name => lines.push_str(",\n  \""),
            _ => lines.push_str(",\""),
        }
        lines.push_str(part);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            ("postgres://me:secret@127.0.0.1:5432/x", "postgres://me:***@127.0.0.1:5432/x"),
            ("postgres://me:s@crt@127.0.0.1/x", "postgres://me:***@127.0.0.1/x"),
            ("postgres://root@127.0.0.1/x", "postgres://root@127.0.0.1/x"),
            ("amqp://guest:guest@127.0.0.1:5672/%2f", "amqp://guest:***@127.0.0.1:5672/%2f"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_it_otherwise() {
        assert_eq!(quoted("amqp://guest:guest@127.0.0.1:5672/%2f"), "amqp://guest:guest@127.0.0.1:5672/%2f");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn fields_are_put_on_lines_and_values_are_not() {
        let json = r#"{"to":"+1","text":"a,\"b\":c","sent_at":1}"#;
        assert_eq!(field_a_line(json), "{\"to\":\"+1\",\n  \"text\":\"a,\\\"b\\\":c\",\n  \"sent_at\":1}");
    }
}
