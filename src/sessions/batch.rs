//! Group commit: whatever waits while one statement runs goes into the next one together.
//!
//! There is no timer: an idle database is asked at once, a busy one gets larger batches, and a batch is
//! bounded. One bad row fails its own invite and not its neighbours'.

use crate::{
    db::{self, kinds::Kind, persist},
    supervise::{Pulse, Task, keep_up},
    trouble::Trouble,
};
use futures::FutureExt;
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Rows in one statement at most.
const LARGEST: usize = 256;
/// Connections in the pool from which on a lane keeps one: the others need some too.
const KEPT_FROM: u32 = 3;
/// How long a lane keeps one that it does not use, and at all.
const UNUSED_AT_MOST: Duration = Duration::from_mins(1);
const KEPT_AT_MOST: Duration = Duration::from_mins(30);
/// A connection that was used so lately needs no sign of life first.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A statement over many rows; it answers each of them, in their order.
pub trait Statement: Send + Sync + 'static {
    type Row: Send + Sync + 'static;
    type Answer: Send + 'static;
    const TASK: Task;

    fn kind(&self) -> &'static Kind;

    fn run(
        &self,
        line: &mut PgConnection,
        rows: &[Self::Row],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;
}

struct Waiting<S: Statement> {
    row: S::Row,
    answer: oneshot::Sender<Result<S::Answer, Trouble>>,
}

/// A statement that many invites share.
pub struct Grouped<S: Statement> {
    // Dropped first: a lane whose queue ends without that has ended unasked.
    _asks_it_to_end: DropGuard,
    queue: mpsc::Sender<Waiting<S>>,
}

impl<S: Statement> fmt::Debug for Grouped<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped").field("row", &std::any::type_name::<S::Row>()).finish_non_exhaustive()
    }
}

impl<S: Statement> Grouped<S> {
    /// Starts the lane; it ends when this is dropped. `stop` makes it give up on a database that is away.
    ///
    /// One lane: a second would halve the batches, and so double the statements and the commits that are waited for.
    pub fn start(statement: S, pool: &PgPool, stop: &CancellationToken) -> Self {
        let (queue, rows) = mpsc::channel(2 * LARGEST);
        let line = Line { pool: pool.clone(), kept: Mutex::const_new(None) };
        // It outlives a panic: those who wait in its queue do not notice that the lane was started again.
        let lane = Arc::new(Mutex::new(Lane { statement, line, queue: rows, stop: stop.clone() }));
        let asked_to_end = stop.child_token();
        keep_up(S::TASK, asked_to_end.clone(), move |pulse| {
            let lane = lane.clone();
            async move { self::lane(&mut *lane.lock().await, &pulse).await }
        });
        Self { _asks_it_to_end: asked_to_end.drop_guard(), queue }
    }

    /// Runs the statement on this row, with whatever others wait. While the database is away, this waits.
    ///
    /// When the lane ends with the row in hand, nobody knows whether it is in the table: the message goes back to the
    /// queue, and its next delivery finds out, as after a crash.
    pub async fn run(&self, row: S::Row) -> Result<S::Answer, Trouble> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { row, answer }).await.map_err(|_| Trouble::Stopping)?;
        answered.await.unwrap_or(Err(Trouble::Stopping))
    }
}

/// A lane's own connection. One that is taken from the pool for each statement is asked for a sign of life each time that
/// it goes back, and the next statement waits behind that.
struct Line {
    pool: PgPool,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    used: Instant,
}

impl Kept {
    /// Whether the connection may be used: what stands between forgets those on which nothing moves.
    async fn is_good(&mut self) -> bool {
        let unused = self.used.elapsed();
        unused < UNUSED_AT_MOST
            && self.taken.elapsed() < KEPT_AT_MOST
            && (unused < TRUSTED_FOR || db::pings(&mut self.connection).await)
    }
}

impl Line {
    async fn run<S: Statement>(&self, statement: &S, rows: &[S::Row]) -> Result<Vec<S::Answer>, sqlx::Error> {
        let mut kept = self.kept.lock().await;
        let mut line = if let Some(line) = self.good(kept.take()).await {
            line
        } else {
            let now = Instant::now();
            Kept { connection: self.pool.acquire().await?, taken: now, used: now }
        };
        // One on which a statement failed goes back to the pool, which looks what it is worth.
        let answers = statement.run(&mut line.connection, rows).await?;
        if self.pool.options().get_max_connections() >= KEPT_FROM {
            line.used = Instant::now();
            *kept = Some(line);
        }
        Ok(answers)
    }

    /// The connection, if it may be used; else its place in the pool is free.
    async fn good(&self, kept: Option<Kept>) -> Option<Kept> {
        let mut line = kept?;
        line.is_good().await.then_some(line)
    }

    /// Its connection goes back to the pool, which closes it if it was left.
    async fn let_go(&self) {
        self.kept.lock().await.take();
    }
}

struct Lane<S: Statement> {
    statement: S,
    line: Line,
    queue: mpsc::Receiver<Waiting<S>>,
    stop: CancellationToken,
}

async fn lane<S: Statement>(lane: &mut Lane<S>, pulse: &Pulse) {
    let Lane { statement, line, queue, stop } = lane;
    let (mut waiting, mut leaving) = (Vec::with_capacity(LARGEST), db::leaving());
    loop {
        tokio::select! {
            biased;
            Ok(()) = leaving.changed() => {
                line.let_go().await;
                continue;
            }
            received = queue.recv_many(&mut waiting, LARGEST) => {
                if received == 0 {
                    return;
                }
            }
        }
        pulse.step("gathering rows");
        // Those that are ready to run come first, and may have a row for this statement too. If none is, it costs nothing.
        yield_now().await;
        while waiting.len() < LARGEST
            && let Ok(more) = queue.try_recv()
        {
            waiting.push(more);
        }
        let (rows, mut answers): (Vec<_>, VecDeque<_>) = waiting.drain(..).map(|w| (w.row, w.answer)).unzip();
        let mut answer = |result| {
            // Whoever waited may have gone away.
            let _ = answers.pop_front().map(|answer: oneshot::Sender<_>| answer.send(result));
        };
        let mut parts = vec![rows.as_slice()];
        while let Some(part) = parts.pop() {
            let running = persist(statement.kind(), stop, || {
                pulse.step("running the statement");
                line.run(statement, part)
            });
            // A panic is a fault of one row's, and not the end of the lane.
            let ran = AssertUnwindSafe(running).catch_unwind().await;
            match ran.unwrap_or_else(|_| {
                Err(Trouble::Defect(format!("a panic in the statement {:?}", statement.kind().name)))
            }) {
                Ok(results) => results.into_iter().for_each(|result| answer(Ok(result))),
                // The statement failed as a whole: its halves show which row was to blame.
                Err(Trouble::Defect(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(trouble) => part.iter().for_each(|_| answer(Err(trouble.clone()))),
            }
        }
        pulse.idle();
    }
}
