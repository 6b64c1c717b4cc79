//! Commands. Every wait for a command ends when a signal comes. (`xshell` and `duct` do not check for signals while they
//! wait.)

use crate::{
    failure::Failure,
    interrupt,
    output::{is_in_step, say},
    paths,
    proc::{self, ProcessId},
};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a command may take to end after a signal, before it gets one from us.
const ENDS_BY_ITSELF: Duration = Duration::from_secs(2);
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// What follows when a command goes on after a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterSignal {
    Kill,
    /// The command would leave the machine in a half-changed state, so it takes the time that it needs.
    Wait,
}

/// A variable of the environment, if it is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A command without what `cargo run` has put into our environment, and with our own tools in its `PATH`.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_")
            || name_text.starts_with("CARGO_MANIFEST_")
            || name_text == "CARGO"
        {
            command.env_remove(&name);
        }
    }
    match own_library_path() {
        Some(path) if !path.is_empty() => command.env("LD_LIBRARY_PATH", path),
        _ => command.env_remove("LD_LIBRARY_PATH"),
    };
    if let Ok(dev) = paths::dev() {
        let tools = [dev.join("tools/bin")].into_iter();
        let path = env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = env::join_paths(tools.chain(env::split_paths(&path))) {
            command.env("PATH", path);
        }
    }
    // Queries are checked against the committed .sqlx, not against the database that a DATABASE_URL names.
    command.env("SQLX_OFFLINE", "true");
    command
}

/// `LD_LIBRARY_PATH` without the folders of cargo's that `cargo run` adds.
fn own_library_path() -> Option<OsString> {
    let program = env::current_exe().ok()?;
    let built = program.parent()?;
    let is_cargos = |folder: &PathBuf| {
        folder.starts_with(built) || folder.ends_with("lib") && folder.iter().any(|part| part == "toolchains")
    };
    let path = env::var_os("LD_LIBRARY_PATH")?;
    env::join_paths(env::split_paths(&path).filter(|folder| !is_cargos(folder))).ok()
}

/// The command of a list of words.
pub(crate) fn of_words<W: AsRef<OsStr>>(words: &[W]) -> Command {
    let (program, arguments) = words.split_first().expect("a command has a name");
    let mut command = command(program);
    command.args(arguments);
    command
}

/// Where a program is, as the shell would find it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let tools = paths::dev().ok()?.join("tools/bin");
    let folders = [tools].into_iter().chain(env::split_paths(&path));
    folders.map(|folder| folder.join(program)).find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// Ways to run a command to its end.
pub(crate) trait RunToEnd {
    /// Its output is indented when a step runs. Fails with its exit code.
    fn run(&mut self) -> Result<()>;
    /// What it prints, without the line end. Fails with its exit code.
    fn read(&mut self) -> Result<String>;
    /// Whether it ends well. Its output is not shown.
    fn succeeds(&mut self) -> Result<bool>;
    /// The same with a limit: one that takes longer is killed, and does not end well.
    fn succeeds_within(&mut self, limit: Duration) -> Result<bool>;
    /// Whether it ends well, with all its output in a file.
    fn logs_to(&mut self, log: &Path) -> Result<bool>;
    /// The same for a command that must not be killed: after a signal, its end is awaited.
    fn logs_to_unkilled(&mut self, log: &Path) -> Result<bool>;
    /// What it prints, and what it prints on standard error when it fails.
    fn answers(&mut self) -> Result<Result<String, String>>;
}

impl RunToEnd for Command {
    fn run(&mut self) -> Result<()> {
        if !is_in_step() {
            let mut child = begin(self)?;
            return as_result(wait(&mut child, None)?);
        }
        let mut child = begin(self.stdout(Stdio::piped()))?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let printer = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                say(String::from_utf8_lossy(&line));
            }
        });
        let status = wait(&mut child, None)?;
        let _ = printer.join();
        as_result(status)
    }

    fn read(&mut self) -> Result<String> {
        let (status, output, _) = collect(self.stdout(Stdio::piped()))?;
        as_result(status)?;
        Ok(output.trim_end_matches('\n').to_owned())
    }

    fn succeeds(&mut self) -> Result<bool> {
        let mut child = begin(silent(self))?;
        Ok(wait(&mut child, None)?.success())
    }

    fn succeeds_within(&mut self, limit: Duration) -> Result<bool> {
        let mut child = begin(silent(self))?;
        Ok(wait(&mut child, Some(limit))?.success())
    }

    fn logs_to(&mut self, log: &Path) -> Result<bool> {
        Ok(wait(&mut begin_with_log(self, log)?, None)?.success())
    }

    fn logs_to_unkilled(&mut self, log: &Path) -> Result<bool> {
        Ok(wait_or_end(&mut begin_with_log(self, log)?, None, AfterSignal::Wait)?.success())
    }

    fn answers(&mut self) -> Result<Result<String, String>> {
        let piped = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (status, output, errors) = collect(piped)?;
        Ok(if status.success() { Ok(output.trim_end_matches('\n').to_owned()) } else { Err(errors) })
    }
}

fn silent(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Starts a command. While signals are ignored, a ctrl-C of the terminal does not reach it.
fn begin(command: &mut Command) -> Result<Child> {
    if interrupt::is_ignored() {
        command.process_group(0);
    }
    command.spawn().with_context(|| format!("{} cannot be started", command.get_program().display()))
}

fn begin_with_log(command: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| log.display().to_string())?;
    begin(command.stdout(file.try_clone()?).stderr(file))
}

fn collect(command: &mut Command) -> Result<(ExitStatus, String, String)> {
    let mut child = begin(command)?;
    let output = child.stdout.take().map(read_along);
    let errors = child.stderr.take().map(read_along);
    let status = wait(&mut child, None)?;
    let text =
        |reader: Option<thread::JoinHandle<String>>| reader.and_then(|it| it.join().ok()).unwrap_or_default();
    Ok((status, text(output), text(errors)))
}

fn read_along(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of our own child. A signal ends the child first, and then the wait.
pub(crate) fn wait(child: &mut Child, limit: Option<Duration>) -> Result<ExitStatus> {
    wait_or_end(child, limit, AfterSignal::Kill)
}

fn wait_or_end(child: &mut Child, limit: Option<Duration>, after_signal: AfterSignal) -> Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            // A ctrl-C reaches the child as well, and may end it before we see our flag.
            interrupt::check()?;
            return Ok(status);
        }
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            child.kill()?;
            return Ok(child.wait()?);
        }
        if let Err(interrupted) = interrupt::pause() {
            end(child, after_signal);
            return Err(interrupted.into());
        }
    }
}

/// Ends a child that may have got the terminal's ctrl-C itself, and then what it has started: `cargo test` does not pass
/// SIGTERM on to its test binary, nor does that to its workers.
fn end(child: &mut Child, after_signal: AfterSignal) {
    let Ok(pid) = i32::try_from(child.id()) else { return };
    let mut started = proc::descendants(pid);
    if !ends_within(child, ENDS_BY_ITSELF) {
        started = proc::descendants(pid);
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::TERM);
        }
        // A child of sudo's is root's. It cannot be killed, and an error here must not hide the interrupt.
        if after_signal == AfterSignal::Wait || !ends_within(child, ENDS_WITHIN) && child.kill().is_ok() {
            let _ = child.wait();
        }
    }
    if after_signal == AfterSignal::Kill {
        end_all(started);
    }
}

/// Ends processes that may have got the terminal's ctrl-C themselves.
fn end_all(mut processes: Vec<ProcessId>) {
    let end_within = |processes: &[ProcessId], limit| {
        is_within(limit, || !processes.iter().any(|process| process.is_running()))
    };
    let mut have_ended = end_within(&processes, ENDS_BY_ITSELF);
    for (signal, limit) in [(Signal::TERM, ENDS_WITHIN), (Signal::KILL, ENDS_BY_ITSELF)] {
        if !have_ended {
            processes.retain(|process| process.signal(signal));
            have_ended = end_within(&processes, limit);
        }
    }
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    is_within(limit, || !matches!(child.try_wait(), Ok(None)))
}

/// Whether the condition holds before the limit.
fn is_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

pub(crate) fn as_result(status: ExitStatus) -> Result<()> {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Status(code).into()),
        None => bail!("it ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_fails_with_its_own_exit_code() {
        let failed = command("sh").args(["-c", "exit 100"]).run().unwrap_err();
        assert_eq!(failed.downcast_ref(), Some(&Failure::Status(100)));
        let killed = command("sh").args(["-c", "kill -9 $$"]).run().unwrap_err();
        assert_eq!(killed.downcast_ref(), Some(&Failure::Status(137)));
    }

    #[test]
    fn what_a_command_prints_is_read() {
        assert_eq!(command("printf").arg("a\nb\n").read().unwrap(), "a\nb");
        let answer = command("sh").args(["-c", "echo no >&2; false"]).answers().unwrap();
        assert_eq!(answer, Err("no\n".to_owned()));
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed() {
        assert!(!command("sleep").arg("60").succeeds_within(Duration::from_millis(50)).unwrap());
    }

    #[test]
    fn what_a_command_has_started_ends_with_it() {
        let mut child = begin(command("sh").args(["-c", "sleep 60 & wait"])).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let has_begun = || !proc::descendants(pid).is_empty();
        assert!(is_within(Duration::from_secs(10), has_begun));
        let started = proc::descendants(pid);
        end(&mut child, AfterSignal::Kill);
        assert!(!started.iter().any(|process| process.is_running()));
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn a_command_does_not_see_the_variables_of_cargo_run() {
        let seen = command("env").read().unwrap();
        assert!(!seen.lines().any(|line| line.starts_with("CARGO_MANIFEST_DIR=")), "{seen}");
        assert!(seen.lines().any(|line| line == "SQLX_OFFLINE=true"), "{seen}");
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
