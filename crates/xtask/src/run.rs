//! A run is a directory with an undo log: one line for each thing that was started or made. They are undone in reverse
//! order. The end of this process undoes its run; the next process undoes the runs of those that were killed.

use crate::{
    compose::Project,
    interrupt,
    output::{say, show_end, without_password},
    paths, proc, process,
    process::Process,
    random, shell,
    undo::{Entry, Extent, Resource},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant, SystemTime},
};

#[derive(Debug)]
pub(crate) struct Run {
    pub directory: PathBuf,
    kind: RunKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunKind {
    /// It ends with this process.
    UntilExit,
    /// It is `./dev up`'s, and ends with `./dev down`. A failure half-way stops what was started.
    UntilDown { is_complete: bool },
}

impl Run {
    /// A run that ends with this process.
    pub(crate) fn begin() -> Result<Self> {
        let dev = prepare()?;
        let directory = dev.join(format!("run-{}-{}", std::process::id(), random::word()?));
        let run = Self::make(directory, RunKind::UntilExit)?;
        let own = process::own().context("/proc does not show this process")?;
        fs::write(run.directory.join("owner"), format!("{} {}\n", own.pid, own.start))?;
        Ok(run)
    }

    /// The run of `./dev up`.
    pub(crate) fn begin_lasting() -> Result<Self> {
        prepare()?;
        Self::make(paths::up()?, RunKind::UntilDown { is_complete: false })
    }

    fn make(directory: PathBuf, kind: RunKind) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        // Others may pass through, to a service's own directory.
        fs::set_permissions(&directory, Permissions::from_mode(0o711))?;
        Ok(Self { directory, kind })
    }

    /// The run of a process that has started this one. It is that process's to end.
    pub(crate) fn of_parent(directory: PathBuf) -> Self {
        Self { directory, kind: RunKind::UntilDown { is_complete: true } }
    }

    /// All of it was started: from here on only `./dev down` ends it.
    pub(crate) fn complete(mut self) {
        self.kind = RunKind::UntilDown { is_complete: true };
    }

    pub(crate) fn is_lasting(&self) -> bool {
        self.kind != RunKind::UntilExit
    }

    /// The directory's own name, which no other run has.
    pub(crate) fn name(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The run's own Compose project.
    pub(crate) fn compose_project(&self) -> Project {
        Project::new(if self.is_lasting() {
            "session-invite-up".to_owned()
        } else {
            format!("session-invite-dev-{}", self.name())
        })
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Where all of a log is, for an error's end. The log of a run that ends with this process is gone by then.
    pub(crate) fn log_note(&self, name: &str) -> String {
        if self.is_lasting() {
            format!(" (all of its log: {})", self.log(name).display())
        } else {
            String::new()
        }
    }

    /// Writes down what is to be undone.
    pub(crate) fn note(&self, resource: Resource) -> Result<()> {
        self.write_down(&Entry { resource, is_kept: false })
    }

    /// The same for what holds data: in a lasting run it outlives `./dev down`.
    pub(crate) fn note_data(&self, resource: Resource) -> Result<()> {
        self.write_down(&Entry { resource, is_kept: self.is_lasting() })
    }

    fn write_down(&self, entry: &Entry) -> Result<()> {
        // URLs in it may hold passwords.
        let mut log =
            OpenOptions::new().append(true).create(true).mode(0o600).open(undo_log(&self.directory))?;
        writeln!(log, "{}", entry.to_line())?;
        Ok(())
    }

    /// Starts a process in a session of its own, so that a ctrl-C reaches it only through us, once. Its output goes to
    /// NAME.log.
    pub(crate) fn start(
        &self,
        name: &str,
        words: &[String],
        environment: &[(String, String)],
    ) -> Result<Process> {
        Ok(self.start_child(name, words, environment)?.0)
    }

    /// The same, for those who want to know how it ended.
    pub(crate) fn start_child(
        &self,
        name: &str,
        words: &[String],
        environment: &[(String, String)],
    ) -> Result<(Process, Child)> {
        let log = File::create(self.log(name))?;
        let mut command = session_of(words);
        command.envs(environment.iter().cloned()).stdout(log.try_clone()?).stderr(log);
        let started = self.spawn(name, &mut command)?;
        fs::write(self.command_file(name), words.join("\0"))?;
        Ok(started)
    }

    /// The same, with its output on ours.
    pub(crate) fn start_shown(
        &self,
        name: &str,
        words: &[String],
        environment: &[(String, String)],
    ) -> Result<(Process, Child)> {
        self.spawn(name, session_of(words).envs(environment.iter().cloned()))
    }

    fn spawn(&self, name: &str, command: &mut Command) -> Result<(Process, Child)> {
        let child = command.stdin(Stdio::null()).spawn().context("setsid cannot be started")?;
        let pid = i32::try_from(child.id())?;
        let process = Process { name: name.to_owned(), pid, start: proc::start_of(pid).unwrap_or_default() };
        self.note(Resource::Process(process.clone()))?;
        Ok((process, child))
    }

    /// The same command once more, so a server's data and port too. Its earlier output goes to NAME.before.log.
    pub(crate) fn start_again(&self, name: &str) -> Result<Process> {
        let earlier = fs::read(self.log(name))?;
        let mut log =
            OpenOptions::new().append(true).create(true).open(self.log(&format!("{name}.before")))?;
        log.write_all(&earlier)?;
        let words = fs::read_to_string(self.command_file(name))?;
        let words: Vec<String> = words.split('\0').map(str::to_owned).collect();
        self.start(name, &words, &[])
    }

    fn command_file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.command"))
    }

    /// The process that was last started under a name.
    pub(crate) fn process(&self, name: &str) -> Option<Process> {
        entries(&self.directory).into_iter().rev().find_map(|entry| match entry.resource {
            Resource::Process(process) if process.name == name => Some(process),
            _ => None,
        })
    }

    /// Waits until a process is ready. If it takes too long or ends, the end of its log is printed, and the answer is no.
    pub(crate) fn wait_for(
        &self,
        process: &Process,
        limit: Duration,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<bool> {
        let begun = Instant::now();
        while !is_ready() {
            if begun.elapsed() > limit || !process.is_running() {
                show_end(&self.log(&process.name), 15);
                return Ok(false);
            }
            interrupt::pause()?;
        }
        Ok(true)
    }

    /// Stops and removes everything that it has started and made.
    pub(crate) fn end(&self) {
        undo(&self.directory, Extent::All);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        match self.kind {
            RunKind::UntilExit => {
                self.end();
                let _ = fs::remove_dir_all(&self.directory);
            }
            RunKind::UntilDown { is_complete: false } => undo(&self.directory, Extent::KeepData),
            RunKind::UntilDown { is_complete: true } => {}
        }
    }
}

fn session_of(words: &[String]) -> Command {
    let mut command = shell::command("setsid");
    command.args(words);
    command
}

/// Waits for the end of a process that was started here. When a signal comes first, the process is the undo log's to end.
pub(crate) fn wait_for_end(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        interrupt::pause()?;
    }
}

/// Makes `.dev`, and ends the runs of processes that were killed.
fn prepare() -> Result<PathBuf> {
    let dev = paths::dev()?;
    fs::create_dir_all(&dev)?;
    for entry in fs::read_dir(&dev)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("run-") && entry.path().is_dir() && is_abandoned(&entry.path()) {
            say(format!("Cleaning up after a run that was killed ({name})"));
            undo(&entry.path(), Extent::All);
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(dev)
}

fn is_abandoned(run: &Path) -> bool {
    let owner = fs::read_to_string(run.join("owner")).unwrap_or_default();
    if let Some((pid, start)) = owner.trim_end().split_once(' ') {
        let owner = pid.parse().ok().zip(start.parse().ok());
        return !owner.is_some_and(|(pid, start)| Process { name: String::new(), pid, start }.is_running());
    }
    // Another process may be making it right now.
    let made = run.metadata().and_then(|about| about.modified()).unwrap_or(SystemTime::now());
    made.elapsed().is_ok_and(|age| age > Duration::from_mins(1))
}

fn undo_log(run: &Path) -> PathBuf {
    run.join("undo")
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(file: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// The undo log's lines, oldest first. A line that cannot be read is printed: a person has to undo it.
pub(crate) fn entries(run: &Path) -> Vec<Entry> {
    let log = undo_log(run);
    let read = |line: &str| {
        let entry = Entry::from_line(line);
        if entry.is_none() {
            eprintln!("dev: {} has a line that is not understood: {}", log.display(), without_password(line));
        }
        entry
    };
    fs::read_to_string(&log).unwrap_or_default().lines().filter_map(read).collect()
}

/// Undoes what a run has started and made, last first. What stays keeps its line in the log. A signal does not cut it
/// short: what is not undone would lose its line.
pub(crate) fn undo(run: &Path, extent: Extent) {
    let _ignored = interrupt::ignore();
    let entries = entries(run);
    if entries.is_empty() {
        return;
    }
    for entry in entries.iter().rev() {
        entry.undo(extent);
    }
    let stay = entries.iter().filter(|entry| extent == Extent::KeepData && entry.is_kept);
    let lines: String = stay.map(|entry| entry.to_line() + "\n").collect();
    // In place: the file's mode stays.
    let _ = fs::write(undo_log(run), lines);
}

/// Fails when `./dev up` has a worker already.
pub(crate) fn check_nothing_is_up() -> Result<()> {
    let entries = entries(&paths::up()?);
    let is_up = entries.iter().any(
        |entry| matches!(&entry.resource, Resource::Process(it) if it.name == "worker" && it.is_running()),
    );
    if is_up {
        bail!("it is up already: ./dev down stops it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("xtask-{}", random::word().unwrap()))
    }

    #[test]
    fn what_is_kept_keeps_its_line_and_all_else_goes() {
        let directory = scratch();
        let run = Run::make(directory.clone(), RunKind::UntilDown { is_complete: false }).unwrap();
        let (data, other) = (directory.join("data"), directory.join("other"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&other).unwrap();
        run.note_data(Resource::Directory(data.clone())).unwrap();
        run.note(Resource::Directory(other.clone())).unwrap();
        undo(&directory, Extent::KeepData);
        assert!(data.is_dir() && !other.exists());
        assert_eq!(
            entries(&directory),
            [Entry { resource: Resource::Directory(data.clone()), is_kept: true }]
        );
        undo(&directory, Extent::All);
        assert!(!data.exists() && entries(&directory).is_empty());
        run.complete();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_process_is_found_by_the_last_line_with_its_name_and_started_again() {
        let run = Run::make(scratch(), RunKind::UntilDown { is_complete: true }).unwrap();
        let words = ["sleep".to_owned(), "60".to_owned()];
        let first = run.start("sleeper", &words, &[]).unwrap();
        assert!(first.is_running());
        first.stop(first.ending_signal());
        assert!(!first.is_running());
        let second = run.start_again("sleeper").unwrap();
        assert_eq!(run.process("sleeper"), Some(second.clone()));
        undo(&run.directory, Extent::All);
        assert!(!second.is_running());
        fs::remove_dir_all(&run.directory).unwrap();
    }

    #[test]
    fn a_run_is_abandoned_when_its_owner_is_gone() {
        let directory = scratch();
        fs::create_dir(&directory).unwrap();
        assert!(!is_abandoned(&directory), "it is being made");
        let own = process::own().unwrap();
        fs::write(directory.join("owner"), format!("{} {}\n", own.pid, own.start)).unwrap();
        assert!(!is_abandoned(&directory));
        fs::write(directory.join("owner"), format!("{} {}\n", own.pid, own.start + 1)).unwrap();
        assert!(is_abandoned(&directory));
        fs::remove_dir_all(directory).unwrap();
    }
}
