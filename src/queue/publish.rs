//! Publishing with confirms, on a connection of its own: while the broker holds publishers back, deliveries and
//! acknowledgements still flow. One task owns the channel, and outlives any connection.

use super::{
    cause::Cause,
    connection::{Unusable, connect, is_blame},
    delivery,
    metrics::{self, ConnectionUse},
    replies::Replies,
};
use crate::masked::debug_shows;
use crate::{
    backoff::Backoff,
    config::BrokerConfig,
    seldom::Seldom,
    supervise::{Pulse, Task, aside, keep_up, part_of},
    trouble::Trouble,
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, ChannelStatus, Confirmation, ConnectionStatus,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::AMQPValue,
};
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::yield_now,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How often a message is published that the broker fails on, or does not take.
const TRIES: u32 = 3;
/// How long a connection and its channel may take.
const OPENS_WITHIN: Duration = Duration::from_secs(15);
/// How long the broker may take to show that we may publish.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// How soon it is noticed that a line is gone, if nothing else tells it.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// Messages that wait for the channel at most; more wait in their senders.
const WAITING: usize = 1_024;

/// A message for one queue, by the default exchange.
#[derive(Clone)]
pub struct Outgoing {
    pub queue: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    /// Whether to be told when the queue is not there. RabbitMQ's direct reply-to reports that even for what
    /// it delivers, so it is off there.
    pub mandatory: bool,
    pub name: Name,
}

debug_shows!(Outgoing { queue });

/// By what the broker's return names a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A `message_id` of ours.
    MessageId,
    /// A header, where the `message_id` is somebody else's, or has to stay empty.
    Header,
}

/// That header.
const PUBLISH_ID: &str = "x-publish-id";

impl Outgoing {
    /// Its properties, with our id of it.
    fn named(&self, id: Uuid) -> BasicProperties {
        let (id, properties) = (id.to_string(), self.properties.clone());
        match self.name {
            Name::MessageId => properties.with_message_id(id.into()),
            Name::Header => {
                let mut headers = properties.headers().clone().unwrap_or_default();
                headers.insert(PUBLISH_ID.into(), AMQPValue::LongString(id.into()));
                properties.with_headers(headers)
            }
        }
    }
}

/// Our id of a message that came back.
fn name_of(properties: &BasicProperties) -> Option<String> {
    let headers = properties.headers().as_ref();
    headers
        .and_then(|headers| delivery::text(headers, PUBLISH_ID))
        .or_else(|| properties.message_id().as_ref().map(ToString::to_string))
}

/// What the broker has made of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Routed,
    /// Its queue is not there.
    Unroutable,
    /// Its queue is full, or its name is one that the broker fails on.
    Refused,
    /// Unconfirmed on a line that was lost; only where each message is published once.
    Lost,
    /// The same, and the broker closed the line over what was sent on it.
    Blamed,
}

/// How often a message is published.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// Until it is confirmed.
    Confirmed,
    /// The same; replies to what is published come on the line that it was published on.
    Answered(Arc<Replies>),
    /// Once.
    Once,
}

/// The same, with what whoever waits for a reply has to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    pub published: Published,
    /// The line that it was settled on; they are numbered.
    pub line: u64,
    /// An earlier line was lost with it unconfirmed: a copy may be in the queue, whatever became of this one.
    pub maybe_before: bool,
}

struct Job {
    /// Ours, in the `message_id`: the broker's return names the message by it.
    id: Uuid,
    message: Arc<Outgoing>,
    done: oneshot::Sender<Settled>,
    /// Tries that failed, and by this message's own fault.
    failures: u32,
    /// Whether a line was lost with it.
    was_lost: bool,
}

/// A handle on the publishing task.
#[derive(Debug, Clone)]
pub struct Publisher {
    // Dropped first: a task whose queue ends without that has ended unasked.
    _asks_it_to_end: Arc<DropGuard>,
    jobs: mpsc::Sender<Job>,
    state: Arc<State>,
}

/// What is known of the line.
#[derive(Debug, Default)]
struct State {
    publishing: AtomicBool,
    /// Why it is not there.
    why_not: Cause,
}

impl State {
    fn is(&self, publishing: bool, why_not: Option<String>) {
        self.publishing.store(publishing, Ordering::Relaxed);
        self.why_not.set(why_not);
    }
}

impl Publisher {
    /// Starts the task; it ends when every handle is dropped, or at `stop`. Its name is the connection's too.
    pub fn start(task: Task, config: BrokerConfig, stop: CancellationToken) -> Self {
        Self::start_with(task, config, stop, Manner::Confirmed)
    }

    pub(super) fn start_with(
        task: Task,
        config: BrokerConfig,
        stop: CancellationToken,
        manner: Manner,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(WAITING);
        let state = Arc::<State>::default();
        let line = Line {
            config,
            purpose: task.name(),
            later: jobs.downgrade(),
            again: VecDeque::new(),
            one_by_one: false,
            state: state.clone(),
            number: 0,
            losses: Seldom::new(),
            manner,
        };
        let asked_to_end = stop.child_token();
        // It outlives a panic, with what is not confirmed yet.
        let line = Arc::new(Mutex::new((line, queue)));
        keep_up(task, asked_to_end.clone(), move |pulse| {
            let (line, stop) = (line.clone(), stop.clone());
            async move {
                let (line, queue) = &mut *line.lock().await;
                stop.run_until_cancelled(line.run(queue, &pulse)).await;
            }
        });
        let asked_to_end = Arc::new(asked_to_end.drop_guard());
        Self { _asks_it_to_end: asked_to_end, jobs, state }
    }

    /// Whether its connection is there.
    pub fn is_publishing(&self) -> bool {
        self.state.publishing.load(Ordering::Relaxed)
    }

    /// Why nothing can be published, in words for an operator; `None` while it can, or while that is not known yet.
    pub fn problem(&self) -> Option<String> {
        self.state.why_not.get()
    }

    /// Waits for the broker's confirm, however long the broker is away. The message may be published more than
    /// once: a lost connection hides its confirm.
    pub async fn publish(&self, message: Arc<Outgoing>) -> Result<Published, Trouble> {
        Ok(self.settle(message).await?.published)
    }

    /// The same. The message goes out even when whoever waits here goes away, once the task has it.
    pub(super) async fn settle(&self, message: Arc<Outgoing>) -> Result<Settled, Trouble> {
        let (done, confirmed) = oneshot::channel();
        let job = Job { id: Uuid::now_v7(), message, done, failures: 0, was_lost: false };
        self.jobs.send(job).await.map_err(|_| Trouble::Stopping)?;
        confirmed.await.map_err(|_| Trouble::Stopping)
    }
}

/// Without a result when the line was gone before there was one: the client never ends what it waits for then.
type Confirmed = (Job, Option<lapin::Result<Confirmation>>);

/// The task's side: connections come and go, what is unconfirmed stays.
struct Line {
    config: BrokerConfig,
    purpose: &'static str,
    /// For what is tried again after a pause.
    later: mpsc::WeakSender<Job>,
    /// Unconfirmed when the last channel was lost.
    again: VecDeque<Job>,
    /// While those are published again.
    one_by_one: bool,
    state: Arc<State>,
    /// The current line's, or the last one's.
    number: u64,
    /// Of a line for what is published once: senders may end it by the names that they give.
    losses: Seldom,
    manner: Manner,
}

/// A connection to publish on.
struct Open {
    connection: lapin::Connection,
    channel: Channel,
    /// Cancelled when it is of no use any more.
    gone: CancellationToken,
}

/// Looks at what the client knows of a line, as it leaves those who wait on one that is gone waiting.
async fn tell_when_gone(connection: ConnectionStatus, channel: ChannelStatus, gone: CancellationToken) {
    while connection.connected() && channel.connected() && !gone.is_cancelled() {
        tokio::time::sleep(LOOKS_EVERY).await;
    }
    gone.cancel();
}

/// Shows the right to publish before any message depends on it, by one that no queue gets: none has an empty name.
async fn may_publish(channel: &Channel) -> Result<(), Unusable> {
    let (options, nothing) = (BasicPublishOptions::default(), BasicProperties::default());
    let publishing =
        async { channel.basic_publish("".into(), "".into(), options, &[], nothing).await?.await };
    match tokio::time::timeout(SHOWN_WITHIN, publishing).await {
        Ok(Err(error)) => Err(Unusable::of_publishing(error)),
        // Without an answer, the broker holds publishers back, and says nothing of rights.
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
    let properties = message.named(id);
    channel.basic_publish("".into(), queue.as_str().into(), options, body, properties).await?.await
}

fn publish(open: &Open, job: Job) -> impl Future<Output = Confirmed> + use<> {
    let (channel, gone) = (open.channel.clone(), open.gone.clone());
    async move {
        let confirmed = gone.run_until_cancelled(publish_on(&channel, &job.message, job.id)).await;
        (job, confirmed)
    }
}

impl Line {
    async fn run(&mut self, queue: &mut mpsc::Receiver<Job>, pulse: &Pulse) {
        self.state.is(false, None);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let (mut told, mut lost, mut is_logged) = (false, false, false);
        loop {
            pulse.step("opening a connection");
            let opened = tokio::time::timeout(OPENS_WITHIN, self.open());
            match opened.await.unwrap_or_else(|_| Err(Unusable::lost("it takes too long to open a channel")))
            {
                Ok(open) => {
                    if is_logged {
                        tracing::info!(purpose = self.purpose, "publishing again");
                    }
                    (told, lost) = (false, true);
                    backoff.reset();
                    self.number += 1;
                    if let Manner::Answered(replies) = &self.manner {
                        replies.line_is_open(self.number);
                    }
                    self.state.is(true, None);
                    let ended = self.pump(&open, queue, pulse).await;
                    self.state.is(false, Some("its connection is lost".to_owned()));
                    open.gone.cancel();
                    let closing = open.connection.close(200, "done".into());
                    let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
                    if ended {
                        return;
                    }
                    metrics::connection_lost(ConnectionUse::Publisher);
                    is_logged = self.tell_of_a_loss();
                }
                // At the start, the consumer ends the worker over what no waiting mends, and says so as the last word.
                Err(error) => {
                    self.state.is(false, Some(error.to_string()));
                    if !told && (lost || error.passes()) {
                        told = true;
                        tracing::warn!(purpose = self.purpose, %error, "not publishing; connecting again until it works");
                    }
                }
            }
            backoff.wait().await;
        }
    }

    /// Whether the log says so.
    fn tell_of_a_loss(&self) -> bool {
        let losses = if matches!(self.manner, Manner::Once) { self.losses.due() } else { Some(1) };
        let Some(losses) = losses else { return false };
        let (purpose, unconfirmed) = (self.purpose, self.again.len());
        tracing::warn!(purpose, unconfirmed, losses, "the connection for publishing is lost");
        true
    }

    async fn open(&self) -> Result<Open, Unusable> {
        let connection = connect(&self.config, self.purpose).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let gone = CancellationToken::new();
        may_publish(&channel).await?;
        if let Manner::Answered(replies) = &self.manner {
            replies.open(&connection, &channel, &gone).await?;
        }
        let looking = tell_when_gone(connection.status().clone(), channel.status().clone(), gone.clone());
        part_of(Task::LineWatch, gone.clone(), |_| looking);
        Ok(Open { connection, channel, gone })
    }

    /// Publishes until the line fails (`false`, the unconfirmed are in `again`) or no handle is left (`true`).
    async fn pump(&mut self, open: &Open, queue: &mut mpsc::Receiver<Job>, pulse: &Pulse) -> bool {
        let (mut confirms, mut returned) = (FuturesUnordered::new(), HashSet::new());
        // Also when this panics.
        let _gone_at_the_end = open.gone.clone().drop_guard();
        // One by one: if the broker fails on one of them, that one fails alone, and is given up in the end.
        self.one_by_one = true;
        while let Some(job) = self.again.pop_front() {
            confirms.push(publish(open, job));
            pulse.step("publishing again what was not confirmed");
            if !self.settle(&mut confirms, &mut returned).await {
                return false;
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
                settled = self.settle(&mut confirms, &mut returned), if !confirms.is_empty() => works = settled,
                came = queue.recv_many(&mut jobs, WAITING) => {
                    if came == 0 {
                        return true;
                    }
                    // Those that are ready to run come first, and may have a message too.
                    yield_now().await;
                    while let Ok(job) = queue.try_recv() {
                        jobs.push(job);
                    }
                    // All of them are handed to the client before any is waited for: they leave in one write.
                    confirms.extend(jobs.drain(..).map(|job| publish(open, job)));
                }
                // An idle line is replaced too: whoever waits for a reply on it has to ask again.
                () = open.gone.cancelled() => works = false,
            }
        }
        // What is confirmed by now is confirmed; the rest is published again.
        open.gone.cancel();
        while !confirms.is_empty() {
            self.settle(&mut confirms, &mut returned).await;
        }
        false
    }

    /// Waits for a confirm, and takes all that have come by then: whether the channel still works. A return may come
    /// on another message's confirm, so all returns are read before any message counts as routed.
    async fn settle(
        &mut self,
        confirms: &mut FuturesUnordered<impl Future<Output = Confirmed>>,
        returned: &mut HashSet<String>,
    ) -> bool {
        let mut ready: Vec<Confirmed> = confirms.next().await.into_iter().collect();
        while let Some(Some(more)) = confirms.next().now_or_never() {
            ready.push(more);
        }
        for (_, confirmed) in &ready {
            if let Some(Ok(Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back)))) = confirmed {
                returned.extend(name_of(&back.properties));
            }
        }
        let mut works = true;
        for (job, confirmed) in ready {
            let came_back = !returned.is_empty() && returned.remove(&job.id.to_string());
            match confirmed {
                _ if came_back => self.tell(job, Published::Unroutable),
                Some(Ok(Confirmation::Ack(_))) => self.tell(job, Published::Routed),
                Some(Ok(Confirmation::Nack(_))) => self.not_taken(job),
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

    /// Whoever waits may be gone.
    fn tell(&self, job: Job, published: Published) {
        let _ = job.done.send(Settled { published, line: self.number, maybe_before: job.was_lost });
    }

    /// The channel was lost before the confirm. A message that was alone with it, and that the broker has ended it for
    /// more than once, is given up; one that was only there when a line was cut is not.
    fn lost(&mut self, mut job: Job, error: Option<&lapin::Error>) {
        let blamed = error.is_some_and(is_blame);
        if matches!(self.manner, Manner::Once) {
            return self.tell(job, if blamed { Published::Blamed } else { Published::Lost });
        }
        job.failures += u32::from(self.one_by_one && blamed);
        job.was_lost = true;
        if job.failures >= TRIES {
            self.tell(job, Published::Refused);
        } else {
            self.again.push_back(job);
        }
    }

    /// The broker could not keep it (a full queue, or one without a leader), which says nothing of the channel.
    fn not_taken(&self, mut job: Job) {
        job.failures += 1;
        if job.failures >= TRIES || matches!(self.manner, Manner::Once) {
            self.tell(job, Published::Refused);
            return;
        }
        let later = self.later.clone();
        // Whoever waits for a message that is dropped here takes it for unsettled.
        aside("publish again later", async move {
            tokio::time::sleep(Duration::from_millis(300) * job.failures).await;
            if let Some(jobs) = later.upgrade() {
                let _ = jobs.send(job).await;
            }
        });
    }
}
