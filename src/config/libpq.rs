//! libpq's variables, such as `PGHOST`: what `DATABASE_URL` leaves out is theirs to say.
//!
//! sqlx reads some of them itself, empty and beside the URL's own, and has no setter that takes back what it has read. So
//! they are taken out of the process's environment at the start, and sqlx finds none.

use std::{collections::HashMap, ffi::OsString, sync::OnceLock};

/// Those that are obeyed; sqlx reads no others.
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

/// Takes them out of the environment, for `variable`.
///
/// To be called once, before the process has a second thread.
pub fn take_libpq_variables() {
    let set = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let taken: HashMap<_, _> = set.collect();
    for name in taken.keys() {
        #[expect(unsafe_code, reason = "sqlx cannot be told to leave them alone")]
        // SAFETY: no other thread is there yet that could read the environment meanwhile.
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

#[cfg(test)]
mod tests {
    use super::super::database_url::OBEYED;
    use super::VARIABLES;

    #[test]
    fn each_variable_that_is_obeyed_is_taken() {
        let mut obeyed: Vec<_> = OBEYED
            .into_iter()
            .map(|(_, variable)| variable)
            .filter(|variable| !variable.is_empty())
            .collect();
        let mut taken = VARIABLES;
        obeyed.sort_unstable();
        taken.sort_unstable();
        assert_eq!(obeyed, taken);
    }
}
