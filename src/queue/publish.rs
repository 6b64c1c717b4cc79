//! Publishing with confirms, on a connection of its own: while the broker holds publishers back, deliveries and
//! acknowledgements still flow. One task owns the channel, and outlives any connection.

use super::{
    cause::Cause,
    connection::{
        BrokerConnection, BrokerError, NODE_ANSWERS_WITHIN, close_connection, connect_to_some_node, is_blame,
        node_answers_within,
    },
    delivery,
    metrics::{self, ConnectionUse},
    nodes,
    replies::PendingReplies,
};
use crate::masked::debug_shows;
use crate::{
    backoff::Backoff,
    config::BrokerConfig,
    log_throttle::LogThrottle,
    supervise::{Pulse, Task, keep_running, spawn_for_connection, spawn_work},
    trouble::Trouble,
};
use futures::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, ChannelStatus, Confirmation, ConnectionStatus, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::AMQPValue,
};
use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How often a message is published over which the broker closes the channel, or which it does not take.
const TRIES: u32 = 3;
/// How long a channel may take to open.
const OPENS_WITHIN: Duration = Duration::from_secs(15);
/// How long the broker may take to confirm the first, empty message.
const PERMITTED_WITHIN: Duration = Duration::from_secs(3);
/// The same, for a broker that has no alarm.
const CONFIRMED_AT_ONCE: Duration = Duration::from_millis(400);
/// How often lapin's status of the connection is polled.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Messages that wait for the channel at most; further callers wait.
const WAITING: usize = 1_024;

/// A message for one queue, through the default exchange.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub queue: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    /// Whether the broker returns the message if the queue is not there. Off for direct reply-to, where RabbitMQ returns even
    /// messages that it delivers.
    pub mandatory: bool,
    pub id_location: IdLocation,
}

debug_shows!(Outgoing { queue });

/// Where a message carries our id, by which a returned message is recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdLocation {
    /// In `message_id`, which is ours.
    MessageId,
    /// In a header, as the `message_id` is the sender's, or must stay empty.
    Header,
}

/// The header for [`IdLocation::Header`].
const PUBLISH_ID: &str = "x-publish-id";

impl Outgoing {
    /// Its properties, with our id.
    fn properties_with(&self, id: Uuid) -> BasicProperties {
        let (id, properties) = (id.to_string(), self.properties.clone());
        match self.id_location {
            IdLocation::MessageId => properties.with_message_id(id.into()),
            IdLocation::Header => {
                let mut headers = properties.headers().clone().unwrap_or_default();
                headers.insert(PUBLISH_ID.into(), AMQPValue::LongString(id.into()));
                properties.with_headers(headers)
            }
        }
    }
}

/// Our id in a returned message.
fn id_in(properties: &BasicProperties) -> Option<String> {
    let headers = properties.headers().as_ref();
    headers
        .and_then(|headers| delivery::text(headers, PUBLISH_ID))
        .or_else(|| properties.message_id().as_ref().map(ToString::to_string))
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishResult {
    Routed,
    /// Its queue is not there.
    Unroutable,
    /// Its queue is full, or the broker closes the channel over the queue's name.
    Refused,
    /// Unconfirmed on a lost connection. Only in [`PublishMode::Once`].
    Lost,
    /// The same, and the broker closed the channel over what was sent on it.
    Blamed,
}

/// How often a message is published.
#[derive(Debug, Clone)]
pub(super) enum PublishMode {
    /// Until it is confirmed.
    UntilConfirmed,
    /// The same. Replies to the messages are delivered on the connection that they were published on.
    WithReplies(Arc<PendingReplies>),
    /// Once.
    Once,
}

/// A publish result, with what a caller that waits for a reply must know.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublishReport {
    pub(super) result: PublishResult,
    /// The number of the connection that the result came on.
    pub(super) connection: u64,
    /// An earlier connection was lost before the confirm: a copy may be in the queue, despite this result.
    pub(super) maybe_queued_before: bool,
}

struct PublishJob {
    /// Our id, which a returned message carries.
    id: Uuid,
    message: Arc<Outgoing>,
    done: oneshot::Sender<PublishReport>,
    /// Tries that failed because of this message.
    failures: u32,
    /// Whether a connection was lost before its confirm.
    was_lost: bool,
}

/// A handle on the publishing task.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    // Dropped first: if the queue of jobs closes before this, the task has ended unexpectedly.
    _ends_the_task: Arc<DropGuard>,
    jobs: mpsc::Sender<PublishJob>,
    state: Arc<PublisherState>,
}

/// Whether the publishing task has a connection, and whether the broker reads from it.
#[derive(Debug, Default)]
struct PublisherState {
    is_publishing: AtomicBool,
    /// Why it has none.
    cause: Cause,
    /// The broker is short of memory or disk, and has said that it reads nothing more from the connection.
    is_held_back: AtomicBool,
    /// What to say of that.
    held_back: Cause,
}

impl PublisherState {
    fn connected(&self) {
        self.is_publishing.store(true, Ordering::Relaxed);
        self.cause.set(None);
    }

    fn disconnected(&self, cause: Option<String>) {
        self.is_publishing.store(false, Ordering::Relaxed);
        self.cause.set(cause);
    }

    /// Notes whether the broker holds the connection back. `reason` is the broker's own.
    fn set_held_back(&self, is_held_back: bool, reason: &str) {
        if self.is_held_back.swap(is_held_back, Ordering::Relaxed) != is_held_back {
            self.held_back.set(is_held_back.then(|| held_back(reason)));
            if is_held_back {
                tracing::warn!(reason, "the broker holds publishers back: what is published waits");
            } else {
                tracing::info!("the broker holds publishers back no more");
            }
        }
    }
}

/// What to say of a broker that holds publishers back, by its own reason (`low on memory`, `low on disk`).
fn held_back(reason: &str) -> String {
    let remedy = if reason.contains("disk") {
        "free space in its data directory, or add some: rabbitmqctl status shows where that is, and disk_free_limit"
    } else if reason.contains("memory") {
        "see what holds it: rabbitmqctl list_queues name messages memory; give it more, or let it use more of what it \
         has: rabbitmqctl set_vm_memory_high_watermark 0.7"
    } else {
        "see which alarm it has: rabbitmqctl status"
    };
    format!(
        "the broker is {reason}, and reads nothing from publishers (an alarm), so all that is published waits. What to do: \
         {remedy}"
    )
}

impl Publisher {
    /// Starts the task. It ends when every handle is dropped, or at `stop`. The connection has the task's name.
    pub(crate) fn start(task: Task, config: BrokerConfig, stop: CancellationToken) -> Self {
        Self::start_with(task, config, stop, PublishMode::UntilConfirmed)
    }

    pub(super) fn start_with(
        task: Task,
        config: BrokerConfig,
        stop: CancellationToken,
        mode: PublishMode,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(WAITING);
        let state = Arc::<PublisherState>::default();
        let publishing = PublishTask {
            config,
            purpose: task.name(),
            jobs: jobs.downgrade(),
            unconfirmed: VecDeque::new(),
            one_by_one: false,
            state: state.clone(),
            connection: 0,
            node: String::new(),
            confirmed_on: 0,
            is_unconfirmed: false,
            losses: LogThrottle::new(),
            mode,
        };
        let end = stop.child_token();
        // It outlives a panic of the task, with the unconfirmed messages.
        let publishing = Arc::new(Mutex::new((publishing, queue)));
        keep_running(task, end.clone(), move |pulse| {
            let (publishing, stop) = (publishing.clone(), stop.clone());
            async move {
                let (publishing, queue) = &mut *publishing.lock().await;
                stop.run_until_cancelled(publishing.run(queue, &pulse)).await;
            }
        });
        Self { _ends_the_task: Arc::new(end.drop_guard()), jobs, state }
    }

    /// Whether its connection is open, and the broker reads from it.
    pub(crate) fn is_publishing(&self) -> bool {
        self.state.is_publishing.load(Ordering::Relaxed) && !self.state.is_held_back.load(Ordering::Relaxed)
    }

    /// Why nothing can be published, for an operator; `None` while it can, or while that is not known yet.
    pub(crate) fn problem(&self) -> Option<String> {
        self.state.held_back.get().or_else(|| self.state.cause.get())
    }

    /// Publishes, and waits for the broker's confirm, however long the broker is away. The broker may get the message more
    /// than once: a lost connection hides its confirm.
    pub(crate) async fn publish(&self, message: Arc<Outgoing>) -> Result<PublishResult, Trouble> {
        Ok(self.publish_reporting(message).await?.result)
    }

    /// The same, with a full report. Once the task has the message, it publishes it even if the caller stops waiting.
    pub(super) async fn publish_reporting(&self, message: Arc<Outgoing>) -> Result<PublishReport, Trouble> {
        let (done, report) = oneshot::channel();
        let job = PublishJob { id: Uuid::now_v7(), message, done, failures: 0, was_lost: false };
        self.jobs.send(job).await.map_err(|_| Trouble::Stopping)?;
        report.await.map_err(|_| Trouble::Stopping)
    }
}

/// A job and its confirm. `None` if the connection was lost before: lapin never completes a call on one.
type JobConfirm = (PublishJob, Option<lapin::Result<Confirmation>>);

/// The task's side: connections come and go, unconfirmed messages stay.
struct PublishTask {
    config: BrokerConfig,
    purpose: &'static str,
    /// For messages that are tried again after a pause.
    jobs: mpsc::WeakSender<PublishJob>,
    /// Unconfirmed when the last channel was lost.
    unconfirmed: VecDeque<PublishJob>,
    /// Set while those are published again.
    one_by_one: bool,
    state: Arc<PublisherState>,
    /// The number of the current or last connection.
    connection: u64,
    /// Its node.
    node: String,
    /// The number of the last connection on which something was confirmed.
    confirmed_on: u64,
    /// Whether a connection was left because nothing was confirmed on it, and nothing was since.
    is_unconfirmed: bool,
    /// In [`PublishMode::Once`], senders can cause losses at will, by the names in their `reply_to`.
    losses: LogThrottle,
    mode: PublishMode,
}

/// A connection to publish on.
struct PublishConnection {
    connection: lapin::Connection,
    node: String,
    channel: Channel,
    /// Cancelled when the connection is of no use any more.
    lost: CancellationToken,
}

/// Polls lapin's connection status: lapin never wakes a task that waits on a dead channel. Cancels `lost` when it is dead, and
/// notes meanwhile whether the broker holds it back.
async fn watch_connection(
    connection: ConnectionStatus,
    channel: ChannelStatus,
    notices: impl Stream<Item = Event>,
    state: Arc<PublisherState>,
    lost: CancellationToken,
) {
    let (mut notices, mut reason) = (pin!(notices), "short of resources".to_owned());
    while connection.connected() && channel.connected() && !lost.is_cancelled() {
        while let Some(Some(notice)) = notices.next().now_or_never() {
            if let Event::ConnectionBlocked(why) = notice {
                reason = why;
            }
        }
        state.set_held_back(connection.blocked(), &reason);
        tokio::time::sleep(POLL_EVERY).await;
    }
    state.set_held_back(false, "");
    lost.cancel();
}

/// How long nothing has been confirmed on a connection. While the broker holds publishers back, it does not count.
struct Silence {
    connection: ConnectionStatus,
    /// `None` where there is no other node to use.
    limit: Option<Duration>,
    since: Instant,
}

impl Silence {
    fn new(open: &PublishConnection, limit: Option<Duration>) -> Self {
        Self { connection: open.connection.status().clone(), limit, since: Instant::now() }
    }

    fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Returns when it has been too long.
    async fn is_too_long(&self) {
        let Some(limit) = self.limit else { return std::future::pending().await };
        let mut since = self.since;
        loop {
            tokio::time::sleep_until(since + limit).await;
            if !self.connection.blocked() {
                return;
            }
            while self.connection.blocked() {
                tokio::time::sleep(POLL_EVERY).await;
            }
            since = Instant::now();
        }
    }
}

/// If the broker holds publishers back: what to say of that. An idle connection learns nothing of an alarm, so this publishes a
/// message that reaches no queue. Such a connection can no longer be closed, as that is not read either.
pub(crate) async fn publishers_held_back(connection: &lapin::Connection) -> Option<String> {
    let mut notices = pin!(connection.events_listener());
    let publishing = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        check_permission(&channel).await
    };
    // Without the permission to publish, it stays unknown.
    let _ = tokio::time::timeout(CONFIRMED_AT_ONCE, publishing).await;
    let mut reason = None;
    while let Some(Some(notice)) = notices.next().now_or_never() {
        if let Event::ConnectionBlocked(why) = notice {
            reason = Some(why);
        }
    }
    reason.filter(|_| connection.status().blocked()).map(|why| held_back(&why))
}

/// Checks the permission to publish before any message depends on it. The message reaches no queue, as no queue has an
/// empty name.
async fn check_permission(channel: &Channel) -> Result<(), BrokerError> {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let publishing =
        async { channel.basic_publish("".into(), "".into(), options, &[], properties).await?.await };
    match tokio::time::timeout(PERMITTED_WITHIN, publishing).await {
        Ok(Err(error)) => Err(BrokerError::of_publishing(error)),
        // If it does not answer, the broker holds publishers back, which proves nothing about permissions.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// Publishes, and waits for the confirm. While the broker holds publishers back, this waits too.
pub(super) async fn publish_on(
    channel: &Channel,
    message: &Outgoing,
    id: Uuid,
) -> lapin::Result<Confirmation> {
    let Outgoing { queue, body, mandatory, .. } = message;
    let options = BasicPublishOptions { mandatory: *mandatory, ..BasicPublishOptions::default() };
    let properties = message.properties_with(id);
    channel.basic_publish("".into(), queue.as_str().into(), options, body, properties).await?.await
}

fn publish(open: &PublishConnection, job: PublishJob) -> impl Future<Output = JobConfirm> + use<> {
    let (channel, lost) = (open.channel.clone(), open.lost.clone());
    async move {
        let confirm = lost.run_until_cancelled(publish_on(&channel, &job.message, job.id)).await;
        (job, confirm)
    }
}

impl PublishTask {
    async fn run(&mut self, queue: &mut mpsc::Receiver<PublishJob>, pulse: &Pulse) {
        self.state.disconnected(None);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        let (mut has_opened, mut is_failure_logged, mut is_loss_logged) = (false, false, false);
        loop {
            pulse.step("opening a connection");
            match self.open().await {
                Ok(open) => {
                    if is_loss_logged {
                        tracing::info!(purpose = self.purpose, "publishing again");
                    }
                    (is_failure_logged, has_opened) = (false, true);
                    if !self.is_unconfirmed {
                        backoff.reset();
                    }
                    if self.publish_on_connection(open, queue, pulse).await {
                        return;
                    }
                    is_loss_logged = self.log_loss();
                }
                // A permanent error at the start is logged by the consumer, which ends the worker with it.
                Err(error) => {
                    self.state.disconnected(Some(error.to_string()));
                    if !is_failure_logged && (has_opened || error.is_temporary()) {
                        is_failure_logged = true;
                        tracing::warn!(purpose = self.purpose, %error, "not publishing; connecting again until it works");
                    }
                }
            }
            backoff.wait().await;
        }
    }

    /// Something was confirmed on this connection.
    fn confirmed(&mut self) {
        if self.confirmed_on != self.connection {
            self.confirmed_on = self.connection;
            nodes::works(&self.node);
        }
        if std::mem::take(&mut self.is_unconfirmed) {
            self.state.connected();
        }
    }

    /// Leaves a node that confirms nothing.
    fn leave(&mut self, open: &PublishConnection) {
        let limit = NODE_ANSWERS_WITHIN.as_secs();
        let why = format!(
            "{} confirms nothing within {limit} s: has its cluster lost its majority? See rabbitmqctl cluster_status",
            open.node
        );
        nodes::silent(&open.node, &why);
        self.is_unconfirmed = true;
        self.state.disconnected(Some(why));
        open.lost.cancel();
    }

    /// Publishes on the connection until it is lost (`false`) or no handle is left (`true`).
    async fn publish_on_connection(
        &mut self,
        open: PublishConnection,
        queue: &mut mpsc::Receiver<PublishJob>,
        pulse: &Pulse,
    ) -> bool {
        self.connection += 1;
        self.node.clone_from(&open.node);
        // With nothing to publish again, only the next message can show whether it confirms.
        self.is_unconfirmed &= !self.unconfirmed.is_empty();
        if let PublishMode::WithReplies(replies) = &self.mode {
            replies.connection_opened(self.connection);
        }
        // After a connection on which nothing was confirmed, the first confirm shows that messages are published.
        if !self.is_unconfirmed {
            self.state.connected();
        }
        let ended = self.publish_until_lost(&open, queue, pulse).await;
        if !self.is_unconfirmed {
            self.state.disconnected(Some("its connection is lost".to_owned()));
        }
        open.lost.cancel();
        close_connection(&open.connection).await;
        if !ended {
            nodes::lost(&open.node);
            metrics::connection_lost(ConnectionUse::Publisher);
        }
        ended
    }

    /// Whether the loss of the connection was logged.
    fn log_loss(&self) -> bool {
        let losses = if matches!(self.mode, PublishMode::Once) { self.losses.due() } else { Some(1) };
        let Some(losses) = losses else { return false };
        let (purpose, unconfirmed) = (self.purpose, self.unconfirmed.len());
        tracing::warn!(purpose, unconfirmed, losses, "the connection for publishing is lost");
        true
    }

    async fn open(&self) -> Result<PublishConnection, BrokerError> {
        let BrokerConnection { connection, node, .. } =
            connect_to_some_node(&self.config, self.purpose).await?;
        let lost = CancellationToken::new();
        let limit = node_answers_within(&self.config).unwrap_or(OPENS_WITHIN);
        let opened = tokio::time::timeout(limit, self.open_channel(&connection, &lost)).await;
        let channel = opened
            .unwrap_or_else(|_| Err(BrokerError::lost("it takes too long to open a channel")))
            .inspect_err(|_| nodes::lost(&node))?;
        let (status, notices) = (connection.status().clone(), connection.events_listener());
        let watching =
            watch_connection(status, channel.status().clone(), notices, self.state.clone(), lost.clone());
        spawn_for_connection(Task::PublisherWatch, lost.clone(), |_| watching);
        Ok(PublishConnection { connection, node, channel, lost })
    }

    async fn open_channel(
        &self,
        connection: &lapin::Connection,
        lost: &CancellationToken,
    ) -> Result<Channel, BrokerError> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        check_permission(&channel).await?;
        if let PublishMode::WithReplies(replies) = &self.mode {
            replies.consume_on(connection, &channel, lost, node_answers_within(&self.config)).await?;
        }
        Ok(channel)
    }

    /// Publishes until the connection is lost (`false`, with the unconfirmed jobs kept) or no handle is left (`true`).
    async fn publish_until_lost(
        &mut self,
        open: &PublishConnection,
        queue: &mut mpsc::Receiver<PublishJob>,
        pulse: &Pulse,
    ) -> bool {
        let (mut confirms, mut returned) = (FuturesUnordered::new(), HashSet::new());
        let mut silence = Silence::new(open, node_answers_within(&self.config));
        // Cancels it also when this panics.
        let _lost_at_the_end = open.lost.clone().drop_guard();
        // One by one: if the broker closes the channel over one of them, that one fails alone, and is given up in the end.
        self.one_by_one = true;
        while let Some(job) = self.unconfirmed.pop_front() {
            confirms.push(publish(open, job));
            pulse.step("publishing again what was not confirmed");
            silence.begin();
            tokio::select! {
                biased;
                works = self.receive_confirms(&mut confirms, &mut returned) => if !works { return false },
                () = silence.is_too_long() => {
                    self.leave(open);
                    // The message is kept for the next connection.
                    self.receive_confirms(&mut confirms, &mut returned).await;
                    return false;
                }
            }
        }
        self.one_by_one = false;
        let mut works = true;
        let mut jobs = Vec::with_capacity(WAITING);
        while works {
            if confirms.is_empty() {
                pulse.idle();
            } else {
                pulse.step("waiting for the broker's confirms");
            }
            tokio::select! {
                biased;
                still_works = self.receive_confirms(&mut confirms, &mut returned), if !confirms.is_empty() => {
                    silence.begin();
                    works = still_works;
                }
                count = queue.recv_many(&mut jobs, WAITING) => {
                    if count == 0 {
                        return true;
                    }
                    // Tasks that are ready to run may publish more messages.
                    yield_now().await;
                    while let Ok(job) = queue.try_recv() {
                        jobs.push(job);
                    }
                    // Not the time in which nothing was published.
                    if confirms.is_empty() {
                        silence.begin();
                    }
                    // lapin gets all of them before any is waited for, and sends them in one write.
                    confirms.extend(jobs.drain(..).map(|job| publish(open, job)));
                }
                // An idle connection is replaced too: callers that wait for a reply on it must publish again.
                () = open.lost.cancelled() => works = false,
                () = silence.is_too_long(), if !confirms.is_empty() => {
                    self.leave(open);
                    works = false;
                }
            }
        }
        // Take the confirms that have come by now; the other messages are published again.
        open.lost.cancel();
        while !confirms.is_empty() {
            self.receive_confirms(&mut confirms, &mut returned).await;
        }
        false
    }

    /// Waits for a confirm, and takes all that have come by then. Whether the channel still works. A return may come on
    /// another message's confirm, so all returns are read before any message counts as routed.
    async fn receive_confirms(
        &mut self,
        confirms: &mut FuturesUnordered<impl Future<Output = JobConfirm>>,
        returned: &mut HashSet<String>,
    ) -> bool {
        let mut ready: Vec<JobConfirm> = confirms.next().await.into_iter().collect();
        while let Some(Some(more)) = confirms.next().now_or_never() {
            ready.push(more);
        }
        if ready.iter().any(|(_, confirm)| matches!(confirm, Some(Ok(_)))) {
            self.confirmed();
        }
        for (_, confirm) in &ready {
            if let Some(Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)))) = confirm {
                returned.extend(id_in(&message.properties));
            }
        }
        let mut works = true;
        for (job, confirm) in ready {
            let is_returned = !returned.is_empty() && returned.remove(&job.id.to_string());
            match confirm {
                _ if is_returned => self.report(job, PublishResult::Unroutable),
                Some(Ok(Confirmation::Ack(_))) => self.report(job, PublishResult::Routed),
                Some(Ok(Confirmation::Nack(_))) => self.refused(job),
                unconfirmed => {
                    self.lost(job, unconfirmed.and_then(Result::err).as_ref());
                    works = false;
                }
            }
        }
        if confirms.is_empty() {
            returned.clear();
        }
        works
    }

    /// Reports to the caller, which may have stopped waiting.
    fn report(&self, job: PublishJob, result: PublishResult) {
        let report = PublishReport { result, connection: self.connection, maybe_queued_before: job.was_lost };
        let _ = job.done.send(report);
    }

    /// The channel was lost before the confirm. A message is given up if it was alone on the channel, and the broker closed
    /// that for it several times. One that was on a lost connection by chance is published again.
    fn lost(&mut self, mut job: PublishJob, error: Option<&lapin::Error>) {
        let is_blamed = error.is_some_and(is_blame);
        if matches!(self.mode, PublishMode::Once) {
            return self.report(job, if is_blamed { PublishResult::Blamed } else { PublishResult::Lost });
        }
        job.failures += u32::from(self.one_by_one && is_blamed);
        job.was_lost = true;
        if job.failures >= TRIES {
            self.report(job, PublishResult::Refused);
        } else {
            self.unconfirmed.push_back(job);
        }
    }

    /// The broker could not store the message (its queue is full, or has no leader). The channel still works.
    fn refused(&self, mut job: PublishJob) {
        job.failures += 1;
        if job.failures >= TRIES || matches!(self.mode, PublishMode::Once) {
            self.report(job, PublishResult::Refused);
            return;
        }
        let jobs = self.jobs.clone();
        // If the message is dropped here, its caller treats it as unsettled.
        spawn_work("publish again later", async move {
            tokio::time::sleep(Duration::from_millis(300) * job.failures).await;
            if let Some(jobs) = jobs.upgrade() {
                let _ = jobs.send(job).await;
            }
        });
    }
}
