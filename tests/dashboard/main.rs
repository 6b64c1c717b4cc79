//! Every panel of the dashboard has data, and the alerts are silent, when a real Prometheus scrapes a worker, a gateway and
//! what `reconcile` wrote. `./dev dashboard` runs this, as it needs `prometheus` and `prometheus-node-exporter`.

#![allow(unreachable_pub, reason = "a test has no users")]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of the worker need more of it")]
mod support;

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use support::{
    Gateway, Message, Setup, World, free_address, http_invite, now, send, until, with_gateway_and_callbacks,
};

/// How often invites are sent, and the panels that have no data yet are asked, at most: half a minute.
const ROUNDS: usize = 60;

/// A process that ends with this.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{}: {error}; ./dev dashboard installs it", name.display())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A Prometheus, with what it scrapes beside the worker and the gateway.
struct Monitoring {
    address: String,
    _servers: [Server; 2],
    folder: PathBuf,
}

impl Monitoring {
    async fn start(world: &World, gateway: &Gateway) -> Self {
        let folder = std::env::temp_dir().join(format!("session-invite-dashboard-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let textfile = folder.join("session-invite.prom").display().to_string();
        world.run(&["reconcile", "--since", "1d", "--textfile", &textfile]).ok();
        let (address, exporter) = (free_address(), free_address());
        let node = Server::start(
            Command::new("prometheus-node-exporter")
                .args(["--collector.disable-defaults", "--collector.textfile"])
                .arg(format!("--collector.textfile.directory={}", folder.display()))
                .arg(format!("--web.listen-address={exporter}")),
        );
        let jobs = [
            ("session-invite-worker", world.running().address().await),
            ("session-invite-gateway", gateway.operators_address().await),
            ("node", exporter),
        ];
        // JSON is YAML.
        let configuration = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [project("deploy/prometheus/rules.yml")],
            "scrape_configs": jobs.map(|(job, target)| json!({"job_name": job, "static_configs": [{"targets": [target]}]})),
        });
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration.to_string()).expect("the configuration is written");
        let prometheus = Server::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
                .arg(format!("--web.listen-address={address}")),
        );
        let monitoring = Self { address, _servers: [node, prometheus], folder };
        until("Prometheus has scraped all three", || async {
            (monitoring.values("sum(up)").await == [3.0]).then_some(())
        })
        .await;
        monitoring
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let answer = client.get(format!("http://{}/api/v1/{path}", self.address)).send().await.ok()?;
        let answer: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        assert_ne!(answer["status"], "error", "{path}: {answer}");
        Some(answer["data"].clone())
    }

    /// The values of an expression now, without those that are no number. Empty also while Prometheus starts.
    async fn values(&self, expression: &str) -> Vec<f64> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let data = self.get(&format!("query?query={query}")).await.unwrap_or_default();
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let values = series.iter().filter_map(|series| series["value"][1].as_str()?.parse::<f64>().ok());
        values.filter(|value| value.is_finite()).collect()
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Each expression of the dashboard, with its panel's title, and its variables as "All".
fn expressions() -> Vec<(String, String)> {
    let dashboard = fs::read(project("deploy/grafana/session-invite.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_slice(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| {
            let expression = target["expr"].as_str().expect("an expression");
            let filled = [("$job", ".+"), ("$group", ".+"), ("$__rate_interval", "15s")]
                .iter()
                .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
            (panel["title"].as_str().expect("a title").to_owned(), filled)
        })
    });
    targets.collect()
}

/// Invites of each kind: sent by the queue, sent over HTTP, and refused.
async fn invite(world: &World, gateway: &Gateway, round: usize) {
    let message = Message::json(&world.request_to_number(round)).timestamp(now());
    world.call(message).await.sent();
    let refused = world.request_with(json!({"smsPhone": "not a number"}));
    world.call(Message::json(&refused).timestamp(now())).await.refused("rejected", "phone_invalid", 400);
    let mut request = http_invite();
    request["smsPhone"] = world.request_to_number(1_000 + round)["smsPhone"].take();
    send(gateway.invite_with(world, &request)).await.sent();
}

#[tokio::test]
async fn every_panel_of_the_dashboard_has_data_and_no_alert_fires() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    let monitoring = Monitoring::start(&world, &gateway).await;
    let mut missing = expressions();
    assert!(missing.len() > 80, "{missing:?}");
    // Rates need an increase between two scrapes, which are a second apart.
    let mut rounds = tokio::time::interval(Duration::from_millis(500));
    for round in 0..ROUNDS {
        rounds.tick().await;
        invite(&world, &gateway, round).await;
        let mut left = Vec::new();
        for (title, expression) in missing {
            if monitoring.values(&expression).await.is_empty() {
                left.push((title, expression));
            }
        }
        missing = left;
        if missing.is_empty() {
            break;
        }
    }
    assert!(missing.is_empty(), "panels without data: {missing:#?}");

    let rules = monitoring.get("rules").await.expect("rules");
    let rules = rules["groups"][0]["rules"].as_array().expect("a list").clone();
    assert!(rules.len() > 20, "{rules:?}");
    // An alert may be pending: what workers measured before they consumed is ten seconds old.
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    drop(monitoring);
    assert!(gateway.process.stop().success());
}
