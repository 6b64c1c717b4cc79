//! Deliveries in, verdicts out: the loop that brings a consumer back whatever happens to it.

use super::{
    Names,
    ack::{Acks, Anonymous},
    connection::{self, ANSWERS_WITHIN, Right, Unusable},
    delivery::is_suspect,
    direct::DirectReplies,
    metrics::{self, ConnectionUse, Discarded},
    publish::Publisher,
    topology,
    watch::{Consuming, watch},
    wire::is_unreadable,
};
use crate::{
    backoff::Backoff,
    config::{BrokerConfig, ReplyToAllow},
    invite::Context,
    seldom::Seldom,
    supervise::{Kept, Pulse, Task, aside_in, keep_up_unless, part_of},
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
    sync::{Notify, RwLock, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a connection, its channel and the declaration of the queues may take.
const OPENS_WITHIN: Duration = Duration::from_secs(30);
/// How long a line may take to end in order.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// How long the broker may take to carry out the last acknowledgements of a line.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// Acknowledgements that are marked in one statement.
const MARKED: usize = 1_024;
/// The least time from one such statement to the next: it costs the broker two entries in the queue's log.
const MARKS_EVERY: Duration = Duration::from_millis(250);
/// Anybody can publish what cannot be decoded.
static UNDECODABLE: Seldom = Seldom::new();

/// Which queue is consumed, and how its messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Requests,
    /// What the broker dropped: the expired are answered, the rest is set aside.
    Dropped,
}

impl Source {
    /// Questions in a row, one in two seconds, to which the broker says that messages wait, and none comes.
    fn idle_at_most(self) -> u32 {
        match self {
            Self::Requests => 3,
            // The broker has added a header to each. Writing it takes RabbitMQ up to ten seconds and more where the others are
            // nested 26,000 deep, which a frame has room for: its time grows with the square of the depth.
            Self::Dropped => 15,
        }
    }
}

/// How many messages are taken at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Many,
    /// One only, since the broker counts a delivery for each message that was under way when a line or a process ends:
    /// so for the culprit alone, until it is set aside.
    Alone,
}

/// Consumes one queue for as long as the worker lives.
pub struct Consumer {
    pub source: Source,
    pub config: BrokerConfig,
    pub names: Names,
    pub prefetch: u16,
    pub reply_to_allow: ReplyToAllow,
    pub publisher: Publisher,
    pub direct: DirectReplies,
    pub invites: Arc<Context>,
    pub suspects: Suspects,
    pub in_hand: TaskTracker,
    /// Held by each invite in hand; by a suspect alone.
    pub gate: Arc<RwLock<()>>,
    /// Told when a queue of ours is not there any more.
    pub queues_gone: Arc<Notify>,
    pub consuming: Arc<Consuming>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A running consumer's connection. Dropping it would end its deliveries.
struct Line {
    connection: lapin::Connection,
    channel: lapin::Channel,
    hold: Hold,
    /// Whether the broker has let it consume.
    consumed: AtomicBool,
}

/// What a delivery keeps of its line.
#[derive(Clone)]
pub(super) struct Hold {
    /// Cancelled when the line is lost.
    pub lost: CancellationToken,
    pub acks: Acks,
}

/// Why consuming in one mode ended without an error.
enum Turn {
    Stopped,
    To(Mode),
}

impl Consumer {
    pub(super) fn queue(&self) -> &str {
        match self.source {
            Source::Requests => &self.names.requests,
            Source::Dropped => &self.names.dropped,
        }
    }

    /// Consumes until `stop`, connecting anew with backoff. An error is one that no waiting mends, at the start.
    /// Afterwards such an error is logged, and waited out like any other: an operator may be mending it.
    pub fn start(self, stop: CancellationToken) -> Kept<Unusable> {
        let task = match self.source {
            Source::Requests => Task::Requests,
            Source::Dropped => Task::Dropped,
        };
        let consumer = Arc::new(self);
        keep_up_unless(task, stop.clone(), move |pulse| consumer.clone().run(stop.clone(), pulse))
    }

    async fn run(self: Arc<Self>, stop: CancellationToken, pulse: Pulse) -> Result<(), Unusable> {
        // Alone at first: what comes first may be what killed the worker before us.
        let mut mode = Mode::Alone;
        let (mut started, mut told) = (false, String::new());
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while !stop.is_cancelled() {
            pulse.step("connecting and declaring the queues");
            let opening = tokio::time::timeout(OPENS_WITHIN, self.open(&stop));
            let Some(opened) = stop.run_until_cancelled(opening).await else { break };
            let opened =
                opened.unwrap_or_else(|_| Err(Unusable::lost("it takes too long to declare the queues")));
            let error = match opened {
                Ok(line) => {
                    started = true;
                    pulse.idle();
                    let ended = self.follow(&line, &mut mode, &stop).await;
                    self.consuming.lost();
                    if line.consumed.load(Ordering::Relaxed) {
                        told.clear();
                        backoff.reset();
                    }
                    match ended {
                        Ok(()) => break,
                        Err(error) => {
                            metrics::connection_lost(ConnectionUse::Consumer);
                            error
                        }
                    }
                }
                Err(error) if !started && !error.passes() => return Err(error),
                Err(error) => error,
            };
            mode = Mode::Alone;
            let why = error.to_string();
            self.consuming.cannot(Some(why.clone()));
            // Each try may find another way in which the broker is away; that is one outage.
            let cause = if matches!(error, Unusable::Away(_)) { "away".to_owned() } else { why };
            if told != cause {
                told = cause;
                tracing::warn!(queue = self.queue(), %error, "not consuming; connecting again until it works");
            }
            let _ = stop.run_until_cancelled(backoff.wait()).await;
        }
        self.finish().await;
        Ok(())
    }

    async fn open(self: &Arc<Self>, stop: &CancellationToken) -> Result<Line, Unusable> {
        let purpose = if self.source == Source::Requests { "consumer" } else { "consumer of the dropped" };
        let connection = connection::connect(&self.config, purpose).await?;
        topology::declare(&connection, &self.names).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (sure, written) = mpsc::channel(2 * usize::from(self.prefetch).max(MARKED));
        let lost = CancellationToken::new();
        let hold = Hold { acks: Acks::start(channel.clone(), lost.clone(), sure), lost };
        let (consumer, line, stop) = (self.clone(), (channel.clone(), hold.clone()), stop.clone());
        part_of(Task::SureAcks, hold.lost.clone(), |pulse| consumer.make_sure(line, written, stop, pulse));
        Ok(Line { connection, channel, hold, consumed: AtomicBool::new(false) })
    }

    /// Consumes on one line, in one mode after another, until `stop` or until the line fails.
    async fn follow(
        self: &Arc<Self>,
        line: &Line,
        mode: &mut Mode,
        stop: &CancellationToken,
    ) -> Result<(), Unusable> {
        let lost = line.hold.lost.clone().drop_guard();
        let watching = watch(&line.connection, self.queue(), &self.consuming, self.source.idle_at_most());
        let consuming = async {
            loop {
                match self.consume(line, *mode, stop).await? {
                    Turn::Stopped => return Ok(()),
                    Turn::To(next) => *mode = next,
                }
            }
        };
        tokio::pin!(watching, consuming);
        let ended = loop {
            tokio::select! {
                ended = &mut consuming => break ended,
                error = &mut watching => break Err(error),
                () = line.hold.lost.cancelled() => {
                    break Err(Unusable::lost("the broker takes no acknowledgement"));
                }
                () = self.queues_gone.notified() => {
                    tracing::warn!("a queue of ours is gone; the queues are declared again");
                    let declaring = topology::declare(&line.connection, &self.names);
                    match tokio::time::timeout(OPENS_WITHIN, declaring).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => break Err(error),
                        Err(_) => break Err(Unusable::lost("it takes too long to declare the queues")),
                    }
                }
            }
        };
        if ended.is_ok() {
            // What is in hand is finished, and still acknowledged on this line.
            self.consuming.lost();
            self.finish().await;
            let settling = async {
                line.hold.acks.flush().await;
                let back = |delivery: Delivery| line.hold.acks.give_back(delivery.delivery_tag);
                self.carried_out(&line.channel, &line.hold, back).await
            };
            // On a line that is lost meanwhile there is nobody to tell.
            let settling = tokio::time::timeout(SETTLES_WITHIN, settling);
            let _ = line.hold.lost.run_until_cancelled(settling).await;
            drop(lost.disarm());
        } else {
            // What is not begun yet is left to the message's next delivery.
            drop(lost);
        }
        let _ = tokio::time::timeout(ENDS_WITHIN, line.connection.close(200, "done".into())).await;
        line.hold.lost.cancel();
        ended
    }

    /// Takes deliveries in one mode. A stream that just ends has lost its queue or its channel.
    async fn consume(
        self: &Arc<Self>,
        line: &Line,
        mode: Mode,
        stop: &CancellationToken,
    ) -> Result<Turn, Unusable> {
        let prefetch = if mode == Mode::Alone { 1 } else { self.prefetch };
        line.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = line.channel.basic_consume(self.queue().into(), "".into(), options, arguments);
        let mut deliveries =
            consuming.await.map_err(|error| Unusable::of(Right::Read, self.queue(), error))?;
        self.consuming.cannot(None);
        self.consuming.shown();
        if !line.consumed.swap(true, Ordering::Relaxed) {
            tracing::info!(queue = self.queue(), prefetch = self.prefetch, "consuming");
        }
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    cancel(line, deliveries, |delivery| line.hold.acks.give_back(delivery.delivery_tag)).await;
                    return Ok(Turn::Stopped);
                }
                next = deliveries.next() => next,
            };
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Unusable::lost("the queue or its channel is gone")),
            };
            self.consuming.delivered();
            if is_unreadable(&delivery.properties) {
                self.refuse(&delivery, &line.hold);
                continue;
            }
            match (mode, is_suspect(&delivery)) {
                (Mode::Many, false) => drop(self.hold(self.take(delivery, &line.hold))),
                (Mode::Many, true) => {
                    tracing::info!(
                        queue = self.queue(),
                        "a message came for the third time; it is worked alone"
                    );
                    line.hold.acks.give_back(delivery.delivery_tag);
                    cancel(line, deliveries, |delivery| self.take_or_give_back(delivery, line)).await;
                    return Ok(Turn::To(Mode::Alone));
                }
                (Mode::Alone, true) => {
                    // Nothing else is in hand then, here or in the process.
                    let _ = self.hold(self.take_alone(delivery, &line.hold)).await;
                }
                (Mode::Alone, false) => {
                    drop(self.hold(self.take(delivery, &line.hold)));
                    cancel(line, deliveries, |delivery| self.take_or_give_back(delivery, line)).await;
                    return Ok(Turn::To(Mode::Many));
                }
            }
        }
    }

    fn take_or_give_back(self: &Arc<Self>, delivery: Delivery, line: &Line) {
        if is_unreadable(&delivery.properties) {
            self.refuse(&delivery, &line.hold);
        } else if is_suspect(&delivery) {
            line.hold.acks.give_back(delivery.delivery_tag);
        } else {
            drop(self.hold(self.take(delivery, &line.hold)));
        }
    }

    /// A message in hand. Whatever ends the work, the message is settled or goes back to the queue.
    fn hold(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        aside_in(&self.in_hand, "an invite in hand", work)
    }

    /// What cannot be decoded is carried on by the broker, as it is: from the requests to the dropped, and from there to
    /// the queue that nobody here reads.
    fn refuse(&self, delivery: &Delivery, hold: &Hold) {
        hold.acks.refuse(delivery.delivery_tag);
        self.consuming.refused();
        metrics::discarded(Discarded::Undecodable);
        if let Some(messages) = UNDECODABLE.due() {
            tracing::warn!(
                queue = self.queue(),
                messages,
                "messages cannot be decoded (a short string that is not UTF-8, or headers that are nested too deep); \
                 the broker carries them on to the unreadable"
            );
        }
    }

    /// Waits until the broker has carried out the acknowledgements that were written on this line; `None` if that cannot be
    /// known. A message that comes meanwhile goes to `got`.
    ///
    /// RabbitMQ takes an acknowledgement long before that. With 32 commands to a quorum queue under way, its channel keeps
    /// further ones back, and forgets them when it ends (`rabbit_fifo_client`): all of them come again. A `basic.get` is
    /// answered when it has gone through the queue's log, after what was under way. So the first waits for that, upon which
    /// what was kept back follows, and the second for this.
    async fn carried_out(&self, channel: &lapin::Channel, hold: &Hold, got: impl Fn(Delivery)) -> Option<()> {
        for _ in 0..2 {
            let asking = channel.basic_get(self.queue().into(), BasicGetOptions::default());
            let asking = hold.lost.run_until_cancelled(tokio::time::timeout(ANSWERS_WITHIN, asking));
            if let Some(message) = asking.await?.ok()?.ok()? {
                self.consuming.delivered();
                got(message.delivery);
            }
        }
        Some(())
    }

    /// Marks acknowledgements as sure, many at a time. Ends with its line; what is not marked by then stays unsure.
    async fn make_sure(
        self: Arc<Self>,
        (channel, hold): (lapin::Channel, Hold),
        mut written: mpsc::Receiver<Anonymous>,
        stop: CancellationToken,
        pulse: Pulse,
    ) {
        let mut requests = Vec::new();
        let mut next = Instant::now();
        loop {
            pulse.idle();
            let came = hold.lost.run_until_cancelled(written.recv_many(&mut requests, MARKED)).await;
            if came.is_none_or(|count| count == 0) {
                return;
            }
            // More are written in the meantime.
            tokio::time::sleep_until(next).await;
            next = Instant::now() + MARKS_EVERY;
            while requests.len() < MARKED
                && let Ok(request) = written.try_recv()
            {
                requests.push(request);
            }
            pulse.step("marking acknowledgements as sure");
            let work = |delivery| self.take_one_more(delivery, &hold, &stop);
            if self.carried_out(&channel, &hold, work).await.is_none() {
                return;
            }
            if let Err(error) = self.invites.sessions.acknowledged(&requests).await {
                tracing::warn!(%error, "acknowledgements could not be marked");
            }
            requests.clear();
        }
    }

    /// A message beside those that the broker sends by itself. Given back, it would be delivered once more each time.
    fn take_one_more(self: &Arc<Self>, delivery: Delivery, hold: &Hold, stop: &CancellationToken) {
        if is_unreadable(&delivery.properties) {
            self.refuse(&delivery, hold);
        } else if stop.is_cancelled() {
            hold.acks.give_back(delivery.delivery_tag);
        } else if is_suspect(&delivery) {
            drop(self.hold(self.take_alone(delivery, hold)));
        } else {
            drop(self.hold(self.take(delivery, hold)));
        }
    }

    /// Waits for what is in hand. Its replies and rows need no line of the consumer's.
    async fn finish(&self) {
        self.in_hand.close();
        self.in_hand.wait().await;
    }
}

/// No further delivery is taken from the broker; what it had sent already goes to `rest`.
async fn cancel(line: &Line, mut deliveries: Deliveries, rest: impl Fn(Delivery)) {
    let cancelling = line.channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default());
    // The client never ends what it is asked for once its connection is gone.
    let cancelling = line.hold.lost.run_until_cancelled(tokio::time::timeout(ANSWERS_WITHIN, cancelling));
    if let Some(Ok(Ok(()))) = cancelling.await {
        while let Some(Ok(delivery)) = deliveries.next().await {
            rest(delivery);
        }
    }
}
