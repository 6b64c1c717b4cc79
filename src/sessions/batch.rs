//! Group commit: the rows that wait while one statement runs go into the next one together.
//!
//! There is no timer: an idle database gets a row at once, a busy one gets larger batches, and a batch is bounded. A bad row
//! fails its own invite only.

use crate::{
    db::{self, kinds::StatementKind, persist},
    spans,
    supervise::{Pulse, Task, keep_running},
    traceparent::TraceParent,
    trouble::Trouble,
};
use futures::FutureExt;
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::{
    cmp::Ordering,
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

/// Rows in one statement, at most.
const LARGEST: usize = 256;
/// A lane keeps a connection only if the pool may have this many, so that three are left beside the two lanes: a comparison of
/// the marker and a batch of events each hold one while the broker answers.
const RESERVES_FROM: u32 = 5;
/// A lane's connection goes back to the pool when it was unused for so long, or is so old.
const UNUSED_AT_MOST: Duration = Duration::from_mins(1);
const OLD_AT_MOST: Duration = Duration::from_mins(30);
/// A connection that was used within this time is not pinged first.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A statement over many rows. It answers each of them, in their order.
pub(crate) trait Statement: Send + Sync + 'static {
    type Row: Send + Sync + 'static;
    type Answer: Send + 'static;
    const TASK: Task;

    fn kind(&self) -> &'static StatementKind;

    /// The order of two rows in a statement. Statements of several workers that wait for each other's rows take them in the
    /// same order, or they would deadlock.
    fn order(_first: &Self::Row, _second: &Self::Row) -> Ordering {
        Ordering::Equal
    }

    /// The span of a row's invite, if it is traced.
    fn span(_row: &Self::Row) -> Option<TraceParent> {
        None
    }

    /// A connection that the statement may run on.
    fn acquire(
        &self,
        pool: &PgPool,
    ) -> impl Future<Output = Result<PoolConnection<Postgres>, sqlx::Error>> + Send {
        pool.acquire()
    }

    fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[Self::Row],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;
}

/// A row in a lane's queue.
struct QueuedRow<S: Statement> {
    row: S::Row,
    answer: oneshot::Sender<Result<S::Answer, Trouble>>,
}

/// A statement that many invites share.
pub(super) struct Batcher<S: Statement> {
    // Dropped before `queue`: a lane whose queue closes first ends unexpectedly.
    _ends_the_lane: DropGuard,
    queue: mpsc::Sender<QueuedRow<S>>,
}

impl<S: Statement> fmt::Debug for Batcher<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("row", &std::any::type_name::<S::Row>()).finish_non_exhaustive()
    }
}

impl<S: Statement> Batcher<S> {
    /// Starts the lane; it ends when this is dropped. `stop` makes it give up on a database that is away.
    ///
    /// There is one lane: a second would halve the batches, and so double the statements and commits.
    pub(super) fn start(statement: S, pool: &PgPool, stop: &CancellationToken) -> Self {
        let (queue, rows) = mpsc::channel(2 * LARGEST);
        let connection = LaneConnection { pool: pool.clone(), reserved: Mutex::const_new(None) };
        // It outlives a panic: the lane starts again with the same queue, so the rows in that are not lost.
        let lane = Arc::new(Mutex::new(Lane { statement, connection, queue: rows, stop: stop.clone() }));
        let lane_stop = stop.child_token();
        keep_running(S::TASK, lane_stop.clone(), move |pulse| {
            let lane = lane.clone();
            async move { run_lane(&mut *lane.lock().await, &pulse).await }
        });
        Self { _ends_the_lane: lane_stop.drop_guard(), queue }
    }

    /// Runs the statement on this row, together with those that wait. While the database is away, this waits.
    ///
    /// When the lane ends before it has answered, it is unknown whether the row is in the table. The message goes back to
    /// its queue, and its next delivery finds out, as after a crash.
    pub(super) async fn run(&self, row: S::Row) -> Result<S::Answer, Trouble> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(QueuedRow { row, answer }).await.map_err(|_| Trouble::Stopping)?;
        answered.await.unwrap_or(Err(Trouble::Stopping))
    }
}

/// A lane's own connection. The pool pings a connection each time that it comes back; with one from the pool for each
/// statement, the next statement would wait for that ping.
struct LaneConnection {
    pool: PgPool,
    reserved: Mutex<Option<ReservedConnection>>,
}

struct ReservedConnection {
    connection: PoolConnection<Postgres>,
    acquired: Instant,
    used: Instant,
}

impl ReservedConnection {
    /// Whether the connection may be used: firewalls drop those that were idle for long.
    async fn is_good(&mut self) -> bool {
        let unused = self.used.elapsed();
        unused < UNUSED_AT_MOST
            && self.acquired.elapsed() < OLD_AT_MOST
            && (unused < TRUSTED_FOR || db::pings(&mut self.connection).await)
    }
}

impl LaneConnection {
    async fn run<S: Statement>(&self, statement: &S, rows: &[S::Row]) -> Result<Vec<S::Answer>, sqlx::Error> {
        let mut reserved = self.reserved.lock().await;
        let mut connection = if let Some(connection) = if_good(reserved.take()).await {
            connection
        } else {
            let now = Instant::now();
            ReservedConnection { connection: statement.acquire(&self.pool).await?, acquired: now, used: now }
        };
        // After a failed statement the connection goes back to the pool, which checks it.
        let answers = statement.run(&mut connection.connection, rows).await?;
        if self.pool.options().get_max_connections() >= RESERVES_FROM {
            connection.used = Instant::now();
            *reserved = Some(connection);
        }
        Ok(answers)
    }

    /// Gives the connection back to the pool, which closes it if the process is leaving its server.
    async fn release(&self) {
        self.reserved.lock().await.take();
    }
}

/// The connection, if it may be used; else it goes back to the pool.
async fn if_good(reserved: Option<ReservedConnection>) -> Option<ReservedConnection> {
    let mut connection = reserved?;
    connection.is_good().await.then_some(connection)
}

struct Lane<S: Statement> {
    statement: S,
    connection: LaneConnection,
    queue: mpsc::Receiver<QueuedRow<S>>,
    stop: CancellationToken,
}

async fn run_lane<S: Statement>(lane: &mut Lane<S>, pulse: &Pulse) {
    let Lane { statement, connection, queue, stop } = lane;
    let (mut batch, mut leaving) = (Vec::with_capacity(LARGEST), db::retirements());
    loop {
        tokio::select! {
            biased;
            Ok(()) = leaving.changed() => {
                connection.release().await;
                continue;
            }
            received = queue.recv_many(&mut batch, LARGEST) => {
                if received == 0 {
                    return;
                }
            }
        }
        pulse.step("gathering rows");
        // Tasks that are ready run first, and may queue a row for this statement too. If none is ready, it costs nothing.
        yield_now().await;
        while batch.len() < LARGEST
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        batch.sort_by(|first, second| S::order(&first.row, &second.row));
        let (rows, mut answers): (Vec<_>, VecDeque<_>) = batch.drain(..).map(|q| (q.row, q.answer)).unzip();
        let (begun, count) = (Instant::now(), rows.len());
        let traced: Vec<TraceParent> = rows.iter().filter_map(S::span).collect();
        let mut answer = |result| {
            // The invite that waited for it may have ended.
            let _ = answers.pop_front().map(|answer: oneshot::Sender<_>| answer.send(result));
        };
        let mut parts = vec![rows.as_slice()];
        while let Some(part) = parts.pop() {
            let running = persist(statement.kind(), stop, || {
                pulse.step("running the statement");
                connection.run(statement, part)
            });
            // A panic is one row's fault, and must not end the lane.
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
        spans::statement(statement.kind().name, begun, count, traced);
        pulse.idle();
    }
}
