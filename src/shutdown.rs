//! Stopping: the first signal lets work in hand finish, the second ends the process.

use crate::supervise::{Task, keep_up};
use std::{io, sync::Arc};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;

/// Cancelled by SIGTERM or SIGINT. A second signal exits at once, with 130.
pub fn on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // They outlive the task: a signal that comes while it is started again waits in them.
    let signals = Arc::new(Mutex::new(signals));
    let stopping = stop.clone();
    // It goes on until the process ends.
    keep_up(Task::Signals, CancellationToken::new(), move |_| wait(signals.clone(), stopping.clone()));
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
            "stopping: no new work is taken, work in hand is finished; a second signal stops at once"
        );
        stop.cancel();
    }
}
