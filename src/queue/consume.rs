//! Deliveries in, verdicts out: the loop that brings a consumer back whatever happens to it, and the only ack.

use super::{Names, ReplyToAllow, connection, connection::Unusable, delivery, publish::Publisher, topology};
use crate::{
    config::BrokerConfig,
    invite::{Context, Envelope, Verdict, process, verdict::verdict},
    metrics::{self, InHand},
    trouble::Trouble,
};
use futures::{FutureExt, StreamExt};
use lapin::{
    Consumer as Deliveries,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Acknowledgements that wait to be marked at most, and in one statement.
const ACKED: usize = 1_024;
/// Which queue is consumed, and how its messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Requests,
    /// What the broker dropped: the expired are answered, the rest is set aside.
    Dropped,
}

/// Consumes one queue for as long as the worker lives.
#[derive(Clone)]
pub struct Consumer {
    pub source: Source,
    pub config: BrokerConfig,
    pub names: Names,
    pub prefetch: u16,
    pub reply_to_allow: ReplyToAllow,
    pub publisher: Publisher,
    /// For direct replies.
    pub direct: Publisher,
    pub invites: Arc<Context>,
    pub in_hand: TaskTracker,
    /// True while messages can arrive.
    pub consuming: Arc<AtomicBool>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A running consumer's connection. Dropping the connection would end its deliveries.
struct Line {
    connection: lapin::Connection,
    channel: lapin::Channel,
    deliveries: Deliveries,
    hold: Hold,
}

/// What a delivery keeps of its line.
#[derive(Clone)]
struct Hold {
    /// Cancelled when the line is lost.
    lost: CancellationToken,
    /// Requests without a message id that were acknowledged on the line.
    acked: mpsc::Sender<[u8; 32]>,
}

impl Consumer {
    fn queue(&self) -> &str {
        match self.source {
            Source::Requests => &self.names.requests,
            Source::Dropped => &self.names.dropped,
        }
    }

    /// Consumes until `stop`, connecting anew with backoff. An error is one that no waiting mends, at the start.
    /// Afterwards such an error is logged, and waited out like any other: an operator may be mending it.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Unusable> {
        let (mut careful, mut started, mut told) = (false, false, false);
        let mut pause = Duration::from_millis(100);
        while !stop.is_cancelled() {
            let Some(opened) = stop.run_until_cancelled(self.open(careful)).await else { break };
            let error = match opened {
                Ok(line) => {
                    if !careful {
                        tracing::info!(queue = self.queue(), prefetch = self.prefetch, "consuming");
                    }
                    (started, told, pause) = (true, false, Duration::from_millis(100));
                    self.consuming.store(true, Ordering::Relaxed);
                    let ended = self.consume(line, careful, &stop).await;
                    self.consuming.store(false, Ordering::Relaxed);
                    match ended {
                        Ok(()) => {
                            careful = false;
                            continue;
                        }
                        Err(error) => {
                            metrics::consumer_lost();
                            error
                        }
                    }
                }
                Err(error) if !started && !error.passes() => return Err(error),
                Err(error) => error,
            };
            if error.is_undecodable() {
                if !careful {
                    tracing::warn!(
                        queue = self.queue(),
                        "a message cannot be decoded; the broker will set it aside"
                    );
                }
                careful = true;
                continue;
            }
            if !told {
                told = true;
                tracing::warn!(queue = self.queue(), %error, "not consuming; connecting again until it works");
            }
            let _ = stop
                .run_until_cancelled(tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))))
                .await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.finish().await;
        Ok(())
    }

    /// A careful line takes one message only. A message that cannot be decoded ends its connection, and the broker
    /// counts a delivery for each message that was under way on it: so for the culprit alone, until its limit drops it.
    async fn open(&self, careful: bool) -> Result<Line, Unusable> {
        let purpose = if self.source == Source::Requests { "consumer" } else { "consumer of the dropped" };
        let connection = connection::connect(&self.config, purpose).await?;
        let channel = connection.create_channel().await?;
        if !careful {
            topology::declare(&channel, &self.names).await?;
        }
        let prefetch = if careful { 1 } else { self.prefetch };
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let deliveries = channel.basic_consume(self.queue().into(), "".into(), options, arguments).await?;
        let (acked, sure) = mpsc::channel(ACKED);
        tokio::spawn(make_sure(channel.clone(), prefetch, sure, self.invites.clone()));
        let hold = Hold { lost: CancellationToken::new(), acked };
        Ok(Line { connection, channel, deliveries, hold })
    }

    /// Takes deliveries until `stop`, until a careful line has brought its one (both `Ok`), or until the line fails. A
    /// stream that just ends has lost its queue or its channel.
    async fn consume(&self, mut line: Line, careful: bool, stop: &CancellationToken) -> Result<(), Unusable> {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => {
                    self.drain(line).await;
                    return Ok(());
                }
                next = line.deliveries.next() => next,
            };
            match next {
                Some(Ok(delivery)) if careful => {
                    // It was decoded, so the culprit is gone, or behind it: back to taking many at a time.
                    self.in_hand.spawn(self.take_alone(line, delivery));
                    return Ok(());
                }
                Some(Ok(delivery)) => drop(self.in_hand.spawn(self.take(delivery, &line.hold))),
                lost => {
                    line.hold.lost.cancel();
                    let gone = || std::io::Error::other("the queue or its channel is gone").into();
                    return Err(lost.and_then(Result::err).unwrap_or_else(gone).into());
                }
            }
        }
    }

    /// Works a careful line's one message beside the next line, and closes it.
    fn take_alone(&self, line: Line, delivery: Delivery) -> impl Future<Output = ()> + use<> {
        let work = self.take(delivery, &line.hold);
        async move {
            let _ = line.channel.basic_cancel(line.deliveries.tag(), BasicCancelOptions::default()).await;
            work.await;
            let _ = line.connection.close(200, "done".into()).await;
        }
    }

    /// Waits for what is in hand. Its replies and rows need no line of the consumer's.
    async fn finish(&self) {
        self.in_hand.close();
        self.in_hand.wait().await;
    }

    /// No new work is taken, what is in hand is finished, what was prefetched and not begun goes back.
    async fn drain(&self, mut line: Line) {
        self.consuming.store(false, Ordering::Relaxed);
        let cancelled = line.channel.basic_cancel(line.deliveries.tag(), BasicCancelOptions::default()).await;
        if cancelled.is_ok() {
            while let Some(Ok(delivery)) = line.deliveries.next().await {
                give_back(&delivery).await;
            }
        }
        self.finish().await;
        let _ = line.connection.close(200, "done".into()).await;
    }

    fn take(&self, mut delivery: Delivery, hold: &Hold) -> impl Future<Output = ()> + use<> {
        let mut envelope = delivery::envelope(&mut delivery);
        envelope.withdrawn = hold.lost.clone();
        let acked = hold.acked.clone();
        let trace = envelope.traceparent().map(|trace| tracing::field::display(trace.trace_id()));
        // Debug, as it escapes: no sender forges a line of the log.
        let span = tracing::info_span!("invite", message_id = ?envelope.message_id, trace);
        let consumer = self.clone();
        async move { consumer.work(delivery, envelope, acked).await }.instrument(span)
    }

    /// One message, to its end.
    async fn work(&self, delivery: Delivery, mut envelope: Envelope, acked: mpsc::Sender<[u8; 32]>) {
        let _counted = InHand::begin(delivery.redelivered);
        let unfit =
            (self.source == Source::Dropped).then(|| self.why_dropped(&delivery, &mut envelope)).flatten();
        let result = match unfit {
            Some(trouble) => Err(trouble),
            None => AssertUnwindSafe(process(&self.invites, &envelope)).catch_unwind().await.unwrap_or_else(
                |panic| {
                    let said = panic.downcast_ref::<&str>().copied().unwrap_or("no message");
                    Err(Trouble::Defect(format!("a panic: {said}")))
                },
            ),
        };
        let settled = match verdict(result) {
            Verdict::Return => Err(Trouble::Stopping),
            Verdict::Answer(reply) => self.answer(&envelope, &reply).await,
            Verdict::SetAside { reply, reason } => {
                self.set_aside(&delivery, &envelope, &reply, &reason).await
            }
        };
        if settled.is_err() {
            return give_back(&delivery).await;
        }
        // After the confirmed reply. On a lost connection the message comes again, and finds its row.
        match delivery.acker.ack(BasicAckOptions::default()).await {
            // Where no room is left, the request stays unsure, which is safe.
            Ok(true) if envelope.message_id.as_deref().is_none_or(str::is_empty) => {
                let _ = acked.try_send(envelope.sha256());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "the acknowledgement was lost; the message will come again");
            }
        }
    }

    /// Marks what expired in the queue of requests, to be answered so; anything else is nothing to work on. Only here
    /// does the broker's `x-death` count: a publisher can write that header too.
    fn why_dropped(&self, delivery: &Delivery, envelope: &mut Envelope) -> Option<Trouble> {
        let death = delivery::last_death(delivery);
        envelope.expired_in_queue =
            death.as_ref().is_some_and(|death| death.is_expiry_in(&self.names.requests));
        let why = death
            .map_or("nothing says why".to_owned(), |death| format!("{} in {}", death.reason, death.queue));
        (!envelope.expired_in_queue).then(|| Trouble::Defect(format!("the broker dropped it: {why}")))
    }
}

/// Marks acknowledgements as sure, many at a time: whatever the broker answers on a channel, it has taken what was sent
/// before. Ends with its line; what is not marked by then stays unsure.
async fn make_sure(
    channel: lapin::Channel,
    prefetch: u16,
    mut acked: mpsc::Receiver<[u8; 32]>,
    invites: Arc<Context>,
) {
    let mut requests = Vec::new();
    while acked.recv_many(&mut requests, ACKED).await > 0 {
        // Asking for the prefetch that is there changes nothing, and has an answer.
        if channel.basic_qos(prefetch, BasicQosOptions::default()).await.is_err() {
            return;
        }
        if let Err(error) = invites.sessions.acknowledged(&requests).await {
            tracing::warn!(%error, "acknowledgements could not be marked");
        }
        requests.clear();
    }
}

/// Unfinished: back to the queue, for another worker.
async fn give_back(delivery: &Delivery) {
    let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    // A lost connection returns it as well.
    let _ = delivery.acker.nack(requeue).await;
}
