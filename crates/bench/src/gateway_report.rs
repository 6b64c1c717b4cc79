//! The table of invites over HTTP. Before each row is the same load over the queue alone.

use crate::{
    figure_table::FigureTable,
    figures::{Figures, ScenarioResult, or_dash, ratio, short, whole},
    scenario::{BenchPart, Subject},
};

pub(crate) fn table(all: &[ScenarioResult]) -> FigureTable {
    let results = || all.iter().filter(|it| it.scenario.part == BenchPart::Gateway);
    let row = |it: &ScenarioResult| {
        let (scenario, figures) = (&it.scenario, &it.figures);
        let mut queue = results().filter(|it| it.scenario.subject == Subject::Worker);
        let queue = queue.find(|it| it.scenario.rate == scenario.rate).map(|it| &it.figures);
        let queue = queue.filter(|_| scenario.subject == Subject::Gateway);
        let of_queue =
            |of: fn(&Figures) -> f64| or_dash(queue.and_then(|queue| ratio(of(figures), of(queue))), short);
        // Without a rate, the latency depends only on the number of unanswered invites.
        let ms = |value: f64| or_dash(scenario.rate.map(|_| value), |value| format!("{value:.1}"));
        let cpu = &figures.cpu;
        let gateway_mib = (figures.gateway_mib > 0.0).then_some(figures.gateway_mib);
        let first = [
            scenario.title(),
            whole(figures.per_second),
            of_queue(|figures| figures.per_second),
            ms(figures.p50_ms),
            ms(figures.p99_ms),
            scenario.rate.map_or_else(|| "–".to_owned(), |_| of_queue(|figures| figures.p99_ms)),
            ms(figures.max_ms),
        ];
        let processors = [cpu.gateway, cpu.worker, cpu.postgres, cpu.broker, cpu.publisher, cpu.machine];
        first
            .into_iter()
            .chain(processors.map(|microseconds| or_dash(microseconds, whole)))
            .chain([or_dash(gateway_mib, whole), whole(figures.peak_mib)])
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
    FigureTable { header: header.to_vec(), rows: results().map(row).collect() }
}
