//! A worker process.

use super::{DEADLINE, command::program, until};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Lines of standard error, of one worker or of several.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no reader panics").clone()
    }

    fn push(&self, line: String) {
        self.0.lock().expect("no reader panics").push(line);
    }
}

/// Killed when it is dropped.
pub struct Worker {
    child: Child,
    log: Log,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts one, whose log goes to `all` as well.
    pub fn spawn(environment: &[(String, String)], all: &Log) -> Self {
        Self::spawn_as("worker", environment, all)
    }

    /// Another command that goes on until it is stopped.
    pub fn spawn_as(command: &str, environment: &[(String, String)], all: &Log) -> Self {
        let mut program = program(environment);
        program.arg(command);
        Self::run(program, all)
    }

    /// The same with so many open files at most.
    pub fn spawn_with_files(command: &str, files: u32, environment: &[(String, String)], all: &Log) -> Self {
        let whole = program(environment);
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" {command}")).arg(whole.get_program());
        limited.env_clear().envs(environment.iter().cloned()).current_dir("/").stdin(Stdio::null());
        Self::run(limited, all)
    }

    fn run(mut program: Command, all: &Log) -> Self {
        let mut child = program.stderr(Stdio::piped()).spawn().expect("a worker starts");
        let stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        let (log, all) = (Log::default(), all.clone());
        let own = log.clone();
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                own.push(line.clone());
                all.push(line);
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Waits until its log says so.
    pub async fn says(&self, what: &str) {
        let said = || async { self.log().contains(what).then_some(()) };
        until(&format!("the worker says {what:?}"), said).await;
    }

    /// Where it answers `/readyz`.
    pub async fn address(&self) -> String {
        let listening = |line: String| Some(line.split_once("addr=")?.1.trim().to_owned());
        until("the worker listens", || async { self.log.lines().into_iter().find_map(listening) }).await
    }

    /// The answer to a `GET` of it.
    pub async fn ask(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address().await);
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        client.get(url).send().await.expect("the worker answers")
    }

    /// The status of a `GET` of it.
    pub async fn get(&self, path: &str) -> u16 {
        self.ask(path).await.status().as_u16()
    }

    /// Waits until it consumes and reaches the database.
    pub async fn ready(&mut self) {
        let begun = Instant::now();
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("the worker ended with {status}:\n{}", self.log());
            }
            let address =
                self.log.lines().into_iter().find_map(|l| Some(l.split_once("addr=")?.1.to_owned()));
            if let Some(address) = address {
                let asked = client.get(format!("http://{}/readyz", address.trim())).send().await;
                if asked.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
            }
            assert!(begun.elapsed() < DEADLINE, "the worker is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it has no invite in hand.
    pub async fn idle(&self) {
        until("nothing is in hand", || async {
            let metrics = self.ask("/metrics").await.text().await.expect("text");
            metrics.lines().any(|line| line == "session_invite_invites_in_flight 0").then_some(())
        })
        .await;
    }

    /// Whether it stands still, by a signal.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// `TERM`, `INT`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.expect("a shell starts").success(), "the worker takes SIG{name}");
    }

    /// As the kernel does when memory runs out.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the log's reader does not panic");
                }
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the worker does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to stop, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
