//! The processes of the program, workers and gateways: started, killed, stopped, watched.

use crate::{nodes, plan::ServerKind, tunnel::Tunnel};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use test_support::{
    driver::RunEnvironment,
    process::{Signal, peak_memory, process_start, signal},
};
use tokio::time::sleep;

/// How often processes are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a process may take to end after SIGTERM: SHUTDOWN_GRACE, a second to return messages, and a margin.
const TERM_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a process may take after its start to handle signals.
const SIGNAL_HANDLER_TIMEOUT: Duration = Duration::from_secs(2);
/// SHUTDOWN_GRACE of the workers and gateways.
pub(crate) const GRACE: &str = "5s";

/// One worker or gateway: when its process ends, another one follows.
pub(crate) struct ProcessSlot {
    index: usize,
    /// `worker` or `gateway`.
    command: &'static str,
    settings: Vec<(String, String)>,
    logs: PathBuf,
    undo: PathBuf,
    /// For each server, a tunnel to each of its nodes.
    tunnels: [Vec<Tunnel>; 3],
    state: Mutex<SlotState>,
}

/// All slots so far, also for the end of an interrupted soak.
#[derive(Default)]
pub(crate) struct ProcessSlots(Mutex<Vec<Arc<ProcessSlot>>>);

impl ProcessSlots {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ProcessSlot>>> {
        self.0.lock().expect("no task panics while it holds the slots")
    }

    pub(crate) fn add(&self, slot: Arc<ProcessSlot>) {
        self.lock().push(slot);
    }

    pub(crate) fn all(&self) -> Vec<Arc<ProcessSlot>> {
        self.lock().clone()
    }

    /// The slots of one command.
    pub(crate) fn of(&self, command: &str) -> Vec<Arc<ProcessSlot>> {
        self.all().into_iter().filter(|slot| slot.command == command).collect()
    }
}

#[derive(Default)]
struct SlotState {
    /// The program of the next process.
    program: PathBuf,
    child: Option<Child>,
    /// Counts the processes.
    generation: u32,
    started: Option<Instant>,
    frozen: bool,
    /// Whether the soak ends this process.
    ending: bool,
    /// No process follows this one.
    closed: bool,
    /// The largest resident memory of all processes so far, in KiB.
    peak_memory: u64,
    faults: Vec<String>,
}

impl ProcessSlot {
    /// A slot with tunnels to the servers. `settings` are all settings but the servers' URLs.
    pub(crate) async fn new(
        index: usize,
        command: &'static str,
        environment: &RunEnvironment,
        provider_url: &str,
        mut settings: Vec<(String, String)>,
        logs: PathBuf,
    ) -> std::io::Result<Arc<Self>> {
        let tunnels = [
            tunnels_to(&nodes::broker_urls(&environment.amqp_url)).await?,
            tunnels_to(&nodes::database_urls(&environment.database_url)).await?,
            tunnels_to(&[provider_url.to_owned()]).await?,
        ];
        let [brokers, databases, providers] = tunnels
            .each_ref()
            .map(|tunnels| tunnels.iter().map(|tunnel| tunnel.url.clone()).collect::<Vec<_>>());
        let urls = [
            ("AMQP_URL", brokers.join(",")),
            ("DATABASE_URL", nodes::database_url(&databases)),
            ("SMS_BASE_URL", providers.concat()),
        ];
        // The last setting of a name counts.
        settings.retain(|(name, _)| urls.iter().all(|(of_tunnel, _)| name != of_tunnel));
        settings.splice(0..0, urls.map(|(name, url)| (name.to_owned(), url)));
        let undo = environment.run.join("undo");
        let state = SlotState { program: environment.program.clone(), ..SlotState::default() };
        let slot = Self { index, command, settings, logs, undo, tunnels, state: Mutex::new(state) };
        Ok(Arc::new(slot))
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().expect("no task panics while it holds a slot")
    }

    fn log(&self, generation: u32) -> PathBuf {
        self.logs.join(format!("{}-{}-{generation}.log", self.command, self.index))
    }

    /// Starts a process with only the settings in its environment, and without an `.env` file.
    pub(crate) fn start(&self) {
        let mut state = self.state();
        // Another fault may have started one already.
        if state.closed || state.child.is_some() {
            return;
        }
        state.generation += 1;
        let log = File::create(self.log(state.generation)).expect("a log can be written");
        let child = Command::new(&state.program)
            .arg(self.command)
            .env_clear()
            .envs(self.settings.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a worker starts");
        self.note_in_undo_log(child.id());
        state.child = Some(child);
        state.started = Some(Instant::now());
        (state.frozen, state.ending) = (false, false);
    }

    /// If this program is killed, `./dev` ends the processes of the undo log.
    fn note_in_undo_log(&self, pid: u32) {
        let Some(started) = process_start(pid) else { return };
        let mut undo = OpenOptions::new().append(true).open(&self.undo).expect("there is an undo log");
        writeln!(undo, "process\tworker\t{pid}\t{started}").expect("the undo log can be written");
    }

    /// Records the memory of the processes, and each end that the soak did not cause. Runs until [`Self::close`].
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            sleep(POLL_INTERVAL).await;
            let mut state = self.state();
            if state.closed {
                return;
            }
            let SlotState { child: Some(child), ending, generation, .. } = &mut *state else { continue };
            let (pid, ending, generation) = (child.id(), *ending, *generation);
            if let Ok(Some(status)) = child.try_wait() {
                if ending {
                    continue;
                }
                let fault = self.fault(generation, &format!("ended unexpectedly with {status}"));
                state.faults.push(fault);
                state.child = None;
                drop(state);
                self.start();
            } else {
                state.peak_memory = state.peak_memory.max(peak_memory(pid).unwrap_or_default());
            }
        }
    }

    /// A line for the report, with the name of the log.
    fn fault(&self, generation: u32, what: &str) -> String {
        format!("{} {} {what} ({})", self.command, self.index, self.log(generation).display())
    }

    /// SIGKILL. The next process starts at once.
    pub(crate) fn kill(&self) {
        self.end_now();
        self.start();
    }

    fn end_now(&self) {
        let mut state = self.state();
        state.ending = true;
        if let Some(mut child) = state.child.take() {
            state.peak_memory = state.peak_memory.max(peak_memory(child.id()).unwrap_or_default());
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM. The process must end in time and with success. Then the next one starts.
    pub(crate) async fn term(&self) {
        self.end_by_term().await;
        self.start();
    }

    /// The same, and the next process runs this program.
    pub(crate) async fn replace(&self, program: PathBuf) {
        self.state().program = program;
        self.term().await;
    }

    async fn end_by_term(&self) {
        self.thaw();
        let generation = {
            let mut state = self.state();
            if state.ending {
                // A second signal would end the process at once.
                return;
            }
            state.ending = true;
            let generation = state.generation;
            if let Some(child) = &state.child {
                let _ = signal(child.id(), Signal::TERM);
            }
            generation
        };
        let signalled = Instant::now();
        while signalled.elapsed() < TERM_TIMEOUT {
            sleep(POLL_INTERVAL / 5).await;
            let mut state = self.state();
            if state.generation != generation {
                return;
            }
            let Some(child) = &mut state.child else { return };
            if let Ok(Some(status)) = child.try_wait() {
                state.child = None;
                if !status.success() && !is_early_term(status, state.started, signalled) {
                    let fault = self.fault(generation, &format!("ended with {status} after SIGTERM"));
                    state.faults.push(fault);
                }
                return;
            }
            // A SIGSTOP in the meantime would keep the process from its end.
            if state.frozen {
                drop(state);
                self.thaw();
            }
        }
        let fault = self.fault(generation, &format!("does not end within {TERM_TIMEOUT:?} of SIGTERM"));
        self.state().faults.push(fault);
        self.end_now();
    }

    /// SIGSTOP, and SIGCONT after this long.
    pub(crate) async fn freeze(&self, length: Duration) {
        let generation = {
            let mut state = self.state();
            let Some(child) = &state.child else { return };
            let _ = signal(child.id(), Signal::STOP);
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
            let _ = signal(child.id(), Signal::CONT);
        }
        state.frozen = false;
    }

    pub(crate) fn cut(&self, server: ServerKind) {
        self.tunnels[server as usize].iter().for_each(Tunnel::cut);
    }

    pub(crate) fn stall(&self, server: ServerKind, length: Duration) {
        self.tunnels[server as usize].iter().for_each(|tunnel| tunnel.stall(length));
    }

    /// The same for one node of the broker.
    pub(crate) fn stall_broker_node(&self, node: usize, length: Duration) {
        self.tunnels[ServerKind::Broker as usize][node].stall(length);
    }

    /// Delays what passes to and from broker and database, in each direction.
    pub(crate) fn delay(&self, length: Duration) {
        for server in [ServerKind::Broker, ServerKind::Database] {
            self.tunnels[server as usize].iter().for_each(|tunnel| tunnel.delay(length));
        }
    }

    /// Whether `/readyz` answers 200.
    pub(crate) async fn is_ready(&self) -> bool {
        let path = self.log(self.state().generation);
        let log = tokio::fs::read_to_string(path).await.unwrap_or_default();
        let address =
            log.lines().find_map(|line| line.split_once("addr=")).map(|(_, address)| address.trim());
        let Some(address) = address else { return false };
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
        let response = client.expect("an HTTP client").get(format!("http://{address}/readyz")).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// Ends the last process by SIGTERM.
    pub(crate) async fn close(&self) {
        self.end_by_term().await;
        self.state().closed = true;
    }

    /// Kills the last process.
    pub(crate) fn abandon(&self) {
        self.state().closed = true;
        self.end_now();
    }

    /// The largest resident memory of its processes, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.state().peak_memory
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }
}

async fn tunnels_to(urls: &[String]) -> std::io::Result<Vec<Tunnel>> {
    futures::future::try_join_all(urls.iter().map(|url| Tunnel::to(url))).await
}

/// A process that has just started does not handle SIGTERM yet, and ends by it.
fn is_early_term(status: ExitStatus, started: Option<Instant>, signalled: Instant) -> bool {
    let is_early = started.is_some_and(|started| signalled - started < SIGNAL_HANDLER_TIMEOUT);
    is_early && status.signal() == Some(Signal::TERM.as_raw())
}
