//! The loop that consumes one queue, and reconnects whenever the connection is lost.

use super::{
    QueueNames,
    ack::{Acks, AnonymousDigest},
    connection::{
        ANSWERS_WITHIN, BrokerConnection, BrokerError, BrokerPermission, close_connection,
        connect_to_some_node, node_answers_within,
    },
    delivery::is_suspect,
    direct::DirectReplies,
    metrics::{self, ConnectionUse, DiscardKind},
    nodes,
    publish::Publisher,
    topology,
    watch::{ConsumerHealth, watch},
    wire::is_unreadable,
};
use crate::{
    backoff::Backoff,
    config::{BrokerConfig, ReplyToAllow},
    invite::Context,
    log_throttle::LogThrottle,
    supervise::{Pulse, Task, TaskHandle, keep_running_unless_fatal, spawn_for_connection, spawn_work_in},
    suspects::Suspects,
};
use futures::StreamExt;
use lapin::{
    Consumer as Deliveries,
    message::Delivery,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, ConfirmSelectOptions,
    },
    types::FieldTable,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, RwLock, Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a channel and the declaration of the queues may take.
const OPENS_WITHIN: Duration = Duration::from_secs(30);
/// How long the broker may take to carry out the last acknowledgements of a connection.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// Acknowledgements that are marked in one statement.
const MARKED_AT_ONCE: usize = 1_024;
/// The least time from one such statement to the next: each costs the broker two entries in the queue's log.
const MARKS_EVERY: Duration = Duration::from_millis(250);
/// Messages that a mark may take from the queue: its two `basic.get`.
const TAKEN_BY_A_MARK: u32 = 2;
/// Messages beyond the prefetch that marks have taken, and that are in flight still, at most.
const EXTRA_AT_MOST: u16 = 16;
/// Any sender can publish messages that cannot be decoded.
static UNDECODABLE: LogThrottle = LogThrottle::new();

/// The queue that is consumed. It decides how its messages are processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsumedQueue {
    Requests,
    /// Messages that the broker dropped: the expired are answered, the others are set aside.
    Dropped,
}

impl ConsumedQueue {
    /// Checks in a row, one in two seconds, that may find messages waiting while none is delivered.
    fn max_idle_checks(self) -> u32 {
        match self {
            Self::Requests => 3,
            // The broker adds a header to each dropped message. Where its other headers are nested 26,000 deep, for which a frame
            // has room, that takes RabbitMQ ten seconds and more: its time grows with the square of the depth.
            Self::Dropped => 15,
        }
    }
}

/// How many messages are taken at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConsumeMode {
    Concurrent,
    /// One message at a time. When a connection or a process ends, the broker counts a delivery for each message that was
    /// unacknowledged: so it counts for the suspect only, until that is set aside.
    Alone,
}

/// Consumes one queue for as long as the worker lives.
pub(crate) struct Consumer {
    pub queue: ConsumedQueue,
    pub config: BrokerConfig,
    pub names: QueueNames,
    pub prefetch: u16,
    pub reply_to_allow: ReplyToAllow,
    pub publisher: Publisher,
    pub direct: DirectReplies,
    pub invites: Arc<Context>,
    pub suspects: Suspects,
    pub in_flight: TaskTracker,
    /// Each invite in flight holds it for reading; a suspect, which must be alone, for writing.
    pub alone_lock: Arc<RwLock<()>>,
    /// Notified when one of our queues is missing.
    pub queue_missing: Arc<Notify>,
    pub health: Arc<ConsumerHealth>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// A consumer's connection. Dropping it would end its deliveries.
struct ConsumerConnection {
    connection: lapin::Connection,
    node: String,
    channel: lapin::Channel,
    handle: ChannelHandle,
    /// Whether the broker has accepted a consumer on it.
    has_consumed: AtomicBool,
}

/// What a delivery needs of the channel that it came on.
#[derive(Clone)]
pub(super) struct ChannelHandle {
    /// Cancelled when the connection is lost.
    pub(crate) lost: CancellationToken,
    pub(crate) acks: Acks,
}

/// Why consuming in one mode ended without an error.
enum ConsumeEnd {
    Stopped,
    SwitchTo(ConsumeMode),
}

impl Consumer {
    pub(super) fn queue_name(&self) -> &str {
        match self.queue {
            ConsumedQueue::Requests => &self.names.requests,
            ConsumedQueue::Dropped => &self.names.dropped,
        }
    }

    /// Consumes until `stop`, and reconnects with backoff.
    ///
    /// # Errors
    ///
    /// At the start, an error for which waiting does not help. Later such an error is logged, and the consumer tries again as
    /// after any other: an operator may be correcting the cause.
    pub(crate) fn start(self, stop: CancellationToken) -> TaskHandle<BrokerError> {
        let task = match self.queue {
            ConsumedQueue::Requests => Task::Requests,
            ConsumedQueue::Dropped => Task::Dropped,
        };
        let consumer = Arc::new(self);
        keep_running_unless_fatal(task, stop.clone(), move |pulse| consumer.clone().run(stop.clone(), pulse))
    }

    async fn run(self: Arc<Self>, stop: CancellationToken, pulse: Pulse) -> Result<(), BrokerError> {
        // Alone at first: the first message may be what killed the worker before this one.
        let mut mode = ConsumeMode::Alone;
        let (mut has_opened, mut logged) = (false, String::new());
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        while !stop.is_cancelled() {
            pulse.step("connecting and declaring the queues");
            let Some(opened) = stop.run_until_cancelled(self.open(&stop)).await else { break };
            let error = match opened {
                Ok(open) => {
                    has_opened = true;
                    pulse.idle();
                    let ended = self.consume_until_lost(&open, &mut mode, &stop).await;
                    self.health.set_lost();
                    if open.has_consumed.load(Ordering::Relaxed) {
                        logged.clear();
                        backoff.reset();
                    }
                    match ended {
                        Ok(()) => break,
                        Err(error) => {
                            nodes::lost(&open.node);
                            metrics::connection_lost(ConnectionUse::Consumer);
                            error
                        }
                    }
                }
                Err(error) if !has_opened && !error.is_temporary() => return Err(error),
                Err(error) => error,
            };
            mode = ConsumeMode::Alone;
            let why = error.to_string();
            self.health.set_problem(Some(why.clone()));
            // One outage is logged once, although each try may describe it differently.
            let cause = if error.is_away() { "away".to_owned() } else { why };
            if logged != cause {
                logged = cause;
                tracing::warn!(queue = self.queue_name(), %error, "not consuming; connecting again until it works");
            }
            let _ = stop.run_until_cancelled(backoff.wait()).await;
        }
        self.finish().await;
        Ok(())
    }

    async fn open(self: &Arc<Self>, stop: &CancellationToken) -> Result<ConsumerConnection, BrokerError> {
        let purpose =
            if self.queue == ConsumedQueue::Requests { "consumer" } else { "consumer of the dropped" };
        let BrokerConnection { connection, node, .. } = connect_to_some_node(&self.config, purpose).await?;
        let preparing = async {
            topology::declare(&connection, &self.names).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let channel = self.in_time(&node, preparing).await.inspect_err(|_| nodes::lost(&node))?;
        let (report, written) = mpsc::channel(2 * usize::from(self.prefetch).max(MARKED_AT_ONCE));
        let lost = CancellationToken::new();
        let handle = ChannelHandle { acks: Acks::start(channel.clone(), lost.clone(), report), lost };
        let (consumer, on, stop) = (self.clone(), (channel.clone(), handle.clone()), stop.clone());
        spawn_for_connection(Task::SureAcks, handle.lost.clone(), |pulse| {
            consumer.mark_acknowledged(on, written, stop, pulse)
        });
        let has_consumed = AtomicBool::new(false);
        Ok(ConsumerConnection { connection, node, channel, handle, has_consumed })
    }

    /// Limits the time for declarations. A node that is cut off from its cluster takes connections, and declares nothing.
    async fn in_time<T>(
        &self,
        node: &str,
        declaring: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let limit = node_answers_within(&self.config).unwrap_or(OPENS_WITHIN);
        tokio::time::timeout(limit, declaring).await.unwrap_or_else(|_| {
            let why = format!(
                "{node} takes more than {} s to declare the queues: has its cluster lost its majority? See rabbitmqctl \
                 cluster_status",
                limit.as_secs()
            );
            nodes::silent(node, &why);
            Err(BrokerError::lost(&why))
        })
    }

    /// Consumes on one connection, in one mode after another, until `stop` or until the connection is lost.
    async fn consume_until_lost(
        self: &Arc<Self>,
        open: &ConsumerConnection,
        mode: &mut ConsumeMode,
        stop: &CancellationToken,
    ) -> Result<(), BrokerError> {
        let lost = open.handle.lost.clone().drop_guard();
        let max_idle_checks = self.queue.max_idle_checks();
        let watching = watch(&open.connection, &open.node, self.queue_name(), &self.health, max_idle_checks);
        let consuming = async {
            loop {
                match self.consume(open, *mode, stop).await? {
                    ConsumeEnd::Stopped => return Ok(()),
                    ConsumeEnd::SwitchTo(next) => *mode = next,
                }
            }
        };
        tokio::pin!(watching, consuming);
        let ended = loop {
            tokio::select! {
                ended = &mut consuming => break ended,
                error = &mut watching => break Err(error),
                () = open.handle.lost.cancelled() => {
                    break Err(BrokerError::lost("the broker takes no acknowledgement"));
                }
                () = self.queue_missing.notified() => {
                    tracing::warn!("one of the worker's queues is missing; the queues are declared again");
                    let declaring = topology::declare(&open.connection, &self.names);
                    if let Err(error) = self.in_time(&open.node, declaring).await {
                        break Err(error);
                    }
                }
            }
        };
        if ended.is_ok() {
            // Invites in flight are finished, and still acknowledged on this connection.
            self.health.set_lost();
            self.finish().await;
            let settling = async {
                open.handle.acks.flush().await;
                let requeue = |delivery: Delivery| open.handle.acks.requeue(delivery.delivery_tag);
                self.wait_for_acks(&open.channel, &open.handle, requeue).await
            };
            // If the connection is lost meanwhile, the broker delivers the messages again.
            let settling = tokio::time::timeout(SETTLES_WITHIN, settling);
            let _ = open.handle.lost.run_until_cancelled(settling).await;
            drop(lost.disarm());
        } else {
            // An invite that has not begun yet is left to its message's next delivery.
            drop(lost);
        }
        close_connection(&open.connection).await;
        open.handle.lost.cancel();
        ended
    }

    /// Takes deliveries in one mode. A stream of deliveries that just ends has lost its queue or its channel.
    async fn consume(
        self: &Arc<Self>,
        open: &ConsumerConnection,
        mode: ConsumeMode,
        stop: &CancellationToken,
    ) -> Result<ConsumeEnd, BrokerError> {
        let queue = self.queue_name();
        let requeue = |delivery: Delivery| open.handle.acks.requeue(delivery.delivery_tag);
        let prefetch = if mode == ConsumeMode::Alone { 1 } else { self.prefetch };
        open.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = open.channel.basic_consume(queue.into(), "".into(), options, arguments);
        let mut deliveries =
            consuming.await.map_err(|error| BrokerError::of(BrokerPermission::Read, queue, error))?;
        self.health.set_problem(None);
        self.health.set_alive();
        if !open.has_consumed.swap(true, Ordering::Relaxed) {
            tracing::info!(queue, prefetch = self.prefetch, "consuming");
        }
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    cancel(open, deliveries, requeue).await;
                    return Ok(ConsumeEnd::Stopped);
                }
                next = deliveries.next() => next,
            };
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(BrokerError::lost("the queue is deleted, or its channel closed")),
            };
            self.health.delivered();
            if is_unreadable(&delivery.properties) {
                self.reject(&delivery, &open.handle);
                continue;
            }
            match (mode, is_suspect(&delivery)) {
                (ConsumeMode::Concurrent, false) => drop(self.spawn(self.take(delivery, &open.handle))),
                (ConsumeMode::Concurrent, true) => {
                    tracing::info!(
                        queue,
                        "a message was delivered for the third time; it is processed alone"
                    );
                    requeue(delivery);
                    cancel(open, deliveries, |delivery| self.take_or_requeue(delivery, open)).await;
                    return Ok(ConsumeEnd::SwitchTo(ConsumeMode::Alone));
                }
                (ConsumeMode::Alone, true) => {
                    // No other invite is in flight then, in this consumer or in the process.
                    let _ = self.spawn(self.take_alone(delivery, &open.handle)).await;
                }
                (ConsumeMode::Alone, false) => {
                    drop(self.spawn(self.take(delivery, &open.handle)));
                    cancel(open, deliveries, |delivery| self.take_or_requeue(delivery, open)).await;
                    return Ok(ConsumeEnd::SwitchTo(ConsumeMode::Concurrent));
                }
            }
        }
    }

    fn take_or_requeue(self: &Arc<Self>, delivery: Delivery, open: &ConsumerConnection) {
        if is_unreadable(&delivery.properties) {
            self.reject(&delivery, &open.handle);
        } else if is_suspect(&delivery) {
            open.handle.acks.requeue(delivery.delivery_tag);
        } else {
            drop(self.spawn(self.take(delivery, &open.handle)));
        }
    }

    /// Runs the work on one message. However it ends, the message is settled or goes back to the queue.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        // Boxed: each layer around a task moves it, and so does its end. An invite's future has kilobytes.
        spawn_work_in(&self.in_flight, "an invite", Box::pin(work))
    }

    /// Rejects a message that cannot be decoded. The broker carries it on as it is: from the requests to the dropped, and from
    /// there to the unreadable queue, which no worker reads.
    fn reject(&self, delivery: &Delivery, handle: &ChannelHandle) {
        handle.acks.reject(delivery.delivery_tag);
        self.health.rejected();
        metrics::discarded(DiscardKind::Undecodable);
        if let Some(messages) = UNDECODABLE.due() {
            tracing::warn!(
                queue = self.queue_name(),
                messages,
                "messages cannot be decoded (a short string that is not UTF-8, or headers that are nested too deep); \
                 the broker carries them on to the unreadable"
            );
        }
    }

    /// Waits until the broker has carried out the acknowledgements that were written on this connection. `None` if that cannot
    /// be known. A message that is delivered meanwhile goes to `extra`.
    ///
    /// RabbitMQ accepts an acknowledgement long before that. With 32 commands to a quorum queue under way, its channel holds
    /// further ones back, and forgets them when it ends (`rabbit_fifo_client`): then all of them are delivered again. A
    /// `basic.get` is answered when it has gone through the queue's log, after what was under way. So the first one waits for
    /// the commands under way, upon which the channel sends what it held back; the second one waits for those.
    async fn wait_for_acks(
        &self,
        channel: &lapin::Channel,
        handle: &ChannelHandle,
        extra: impl Fn(Delivery),
    ) -> Option<()> {
        for _ in 0..2 {
            let getting = channel.basic_get(self.queue_name().into(), BasicGetOptions::default());
            let getting = handle.lost.run_until_cancelled(tokio::time::timeout(ANSWERS_WITHIN, getting));
            if let Some(message) = getting.await?.ok()?.ok()? {
                self.health.delivered();
                extra(message.delivery);
            }
        }
        Some(())
    }

    /// Marks the rows whose acknowledgements the broker has carried out, many at a time. It ends with its connection; what is
    /// not marked by then stays unsure.
    async fn mark_acknowledged(
        self: Arc<Self>,
        (channel, handle): (lapin::Channel, ChannelHandle),
        mut written: mpsc::Receiver<AnonymousDigest>,
        stop: CancellationToken,
        pulse: Pulse,
    ) {
        let mut requests = Vec::new();
        let mut next = Instant::now();
        let room = Arc::new(Semaphore::new(self.prefetch.clamp(2, EXTRA_AT_MOST).into()));
        loop {
            pulse.idle();
            let count =
                handle.lost.run_until_cancelled(written.recv_many(&mut requests, MARKED_AT_ONCE)).await;
            if count.is_none_or(|count| count == 0) {
                return;
            }
            // More are written in the meantime.
            tokio::time::sleep_until(next).await;
            next = Instant::now() + MARKS_EVERY;
            while requests.len() < MARKED_AT_ONCE
                && let Ok(request) = written.try_recv()
            {
                requests.push(request);
            }
            // While the queue has a backlog, each mark takes messages. Their invites end first.
            if handle.lost.run_until_cancelled(room.acquire_many(TAKEN_BY_A_MARK)).await.is_none() {
                return;
            }
            pulse.step("marking acknowledgements as sure");
            let extra =
                |delivery| self.take_extra(delivery, &handle, &stop, room.clone().try_acquire_owned().ok());
            if self.wait_for_acks(&channel, &handle, extra).await.is_none() {
                return;
            }
            if let Err(error) = self.invites.sessions.acknowledged(&requests).await {
                tracing::warn!(%error, "acknowledgements could not be marked");
            }
            requests.clear();
        }
    }

    /// Takes a message that came beside the consumer's deliveries. To requeue it would add a delivery to its count each time.
    /// It has its room until it is settled.
    fn take_extra(
        self: &Arc<Self>,
        delivery: Delivery,
        handle: &ChannelHandle,
        stop: &CancellationToken,
        room: Option<OwnedSemaphorePermit>,
    ) {
        if is_unreadable(&delivery.properties) {
            self.reject(&delivery, handle);
        } else if stop.is_cancelled() {
            handle.acks.requeue(delivery.delivery_tag);
        } else if is_suspect(&delivery) {
            let work = self.take_alone(delivery, handle);
            drop(self.spawn(async move {
                work.await;
                drop(room);
            }));
        } else {
            let work = self.take(delivery, handle);
            drop(self.spawn(async move {
                work.await;
                drop(room);
            }));
        }
    }

    /// Waits for the invites in flight. Their replies and rows do not need the consumer's connection.
    async fn finish(&self) {
        self.in_flight.close();
        self.in_flight.wait().await;
    }
}

/// Cancels the consumer. The deliveries that the broker had sent already go to `rest`.
async fn cancel(open: &ConsumerConnection, mut deliveries: Deliveries, rest: impl Fn(Delivery)) {
    let cancelling = open.channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default());
    // lapin never completes a call on a lost connection.
    let cancelling = open.handle.lost.run_until_cancelled(tokio::time::timeout(ANSWERS_WITHIN, cancelling));
    if let Some(Ok(Ok(()))) = cancelling.await {
        while let Some(Ok(delivery)) = deliveries.next().await {
            rest(delivery);
        }
    }
}
