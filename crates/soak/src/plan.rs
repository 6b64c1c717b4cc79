//! Which fault happens when: a function of the seed and the options.

use crate::options::Options;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;

/// Gateway processes.
pub const GATEWAYS: usize = 2;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGKILL, to the worker of this index.
    Kill(usize),
    /// SIGTERM.
    Term(usize),
    /// SIGSTOP, and SIGCONT after this long.
    Stop(usize, Duration),
    /// The same three, to the gateway of this index.
    KillGateway(usize),
    TermGateway(usize),
    StopGateway(usize, Duration),
    /// Every line of this worker to that server, or of all workers.
    Cut(Server, Option<usize>),
    /// This worker's lines to that server carry nothing for so long.
    Stall(Server, usize, Duration),
    Broker(End),
    Database(End),
    /// One backend of a worker dies by SIGKILL, and PostgreSQL begins anew.
    Backend,
    /// `pg_terminate_backend` of all connections of the workers.
    Massacre,
    /// A message that no client library can decode.
    Undecodable,
}

/// What the workers connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Broker,
    Database,
    Provider,
}

/// How a server ends before it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Crash,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "stop",
            Self::Crash => "crash",
        }
    }
}

/// The faults in the order of their times, counted from the start.
pub fn events(options: &Options, seed: u64) -> Vec<(Duration, Event)> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x000e_0e17);
    let workers = usize::from(options.workers);
    let count = |given, rate| options.per_minute(given, rate);
    let mut plan: Vec<(f64, Event)> = Vec::new();

    for _ in 0..count(options.kills, 8.0) {
        plan.push((anywhere(&mut rng), Event::Kill(rng.random_range(0..workers))));
    }
    for _ in 0..count(options.terms, 2.0) {
        plan.push((anywhere(&mut rng), Event::Term(rng.random_range(0..workers))));
    }
    for turn in 0..count(options.stops, 6.0) {
        // One in six outlasts the lease: SMS_TIMEOUT, SMS_SETTLE and a margin.
        let millis =
            if turn % 6 == 5 { rng.random_range(15_000..20_000) } else { rng.random_range(1_000..5_000) };
        plan.push((
            anywhere(&mut rng),
            Event::Stop(rng.random_range(0..workers), Duration::from_millis(millis)),
        ));
    }
    for _ in 0..count(options.gateway_kills, 6.0) {
        plan.push((anywhere(&mut rng), Event::KillGateway(rng.random_range(0..GATEWAYS))));
    }
    for _ in 0..count(options.terms, 2.0) {
        plan.push((anywhere(&mut rng), Event::TermGateway(rng.random_range(0..GATEWAYS))));
    }
    for _ in 0..count(options.stops, 2.0) {
        let length = Duration::from_millis(rng.random_range(1_000..6_000));
        plan.push((anywhere(&mut rng), Event::StopGateway(rng.random_range(0..GATEWAYS), length)));
    }
    for server in [Server::Broker, Server::Database, Server::Provider] {
        for _ in 0..count(options.cuts, 4.0) {
            let whose = rng.random_bool(0.7).then(|| rng.random_range(0..workers));
            plan.push((anywhere(&mut rng), Event::Cut(server, whose)));
        }
    }
    for server in [Server::Broker, Server::Database, Server::Provider] {
        for _ in 0..count(options.stalls, 2.0) {
            // A text that reaches the provider so late that SMS_SETTLE is over by then is outside the promise.
            let longest = if server == Server::Provider { 2_500 } else { 6_000 };
            let length = Duration::from_millis(rng.random_range(500..longest));
            let event = Event::Stall(server, rng.random_range(0..workers), length);
            plan.push((anywhere(&mut rng), event));
        }
    }
    spread(&mut plan, &mut rng, count(options.broker_restarts, 1.0), |turn| {
        Event::Broker(if turn % 2 == 0 { End::Crash } else { End::Clean })
    });
    spread(&mut plan, &mut rng, count(options.database_restarts, 1.0), |turn| match turn % 3 {
        0 => Event::Database(End::Crash),
        1 => Event::Backend,
        _ => Event::Database(End::Clean),
    });
    spread(&mut plan, &mut rng, count(options.massacres, 1.0), |_| Event::Massacre);
    spread(&mut plan, &mut rng, count(options.undecodable, 0.5), |_| Event::Undecodable);

    let length = Duration::from_secs(options.seconds);
    let mut plan: Vec<_> = plan.into_iter().map(|(share, event)| (length.mul_f64(share), event)).collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn anywhere(rng: &mut StdRng) -> f64 {
    rng.random_range(0.05..0.97)
}

/// Those that would swallow each other get a stretch of time each.
fn spread(plan: &mut Vec<(f64, Event)>, rng: &mut StdRng, count: u64, event: impl Fn(u64) -> Event) {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    for turn in 0..count {
        let share = (turn as f64 + rng.random_range(0.2..0.8)) / count as f64;
        plan.push((0.08 + share * 0.82, event(turn)));
    }
}
