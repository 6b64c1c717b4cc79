//! libpq's password file: lines of `host:port:database:user:password`, with `*` for any
//! (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).
//!
//! Not sqlx's reader: it logs the whole of a line that it cannot parse.

use secrecy::SecretString;
use std::os::unix::fs::PermissionsExt;

/// The login that needs a password.
pub(super) struct Login<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password of the first line that fits. A file that other users may read is ignored, as libpq does.
pub(super) fn find(file: &str, login: &Login<'_>) -> Option<SecretString> {
    let metadata = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            file,
            "the file of database passwords is not used: other users may read it; run chmod 600 on it"
        );
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password(line, login))
}

fn password(line: &str, login: &Login<'_>) -> Option<SecretString> {
    let port = login.port.to_string();
    // The file names a socket by its folder, or as localhost.
    let local = if login.host.starts_with('/') { "localhost" } else { login.host };
    let wanted = [&[login.host, local][..], &[&port], &[login.database], &[login.user]];
    let mut rest = line;
    for names in wanted {
        let (field, after) = field(rest)?;
        if field != "*" && !names.contains(&field.as_str()) {
            return None;
        }
        rest = after?;
    }
    field(rest).map(|(password, _)| password.into())
}

/// The text up to the next colon, and what follows the colon. A backslash escapes a colon or a backslash.
fn field(text: &str) -> Option<(String, Option<&str>)> {
    let mut field = String::new();
    let mut rest = text.char_indices();
    while let Some((at, character)) = rest.next() {
        match character {
            ':' => return Some((field, text.get(at + 1..))),
            '\\' => field.push(rest.next()?.1),
            other => field.push(other),
        }
    }
    Some((field, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let login = Login { host: "h", port: 5432, database: "d", user: "u" };
        let cases = [
            ("h:5432:d:u:pw", Some("pw")),
            ("*:*:*:*:pw", Some("pw")),
            (r"h:*:d:u:p\:w\\", Some(r"p:w\")),
            ("h:5432:d:u:pw:more", Some("pw")),
            ("h:5433:d:u:pw", None),
            ("h:5432:d:u", None),
            ("garbage", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let found = password(line, &login);
            assert_eq!(found.as_ref().map(ExposeSecret::expose_secret), expected, "{line}");
        }
        let socket = Login { host: "/run/pg", ..login };
        assert!(password("localhost:5432:d:u:pw", &socket).is_some());
    }
}
