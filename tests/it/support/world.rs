//! Everything that one test has to itself: a database, queues, a provider, and a worker.

use super::{
    Broker, Message, Ran, Reply, broker, command,
    database::Database,
    provider::{ACCOUNT, Provider},
    worker::{Log, Worker},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};
use test_support::credentials::{self, gkey};
use uuid::Uuid;

/// The group that every world begins with.
pub const GROUP: u64 = 72;
/// How long a worker with nothing in hand may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(8);

/// What differs from the defaults.
#[derive(Default)]
pub struct Setup {
    environment: Vec<(String, String)>,
    group: Vec<String>,
}

impl Setup {
    /// A variable of the worker and of commands.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One try only, so that what the provider does not take fails at once.
    pub fn one_try(self) -> Self {
        self.set("SMS_MAX_ATTEMPTS", "1")
    }

    /// What may have gone out is looked for, and never sent again.
    pub fn never_sends_again(self) -> Self {
        self.set("SMS_WHEN_UNSURE", "fail")
    }

    /// A provider that is given up soon, and whose list settles soon.
    pub fn hurried(self) -> Self {
        self.set("SMS_TIMEOUT", "1s").set("SMS_SETTLE", "1s")
    }

    /// Options of the group, as `groups add` takes them.
    pub fn group(mut self, options: &[&str]) -> Self {
        self.group.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    pub async fn start(self) -> World {
        let group = self.group.clone();
        let mut world = World::without_worker(self).await;
        let worker = world.start_worker().await;
        world.worker = Some(worker);
        world.add_group(GROUP, &group);
        world
    }

    /// Everything but the group and the worker; the schema and the queues are not there yet either.
    pub async fn without_worker(self) -> World {
        World::without_worker(self).await
    }
}

/// One test's world. At its end it looks whether all is as it should be, and takes everything away.
pub struct World {
    // Dropped in this order: first those who work, then what they work on.
    worker: Option<Worker>,
    pub broker: Broker,
    pub database: Database,
    pub provider: Provider,
    pub api_key: String,
    pub jwt_secret: String,
    pub log: Log,
    environment: Vec<(String, String)>,
    secrets: Mutex<Vec<String>>,
    expected: Mutex<Vec<String>>,
}

impl World {
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    async fn without_worker(setup: Setup) -> Self {
        let name = format!("session_invite_test_{}", Uuid::new_v4().simple());
        let provider = Provider::start();
        let (database, broker) = tokio::join!(Database::create(&name), Broker::connect(&name));
        let secrets_key = BASE64_STANDARD.encode(rand::random::<[u8; 32]>());
        let (api_key, jwt_secret) = (secret(), secret());
        let own = [
            ("DATABASE_URL", database.url.clone()),
            ("DATABASE_MAX_CONNECTIONS", "4".to_owned()),
            ("AMQP_URL", broker::server()),
            ("QUEUE_PREFIX", broker.prefix.clone()),
            ("SECRETS_KEY", secrets_key.clone()),
            ("SMS_BASE_URL", provider.url.clone()),
            ("TWILIO_ACCOUNT_SID", ACCOUNT.to_owned()),
            ("TWILIO_AUTH_TOKEN", provider.auth_token.clone()),
            ("SMS_FROM", "+15005550006".to_owned()),
            ("HTTP_ADDR", "127.0.0.1:0".to_owned()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let secrets = vec![secrets_key, api_key.clone(), jwt_secret.clone(), provider.auth_token.clone()];
        Self {
            worker: None,
            broker,
            database,
            api_key,
            jwt_secret,
            log: Log::default(),
            // The later of two variables of one name counts.
            environment: own.into_iter().chain(setup.environment).collect(),
            secrets: Mutex::new(secrets),
            expected: Mutex::default(),
            provider,
        }
    }

    /// The world's environment, with changes; an empty value counts as unset.
    pub fn environment(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let changes = changes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.iter().cloned().chain(changes).collect()
    }

    /// A worker in an environment with changes, perhaps not ready yet.
    pub fn spawn(&self, changes: &[(&str, &str)]) -> Worker {
        Worker::spawn(&self.environment(changes), &self.log)
    }

    /// One more worker, ready.
    pub async fn start_worker(&self) -> Worker {
        let mut worker = self.spawn(&[]);
        worker.ready().await;
        worker
    }

    /// The answer of that worker to a `GET`.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.worker.as_ref().expect("the world has a worker").ask(path).await
    }

    /// The worker that the world began with.
    pub fn worker(&mut self) -> &mut Worker {
        self.worker.as_mut().expect("the worker was not taken")
    }

    /// The same, as it is.
    pub fn running(&self) -> &Worker {
        self.worker.as_ref().expect("the worker was not taken")
    }

    /// Hands the worker over to the test, which ends it.
    pub fn take_worker(&mut self) -> Worker {
        self.worker.take().expect("the worker was not taken")
    }

    /// Runs a command in the world's environment.
    pub fn run(&self, args: &[&str]) -> Ran {
        command::run(&self.environment, args)
    }

    /// Adds a group with the world's keys, or other ones among the options.
    pub fn add_group(&self, group: u64, options: &[String]) {
        let id = group.to_string();
        let mut args = vec!["groups", "add", &id];
        if group == GROUP {
            args.extend(["--api-key", &self.api_key, "--jwt-secret", &self.jwt_secret]);
        }
        // Tests text one number often; those of the limits say theirs.
        if !options.iter().any(|option| option == "--per-number") {
            args.extend(["--per-number", "0"]);
        }
        args.extend(options.iter().map(String::as_str));
        self.run(&args).ok();
    }

    /// A good login key of the world's group.
    pub fn credential(&self) -> String {
        gkey(GROUP, "12345", &self.api_key)
    }

    /// The request of the contract's section 1, with its credential in the body.
    pub fn request(&self) -> Value {
        json!({
            "groupid": GROUP,
            "sessiontype": 1,
            "smsPhone": "111-000-0000",
            "sessionParams": {"camera": "back", "resolution": "352x288"},
            "authorization": self.credential(),
        })
    }

    /// That request, with fields changed; null takes one away.
    pub fn request_with(&self, changes: Value) -> Value {
        let mut request = self.request();
        let Value::Object(changes) = changes else { panic!("changes are an object") };
        for (name, value) in changes {
            if value.is_null() {
                request.as_object_mut().expect("an object").remove(&name);
            } else {
                request[name] = value;
            }
        }
        request
    }

    /// Publishes a request under a correlation id of its own, and waits for its reply.
    pub async fn invite(&self, body: &Value) -> Reply {
        self.ask(Message::json(body)).await
    }

    /// Publishes a message as it is, but for a correlation id and the queue for the reply, and waits for that.
    pub async fn ask(&self, message: Message) -> Reply {
        let correlation = Uuid::new_v4().to_string();
        self.keep_secret(&message);
        self.broker.request(message.correlation(&correlation)).await;
        self.broker.reply(&correlation).await
    }

    /// Publishes a message as it is.
    pub async fn publish(&self, message: Message) {
        self.keep_secret(&message);
        self.broker.publish(message).await;
    }

    /// A line of this kind may be in the log as an error; it has to be.
    pub fn expect_error(&self, part: &str) {
        self.expected.lock().expect("no test panics here").push(part.to_owned());
    }

    /// What must not be in any log.
    pub fn is_secret(&self, text: &str) {
        self.secrets.lock().expect("no test panics here").push(text.to_owned());
    }

    fn keep_secret(&self, message: &Message) {
        let Ok(body) = serde_json::from_slice::<Value>(&message.body) else { return };
        for field in ["authorization", "gssnid"] {
            let signature = body[field].as_str().and_then(|text| text.rsplit(['$', '.', ' ']).next());
            if let Some(signature) = signature.filter(|text| text.len() >= 16) {
                self.is_secret(signature);
            }
        }
    }

    /// What a healthy worker does not do. Reads the whole log, so the worker has to be gone.
    fn faults(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(worker) = &mut self.worker {
            if worker.is_running() {
                let begun = Instant::now();
                let status = worker.stop();
                if !status.success() {
                    faults.push(format!("the worker ended with {status} when it was asked to stop"));
                }
                if begun.elapsed() > STOPS_WITHIN {
                    faults.push(format!("the idle worker took {:?} to stop", begun.elapsed()));
                }
            } else {
                faults.push("the worker is gone".to_owned());
            }
        }
        let mut private = self.database.private();
        private.append(&mut self.secrets.lock().expect("no test panics here"));
        let expected = std::mem::take(&mut *self.expected.lock().expect("no test panics here"));
        let lines = self.log.lines();
        for line in &lines {
            let error = line.contains(" ERROR ") || line.contains("panicked");
            if error && !expected.iter().any(|part| line.contains(part)) {
                faults.push(format!("an error in the log: {line}"));
            }
            if private.iter().any(|secret| line.contains(secret.as_str())) {
                faults.push(format!("the log tells what it must not: {line}"));
            }
        }
        for part in expected {
            if !lines.iter().any(|line| line.contains(&part)) {
                faults.push(format!("no error in the log says {part:?}"));
            }
        }
        faults.extend(self.broker.leftovers());
        faults
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the workers' log:\n{}", self.log.lines().join("\n"));
            return;
        }
        let faults = self.faults();
        assert!(
            faults.is_empty(),
            "{}\nthe workers' log:\n{}",
            faults.join("\n"),
            self.log.lines().join("\n")
        );
    }
}

/// Random enough to be found in a log if it is there.
fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), credentials::now())
}
