//! Secrets in files, as container platforms and systemd's credentials give them: `SECRETS_KEY_FILE` names a file that holds
//! the value of `SECRETS_KEY`, and so for each setting that is a secret.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Settings whose values are secrets, or have one in them.
pub(crate) const SECRET_SETTINGS: [&str; 8] = [
    "DATABASE_URL",
    "AMQP_URL",
    "SECRETS_KEY",
    "TWILIO_AUTH_TOKEN",
    "TWILIO_API_KEY",
    "TWILIO_API_SECRET",
    "CONSOLE_TOKEN",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// What is shown for a wrong value.
pub(super) const WRONG: &str = "[masked]: it is wrong";

/// What a file may hold at most. The longest secret is a list of URLs.
const LIMIT: u64 = 64 * 1024;

/// A setting's file, and the fault of it.
#[derive(Debug)]
struct SecretFile {
    path: PathBuf,
    fault: Option<String>,
}

static FILES: OnceLock<BTreeMap<&'static str, SecretFile>> = OnceLock::new();

/// The variable that names a setting's file.
fn variable_of(name: &str) -> String {
    format!("{name}_FILE")
}

/// Reads the files, and sets the variables whose values they hold. A fault is kept until the setting is used: a command that
/// does not need a secret works without it.
///
/// To be called once, before the process has a second thread.
pub(crate) fn read_secret_files() {
    let is_set = |value: &std::ffi::OsString| !value.as_encoded_bytes().trim_ascii().is_empty();
    let mut files = BTreeMap::new();
    for name in SECRET_SETTINGS {
        let Some(path) = std::env::var_os(variable_of(name)).filter(is_set) else { continue };
        let fault = if std::env::var_os(name).is_some_and(|value| is_set(&value)) {
            Some(format!("{name}: is set, and {} too; keep one of the two", variable_of(name)))
        } else {
            let read = secret_in(&path).map(|secret| set(name, &secret));
            read.err().map(|what| format!("{}: {what}", variable_of(name)))
        };
        files.insert(name, SecretFile { path: path.into(), fault });
    }
    let _ = FILES.set(files);
}

fn set(name: &str, secret: &str) {
    #[expect(unsafe_code, reason = "a setting is read from its variable only")]
    // SAFETY: there is no second thread yet that could read the environment meanwhile.
    unsafe {
        std::env::set_var(name, secret);
    }
}

/// The content without the one line ending that editors and `echo` leave. No error shows it.
fn secret_in(path: &OsStr) -> Result<String, String> {
    // A key in base64 ends so, and would be shown as the path if it was given instead of one.
    if !Path::new(path).is_absolute() || path.as_encoded_bytes().ends_with(b"=") {
        return Err("must be the absolute path of a file, not the secret itself".to_owned());
    }
    let shown = path.display();
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut content))
        .map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if content.len() as u64 > LIMIT {
        return Err(format!("{shown} is larger than {} KiB", LIMIT / 1024));
    }
    let text = String::from_utf8(content).map_err(|_| format!("{shown} is not UTF-8 text"))?;
    let secret = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.trim().is_empty() {
        return Err(format!("{shown} is empty"));
    }
    if secret.contains('\0') {
        return Err(format!("{shown} has a zero byte"));
    }
    Ok(secret.to_owned())
}

/// The fault of a setting's file, with the variable that has it.
pub(super) fn fault_of(name: &str) -> Option<&'static str> {
    FILES.get()?.get(name)?.fault.as_deref()
}

/// Whether the setting's value is from a file.
pub(crate) fn is_from_file(name: &str) -> bool {
    FILES.get().and_then(|files| files.get(name)).is_some_and(|file| file.fault.is_none())
}

/// The variables that name a file, and its path. A value that is no path is not shown: it may be the secret itself.
pub(crate) fn secret_files() -> Vec<(String, String)> {
    let files = FILES.get().into_iter().flatten();
    let shown = |file: &SecretFile| match &file.fault {
        Some(fault) if !fault.contains(&*file.path.to_string_lossy()) => WRONG.to_owned(),
        _ => file.path.display().to_string(),
    };
    files.map(|(name, file)| (variable_of(name), shown(file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file that is deleted when this is dropped.
    struct Written(PathBuf);

    impl Written {
        fn new(content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("secret-file-{}", uuid::Uuid::new_v4()));
            fs::write(&path, content).unwrap();
            Self(path)
        }

        fn read(&self) -> Result<String, String> {
            secret_in(self.0.as_os_str())
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_page_on_configuration_names_the_variable_of_each_secret() {
        let page = include_str!("../../docs/CONFIGURATION.md");
        for name in SECRET_SETTINGS {
            assert!(page.contains(&format!("`{}`", variable_of(name))), "{name}");
        }
    }

    #[test]
    fn one_line_ending_is_dropped_and_nothing_else() {
        for (content, secret) in
            [("a b", "a b"), ("ab\n", "ab"), ("ab\r\n", "ab"), ("ab\n\n", "ab\n"), (" $'\"\\ \n", " $'\"\\ ")]
        {
            assert_eq!(Written::new(content.as_bytes()).read().as_deref(), Ok(secret), "{content:?}");
        }
        let longest = vec![b'x'; usize::try_from(LIMIT).unwrap()];
        assert_eq!(Written::new(&longest).read().unwrap().len(), longest.len());
    }

    #[test]
    fn a_wrong_file_is_a_fault_with_its_path_and_nothing_of_its_content() {
        let too_large = b"5ECRET".repeat(11_000);
        for (content, words) in [
            (&b"5ECRET\xff"[..], "is not UTF-8 text"),
            (b"5ECRET\0", "has a zero byte"),
            (&too_large, "is larger than 64 KiB"),
            (b"", "is empty"),
            (b" \n\n", "is empty"),
        ] {
            let file = Written::new(content);
            let fault = file.read().unwrap_err();
            assert!(fault.contains(words) && fault.contains(file.0.to_str().unwrap()), "{fault}");
            assert!(!fault.contains("5ECRET"), "{fault}");
        }
        let folder = std::env::temp_dir();
        for path in [folder.join("no-such-file"), folder] {
            let fault = secret_in(path.as_os_str()).unwrap_err();
            assert!(fault.contains("cannot be read") && fault.contains(path.to_str().unwrap()), "{fault}");
        }
    }

    #[test]
    fn a_secret_that_is_given_as_the_path_is_not_shown() {
        let key = "/EVDUkVUNUVDUkVUNUVDUkVUNUVDUkVUNUVDUkVUNUU=";
        for given in ["5ECRET", "postgres://u:5ECRET@h/d", key] {
            let fault = secret_in(OsStr::new(given)).unwrap_err();
            assert!(fault.contains("absolute path") && !fault.contains(given), "{fault}");
        }
    }
}
