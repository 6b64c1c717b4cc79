//! Which measurements a run is made of, in their order.

use crate::{
    options::Options,
    part::{Part, Scenario, Subject},
};

/// In the short form, the two rates that the documents speak of.
const RATES: [u32; 2] = [500, 3_000];
/// In the full form, enough of them for a curve.
const MORE_RATES: [u32; 9] = [500, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000];
/// Seconds of each rate.
const RATE_FOR: u32 = 6;
/// Enough for some seconds each.
const INVITES: u32 = 20_000;
const INVITES_OF_FLOOR: u32 = 50_000;
const INVITES_OF_SLOW_PROVIDER: u32 = 15_000;
const SLOW_PROVIDER_MS: u32 = 100;
/// Over HTTP: what the gateway is held to at half of its throughput, and that throughput.
const HTTP_RATES: [u32; 2] = [1_000, 2_000];
/// Longer than the ten seconds after which the gateway closes a connection that says nothing.
const HTTP_RATE_FOR: u32 = 12;
const IDLE: u32 = 1_000;
const SLOW: u32 = 200;
const MORE_WORKERS: [u32; 2] = [2, 4];

/// A round, and what of it goes on beside old rows: filling the table takes minutes, so all its rounds come last.
#[derive(Debug)]
pub struct Plan {
    pub round: Vec<Scenario>,
    pub beside_old_rows: Vec<Scenario>,
}

pub fn plan(options: &Options) -> Plan {
    let plain = |subject, invites| Scenario {
        part: Part::Throughput,
        subject,
        invites: options.invites.unwrap_or(invites),
        rate: None,
        workers: 1,
        provider_ms: 0,
        rows: 0,
        idle: 0,
        slow: 0,
    };
    let (floor, worker) = (plain(Subject::Floor, INVITES_OF_FLOOR), plain(Subject::Worker, INVITES));
    let mut plan = Plan { round: Vec::new(), beside_old_rows: Vec::new() };

    // All but the latencies are told as ratios to these two.
    if [Part::Throughput, Part::SlowProvider, Part::Growth, Part::ScaleOut]
        .map(|part| options.runs(part))
        .contains(&true)
    {
        plan.round.extend([floor.clone(), worker.clone()]);
    }
    if options.runs(Part::ScaleOut) {
        let more = MORE_WORKERS.map(|workers| Scenario { part: Part::ScaleOut, workers, ..worker.clone() });
        plan.round.extend(more);
    }
    if options.runs(Part::SlowProvider) {
        let invites = options.invites.unwrap_or(INVITES_OF_SLOW_PROVIDER);
        let slow =
            Scenario { part: Part::SlowProvider, invites, provider_ms: SLOW_PROVIDER_MS, ..worker.clone() };
        plan.round.push(slow);
    }
    if options.runs(Part::Latency) {
        let rates = if options.full { &MORE_RATES[..] } else { &RATES };
        for rate in rates {
            let invites = options.invites.unwrap_or(rate * RATE_FOR);
            for of in [&floor, &worker] {
                plan.round.push(Scenario { part: Part::Latency, invites, rate: Some(*rate), ..of.clone() });
            }
        }
    }
    if options.runs(Part::Gateway) {
        plan.round.extend(over_http(options, &worker));
    }
    if options.runs(Part::Growth) {
        plan.beside_old_rows.push(Scenario { part: Part::Growth, rows: options.rows(), ..worker });
    }
    plan
}

/// Each beside the queue alone; the last beside a crowd.
fn over_http(options: &Options, worker: &Scenario) -> Vec<Scenario> {
    let queue = |rate: Option<u32>| {
        let invites = options.invites.or(rate.map(|rate| rate * HTTP_RATE_FOR)).unwrap_or(worker.invites);
        Scenario { part: Part::Gateway, invites, rate, ..worker.clone() }
    };
    let http = |rate| Scenario { subject: Subject::Gateway, ..queue(rate) };
    let rates = [None].into_iter().chain(HTTP_RATES.map(Some));
    let crowded = Scenario { idle: IDLE, slow: SLOW, ..http(Some(HTTP_RATES[0])) };
    rates.flat_map(|rate| [queue(rate), http(rate)]).chain([crowded]).collect()
}
