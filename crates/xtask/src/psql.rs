//! Statements by `psql`, on any server.

use crate::{
    packages,
    shell::{self, RunToEnd as _},
};
use anyhow::Result;

/// The bare answer of a statement, or what `psql` complains of.
pub(crate) fn sql(url: &str, statement: &str) -> Result<Result<String, String>> {
    shell::command("psql")
        .args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set", "ON_ERROR_STOP=1", "--dbname", url, "--command", statement])
        .env("PGCONNECT_TIMEOUT", "5")
        .answers()
}

pub(crate) fn need() -> Result<()> {
    packages::need_command("psql", &["postgresql-client"])
}

pub(crate) fn drop_database(server: &str, name: &str) {
    // What can not be dropped has gone, or its server has.
    let _ = sql(server, &format!("drop database if exists \"{name}\" with (force)"));
}
