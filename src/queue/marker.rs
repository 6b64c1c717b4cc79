//! The broker's copy of the database's marker, and the task that compares and advances it (docs/DELIVERY.md).
//!
//! Every second one of the workers advances the marker in the database, and each publishes it to its own queue. A worker
//! that meets a server which it does not know yet compares both before it hands over any text.

use super::{
    QueueNames,
    cause::Cause,
    connection::{BrokerError, BrokerPermission, connect_to_some_node, node_answers_within},
    nodes,
    publish::{IdLocation, Outgoing, PublishResult, Publisher, publish_on},
    topology,
};
use crate::{
    backoff::Backoff,
    config::BrokerConfig,
    db::{self, StatementError},
    sessions::{Advance, Marker, MarkerTable},
    supervise::{Pulse, Task, keep_running},
};
use lapin::{
    BasicProperties, Channel, Connection,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, ConfirmSelectOptions},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the marker is advanced.
const EVERY: Duration = Duration::from_secs(1);
/// How long one round may take: to record a loss takes seconds where very many sessions are open.
const KEEPS_WITHIN: Duration = Duration::from_mins(2);
/// How long the broker may take to answer, where it has one node.
const ANSWERS_WITHIN: Duration = Duration::from_secs(8);
/// How long the broker may take to confirm a marker.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// How long comparisons fail before they are reported.
const REPORTED_AFTER: Duration = Duration::from_secs(3);
/// A queue may be empty only because the broker has not taken the markers of its last reader back yet, which died. It is read
/// again so often, for this long: a queue that is new, and one that had a marker, whose loss would hold invites up.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);
const NEW_QUEUE_FILLS_WITHIN: Duration = Duration::from_millis(500);
const MARKERS_RETURN_WITHIN: Duration = Duration::from_secs(3);

/// Keeps the marker for as long as the worker lives.
#[derive(Debug, Clone)]
pub(crate) struct MarkerKeeper {
    pub table: MarkerTable,
    pub config: BrokerConfig,
    pub names: QueueNames,
    pub publisher: Publisher,
    /// Why the server could not be compared.
    pub problem: Arc<Cause>,
    /// The last marker that this worker saw.
    pub last: Arc<Mutex<Option<Marker>>>,
}

/// Why the marker could not be compared or advanced.
#[derive(Debug, thiserror::Error)]
enum MarkerError {
    #[error("the database: {}", .0.summary())]
    Database(#[from] db::Error),
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("no answer in time")]
    Silent,
}

impl MarkerKeeper {
    /// Compares, and advances, until `stop`. From now on, every server has to be compared before it is used for an invite.
    pub(crate) fn start(self, stop: CancellationToken) {
        self.table.require_comparison();
        self.problem.set(Some("that has not been done yet".to_owned()));
        keep_running(Task::Marker, stop.clone(), move |pulse| {
            let (keeper, stop) = (self.clone(), stop.clone());
            async move {
                stop.run_until_cancelled(Box::pin(keeper.run(pulse))).await;
            }
        });
    }

    async fn run(self, pulse: Pulse) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let (mut logged, mut failing_since) = (false, None);
        loop {
            pulse.step("keeping the marker");
            let begun = Instant::now();
            let kept = timeout(KEEPS_WITHIN, self.keep()).await.unwrap_or(Err(MarkerError::Silent));
            pulse.idle();
            match kept {
                Ok(()) => {
                    self.problem.set(None);
                    backoff.reset();
                    (logged, failing_since) = (false, None);
                    tokio::select! {
                        () = sleep(EVERY) => {}
                        () = self.table.comparison_needed() => {}
                    }
                }
                Err(error) => {
                    // One lost connection holds no invite up, and nor does a marker that is late.
                    let since = *failing_since.get_or_insert(begun);
                    let is_reported = since.elapsed() > REPORTED_AFTER;
                    if is_reported && self.table.is_comparison_due() {
                        self.problem.set(Some(error.to_string()));
                    }
                    if is_reported && !logged {
                        logged = true;
                        tracing::warn!(%error, "the marker of the database cannot be kept; trying until it can");
                    }
                    backoff.wait().await;
                }
            }
        }
    }

    /// One round: compares if the server is a new one, and advances the marker if no other worker has just done so.
    async fn keep(&self) -> Result<(), MarkerError> {
        let advanced = self.table.acquire().await?.advance(EVERY).await?;
        let marker = match advanced {
            Advance::NotCompared => return self.compare().await,
            Advance::To(marker) => marker,
        };
        let system = self.last().and_then(|last| last.system);
        let marker = Marker { system, ..marker };
        self.set_last(marker.clone());
        // While the broker is away, the marker grows in the database only.
        if self.publisher.is_publishing() {
            let publishing = self.publisher.publish(Arc::new(self.message(&marker)));
            if let Ok(Ok(PublishResult::Unroutable)) = timeout(CONFIRMED_WITHIN, publishing).await {
                // Declares the queue again.
                return self.compare().await;
            }
        }
        Ok(())
    }

    /// Compares this server with the last marker, and records a loss of rows.
    async fn compare(&self) -> Result<(), MarkerError> {
        // The broker first: a worker that does not reach it must not hold up those that do.
        let open = connect_to_some_node(&self.config, "marker").await?;
        let limit = node_answers_within(&self.config).unwrap_or(ANSWERS_WITHIN);
        let unanswered = |_| {
            // The next round uses another node.
            nodes::silent(&open.node, "it takes logins, and answers nothing else");
            MarkerError::Silent
        };
        let opening = timeout(limit, BrokerMarkers::open(&open.connection, &self.names));
        let mut broker = allowed(opening.await.map_err(unanswered)?)?;
        let mut connection = self.table.acquire().await?;
        let mut comparison = connection.compare(&self.names.marker).await?;
        if let Some(markers) = &mut broker {
            let patience = if comparison.had_copy() { MARKERS_RETURN_WITHIN } else { NEW_QUEUE_FILLS_WITHIN };
            let reading = timeout(limit, markers.read(&self.names.marker, patience));
            if allowed(reading.await.map_err(unanswered)?)?.is_none() {
                broker = None;
            }
        }
        // Other workers advance the database's marker first: one that is read after the broker's is never lower.
        comparison.read_again().await?;
        if let Some(markers) = &broker {
            let kept = markers.kept.iter().map(|(_, marker)| marker).cloned().chain(self.last());
            if let Some((why, last)) = comparison.loss(kept) {
                comparison.record_rewind(&why, last).await?;
                tracing::error!(
                    why,
                    "the database has lost rows that were committed, or may have: invites from before are looked for at the \
                     provider first"
                );
            }
        }
        if let Some(markers) = broker {
            let message = self.message(comparison.marker());
            let replacing = timeout(limit, markers.replace(&message));
            allowed(replacing.await.map_err(unanswered)?)?;
        }
        self.set_last(comparison.finish().await?);
        let _ = timeout(limit, open.connection.close(200, "done".into())).await;
        Ok(())
    }

    fn message(&self, marker: &Marker) -> Outgoing {
        Outgoing {
            queue: self.names.marker.clone(),
            // A struct of numbers always serializes.
            body: serde_json::to_vec(marker).unwrap_or_default(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type("application/json".into()),
            mandatory: true,
            id_location: IdLocation::MessageId,
        }
    }

    fn last(&self) -> Option<Marker> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last(&self, marker: Marker) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(marker);
    }
}

/// The markers at the broker, held until they are replaced. If their connection closes before, they return to their queue.
struct BrokerMarkers {
    channel: Channel,
    kept: Vec<(BasicGetMessage, Marker)>,
}

impl BrokerMarkers {
    async fn open(connection: &Connection, names: &QueueNames) -> Result<Self, BrokerError> {
        topology::declare(connection, names).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { channel, kept: Vec::new() })
    }

    async fn read(&mut self, queue: &str, patience: Duration) -> Result<(), BrokerError> {
        let begun = Instant::now();
        self.take(queue).await?;
        while self.kept.is_empty() && begun.elapsed() < patience {
            sleep(READ_AGAIN_AFTER).await;
            self.take(queue).await?;
        }
        Ok(())
    }

    async fn take(&mut self, queue: &str) -> Result<(), BrokerError> {
        let of = |error| BrokerError::of(BrokerPermission::Read, queue, error);
        while let Some(message) =
            self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.map_err(of)?
        {
            match serde_json::from_slice::<Marker>(&message.data) {
                Ok(marker) if marker.is_plausible() => self.kept.push((message, marker)),
                // Not ours: any sender can publish here.
                _ => message.acker.ack(BasicAckOptions::default()).await.map(drop)?,
            }
        }
        Ok(())
    }

    /// Publishes the new marker, then removes the old ones.
    async fn replace(self, message: &Outgoing) -> Result<(), BrokerError> {
        publish_on(&self.channel, message, Uuid::now_v7()).await.map_err(BrokerError::of_publishing)?;
        for (old, _) in &self.kept {
            old.acker.ack(BasicAckOptions::default()).await?;
        }
        let _ = self.channel.close(200, "done".into()).await;
        Ok(())
    }
}

/// The value; `None`, with a warning, if the user lacks a permission. The worker works without markers, as a missing
/// permission must hold no invite up.
fn allowed<T>(result: Result<T, BrokerError>) -> Result<Option<T>, BrokerError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ BrokerError::Permission { .. }) => {
            tracing::warn!(%error, "the database's marker is not kept: a database that loses rows is not noticed");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
