//! Secrets on the command line: given as they are, in a file, on standard input, or made here.

use super::WrongUsage;
use crate::pasted;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use std::{convert::Infallible, fs, io, path::PathBuf, str::FromStr};

/// Where a secret comes from: itself, `@FILE`, or `-` for standard input.
#[derive(Debug, Clone)]
pub(super) enum SecretInput {
    Given(SecretString),
    File(PathBuf),
    Stdin,
}

impl FromStr for SecretInput {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(path)) => Self::File(path.into()),
            _ => Self::Given(text.into()),
        })
    }
}

/// A secret, and whether it was given or made by this process.
#[derive(Debug)]
pub(super) enum Secret {
    Given(SecretString),
    Made(SecretString),
}

impl Secret {
    /// Reads the secret of the flag, or makes one: 32 random bytes in base64url.
    ///
    /// # Errors
    ///
    /// A file or standard input that cannot be read; an empty secret, or one with invisible characters or white space at its
    /// ends.
    pub(super) fn read_or_make(flag: &str, input: Option<&SecretInput>) -> Result<Self, WrongUsage> {
        let Some(input) = input else {
            return Ok(Self::Made(BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into()));
        };
        let wrong = |why: String| WrongUsage::of(flag, &why);
        let secret = match input {
            SecretInput::Given(secret) => secret.clone(),
            SecretInput::File(path) => {
                let unreadable = |error| wrong(format!("cannot read {}: {error}", path.display()));
                without_newline(&fs::read_to_string(path).map_err(unreadable)?)
            }
            SecretInput::Stdin => {
                let unreadable = |error| wrong(format!("cannot read standard input: {error}"));
                without_newline(&io::read_to_string(io::stdin()).map_err(unreadable)?)
            }
        };
        if secret.expose_secret().is_empty() {
            return Err(wrong(format!(
                "the secret is empty; give one, or leave {flag} out to have one made"
            )));
        }
        if let Some(stray) = pasted::unseen(secret.expose_secret()) {
            return Err(wrong(format!(
                "the secret has {stray}, so no credential would ever match it; take it out"
            )));
        }
        Ok(Self::Given(secret))
    }

    pub(super) fn secret(&self) -> &SecretString {
        match self {
            Self::Given(secret) | Self::Made(secret) => secret,
        }
    }

    /// The secret in clear text, to be shown this once, if it was made here.
    pub(super) fn made(&self) -> Option<&str> {
        match self {
            Self::Made(secret) => Some(secret.expose_secret()),
            Self::Given(_) => None,
        }
    }
}

/// Without the one line ending that editors and `echo` leave.
fn without_newline(text: &str) -> SecretString {
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    text.to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_given_read_or_made() {
        let path = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
        fs::write(&path, "from a file\r\n").unwrap();
        for (text, expected) in [("plain", "plain"), (format!("@{}", path.display()).as_str(), "from a file")]
        {
            let input = text.parse().unwrap();
            let secret = Secret::read_or_make("--api-key", Some(&input)).unwrap();
            assert_eq!(secret.secret().expose_secret(), expected);
            assert_eq!(secret.made(), None);
        }
        fs::remove_file(path).unwrap();
        assert_eq!(Secret::read_or_make("--api-key", None).unwrap().made().unwrap().len(), 43);
    }

    #[test]
    fn an_invisible_character_is_refused_by_name_and_the_secret_is_not_shown() {
        let path = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
        for (text, named) in [
            ("\u{feff}5ECRET", "U+FEFF"),
            ("5EC\u{200b}RET", "U+200B"),
            ("5ECRET ", "U+0020"),
            ("\t5ECRET", "U+0009"),
            ("5ECRET\n\n", "U+000A"),
            ("5ECRET\u{a0}", "U+00A0"),
        ] {
            fs::write(&path, text).unwrap();
            for (flag, input) in
                [("--api-key", format!("@{}", path.display())), ("--jwt-secret", text.to_owned())]
            {
                let error =
                    Secret::read_or_make(flag, Some(&input.parse().unwrap())).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{flag}: ")) && error.contains(named), "{error}");
                assert!(!error.contains("5EC") && !error.contains("RET"), "{error}");
            }
        }
        fs::write(&path, "\"a key\"\n").unwrap();
        let quoted = format!("@{}", path.display()).parse().unwrap();
        assert!(Secret::read_or_make("--api-key", Some(&quoted)).is_ok());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_empty_secret_is_refused_by_its_flag() {
        let error = Secret::read_or_make("--api-key", Some(&"".parse().unwrap())).unwrap_err();
        assert!(error.to_string().starts_with("--api-key: the secret is empty"));
    }
}
