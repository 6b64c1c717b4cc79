//! What a run tells of invites over HTTP, each line with the same load over the queue alone before it.

use crate::{
    figures::{Finding, Measure, or_dash, ratio, short, whole},
    part::{Part, Subject},
    report::{Grid, Run},
};

/// For docs/PERFORMANCE.md.
pub fn markdown(run: &Run) -> String {
    format!("{}.\n{}\n\n{}", run.machine.describe(), run.how(), grid(run).markdown())
}

pub fn grid(run: &Run) -> Grid {
    let found = || run.findings.iter().filter(|it| it.scenario.part == Part::Gateway);
    let row = |it: &Finding| {
        let (scenario, measure) = (&it.scenario, &it.measure);
        let mut alone = found().filter(|it| it.scenario.subject == Subject::Worker);
        let alone = alone.find(|it| it.scenario.rate == scenario.rate).map(|it| &it.measure);
        let alone = alone.filter(|_| scenario.subject == Subject::Gateway);
        let times =
            |of: fn(&Measure) -> f64| or_dash(alone.and_then(|alone| ratio(of(measure), of(alone))), short);
        // As fast as it goes, a latency is only that of a window.
        let ms = |value: f64| or_dash(scenario.rate.map(|_| value), |value| format!("{value:.1}"));
        let cpu = &measure.cpu;
        let known = (measure.gateway_mib > 0.0).then_some(measure.gateway_mib);
        let own = [
            scenario.title(),
            whole(measure.per_second),
            times(|of| of.per_second),
            ms(measure.p50_ms),
            ms(measure.p99_ms),
            scenario.rate.map_or_else(|| "–".to_owned(), |_| times(|of| of.p99_ms)),
            ms(measure.max_ms),
        ];
        let processors = [cpu.gateway, cpu.worker, cpu.postgres, cpu.broker, cpu.publisher, cpu.machine];
        own.into_iter()
            .chain(processors.map(|microseconds| or_dash(microseconds, whole)))
            .chain([or_dash(known, whole), whole(measure.peak_mib)])
            .collect()
    };
    let header = [
        "over HTTP",
        "answered/s",
        "of queue",
        "p50 ms",
        "p99 ms",
        "of queue",
        "max ms",
        "gateway",
        "worker",
        "Postgres",
        "broker",
        "client",
        "all",
        "gateway, MiB",
        "worker, MiB",
    ];
    Grid { header: header.to_vec(), rows: found().map(row).collect() }
}
