//! The benchmark's arithmetic and drawing, without a benchmark.

use crate::{
    answer::{Answer, parse},
    block::between,
    figures::{Cpu, Measure, median, quantile, ratio, short, whole},
    outcome::Outcome,
    svg::{Anchor, Drawing, escape, step},
};
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
fn a_median_is_in_the_middle() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0]), Some(3.0));
    assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
    assert_eq!(median(vec![9.0, 1.0]), Some(5.0));
}

#[test]
fn a_ratio_to_nothing_is_none() {
    assert_eq!(ratio(3.0, 4.0), Some(0.75));
    assert_eq!(ratio(3.0, 0.0), None);
    assert_eq!(ratio(3.0, f64::NAN), None);
}

#[test]
fn rounds_give_the_median_of_each_figure_and_the_worst_memory() {
    let round = |per_second, worker, peak_mib| Measure {
        per_second,
        p50_ms: 1.0,
        p99_ms: 2.0,
        max_ms: 3.0,
        cpu: Cpu { worker, ..Cpu::default() },
        peak_mib,
        gateway_mib: peak_mib / 2.0,
    };
    let rounds = [round(10.0, Some(90.0), 40.0), round(30.0, None, 60.0), round(20.0, Some(80.0), 50.0)];
    let found = Measure::of_rounds(&rounds).expect("there are rounds");
    assert_eq!((found.per_second, found.cpu.worker, found.cpu.postgres), (20.0, Some(85.0), None));
    assert!(found.peak_mib > 59.9, "{}", found.peak_mib);
    assert!((29.9..30.1).contains(&found.gateway_mib), "{}", found.gateway_mib);
    assert_eq!(Measure::of_rounds(&[]), None);
}

#[test]
fn numbers_are_written_for_people() {
    assert_eq!(whole(19_499.6), "19,500");
    assert_eq!(whole(999.0), "999");
    assert_eq!(whole(5_000_000.0), "5,000,000");
    assert_eq!([0.456, 3.07159, 42.4].map(short), ["0.46", "3.1", "42"]);
}

#[test]
fn ticks_are_at_round_numbers_and_not_too_many() {
    for (largest, expected) in
        [(20_000.0, 5_000.0), (8_320.0, 2_000.0), (100.0, 20.0), (4.9, 1.0), (0.7, 0.2)]
    {
        assert!((step(largest, 5) - expected).abs() < 1e-9, "{largest}: {}", step(largest, 5));
    }
}

#[test]
fn a_text_cannot_leave_its_place_in_a_drawing() {
    assert_eq!(escape(r#"<a href="x">&</a>"#), "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;");
    let mut drawing = Drawing::new(10.0, 10.0, "</title><script>");
    drawing.text("faint", Anchor::End, (1.0, 2.0), "1 < 2 & 3");
    let drawn = drawing.finish();
    assert!(drawn.contains("<title>&lt;/title&gt;&lt;script&gt;</title>"), "{drawn}");
    assert!(drawn.contains(r#"text-anchor="end">1 &lt; 2 &amp; 3</text>"#), "{drawn}");
}

#[test]
fn figures_replace_what_stands_between_the_two_comments() {
    let (begin, end) = ("<!-- figures: written by ./dev bench --write -->", "<!-- end of figures -->");
    let other = format!("{}\n{end}\n", begin.replace("figures:", "figures over HTTP:"));
    let document = format!("before\n{begin}\n\nold\n\n{end}\nafter\n{other}");
    let written = between(&document, "", "new\n").expect("there is a place");
    assert_eq!(written, format!("before\n{begin}\n\nnew\n\n{end}\nafter\n{other}"));
    assert_eq!(between(&written, "", "new").as_ref(), Some(&written));
    let both = between(&written, " over HTTP", "more").expect("there is another place");
    assert_eq!(both.replace("\n\nmore\n\n", "\n"), written);
    assert_eq!(between("no place", "", "new"), None);
}

#[test]
fn an_answer_is_whole_when_its_body_is() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx-request-id: 7\r\n\r\nbody";
    for end in 0..text.len() {
        assert_eq!(parse(&text[..end]), Ok(None), "{end}");
    }
    assert_eq!(parse(text), Ok(Some(Answer { status: 200, body: b"body", keeps: true })));
    let last = b"HTTP/1.1 503 Service Unavailable\r\nconnection: Close\r\ncontent-length:0\r\n\r\n";
    assert_eq!(parse(last), Ok(Some(Answer { status: 503, body: b"", keeps: false })));
}

#[test]
fn what_is_no_answer_or_more_than_one_is_an_error() {
    for wrong in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 two\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
    ] {
        assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn a_failed_request_is_told_and_does_not_count_as_answered() {
    let failures = [("503 unavailable", 2), ("504 reply_timeout", 1)];
    let outcome = Outcome {
        asked: 10,
        answered: 6,
        failures: failures.map(|(kind, times)| (kind.to_owned(), times)).into(),
        took: Duration::from_secs(2),
        ..Outcome::default()
    };
    assert_eq!(
        outcome.wrongs(),
        [
            "1 of 10 invites without a reply",
            "2 of 10 requests failed: 503 unavailable",
            "1 of 10 requests failed: 504 reply_timeout"
        ]
    );
    assert!((outcome.measure().per_second - 3.0).abs() < 1e-9);
}
