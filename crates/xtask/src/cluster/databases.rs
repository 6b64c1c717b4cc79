//! The database nodes: a primary, and a standby that copies it.

use super::network::{DATABASES, Network};
use crate::{
    installation::Installation,
    output::{say, show_end},
    packages,
    postgres::{find_programs, init_data},
    psql,
    run::Run,
    shell::{self, RunToEnd as _},
};
use anyhow::{Result, anyhow, bail};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Starts the first node as the primary and the second as its standby. Gives the primary's URL.
pub(super) fn start(run: &Run, installation: &Installation, network: &Network) -> Result<String> {
    if find_programs(&installation.root).is_none() {
        packages::install(&["postgresql"])?;
    }
    psql::need()?;
    let begun = Instant::now();
    let programs = find_programs(&installation.root).ok_or_else(|| anyhow!("the package has no initdb"))?;
    for index in 0..DATABASES {
        let (place, peer) = (network.database(index), network.database((index + 1) % DATABASES));
        let installation = installation.behind(&place.within());
        let home = installation.make_home(run, &place.name, "postgres")?;
        let data = home.directory.join("data").display().to_string();
        let script = "find \"$1\" -mindepth 1 -delete 2>/dev/null; exec \"$2\" --pgdata \"$1\" --checkpoint fast \
                      --wal-method stream --write-recovery-conf --dbname \"$3\"";
        let source = format!("host={} user=postgres application_name=standby", peer.address);
        let copying = home.as_service_do([
            "sh",
            "-c",
            script,
            "sh",
            &data,
            &format!("{programs}/pg_basebackup"),
            &source,
        ]);
        fs::write(copy_file(run, &place.name), copying.join("\0"))?;
        if index == 0 {
            init_data(run, &home, &programs, &data)?;
            // Only this run's network is behind that address.
            let mut access = OpenOptions::new().append(true).open(format!("{data}/pg_hba.conf"))?;
            let range = network.range();
            write!(access, "host all all {range} trust\nhost replication all {range} trust\n")?;
        } else {
            copy(run, &place.name)?;
        }
        let program = format!("{programs}/postgres");
        let mut words = home.as_service_do([&program, "-D", &data, "-p", "5432", "-h", &place.address]);
        let settings = [
            // A killed server would leave a socket's lock, with the id of a process that its parent still knows.
            "unix_socket_directories=",
            "max_connections=200",
            "wal_keep_size=512MB",
            // A standby that was cut off comes back soon after the cut.
            "wal_sender_timeout=5s",
            "wal_receiver_timeout=5s",
            "wal_retrieve_retry_interval=500ms",
            "cluster_name=soak",
        ];
        words.extend(settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        let process = run.start(&place.name, &words, &[])?;
        let url = format!("postgres://postgres@{}:5432/postgres", place.address);
        if !run.wait_for(&process, STARTS_WITHIN, || matches!(psql::sql(&url, "select 1"), Ok(Ok(_))))? {
            bail!("the database node {} did not start", place.name);
        }
    }
    say(format!("PostgreSQL: a primary and a standby ({} ms)", begun.elapsed().as_millis()));
    Ok(format!("postgres://postgres@{}:5432/postgres", network.database(0).address))
}

fn copy_file(run: &Run, name: &str) -> PathBuf {
    run.directory.join(format!("{name}.copy"))
}

/// Replaces the data of a node that does not run by a copy of the other's.
pub(crate) fn copy(run: &Run, name: &str) -> Result<()> {
    let words = fs::read_to_string(copy_file(run, name))?;
    let words: Vec<String> = words.split('\0').map(str::to_owned).collect();
    let log = run.log(&format!("{name}-copy"));
    if !shell::of_words(&words).logs_to(&log)? {
        show_end(&log, 5);
        bail!("pg_basebackup for {name} failed");
    }
    Ok(())
}
