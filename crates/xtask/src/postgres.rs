//! PostgreSQL: the one that runs, a private one, and the databases on either.

use crate::{
    installation::{Installation, ServiceHome},
    output::{say, show_end, without_password},
    packages, ports, psql,
    run::Run,
    server::{Server, Source},
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::{Result, anyhow, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const STARTS_WITHIN: Duration = Duration::from_secs(15);
/// Another process can take a free port before we do, so a failure gets a second port.
const TRIES: usize = 2;

/// The URL of the server on the default port, as the first user that may create databases.
pub(crate) fn running() -> Result<Option<String>> {
    if !ports::answers(5432) {
        return Ok(None);
    }
    psql::need()?;
    let own = shell::command("id").arg("-un").read()?;
    for user in [own.as_str(), "postgres", "postgres:postgres"] {
        let url = format!("postgres://{user}@127.0.0.1:5432/postgres");
        let may =
            psql::sql(&url, "select rolcreatedb or rolsuper from pg_roles where rolname = current_user")?;
        if may.as_deref() == Ok("t") {
            return Ok(Some(url));
        }
    }
    say(
        "PostgreSQL answers on 127.0.0.1:5432, but not to us without a password (set DATABASE_URL to use it)",
    );
    Ok(None)
}

/// Installs the server's programs, unless they are there: some tests start servers of their own.
pub(crate) fn need_programs() -> Result<()> {
    if find_programs(Path::new("/")).is_none() { packages::install(&["postgresql"]) } else { Ok(()) }
}

/// Starts a private server, and gives its URL.
pub(crate) fn start_private(run: &Run, installation: &Installation) -> Result<String> {
    if find_programs(&installation.root).is_none() {
        packages::install(&["postgresql"])?;
    }
    psql::need()?;
    let begun = Instant::now();
    let programs = find_programs(&installation.root).ok_or_else(|| anyhow!("the package has no initdb"))?;
    let home = installation.make_home(run, "postgres", "postgres")?;
    let data = home.directory.join("data").display().to_string();
    init_data(run, &home, &programs, &data)?;
    for _ in 0..TRIES {
        let port = ports::free()?;
        let socket = format!("unix_socket_directories={}", home.directory.display());
        let (program, port_text) = (format!("{programs}/postgres"), port.to_string());
        let own = [
            &program,
            "-D",
            &data,
            "-p",
            &port_text,
            "-h",
            "127.0.0.1",
            "-c",
            &socket,
            "-c",
            "max_connections=500",
        ];
        let mut words = home.as_service.clone();
        words.extend(own.map(str::to_owned));
        let process = run.start("postgres", &words, &[])?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        if run.wait_for(&process, STARTS_WITHIN, || matches!(psql::sql(&url, "select 1"), Ok(Ok(_))))? {
            say(format!("PostgreSQL: a private one, 127.0.0.1:{port} ({} ms)", begun.elapsed().as_millis()));
            return Ok(url);
        }
    }
    bail!("the private PostgreSQL did not start in {TRIES} tries")
}

pub(crate) fn init_data(run: &Run, home: &ServiceHome, programs: &str, data: &str) -> Result<()> {
    if Path::new(data).join("PG_VERSION").exists() {
        return Ok(());
    }
    let log = run.log("initdb");
    let program = format!("{programs}/initdb");
    let words = home.as_service_do([&program, "--pgdata", data, "--username", "postgres", "--auth", "trust"]);
    if !shell::of_words(&words).args(["--encoding", "UTF8", "--locale", "C.UTF-8"]).logs_to(&log)? {
        show_end(&log, 5);
        bail!("initdb failed");
    }
    Ok(())
}

/// The folder of the newest version's programs, as it is seen within the installation.
pub(crate) fn find_programs(root: &Path) -> Option<String> {
    let versions = fs::read_dir(root.join("usr/lib/postgresql")).ok()?.flatten();
    let newest = versions
        .filter(|version| version.path().join("bin/initdb").exists())
        .filter_map(|version| version.file_name().into_string().ok())
        .max_by_key(|version| version.parse::<u32>().unwrap_or_default())?;
    Some(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// Makes a database unless it is there, and gives its URL. Our own servers take their databases along.
pub(crate) fn make_database(run: &Run, server: &Server, name: &str) -> Result<String> {
    psql::need()?;
    let shown = without_password(&server.url);
    let there =
        psql::sql(&server.url, &format!("select count(*) from pg_database where datname = '{name}'"))?;
    let there = there.map_err(|error| anyhow!("cannot use {shown}: {}", cause(&error)))?;
    if server.source == Source::Running {
        run.note_data(Resource::Database { server: server.url.clone(), name: name.to_owned() })?;
    }
    if there == "0" {
        psql::sql(&server.url, &format!("create database \"{name}\""))?
            .map_err(|error| anyhow!("cannot create a database on {shown}: {}", cause(&error)))?;
    }
    Ok(with_database(&server.url, name))
}

/// The first line of what `psql` complains of, without where that was.
fn cause(error: &str) -> &str {
    error.rsplit(":  ").next().unwrap_or(error).lines().next().unwrap_or_default()
}

/// The same server's URL with another database; its options stay.
fn with_database(url: &str, name: &str) -> String {
    let (address, options) =
        url.split_once('?').map_or((url, String::new()), |(url, rest)| (url, format!("?{rest}")));
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{authority}/{name}{options}")
}

/// Runs all migrations by `psql`.
pub(crate) fn migrate(url: &str) -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir("migrations")?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|it| it == "sql") && !file.to_string_lossy().ends_with(".down.sql")
    });
    files.sort();
    for file in files {
        shell::command("psql")
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url, "--file"])
            .arg(file)
            .read()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urls_database_is_replaced_and_its_options_stay() {
        for (url, expected) in [
            ("postgres://me:pw@127.0.0.1:5432/postgres", "postgres://me:pw@127.0.0.1:5432/mine"),
            ("postgres://127.0.0.1", "postgres://127.0.0.1/mine"),
            ("postgresql://h/x?sslmode=require&a=/b", "postgresql://h/mine?sslmode=require&a=/b"),
        ] {
            assert_eq!(with_database(url, "mine"), expected);
        }
    }

    #[test]
    fn a_complaint_is_cut_to_its_cause() {
        let error =
            "psql: error: connection to server at \"127.0.0.1\", port 1 failed: FATAL:  no such role\nmore\n";
        assert_eq!(cause(error), "no such role");
        assert_eq!(cause("psql: refused\n"), "psql: refused");
        assert_eq!(cause(""), "");
    }
}
