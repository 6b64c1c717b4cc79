//! A client for a headless Chromium: the part of WebDriver (<https://www.w3.org/TR/webdriver2/>) that the tests need.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// The visitor's phone.
#[derive(Clone, Copy)]
pub enum Phone {
    Light,
    Dark,
    /// The narrowest screen in use.
    Small,
}

/// An operator's screen, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub name: &'static str,
    pub width: u32,
    pub height: u32,
}

/// Which colours a person prefers.
#[derive(Debug, Clone, Copy)]
pub enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Keys by their code points (<https://www.w3.org/TR/webdriver2/#keyboard-actions>).
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// A browser. It ends when this is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    client: reqwest::Client,
}

impl Browser {
    pub async fn start(phone: Phone) -> Self {
        let (width, height) = if matches!(phone, Phone::Small) { (320, 568) } else { (390, 844) };
        let browser = Self::launch(json!({"width": width, "height": height, "pixelRatio": 2.0})).await;
        if matches!(phone, Phone::Dark) {
            browser.prefer(Scheme::Dark).await;
        }
        browser
    }

    pub async fn start_on(screen: Screen) -> Self {
        let Screen { width, height, .. } = screen;
        let metrics =
            json!({"width": width, "height": height, "pixelRatio": 1.0, "mobile": false, "touch": false});
        let browser = Self::launch(metrics).await;
        assert_eq!(browser.run("return [innerWidth, innerHeight]").await, json!([width, height]));
        browser
    }

    /// Starts a browser with this screen.
    async fn launch(metrics: Value) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: ./dev browser does that");
        let output = BufReader::new(driver.stdout.take().expect("standard output is piped"));
        let mut lines = output.lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                line.split("successfully on port ").nth(1).map(|port| port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver prints its port");
        // Reading its output to the end keeps the driver from blocking on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"],
            "mobileEmulation": {"deviceMetrics": metrics},
        });
        let capabilities =
            json!({"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}});
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}/session"), client };
        let made = browser.post("", json!({ "capabilities": capabilities })).await;
        let id = made["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    pub async fn prefer(&self, scheme: Scheme) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme.name()});
        self.command("Emulation.setEmulatedMedia", json!({"features": [feature]})).await;
    }

    /// Lets no script of a page load.
    pub async fn without_scripts(&self) {
        self.command("Network.enable", json!({})).await;
        self.command("Network.setBlockedURLs", json!({"urls": ["*.js"]})).await;
    }

    /// Presses and releases keys: text, or [`TAB`] and [`ENTER`].
    pub async fn press(&self, keys: &str) {
        let press =
            |key: char| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Types text into a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// What axe-core reports of the page: each rule that is broken, with the elements.
    pub async fn accessibility_faults(&self, axe: &str) -> Value {
        self.run(axe).await;
        let script = "const done = arguments[0];
            axe.run(document).then(found => done(found.violations.map(
                fault => [fault.id, fault.help, fault.nodes.map(node => [node.html, node.failureSummary])])));";
        self.post("/execute/async", json!({"script": script, "args": []})).await
    }

    /// A command of the DevTools protocol.
    async fn command(&self, name: &str, parameters: Value) {
        self.post("/goog/cdp/execute", json!({"cmd": name, "params": parameters})).await;
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    pub async fn address(&self) -> String {
        self.get("/url").await.as_str().expect("an address").to_owned()
    }

    /// Runs a script. The page's content security policy does not apply to it.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// The visible text of an element.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        self.get(&format!("/element/{element}/text")).await.as_str().expect("text").to_owned()
    }

    /// The label that a screen reader reads for an element.
    pub async fn label(&self, selector: &str) -> String {
        let element = self.find(selector).await;
        self.get(&format!("/element/{element}/computedlabel")).await.as_str().expect("text").to_owned()
    }

    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// The browser's errors, such as refused styles and failed loads. The status of a page is not one.
    pub async fn errors(&self) -> Vec<Value> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let is_status = |entry: &Value| {
            let message = entry["message"].as_str().unwrap_or_default();
            message.contains("the server responded with a status of") || message.contains("favicon.ico")
        };
        log.as_array().expect("a log").iter().filter(|entry| !is_status(entry)).cloned().collect()
    }

    /// Saves a screenshot in the folder `PICTURES`, if that variable is set.
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
        self.send(self.client.get(format!("{}{path}", self.session))).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.session)).body(body.to_string());
        self.send(request.header("Content-Type", "application/json")).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.send().await.expect("chromedriver answers").bytes().await.expect("a body");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ending the session ends the browser. The test's runtime may have ended, so this uses a client of its own.
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
    let [red, green, blue] = numbers[..] else { panic!("{colour} is not a colour") };
    let linear = |value: f64| {
        let value = value / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}
