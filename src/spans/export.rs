//! Sends finished spans to the collector. The queue is bounded, and what does not fit or is not taken is dropped and counted: a
//! dead collector costs no invite anything.

use super::{Span, TRACER, Tracer, metrics, metrics::DropReason, otlp};
use crate::{
    backoff::Backoff,
    config::TracesConfig,
    log_throttle::LogThrottle,
    supervise::{Pulse, Task, TaskHandle, keep_running},
};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Spans that may wait for the collector.
const QUEUE: usize = 4_096;
/// Spans in one request.
const LARGEST: usize = 512;
/// How long spans are gathered for one request.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// How often the queue is looked at meanwhile. It has room for what comes until then.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// How long the collector may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long a stop may wait for the last spans.
const LAST_WITHIN: Duration = Duration::from_millis(500);

static FAILED: LogThrottle = LogThrottle::new();

/// The export of spans, while the process runs.
#[derive(Debug)]
pub(crate) struct SpanExporter {
    task: TaskHandle,
    stop: CancellationToken,
}

/// Sends the last spans, for a moment at most.
pub(crate) async fn finish(exporter: Option<SpanExporter>) {
    let Some(SpanExporter { task, stop }) = exporter else { return };
    stop.cancel();
    let _ = timeout(LAST_WITHIN, task.ended()).await;
}

struct Collector {
    client: reqwest::Client,
    url: String,
    service: String,
    queue: mpsc::Receiver<Span>,
}

/// Starts tracing.
///
/// # Errors
///
/// A text for the operator, if there can be no client for the collector.
pub(crate) fn start(config: &TracesConfig) -> Result<SpanExporter, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &config.headers {
        let wrong = || "OTEL_EXPORTER_OTLP_HEADERS: must be HTTP headers".to_owned();
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let client = reqwest::Client::builder()
        .default_headers(headers)
        .timeout(ANSWERS_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
    let (sender, queue) = mpsc::channel(QUEUE);
    let _ = TRACER.set(Tracer { sampler: config.sampler, queue: sender });
    let collector =
        Collector { client, url: config.url.clone(), service: config.service_name.clone(), queue };
    let (collector, stop) = (Arc::new(Mutex::new(collector)), CancellationToken::new());
    let until = stop.clone();
    let task = keep_running(Task::Traces, stop.clone(), move |pulse| {
        let (collector, until) = (collector.clone(), until.clone());
        async move { collector.lock().await.run(&until, &pulse).await }
    });
    Ok(SpanExporter { task, stop })
}

impl Collector {
    async fn run(&mut self, stop: &CancellationToken, pulse: &Pulse) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut spans = Vec::with_capacity(LARGEST);
        loop {
            pulse.idle();
            stop.run_until_cancelled(self.gather(&mut spans)).await;
            if stop.is_cancelled() {
                self.send_last(&mut spans).await;
                return;
            }
            pulse.step("sending spans to the collector");
            match stop.run_until_cancelled(self.send(&spans)).await {
                Some(Ok(())) => {
                    backoff.reset();
                    metrics::exported(spans.len());
                }
                Some(Err(error)) => {
                    metrics::dropped(DropReason::Collector, spans.len());
                    if let Some(requests) = FAILED.due() {
                        tracing::warn!(
                            requests,
                            error,
                            "the collector of OTEL_EXPORTER_OTLP_ENDPOINT takes no spans"
                        );
                    }
                    pulse.idle();
                    stop.run_until_cancelled(backoff.wait()).await;
                    // What waits would be as old as the failure.
                    if stop.is_cancelled() {
                        return;
                    }
                }
                None => return,
            }
            spans.clear();
        }
    }

    /// Waits for a span, and then for as many as come together. It looks for these by the clock: a task that waits for each
    /// would be woken for each, by the invite that sends it, which costs that invite more than the span does.
    async fn gather(&mut self, spans: &mut Vec<Span>) {
        if self.queue.recv_many(spans, LARGEST).await == 0 {
            // The sender lives as long as the process.
            std::future::pending::<()>().await;
        }
        let ends = Instant::now() + GATHERED_FOR;
        while spans.len() < LARGEST && Instant::now() < ends {
            sleep(LOOKS_EVERY).await;
            while spans.len() < LARGEST
                && let Ok(span) = self.queue.try_recv()
            {
                spans.push(span);
            }
        }
    }

    async fn send_last(&mut self, spans: &mut Vec<Span>) {
        while let Ok(span) = self.queue.try_recv() {
            spans.push(span);
        }
        if !spans.is_empty() && self.send(spans).await.is_ok() {
            metrics::exported(spans.len());
        }
    }

    async fn send(&self, spans: &[Span]) -> Result<(), String> {
        let body = otlp::body(&self.service, spans);
        let answer = self.client.post(&self.url).body(body).send().await;
        // Without the URL, which may hold a key.
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("it answers {}", answer.status().as_u16()))
        }
    }
}
