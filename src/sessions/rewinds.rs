//! Whether the database has lost rows that were committed, as when a standby is promoted that lagged, or an older state is
//! restored (docs/DELIVERY.md).
//!
//! A worker compares each server that it meets with the last marker at the broker, before it hands over any text on the
//! word of that server.

use super::server_run::{self, ServerRun};
use sqlx::{PgPool, Postgres, pool::PoolConnection};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// How long a statement waits until its server is compared.
const COMPARED_WITHIN: Duration = Duration::from_secs(5);

/// What is known of the server that the worker uses, and of the last loss of rows. All clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rewinds(Arc<RewindState>);

#[derive(Debug)]
struct RewindState {
    known: watch::Sender<KnownServer>,
    /// Microseconds since 1970, by this machine's clock; 0 for never.
    last: AtomicI64,
    /// The last number of the marker that this worker saw: a lower one shows a loss.
    number: AtomicI64,
    compare_now: Notify,
}

impl Default for RewindState {
    fn default() -> Self {
        Self {
            known: watch::Sender::new(KnownServer::Any),
            last: AtomicI64::new(0),
            number: AtomicI64::new(i64::MIN),
            compare_now: Notify::new(),
        }
    }
}

/// The server whose rows were compared with the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownServer {
    /// Nothing is compared: this process hands over no texts.
    Any,
    /// None yet.
    None,
    Is(ServerRun),
}

impl Rewinds {
    /// From now on, a server has to be compared before it is used.
    pub(crate) fn require_comparison(&self) {
        self.0.known.send_replace(KnownServer::None);
    }

    /// The server was compared with the marker, which has this number now, and a loss of rows was recorded if there was one.
    pub(super) fn compared(&self, server: ServerRun, number: i64) {
        self.0.number.store(number, Ordering::Release);
        self.0.known.send_replace(KnownServer::Is(server));
    }

    /// The marker has this number now.
    pub(super) fn advanced(&self, number: i64) {
        self.0.number.fetch_max(number, Ordering::AcqRel);
    }

    /// The highest number of the marker that this worker has seen. To be asked for before a marker is read, for `check`.
    pub(super) fn highest(&self) -> i64 {
        self.0.number.load(Ordering::Acquire)
    }

    /// Whether the server was compared, and its marker's number, which was read just now, is not below the `highest` from
    /// before. If not, the server has to be compared before it is used.
    pub(super) fn check(&self, server: ServerRun, number: i64, highest: i64) -> bool {
        let known = *self.0.known.borrow();
        let is_good = match known {
            KnownServer::Any => true,
            KnownServer::None => false,
            KnownServer::Is(known) => known == server && number >= highest,
        };
        if !is_good {
            self.require_comparison();
            self.0.compare_now.notify_one();
        }
        is_good
    }

    /// Whether no server was compared, so that invites wait.
    pub(super) fn is_comparison_due(&self) -> bool {
        *self.0.known.borrow() == KnownServer::None
    }

    /// Waits until a connection leads to a server that was not compared.
    pub(crate) async fn comparison_needed(&self) {
        self.0.compare_now.notified().await;
    }

    /// A connection to a server that was compared. While none is, this holds no connection: the pool's are needed meanwhile.
    ///
    /// # Errors
    ///
    /// There is no connection, or no server was compared in time. The statement may be tried again.
    pub(super) async fn acquire(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let mut known = self.0.known.subscribe();
        let comparing =
            async { known.wait_for(|known| *known != KnownServer::None).await.map(|known| *known) };
        let is_guarded = match timeout(COMPARED_WITHIN, comparing).await {
            Ok(Ok(known)) => known != KnownServer::Any,
            _ => return Err(not_compared()),
        };
        let mut connection = pool.acquire().await?;
        if is_guarded {
            let highest = self.highest();
            let (server, number) = server_run::read_with_marker(&mut connection).await?;
            if !self.check(server, number, highest) {
                return Err(not_compared());
            }
        }
        Ok(connection)
    }

    /// Sets how long ago the last loss was noticed.
    pub(crate) fn set_last(&self, ago: Option<Duration>) {
        let at = ago.and_then(|ago| SystemTime::now().checked_sub(ago));
        let micros = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |at| at.as_micros());
        self.0.last.store(i64::try_from(micros).unwrap_or_default(), Ordering::Release);
    }

    /// When the last loss was noticed, by this machine's clock.
    pub(crate) fn last(&self) -> Option<SystemTime> {
        let micros = u64::try_from(self.0.last.load(Ordering::Acquire)).ok().filter(|at| *at > 0)?;
        Some(UNIX_EPOCH + Duration::from_micros(micros))
    }
}

fn not_compared() -> sqlx::Error {
    let why = "this server is not compared with the broker's last marker yet";
    sqlx::Error::Io(io::Error::new(io::ErrorKind::WouldBlock, why))
}
