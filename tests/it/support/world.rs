//! Everything that one test has to itself: a database, queues, a provider, and a worker.

use super::{
    Broker, CommandResult, Message, Reply, broker, command,
    database::{self, Database},
    provider::{ACCOUNT, Provider},
    worker::{Log, Worker},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use test_support::credentials::{self, gkey};
use uuid::Uuid;

/// The group that every world begins with.
pub const GROUP: u64 = 72;
/// How long an idle worker may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// What a world has other than the defaults.
#[derive(Default)]
pub struct Setup {
    environment: Vec<(String, String)>,
    group: Vec<String>,
    database_server: Option<String>,
}

impl Setup {
    /// Makes the database on this server instead of that of `DATABASE_URL`.
    pub fn database_on(mut self, server: &str) -> Self {
        self.database_server = Some(server.to_owned());
        self
    }

    /// Sets a variable for the worker and for commands.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One try only, so that a text that the provider does not take fails at once.
    pub fn one_try(self) -> Self {
        self.set("SMS_MAX_ATTEMPTS", "1")
    }

    /// A text that may have been sent is looked for, and never sent again.
    pub fn never_sends_again(self) -> Self {
        self.set("SMS_WHEN_UNSURE", "fail")
    }

    /// A short time-out for the provider, and a list that settles soon.
    pub fn short_waits(self) -> Self {
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

    /// A world without group and worker. The schema and the queues do not exist yet either.
    pub async fn without_worker(self) -> World {
        World::without_worker(self).await
    }
}

/// One test's world. Its drop checks for faults, and removes everything.
pub struct World {
    // Dropped in this order: the worker before what it works on.
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
        let server = setup.database_server.clone().unwrap_or_else(database::server);
        let (database, broker) = tokio::join!(Database::create(&server, &name), Broker::connect(&name));
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

    /// The world's environment, with changes. An empty value counts as unset.
    pub fn environment(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let changes = changes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.iter().cloned().chain(changes).collect()
    }

    /// Starts a worker in an environment with changes, without waiting until it is ready.
    pub fn spawn(&self, changes: &[(&str, &str)]) -> Worker {
        Worker::spawn(&self.environment(changes), &self.log)
    }

    /// Starts one more worker, and waits until it is ready.
    pub async fn start_worker(&self) -> Worker {
        let mut worker = self.spawn(&[]);
        worker.ready().await;
        worker
    }

    /// The worker that the world began with.
    pub fn worker(&mut self) -> &mut Worker {
        self.worker.as_mut().expect("the worker was not taken")
    }

    /// The same, without the right to change it.
    pub fn running(&self) -> &Worker {
        self.worker.as_ref().expect("the worker was not taken")
    }

    /// Takes a worker over from the test: the world ends it.
    pub fn keep_worker(&mut self, worker: Worker) {
        self.worker = Some(worker);
    }

    /// Hands the worker over to the test, which ends it.
    pub fn take_worker(&mut self) -> Worker {
        self.worker.take().expect("the worker was not taken")
    }

    /// Stops the worker that the world began with, which has to succeed.
    pub fn stop_worker(&mut self) {
        assert!(self.take_worker().stop().success());
    }

    /// Stops that worker, and starts another in an environment with changes.
    pub async fn replace_worker(&mut self, changes: &[(&str, &str)]) -> Worker {
        self.stop_worker();
        let mut worker = self.spawn(changes);
        worker.ready().await;
        worker
    }

    /// Imports opt-outs from standard input.
    pub fn import_optouts(&self, text: &str, args: &[&str]) -> CommandResult {
        self.run_with_input(&[&["optouts", "import", "-"], args].concat(), text)
    }

    /// Runs a command in the world's environment, with this text on standard input.
    pub fn run_with_input(&self, args: &[&str], text: &str) -> CommandResult {
        command::run_with_input(&self.environment, args, text)
    }

    /// The world's own SECRETS_KEY.
    pub fn secrets_key(&self) -> String {
        let own = self.environment.iter().find(|(name, _)| name == "SECRETS_KEY");
        own.expect("the world has a key").1.clone()
    }

    /// Runs a command in the world's environment.
    pub fn run(&self, args: &[&str]) -> CommandResult {
        command::run(&self.environment, args)
    }

    /// Adds a group with the world's keys, or other ones among the options.
    pub fn add_group(&self, group: u64, options: &[String]) {
        let id = group.to_string();
        let mut args = vec!["groups", "add", &id];
        if group == GROUP {
            args.extend(["--api-key", &self.api_key, "--jwt-secret", &self.jwt_secret]);
        }
        // Most tests text one number often. The tests of the limits set their own.
        if !options.iter().any(|option| option == "--per-number") {
            args.extend(["--per-number", "0"]);
        }
        args.extend(options.iter().map(String::as_str));
        self.run(&args).ok();
    }

    /// A valid login key of the world's group.
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

    /// That request, with fields changed. Null removes a field.
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

    /// That request, to a number of its own for each `n` below 10,000.
    pub fn request_to_number(&self, n: usize) -> Value {
        self.request_with(json!({"smsPhone": format!("201-555-{n:04}")}))
    }

    /// Publishes a request under a correlation id of its own, and waits for its reply.
    pub async fn invite(&self, body: &Value) -> Reply {
        self.call(Message::json(body)).await
    }

    /// The same, and by its timestamp it was published after any loss of rows: a promoted standby that was asynchronous may
    /// have lost some, so that older requests are looked for first.
    pub async fn invite_after_a_loss(&self, body: &Value) -> Reply {
        let message = self.dated_after_a_loss(Message::json(body)).await;
        self.call(message).await
    }

    /// Waits until a message can have been published after the loss, whatever the clocks, and dates it so.
    pub async fn dated_after_a_loss(&self, message: Message) -> Message {
        let passed = "select coalesce((select max(noticed_at) < now() - interval '3 seconds' from database_rewinds), false)";
        self.database.until_true("a loss was noticed three seconds ago", passed).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        message.timestamp(now + 4)
    }

    /// Adds a correlation id and the reply queue to a message, publishes it, and waits for its reply.
    pub async fn call(&self, message: Message) -> Reply {
        let correlation = Uuid::new_v4().to_string();
        self.keep_secret(&message);
        self.broker.request(message.correlation(&correlation)).await;
        self.broker.reply(&correlation).await
    }

    /// Publishes a message unchanged.
    pub async fn publish(&self, message: Message) {
        self.keep_secret(&message);
        self.broker.publish(message).await;
    }

    /// An error with this text has to be in the log. Any other error fails the test.
    pub fn expect_error(&self, part: &str) {
        self.expected.lock().expect("no test panics here").push(part.to_owned());
    }

    /// A text that no log may contain.
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

    /// The faults of this world. Reads the whole log, so it ends the worker first.
    fn faults(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(worker) = &mut self.worker {
            if worker.is_running() {
                let begun = Instant::now();
                let status = worker.stop();
                if !status.success() {
                    faults.push(format!("the worker ended with {status} after SIGTERM"));
                }
                if begun.elapsed() > STOPS_WITHIN {
                    faults.push(format!("the idle worker took {:?} to stop", begun.elapsed()));
                }
            } else {
                faults.push("the worker has ended".to_owned());
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
                faults.push(format!("the log has a secret or personal data: {line}"));
            }
        }
        for part in expected {
            if !lines.iter().any(|line| line.contains(&part)) {
                faults.push(format!("no error in the log has {part:?}"));
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

/// A random text that can be searched for in a log.
fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), credentials::now())
}
