//! PostgreSQL servers of a test's own: a primary with its standby, and others.
//!
//! The programs are the newest in `/usr/lib/postgresql`, where `./dev` looks for them too.

use crate::process::{Signal, signal};
use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

const STARTS_WITHIN: Duration = Duration::from_mins(1);
const PROGRAMS: &str = "/usr/lib/postgresql";
/// PostgreSQL refuses to be root; its package has this user.
const USER: &str = "postgres";

/// A server with its data, which are removed when this is dropped. It listens on loopback, and trusts everyone.
#[derive(Debug)]
pub struct PostgresServer {
    directory: PathBuf,
    port: u16,
    process: Option<Child>,
}

/// A primary, and a standby that follows it by streaming, asynchronously.
#[derive(Debug)]
pub struct PostgresPair {
    /// Takes writes.
    pub primary: PostgresServer,
    /// Becomes a primary by [`PostgresServer::promote`].
    pub standby: PostgresServer,
}

impl PostgresPair {
    /// Starts both. The standby follows when this returns.
    pub fn start() -> Self {
        let primary = PostgresServer::start_new();
        let mut standby = PostgresServer::without_data();
        let from = format!("host=127.0.0.1 port={} user={USER}", primary.port);
        // Streams the log, and writes the standby's settings (-R).
        let copy = ["--wal-method=stream", "--checkpoint=fast", "--no-sync", "-R", "-d", &from, "-D"];
        run(program("pg_basebackup").args(copy).arg(standby.data()));
        standby.start();
        Self { primary, standby }
    }

    /// The URL of a database, with both hosts.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{},{}/{database}", self.primary.address(), self.standby.address())
    }
}

impl PostgresServer {
    /// A server with a cluster of its own.
    pub fn start_new() -> Self {
        let mut server = Self::without_data();
        let words = ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"];
        run(program("initdb").args(words).args(["--no-sync", "--pgdata"]).arg(server.data()));
        server.start();
        server
    }

    fn without_data() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "session-invite-postgres-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(name);
        let mut making = Command::new("install");
        making.args(["--directory", "--mode=700"]);
        if is_root() {
            making.arg(format!("--owner={USER}"));
        }
        run(making.arg(&directory));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        Self { directory, port, process: None }
    }

    /// Its host and port, as `/readyz` names it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@{}/{database}", self.address())
    }

    /// Starts it, and waits until it takes connections.
    pub fn start(&mut self) {
        let sockets = format!("unix_socket_directories={}", self.directory.display());
        let settings =
            [&sockets, "max_connections=100", "fsync=off", "shared_buffers=16MB", "wal_level=replica"];
        let mut server = program("postgres");
        server.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for setting in settings {
            server.args(["-c", setting]);
        }
        let log = fs::File::create(self.directory.with_extension("log")).expect("a log can be written");
        let errors = log.try_clone().expect("a log can be written");
        self.process = Some(server.stdout(log).stderr(errors).spawn().expect("PostgreSQL starts"));
        let begun = Instant::now();
        let mut asking = program("pg_isready");
        asking.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        while !asking.status().expect("pg_isready runs").success() {
            assert!(begun.elapsed() < STARTS_WITHIN, "PostgreSQL does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes an empty database.
    pub fn create_database(&self, name: &str) {
        run(program("createdb").args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, name]));
    }

    /// Lets its connections end, sends the standby what it lacks, and ends the server.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.end(Signal::QUIT);
    }

    /// Makes a standby a primary, and waits until it is.
    pub fn promote(&self) {
        run(program("pg_ctl").args(["promote", "--wait", "--pgdata"]).arg(self.data()));
    }

    fn end(&mut self, how: Signal) {
        if let Some(mut process) = self.process.take() {
            let _ = signal(process.id(), how);
            let _ = process.wait();
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.with_extension("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_file(self.directory.with_extension("log"));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of PostgreSQL, as a user that it accepts. It ends when the thread ends that started it.
fn program(name: &str) -> Command {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten();
    let newest = versions
        .filter(|version| version.path().join("bin/initdb").exists())
        .filter_map(|version| version.file_name().into_string().ok())
        .max_by_key(|version| version.parse::<u32>().unwrap_or_default());
    let newest = newest.unwrap_or_else(|| panic!("no PostgreSQL server in {PROGRAMS}: install postgresql"));
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
    }
    command.arg("--").arg(format!("{PROGRAMS}/{newest}/bin/{name}"));
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}
