//! A headless Chromium by the W3C's WebDriver protocol (<https://www.w3.org/TR/webdriver2/>), as far as it is needed here.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// What is in the visitor's hand.
#[derive(Clone, Copy)]
pub enum Phone {
    Light,
    Dark,
    /// The narrowest that is about.
    Small,
}

/// Ended when it is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    client: reqwest::Client,
}

impl Browser {
    pub async fn start(phone: Phone) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: ./dev browser does that");
        let said = BufReader::new(driver.stdout.take().expect("standard output is piped"));
        let mut lines = said.lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                line.split("successfully on port ").nth(1).map(|port| port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver says its port");
        // It is read to its end, so that the driver never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let (width, height) = if matches!(phone, Phone::Small) { (320, 568) } else { (390, 844) };
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2.0}},
        });
        let capabilities =
            json!({"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}});
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}/session"), client };
        let made = browser.post("", json!({ "capabilities": capabilities })).await;
        let id = made["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        if matches!(phone, Phone::Dark) {
            let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
            let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": dark});
            browser.post("/goog/cdp/execute", command).await;
        }
        browser
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    pub async fn address(&self) -> String {
        self.get("/url").await.as_str().expect("an address").to_owned()
    }

    /// Runs a script of the test's own: the page's policy does not hold for it.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// What is written in an element, as it is shown.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        self.get(&format!("/element/{element}/text")).await.as_str().expect("text").to_owned()
    }

    /// What a screen reader calls an element.
    pub async fn label(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        self.get(&format!("/element/{element}/computedlabel")).await.as_str().expect("text").to_owned()
    }

    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// What the browser complained of: refused styles, failed loads. That a page has a status of its own is no complaint.
    pub async fn errors(&self) -> Vec<Value> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let is_status = |entry: &Value| {
            let message = entry["message"].as_str().unwrap_or_default();
            message.contains("the server responded with a status of") || message.contains("favicon.ico")
        };
        log.as_array().expect("a log").iter().filter(|entry| !is_status(entry)).cloned().collect()
    }

    /// Takes a picture into the folder that `PICTURES` names, if it does.
    pub async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("PICTURES") else { return };
        let png = self.get("/screenshot").await;
        let png = BASE64_STANDARD.decode(png.as_str().expect("a picture")).expect("base64");
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).expect("the folder is there");
    }

    async fn find(&self, selector: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": selector})).await;
        let id = found.as_object().and_then(|element| element.values().next());
        id.and_then(Value::as_str).expect("an element").to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(self.client.get(format!("{}{path}", self.session))).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.session)).body(body.to_string());
        self.ask(request.header("Content-Type", "application/json")).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.send().await.expect("chromedriver answers").bytes().await.expect("a body");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its browser ends with the session: asked for by a client of its own, as the test's runtime may be gone.
        let session = self.session.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .expect("a runtime")
                .block_on(async { reqwest::Client::new().delete(session).send().await })
        });
        let _ = ended.join();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The contrast of two colours as CSS computes them, from 1 to 21 (<https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>).
pub fn contrast(ink: &str, ground: &str) -> f64 {
    let (a, b) = (luminance(ink), luminance(ground));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(colour: &str) -> f64 {
    let numbers: Vec<f64> = colour
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .filter_map(|part| part.parse().ok())
        .take(3)
        .collect();
    let [red, green, blue] = numbers[..] else { panic!("{colour} is no colour") };
    let linear = |value: f64| {
        let value = value / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}
