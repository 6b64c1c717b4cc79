//! The measurements of a run, in their order.

use crate::{
    options::Options,
    scenario::{BenchPart, Scenario, Subject},
};

/// The two rates that the documents quote.
const RATES: [u32; 2] = [500, 3_000];
/// With `--full`: enough rates for a curve.
const MORE_RATES: [u32; 9] = [500, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000];
/// How long each rate is measured, in seconds.
const RATE_SECONDS: u32 = 6;
/// Enough for some seconds each.
const INVITES: u32 = 20_000;
const INVITES_OF_FLOOR: u32 = 50_000;
const INVITES_OF_SLOW_PROVIDER: u32 = 15_000;
const SLOW_PROVIDER_MS: u32 = 100;
/// The gateway has a required latency at the first rate, which is half of its required throughput, the second rate.
const HTTP_RATES: [u32; 2] = [1_000, 2_000];
/// Longer than the ten seconds after which the gateway closes a silent connection.
const HTTP_RATE_SECONDS: u32 = 12;
const IDLE_CONNECTIONS: u32 = 1_000;
const SLOW_CONNECTIONS: u32 = 200;
const MORE_WORKERS: [u32; 2] = [2, 4];

/// The scenarios of one round. Those with old rows are apart: filling the table takes minutes, so all their rounds come
/// last.
#[derive(Debug)]
pub(crate) struct Plan {
    pub empty_table: Vec<Scenario>,
    pub old_rows: Vec<Scenario>,
}

pub(crate) fn plan(options: &Options) -> Plan {
    let plain = |subject, invites| Scenario {
        part: BenchPart::Throughput,
        subject,
        invites: options.invites.unwrap_or(invites),
        rate: None,
        workers: 1,
        shards: 0,
        provider_ms: 0,
        rows: 0,
        idle: 0,
        slow: 0,
    };
    let (floor, worker) = (plain(Subject::Floor, INVITES_OF_FLOOR), plain(Subject::Worker, INVITES));
    let mut plan = Plan { empty_table: Vec::new(), old_rows: Vec::new() };

    // The report has these parts as ratios to these two scenarios.
    if [
        BenchPart::Throughput,
        BenchPart::SlowProvider,
        BenchPart::Growth,
        BenchPart::ScaleOut,
        BenchPart::Shards,
    ]
    .into_iter()
    .any(|part| options.includes(part))
    {
        plan.empty_table.extend([floor.clone(), worker.clone()]);
    }
    if options.includes(BenchPart::ScaleOut) {
        let more =
            MORE_WORKERS.map(|workers| Scenario { part: BenchPart::ScaleOut, workers, ..worker.clone() });
        plan.empty_table.extend(more);
    }
    if options.only.contains(&BenchPart::Shards) {
        plan.empty_table.extend(MORE_WORKERS.map(|shards| Scenario {
            part: BenchPart::Shards,
            workers: shards,
            shards,
            ..worker.clone()
        }));
    }
    if options.includes(BenchPart::SlowProvider) {
        let invites = options.invites.unwrap_or(INVITES_OF_SLOW_PROVIDER);
        plan.empty_table.push(Scenario {
            part: BenchPart::SlowProvider,
            invites,
            provider_ms: SLOW_PROVIDER_MS,
            ..worker.clone()
        });
    }
    if options.includes(BenchPart::Latency) {
        let rates = if options.full { &MORE_RATES[..] } else { &RATES };
        for rate in rates {
            let invites = options.invites.unwrap_or(rate * RATE_SECONDS);
            for subject in [&floor, &worker] {
                plan.empty_table.push(Scenario {
                    part: BenchPart::Latency,
                    invites,
                    rate: Some(*rate),
                    ..subject.clone()
                });
            }
        }
    }
    if options.includes(BenchPart::Gateway) {
        plan.empty_table.extend(gateway_scenarios(options, &worker));
    }
    if options.includes(BenchPart::Growth) {
        plan.old_rows.push(Scenario { part: BenchPart::Growth, rows: options.rows(), ..worker });
    }
    plan
}

/// Each after the same load over the queue alone. The last has idle and slow connections beside it.
fn gateway_scenarios(options: &Options, worker: &Scenario) -> Vec<Scenario> {
    let queue = |rate: Option<u32>| {
        let invites = options.invites.or(rate.map(|rate| rate * HTTP_RATE_SECONDS)).unwrap_or(worker.invites);
        Scenario { part: BenchPart::Gateway, invites, rate, ..worker.clone() }
    };
    let http = |rate| Scenario { subject: Subject::Gateway, ..queue(rate) };
    let rates = [None].into_iter().chain(HTTP_RATES.map(Some));
    let crowded = Scenario { idle: IDLE_CONNECTIONS, slow: SLOW_CONNECTIONS, ..http(Some(HTTP_RATES[0])) };
    rates.flat_map(|rate| [queue(rate), http(rate)]).chain([crowded]).collect()
}
