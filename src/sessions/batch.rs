//! Group commit: whatever waits while one statement runs goes into the next one together.
//!
//! There is no timer: an idle database is asked at once, a busy one gets larger batches, and a batch is
//! bounded. One bad row fails its own invite and not its neighbours'.

use crate::trouble::{Trouble, persist};
use std::{fmt, future::Future, sync::Arc};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Rows in one statement at most.
const LARGEST: usize = 256;
/// Statements of one kind under way at once: while one commits, the next is formed and sent.
const LANES: usize = 1;

/// A statement over many rows; it answers each of them, in their order.
pub trait Statement: Send + Sync + 'static {
    type Row: Send + Sync + 'static;
    type Answer: Send + 'static;
    /// For the log.
    const NAME: &'static str;

    fn run(&self, rows: &[Self::Row]) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;
}

struct Waiting<S: Statement> {
    row: S::Row,
    answer: oneshot::Sender<Result<S::Answer, Trouble>>,
}

/// A statement that many invites share.
pub struct Grouped<S: Statement> {
    queue: mpsc::Sender<Waiting<S>>,
}

impl<S: Statement> fmt::Debug for Grouped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped").field("statement", &S::NAME).finish_non_exhaustive()
    }
}

impl<S: Statement> Grouped<S> {
    /// Starts the lanes; they end when this is dropped. `stop` makes them give up on a database that is away.
    pub fn start(statement: S, stop: &CancellationToken) -> Self {
        let (queue, rows) = mpsc::channel(LARGEST * LANES);
        let (statement, rows) = (Arc::new(statement), Arc::new(Mutex::new(rows)));
        for _ in 0..LANES {
            tokio::spawn(lane(statement.clone(), rows.clone(), stop.clone()));
        }
        Self { queue }
    }

    /// Runs the statement on this row, with whatever others wait. While the database is away, this waits.
    pub async fn run(&self, row: S::Row) -> Result<S::Answer, Trouble> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { row, answer }).await.map_err(|_| Trouble::Stopping)?;
        answered.await.unwrap_or(Err(Trouble::Stopping))
    }
}

async fn lane<S: Statement>(
    statement: Arc<S>,
    queue: Arc<Mutex<mpsc::Receiver<Waiting<S>>>>,
    stop: CancellationToken,
) {
    loop {
        let mut waiting = Vec::new();
        let count = queue.lock().await.recv_many(&mut waiting, LARGEST).await;
        if count == 0 {
            return;
        }
        let (rows, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(|w| (w.row, w.answer)).unzip();
        match persist(S::NAME, &stop, || statement.run(&rows)).await {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    let _ = answer.send(Ok(result));
                }
            }
            // The statement failed as a whole: each row alone shows which of them was to blame.
            Err(Trouble::Defect(_)) if rows.len() > 1 => {
                for (row, answer) in rows.iter().zip(answers) {
                    let alone = persist(S::NAME, &stop, || statement.run(std::slice::from_ref(row))).await;
                    let _ = answer.send(alone.and_then(only));
                }
            }
            Err(trouble) => {
                let stopping = matches!(trouble, Trouble::Stopping);
                for answer in answers {
                    let trouble =
                        if stopping { Trouble::Stopping } else { Trouble::Defect(trouble.to_string()) };
                    let _ = answer.send(Err(trouble));
                }
            }
        }
    }
}

fn only<T>(mut answers: Vec<T>) -> Result<T, Trouble> {
    answers.pop().ok_or_else(|| Trouble::Defect("the statement answered no row".to_owned()))
}
