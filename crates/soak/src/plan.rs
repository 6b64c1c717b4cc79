//! The faults and their times: a function of the seed and the options.

use crate::{cluster_plan::ClusterFault, options::Options};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;

/// Gateway processes.
pub(crate) const GATEWAYS: usize = 2;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, to the worker of this index.
    Kill(usize),
    /// SIGTERM.
    Term(usize),
    /// SIGSTOP, and SIGCONT after this long.
    Stop(usize, Duration),
    /// The same signals, to the gateway of this index.
    KillGateway(usize),
    TermGateway(usize),
    StopGateway(usize, Duration),
    /// All connections of this worker to that server are cut. Without a worker, those of all workers and gateways.
    Cut(ServerKind, Option<usize>),
    /// This worker's connections to that server carry nothing for this long.
    Stall(ServerKind, usize, Duration),
    RestartBroker(StopMode),
    RestartDatabase(StopMode),
    /// One backend of a worker gets SIGKILL, so PostgreSQL restarts all backends.
    KillBackend,
    /// `pg_terminate_backend` of all connections of the workers.
    TerminateBackends,
    /// A message that no client library can decode.
    Undecodable,
    Cluster(ClusterFault),
}

/// A server that the workers connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    Broker,
    Database,
    Provider,
}

/// How a server is stopped before it starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopMode {
    Clean,
    Crash,
}

impl StopMode {
    /// The action of `./dev soak-service`.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Clean => "stop",
            Self::Crash => "crash",
        }
    }
}

/// The faults, sorted by their times since the start.
pub(crate) fn faults(options: &Options, seed: u64) -> Vec<(Duration, Fault)> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x000e_0e17);
    let workers = usize::from(options.workers);
    let count = |given, rate| options.per_minute(given, rate);
    let mut plan: Vec<(f64, Fault)> = Vec::new();

    for _ in 0..count(options.kills, 8.0) {
        plan.push((anywhere(&mut rng), Fault::Kill(rng.random_range(0..workers))));
    }
    for _ in 0..count(options.terms, 2.0) {
        plan.push((anywhere(&mut rng), Fault::Term(rng.random_range(0..workers))));
    }
    for number in 0..count(options.stops, 6.0) {
        // One in six is longer than the lease: SMS_TIMEOUT, SMS_SETTLE and a margin.
        let millis =
            if number % 6 == 5 { rng.random_range(15_000..20_000) } else { rng.random_range(1_000..5_000) };
        plan.push((
            anywhere(&mut rng),
            Fault::Stop(rng.random_range(0..workers), Duration::from_millis(millis)),
        ));
    }
    for _ in 0..count(options.gateway_kills, 6.0) {
        plan.push((anywhere(&mut rng), Fault::KillGateway(rng.random_range(0..GATEWAYS))));
    }
    for _ in 0..count(options.terms, 2.0) {
        plan.push((anywhere(&mut rng), Fault::TermGateway(rng.random_range(0..GATEWAYS))));
    }
    for _ in 0..count(options.stops, 2.0) {
        let length = Duration::from_millis(rng.random_range(1_000..6_000));
        plan.push((anywhere(&mut rng), Fault::StopGateway(rng.random_range(0..GATEWAYS), length)));
    }
    for server in [ServerKind::Broker, ServerKind::Database, ServerKind::Provider] {
        for _ in 0..count(options.cuts, 4.0) {
            let worker = rng.random_bool(0.7).then(|| rng.random_range(0..workers));
            plan.push((anywhere(&mut rng), Fault::Cut(server, worker)));
        }
    }
    for server in [ServerKind::Broker, ServerKind::Database, ServerKind::Provider] {
        for _ in 0..count(options.stalls, 2.0) {
            // The promises do not cover a text that reaches the provider after SMS_SETTLE.
            let longest = if server == ServerKind::Provider { 2_500 } else { 6_000 };
            let length = Duration::from_millis(rng.random_range(500..longest));
            let fault = Fault::Stall(server, rng.random_range(0..workers), length);
            plan.push((anywhere(&mut rng), fault));
        }
    }
    // A cluster's servers fail as its setting says.
    let (broker_restarts, database_restarts) = match options.setting() {
        None => (count(options.broker_restarts, 1.0), count(options.database_restarts, 1.0)),
        Some(setting) => {
            let faults = setting.faults(&mut rng, options.seconds());
            plan.extend(faults.into_iter().map(|(share, fault)| (share, Fault::Cluster(fault))));
            (0, 0)
        }
    };
    spread(&mut plan, &mut rng, broker_restarts, |number| {
        Fault::RestartBroker(if number % 2 == 0 { StopMode::Crash } else { StopMode::Clean })
    });
    spread(&mut plan, &mut rng, database_restarts, |number| match number % 3 {
        0 => Fault::RestartDatabase(StopMode::Crash),
        1 => Fault::KillBackend,
        _ => Fault::RestartDatabase(StopMode::Clean),
    });
    spread(&mut plan, &mut rng, count(options.massacres, 1.0), |_| Fault::TerminateBackends);
    spread(&mut plan, &mut rng, count(options.undecodable, 0.5), |_| Fault::Undecodable);

    let length = Duration::from_secs(options.seconds());
    let mut plan: Vec<_> = plan.into_iter().map(|(share, fault)| (length.mul_f64(share), fault)).collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// A random time, as a share of the whole duration.
fn anywhere(rng: &mut StdRng) -> f64 {
    rng.random_range(0.05..0.97)
}

/// Faults that would hide each other: each gets its own part of the duration.
fn spread(plan: &mut Vec<(f64, Fault)>, rng: &mut StdRng, count: u64, fault: impl Fn(u64) -> Fault) {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    for number in 0..count {
        let share = (number as f64 + rng.random_range(0.2..0.8)) / count as f64;
        plan.push((0.08 + share * 0.82, fault(number)));
    }
}
