//! Every committed query must still be what the code and the migrations say. It needs a server for a database of its own.

use super::outcome::Outcome;
use crate::{
    failure::Failure,
    names::Names,
    postgres,
    run::Run,
    server::{Server, Source},
    shell::{self, RunToEnd as _, variable},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::Path,
    time::SystemTime,
};

pub(crate) fn check() -> Result<Outcome> {
    if !Path::new(".sqlx").is_dir() {
        return Ok(Outcome::Skipped("there is no .sqlx"));
    }
    let given = variable("DATABASE_URL");
    let Some(url) = given.map_or_else(postgres::running, |url| Ok(Some(url)))? else {
        return Ok(Outcome::Skipped("no PostgreSQL here (DATABASE_URL, or one on the default port)"));
    };
    let run = Run::begin()?;
    let server = Server { url, source: Source::Running };
    let database = postgres::make_database(&run, &server, &Names::of_run("check")?.database)?;
    postgres::migrate(&database)?;
    let fresh = run.directory.join("sqlx");
    fs::create_dir(&fresh)?;
    // The macros write what they find as they expand, so the crate must be compiled again: its own artefacts, not its
    // dependencies'. Tests hold queries too.
    for file in ["src/lib.rs", "src/main.rs"] {
        File::options().append(true).open(file)?.set_modified(SystemTime::now())?;
    }
    shell::command("cargo")
        .args(["check", "--locked", "--quiet", "--all-targets"])
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &fresh)
        .env("DATABASE_URL", &database)
        .run()?;
    let compared = shell::command("diff").args(["--recursive", "--brief", ".sqlx"]).arg(&fresh).run();
    // Exit status 1 is a difference.
    if compared.as_ref().is_err_and(|error| error.downcast_ref() == Some(&Failure::Status(1))) {
        bail!(
            ".sqlx is not what the code says: mkdir -p .sqlx && SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$PWD/.sqlx \
             DATABASE_URL=… cargo check --all-targets"
        );
    }
    compared.context(".sqlx could not be compared")?;
    Ok(Outcome::Passed)
}
