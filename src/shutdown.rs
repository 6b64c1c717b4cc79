//! Stopping: after the first signal the process finishes work in progress; the second signal ends it.

use crate::supervise::{Task, keep_running};
use std::{io, sync::Arc};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;

/// Cancelled by SIGTERM or SIGINT. A second signal exits at once, with 130.
pub(crate) fn on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // They outlive the task: a signal that comes while the task is restarted waits in them.
    let signals = Arc::new(Mutex::new(signals));
    let stopping = stop.clone();
    // This task runs until the process ends.
    keep_running(Task::Signals, CancellationToken::new(), move |_| wait(signals.clone(), stopping.clone()));
    Ok(stop)
}

async fn wait(signals: Arc<Mutex<(Signal, Signal)>>, stop: CancellationToken) {
    let (terminate, interrupt) = &mut *signals.lock().await;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(130);
        }
        tracing::info!(
            "stopping: no new work is taken, work in progress is finished; a second signal stops at once"
        );
        stop.cancel();
    }
}
