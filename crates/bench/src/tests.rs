//! Unit tests of the benchmark's arithmetic, parsing and drawing.

use crate::{
    documents::replace_figures,
    figures::{CpuPerInvite, Figures, median, quantile, ratio, short, whole},
    load_result::LoadResult,
    plot,
    report::RunReport,
    response::{HttpResponse, parse},
};
use serde_json::{Value, json};
use std::time::Duration;

fn milliseconds(values: &[u64]) -> Vec<Duration> {
    values.iter().copied().map(Duration::from_millis).collect()
}

#[test]
fn a_quantile_is_the_nearest_rank() {
    let hundred = milliseconds(&(1..=100).collect::<Vec<_>>());
    for (thousandths, expected) in [(0, 1), (500, 50), (501, 51), (990, 99), (991, 100), (1_000, 100)] {
        assert_eq!(quantile(&hundred, thousandths), Duration::from_millis(expected), "{thousandths}");
    }
    assert_eq!(quantile(&milliseconds(&[7]), 990), Duration::from_millis(7));
    assert_eq!(quantile(&[], 990), Duration::ZERO);
}

#[test]
fn a_median_is_the_value_in_the_middle() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0]), Some(3.0));
    assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
    assert_eq!(median(vec![9.0, 1.0]), Some(5.0));
}

#[test]
fn a_ratio_needs_a_positive_base() {
    assert_eq!(ratio(3.0, 4.0), Some(0.75));
    assert_eq!(ratio(3.0, 0.0), None);
    assert_eq!(ratio(3.0, f64::NAN), None);
}

#[test]
fn rounds_give_the_median_of_each_figure_and_the_largest_memory() {
    let round = |per_second, worker, peak_mib| Figures {
        per_second,
        p50_ms: 1.0,
        p99_ms: 2.0,
        max_ms: 3.0,
        cpu: CpuPerInvite { worker, ..CpuPerInvite::default() },
        peak_mib,
        gateway_mib: peak_mib / 2.0,
    };
    let rounds = [round(10.0, Some(90.0), 40.0), round(30.0, None, 60.0), round(20.0, Some(80.0), 50.0)];
    let medians = Figures::of_rounds(&rounds).expect("there are rounds");
    assert_eq!((medians.per_second, medians.cpu.worker, medians.cpu.postgres), (20.0, Some(85.0), None));
    assert!(medians.peak_mib > 59.9, "{}", medians.peak_mib);
    assert!((29.9..30.1).contains(&medians.gateway_mib), "{}", medians.gateway_mib);
    assert_eq!(Figures::of_rounds(&[]), None);
}

#[test]
fn numbers_have_separators_and_few_digits() {
    assert_eq!(whole(19_499.6), "19,500");
    assert_eq!(whole(999.0), "999");
    assert_eq!(whole(5_000_000.0), "5,000,000");
    assert_eq!([0.456, 3.07159, 42.4].map(short), ["0.46", "3.1", "42"]);
}

#[test]
fn the_plot_escapes_text_and_has_a_dark_counterpart_for_each_colour() {
    let report: RunReport = serde_json::from_value(json!({
        "machine": {"processor": "<A&B>", "cores": 2, "memory": 24, "kernel": "6", "postgres": "15", "rabbitmq": "3",
                    "commit": "abc"},
        "rounds": 1,
        "settings": [],
        "findings": [
            result("throughput", "floor", None),
            result("throughput", "worker", None),
            result("latency", "floor", Some(500)),
            result("latency", "worker", Some(500)),
        ],
        "wrongs": [],
    }))
    .expect("a report");
    let svg = plot::draw(&report).expect("a plot");
    assert!(svg.contains("&lt;A&amp;B&gt;"), "{svg}");
    assert_eq!(svg.matches("<title>").count(), 1);
    for text in ["floor", "one worker", "2,000", "RabbitMQ", "worker p99", "100 ms"] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    for attribute in ["fill=\"#", "stroke=\"#"] {
        for color in svg.split(attribute).skip(1).map(|rest| &rest[..6]) {
            let rule = format!("[{attribute}{color}\"]");
            assert!(svg.contains(&rule), "{rule}");
        }
    }
}

/// A result as the JSON report has it.
fn result(part: &str, subject: &str, rate: Option<u32>) -> Value {
    json!({
        "part": part, "subject": subject, "invites": 10, "rate": rate, "workers": 1, "provider_ms": 0, "rows": 0,
        "per_second": 2_000.0, "p50_ms": 2.0, "p99_ms": 40.0, "max_ms": 50.0, "peak_mib": 30.0,
        "cpu": {"worker": 50.0, "postgres": 40.0, "broker": 70.0, "provider": null, "publisher": 30.0, "machine": 200.0},
    })
}

#[test]
fn figures_replace_the_text_between_the_two_comments() {
    let (begin, end) = ("<!-- figures: written by ./dev bench --write -->", "<!-- end of figures -->");
    let other = format!("{}\n{end}\n", begin.replace("figures:", "figures over HTTP:"));
    let document = format!("before\n{begin}\n\nold\n\n{end}\nafter\n{other}");
    let written = replace_figures(&document, "", "new\n").expect("the comments are there");
    assert_eq!(written, format!("before\n{begin}\n\nnew\n\n{end}\nafter\n{other}"));
    assert_eq!(replace_figures(&written, "", "new").as_ref(), Some(&written));
    let both = replace_figures(&written, " over HTTP", "more").expect("the other comments are there");
    assert_eq!(both.replace("\n\nmore\n\n", "\n"), written);
    assert_eq!(replace_figures("no comments", "", "new"), None);
}

#[test]
fn a_response_is_complete_when_its_body_is() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx-request-id: 7\r\n\r\nbody";
    for end in 0..text.len() {
        assert_eq!(parse(&text[..end]), Ok(None), "{end}");
    }
    assert_eq!(parse(text), Ok(Some(HttpResponse { status: 200, body: b"body", keeps_alive: true })));
    let last = b"HTTP/1.1 503 Service Unavailable\r\nconnection: Close\r\ncontent-length:0\r\n\r\n";
    assert_eq!(parse(last), Ok(Some(HttpResponse { status: 503, body: b"", keeps_alive: false })));
}

#[test]
fn an_invalid_response_or_a_second_one_is_an_error() {
    for invalid in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 two\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
    ] {
        assert!(parse(invalid.as_bytes()).is_err(), "{invalid}");
    }
}

#[test]
fn a_failed_request_is_reported_and_does_not_count_as_answered() {
    let failures = [("503 unavailable", 2), ("504 reply_timeout", 1)];
    let result = LoadResult {
        requested: 10,
        answered: 6,
        failures: failures.map(|(kind, times)| (kind.to_owned(), times)).into(),
        duration: Duration::from_secs(2),
        ..LoadResult::default()
    };
    assert_eq!(
        result.violations(),
        [
            "1 of 10 invites without a reply",
            "2 of 10 requests failed: 503 unavailable",
            "1 of 10 requests failed: 504 reply_timeout"
        ]
    );
    assert!((result.figures().per_second - 3.0).abs() < 1e-9);
}
