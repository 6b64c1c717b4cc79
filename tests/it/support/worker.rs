//! A running worker or gateway.

use super::{DEADLINE, command::program, until};
use serde_json::Value;
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

/// A process of the program that runs until it is stopped: a worker or a gateway. It is killed when this is dropped.
pub struct Worker {
    child: Child,
    log: Log,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker, whose log goes to `all` as well.
    pub fn spawn(environment: &[(String, String)], all: &Log) -> Self {
        Self::spawn_as("worker", environment, all)
    }

    /// Starts another command that runs until it is stopped.
    pub fn spawn_as(command: &str, environment: &[(String, String)], all: &Log) -> Self {
        let mut program = program(environment);
        program.arg(command);
        Self::run(program, all)
    }

    /// The same, with a limit of open files.
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

    /// Waits until its log has this text.
    pub async fn logs(&self, text: &str) {
        let logged = || async { self.log().contains(text).then_some(()) };
        until(&format!("the log has {text:?}"), logged).await;
    }

    /// The address of `/readyz`.
    pub async fn address(&self) -> String {
        let listening = |line: String| address_in(&line);
        until("the worker listens", || async { self.log.lines().into_iter().find_map(listening) }).await
    }

    /// The answer to a `GET`.
    pub async fn fetch(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address().await);
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        client.get(url).send().await.expect("the worker answers")
    }

    /// The status of the answer to a `GET`.
    pub async fn status(&self, path: &str) -> u16 {
        self.fetch(path).await.status().as_u16()
    }

    pub async fn metrics(&self) -> String {
        self.fetch("/metrics").await.text().await.expect("the metrics are text")
    }

    /// The status and the body of `/readyz`.
    pub async fn readiness(&self) -> (u16, Value) {
        let answer = self.fetch("/readyz").await;
        let status = answer.status().as_u16();
        let body = answer.text().await.expect("the body is text");
        (status, serde_json::from_str(&body).expect("the body is JSON"))
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&mut self) {
        let begun = Instant::now();
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let mut last = "none".to_owned();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child has a status") {
                panic!("the worker ended with {status}:\n{}", self.log());
            }
            let address = self.log.lines().into_iter().find_map(|line| address_in(&line));
            if let Some(address) = address {
                let answer = client.get(format!("http://{}/readyz", address.trim())).send().await;
                last = match answer {
                    Ok(answer) if answer.status().is_success() => return,
                    Ok(answer) => answer.text().await.unwrap_or_else(|error| error.to_string()),
                    Err(error) => error.to_string(),
                };
            }
            let log = self.log();
            assert!(begun.elapsed() < DEADLINE, "the worker is not ready; /readyz: {last}\nits log:\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it processes no invite.
    pub async fn idle(&self) {
        until("no invite is in flight", || async {
            let metrics = self.metrics().await;
            metrics.lines().any(|line| line == "session_invite_invites_in_flight 0").then_some(())
        })
        .await;
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether a signal has stopped it.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child has a status").is_none()
    }

    /// `TERM`, `INT`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.expect("a shell starts").success(), "the worker takes SIG{name}");
    }

    /// SIGKILL, as the kernel sends it when memory runs out.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child has a status") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the log's reader does not panic");
                }
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the worker does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }
}

/// The address that a line of the log names, in either format.
fn address_in(line: &str) -> Option<String> {
    let text = line.split_once("addr=").map(|(_, rest)| rest.trim());
    let json = || line.split_once("\"addr\":\"").and_then(|(_, rest)| rest.split('"').next());
    text.or_else(json).map(str::to_owned)
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
