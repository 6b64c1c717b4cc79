//! Ctrl-C and SIGTERM. A signal only sets a flag. Every wait checks the flag, so a started process is always in the undo
//! log before the command ends.

use crate::failure::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

static EXIT_CODE: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
static IGNORED: AtomicUsize = AtomicUsize::new(0);
/// How often a wait checks its condition, and the flag.
const POLL: Duration = Duration::from_millis(20);

pub(crate) fn listen() -> std::io::Result<()> {
    // A terminal that is closed counts as SIGTERM.
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143), (SIGHUP, 143)] {
        signal_hook::flag::register_usize(signal, EXIT_CODE.clone(), code)?;
    }
    Ok(())
}

/// Fails once a signal has come.
pub(crate) fn check() -> Result<(), Failure> {
    match u8::try_from(EXIT_CODE.load(Relaxed)) {
        Ok(code) if code > 0 && !is_ignored() => Err(Failure::Interrupted(code)),
        _ => Ok(()),
    }
}

/// While it lives, signals do not count: a second ctrl-C must not leave half of it running.
#[derive(Debug)]
pub(crate) struct Ignored(());

pub(crate) fn ignore() -> Ignored {
    IGNORED.fetch_add(1, Relaxed);
    Ignored(())
}

impl Drop for Ignored {
    fn drop(&mut self) {
        IGNORED.fetch_sub(1, Relaxed);
    }
}

pub(crate) fn is_ignored() -> bool {
    IGNORED.load(Relaxed) > 0
}

/// Waits a moment, unless a signal has come.
pub(crate) fn pause() -> Result<(), Failure> {
    check()?;
    std::thread::sleep(POLL);
    Ok(())
}
