//! libpq's variables, such as `PGHOST`, which give the values that `DATABASE_URL` leaves out.
//!
//! sqlx reads some of them itself, even empty ones and those that the URL overrides, and has no setter to undo it. So they
//! are removed from the process's environment at the start, and sqlx finds none.

use std::{collections::HashMap, ffi::OsString, sync::OnceLock};

/// The variables that are used; sqlx reads no others.
const VARIABLES: [&str; 15] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGAPPNAME",
    "PGOPTIONS",
    "PGCONNECT_TIMEOUT",
    "PGTARGETSESSIONATTRS",
];

static TAKEN: OnceLock<HashMap<&'static str, OsString>> = OnceLock::new();

/// Removes them from the environment, and keeps them for `variable`.
///
/// To be called once, before the process has a second thread.
pub(crate) fn take_libpq_variables() {
    let set = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let taken: HashMap<_, _> = set.collect();
    for name in taken.keys() {
        #[expect(unsafe_code, reason = "sqlx has no option to ignore them")]
        // SAFETY: there is no second thread yet that could read the environment meanwhile.
        unsafe {
            std::env::remove_var(name);
        }
    }
    let _ = TAKEN.set(taken);
}

/// The value of one of them, or of another variable.
pub(super) fn variable(name: &str) -> Option<OsString> {
    match TAKEN.get().and_then(|taken| taken.get(name)) {
        Some(value) => Some(value.clone()),
        None => std::env::var_os(name),
    }
}

/// Those that are set.
pub(super) fn set_variables() -> impl Iterator<Item = (&'static str, String)> {
    let value = |name| Some((name, variable(name)?.to_string_lossy().into_owned()));
    VARIABLES.into_iter().filter_map(value).filter(|(_, value)| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::database_url::SUPPORTED;
    use super::VARIABLES;

    #[test]
    fn each_variable_that_is_used_is_removed() {
        let mut used: Vec<_> = SUPPORTED
            .into_iter()
            .map(|(_, variable)| variable)
            .filter(|variable| !variable.is_empty())
            .collect();
        let mut removed = VARIABLES;
        used.sort_unstable();
        removed.sort_unstable();
        assert_eq!(used, removed);
    }
}
