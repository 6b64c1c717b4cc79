//! The processes of the program, workers and gateways: started, killed, frozen, watched.

use crate::{options::Surroundings, plan::Server, tunnel::Tunnel};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use test_support::process::{peak, process_start, signal};
use tokio::time::sleep;

/// How often processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a worker may take to end after SIGTERM: SHUTDOWN_GRACE, a second to hand back, and a margin.
pub const ENDS_WITHIN: Duration = Duration::from_secs(15);
const SIGTERM: i32 = 15;
/// How long a process may take to listen to signals.
const YOUNG: Duration = Duration::from_secs(2);
pub const GRACE: &str = "5s";

/// The place of one worker or gateway: its processes follow each other there.
pub struct Place {
    index: usize,
    /// `worker` or `gateway`.
    command: &'static str,
    program: PathBuf,
    environment: Vec<(String, String)>,
    logs: PathBuf,
    undo: PathBuf,
    tunnels: [Tunnel; 3],
    state: Mutex<State>,
}

/// Those that there are, for whoever has to end them.
#[derive(Default)]
pub struct Places(Mutex<Vec<Arc<Place>>>);

impl Places {
    pub fn add(&self, place: Arc<Place>) {
        self.0.lock().expect("nobody panics over a worker").push(place);
    }

    pub fn all(&self) -> Vec<Arc<Place>> {
        self.0.lock().expect("nobody panics over a worker").clone()
    }

    /// Those of one command.
    pub fn of(&self, command: &str) -> Vec<Arc<Place>> {
        self.all().into_iter().filter(|place| place.command == command).collect()
    }
}

#[derive(Default)]
struct State {
    child: Option<Child>,
    /// Counts the processes.
    generation: u32,
    started: Option<Instant>,
    frozen: bool,
    /// Whether its end was asked for.
    ending: bool,
    /// No process follows this one.
    closed: bool,
    /// The largest resident memory of any process so far, in KiB.
    peak: u64,
    faults: Vec<String>,
}

impl Place {
    /// With tunnels to the servers; `environment` is all but their URLs.
    pub async fn new(
        index: usize,
        command: &'static str,
        surroundings: &Surroundings,
        provider: &str,
        mut environment: Vec<(String, String)>,
        logs: PathBuf,
    ) -> std::io::Result<Arc<Self>> {
        let tunnels = [
            Tunnel::to(&surroundings.broker).await?,
            Tunnel::to(&surroundings.database).await?,
            Tunnel::to(provider).await?,
        ];
        for (name, tunnel) in ["AMQP_URL", "DATABASE_URL", "SMS_BASE_URL"].into_iter().zip(&tunnels) {
            environment.insert(0, (name.to_owned(), tunnel.url.clone()));
        }
        let (program, undo) = (surroundings.program.clone(), surroundings.run.join("undo"));
        let place =
            Self { index, command, program, environment, logs, undo, tunnels, state: Mutex::default() };
        Ok(Arc::new(place))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics over a worker")
    }

    fn log(&self, generation: u32) -> PathBuf {
        self.logs.join(format!("{}-{}-{generation}.log", self.command, self.index))
    }

    /// Starts a process in an environment that holds the settings and nothing else, away from any `.env` file.
    pub fn start(&self) {
        let mut state = self.state();
        // Another fault may have been quicker.
        if state.closed || state.child.is_some() {
            return;
        }
        state.generation += 1;
        let log = File::create(self.log(state.generation)).expect("a log can be written");
        let child = Command::new(&self.program)
            .arg(self.command)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a worker starts");
        self.note(child.id());
        state.child = Some(child);
        state.started = Some(Instant::now());
        (state.frozen, state.ending) = (false, false);
    }

    /// In the undo log, for when this program is killed.
    fn note(&self, pid: u32) {
        let Some(started) = process_start(pid) else { return };
        let mut undo = OpenOptions::new().append(true).open(&self.undo).expect("there is an undo log");
        writeln!(undo, "process worker {pid} {started}").expect("the undo log can be written");
    }

    /// Looks at the process now and then: its memory, and whether it ended unasked. Ends with [`Self::close`].
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            let mut state = self.state();
            if state.closed {
                return;
            }
            let State { child: Some(child), ending, generation, .. } = &mut *state else { continue };
            let (pid, ending, generation) = (child.id(), *ending, *generation);
            if let Ok(Some(status)) = child.try_wait() {
                if ending {
                    continue;
                }
                state.faults.push(format!(
                    "{} {} ended unasked with {status} ({})",
                    self.command,
                    self.index,
                    self.log(generation).display()
                ));
                state.child = None;
                drop(state);
                self.start();
            } else {
                state.peak = state.peak.max(peak(pid).unwrap_or_default());
            }
        }
    }

    /// SIGKILL, and a new process at once.
    pub fn kill(&self) {
        self.end_now();
        self.start();
    }

    fn end_now(&self) {
        let mut state = self.state();
        state.ending = true;
        if let Some(mut child) = state.child.take() {
            state.peak = state.peak.max(peak(child.id()).unwrap_or_default());
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and a new process when it has ended. That has to be in time, and well.
    pub async fn term(&self) {
        self.end_well().await;
        self.start();
    }

    async fn end_well(&self) {
        self.thaw();
        let generation = {
            let mut state = self.state();
            if state.ending {
                // A second signal would end it at once.
                return;
            }
            state.ending = true;
            let generation = state.generation;
            if let Some(child) = &state.child {
                signal(child.id(), "TERM");
            }
            generation
        };
        let begun = Instant::now();
        while begun.elapsed() < ENDS_WITHIN {
            sleep(LOOK_EVERY / 5).await;
            let mut state = self.state();
            if state.generation != generation {
                return;
            }
            let Some(child) = &mut state.child else { return };
            if let Ok(Some(status)) = child.try_wait() {
                state.child = None;
                // A process that has just begun does not know of SIGTERM yet.
                let young = state.started.is_some_and(|started| begun - started < YOUNG);
                let died_young = young && status.signal() == Some(SIGTERM);
                if !status.success() && !died_young {
                    state.faults.push(format!(
                        "{} {} ended with {status} after SIGTERM ({})",
                        self.command,
                        self.index,
                        self.log(generation).display()
                    ));
                }
                return;
            }
            // A SIGSTOP that came meanwhile would be waited for in vain.
            if state.frozen {
                drop(state);
                self.thaw();
            }
        }
        self.state().faults.push(format!(
            "{} {} does not end within {ENDS_WITHIN:?} of SIGTERM ({})",
            self.command,
            self.index,
            self.log(generation).display()
        ));
        self.end_now();
    }

    /// SIGSTOP, and SIGCONT after so long.
    pub async fn freeze(&self, length: Duration) {
        let generation = {
            let mut state = self.state();
            let Some(child) = &state.child else { return };
            signal(child.id(), "STOP");
            state.frozen = true;
            state.generation
        };
        sleep(length).await;
        if self.state().generation == generation {
            self.thaw();
        }
    }

    fn thaw(&self) {
        let mut state = self.state();
        if let Some(child) = state.child.as_ref().filter(|_| state.frozen) {
            signal(child.id(), "CONT");
        }
        state.frozen = false;
    }

    pub fn cut(&self, server: Server) {
        self.tunnels[server as usize].cut();
    }

    pub fn stall(&self, server: Server, length: Duration) {
        self.tunnels[server as usize].stall(length);
    }

    /// Whether `/readyz` says 200.
    pub async fn is_ready(&self) -> bool {
        let path = self.log(self.state().generation);
        let log = tokio::fs::read_to_string(path).await.unwrap_or_default();
        let address =
            log.lines().find_map(|line| line.split_once("addr=")).map(|(_, address)| address.trim());
        let Some(address) = address else { return false };
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
        let asked = client.expect("an HTTP client").get(format!("http://{address}/readyz")).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Ends the last process well, by SIGTERM.
    pub async fn close(&self) {
        self.end_well().await;
        self.state().closed = true;
    }

    /// Ends it, whatever it does.
    pub fn abandon(&self) {
        self.state().closed = true;
        self.end_now();
    }

    /// In KiB.
    pub fn peak(&self) -> u64 {
        self.state().peak
    }

    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }
}
