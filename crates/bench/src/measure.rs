//! One measurement, from an empty table and fresh queues to its figures.

use crate::{
    broker,
    database::Database,
    figures::{Cpu, Measure},
    floor,
    front::Front,
    http::Client,
    load::{GROUP, Upstream},
    machine::Servers,
    options::{Options, Surroundings},
    outcome::Outcome,
    part::{Part, Scenario, Subject, WINDOW},
    processes::Process,
    provider, usage,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    process::{Command, Stdio},
    time::Duration,
};
use test_support::process;

/// Before what is measured: connections, caches and plans are there then.
const WARM_UP: u32 = 1_000;

/// What all measurements of a run share.
pub struct Bench {
    surroundings: Surroundings,
    pub database: Database,
    servers: Servers,
    /// Of the workers, but for where the provider is.
    environment: Vec<(String, String)>,
    api_key: String,
    profile: bool,
}

/// Figures, and what must not have happened.
pub struct Found {
    pub measure: Measure,
    pub wrongs: Vec<String>,
}

/// How invites get to whoever answers them.
struct Way {
    upstream: Upstream,
    queue: String,
    /// By HTTP where it is there.
    client: Option<Client>,
}

/// CPU times so far.
struct Clocks {
    gateway: Option<Duration>,
    subject: Duration,
    postgres: Option<Duration>,
    broker: Option<Duration>,
    provider: Duration,
    publisher: Duration,
    machine: Duration,
}

impl Bench {
    /// The schema, and a group with a key.
    pub fn prepare(options: &Options, surroundings: Surroundings) -> Result<Self, String> {
        let own = [
            ("DATABASE_URL", surroundings.database.as_str()),
            ("AMQP_URL", &surroundings.broker),
            ("QUEUE_PREFIX", &surroundings.queue_prefix),
            ("SECRETS_KEY", &BASE64_STANDARD.encode(rand::random::<[u8; 32]>())),
            ("SMS_BASE_URL", "http://127.0.0.1:1"),
            ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001"),
            ("TWILIO_AUTH_TOKEN", "bench"),
            ("SMS_FROM", "+15005550006"),
            ("HTTP_ADDR", "127.0.0.1:0"),
            ("RUST_LOG", "warn"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = own.into_iter().chain(options.settings.iter().cloned()).collect();
        let (database, servers) = (Database::at(&surroundings.database), Servers::find(&surroundings));
        let api_key = uuid::Uuid::new_v4().simple().to_string();
        let bench = Self { surroundings, database, servers, environment, api_key, profile: options.profile };
        bench.run(&["migrate"])?;
        let group = GROUP.to_string();
        let options = ["--key-length", "9", "--per-number", "0"];
        bench.run(&[&["groups", "add", &group, "--api-key", &bench.api_key][..], &options].concat())?;
        Ok(bench)
    }

    pub async fn measure(&mut self, scenario: &Scenario) -> Result<Found, String> {
        self.database.fill(scenario.rows).await.map_err(|error| error.to_string())?;
        let upstream = Upstream::connect(&self.surroundings.broker, &self.api_key)
            .await
            .map_err(|error| amqp(&error))?;
        let latency = scenario.provider_ms.to_string();
        let mut provider =
            Process::start_role(&[provider::ROLE, &latency], &self.surroundings.run.join("provider.log"))?;
        let provider_url = provider.first_line()?;
        let queue = self.queue(scenario.subject);
        let subjects = self.start(scenario, &upstream, &provider_url).await?;
        broker::consumed_by(&upstream.connection, &queue, scenario.workers).await?;
        let (front, client) = match scenario.subject {
            Subject::Gateway => {
                let mut command = self.program(&["gateway"]);
                command.env("SMS_BASE_URL", &provider_url);
                let (front, client) =
                    Front::start(command, scenario, &self.api_key, &self.surroundings.run).await?;
                (Some(front), Some(client))
            }
            Subject::Floor | Subject::Worker => (None, None),
        };
        let mut way = Way { upstream, queue, client };

        let warm_up = way.load(way.warm_up().min(scenario.invites), None).await?;
        let profiler = self.profiler(scenario, front.as_ref().map_or(subjects[0].pid(), Front::pid))?;
        let before = self.clocks(front.as_ref(), &subjects, &provider);
        let outcome = way.load(scenario.invites, scenario.rate).await?;
        let after = self.clocks(front.as_ref(), &subjects, &provider);
        if let Some(profiler) = profiler {
            // It ends by the signal, once it has written what it has.
            let _ = profiler.stop().await;
        }

        let mut measure = outcome.measure();
        measure.cpu = after.since(&before, outcome.answered);
        let peaks = subjects.iter().filter_map(|subject| process::peak(subject.pid()));
        measure.peak_mib = peaks.map(mebibytes).fold(0.0, f64::max);
        measure.gateway_mib = front.as_ref().and_then(Front::peak).map_or(0.0, mebibytes);
        let mut wrongs = [warm_up.wrongs(), outcome.wrongs()].concat();
        if scenario.subject != Subject::Floor {
            let texts = provider::accepted(&provider_url).await?;
            let answered = u64::from(warm_up.answered + outcome.answered);
            if texts != answered {
                wrongs.push(format!("{texts} texts for {answered} invites with a reply"));
            }
        }
        // Its connections close, so that the gateway need not wait for them.
        way.client = None;
        if let Some(front) = front {
            wrongs.extend(front.stop().await.err().map(|why| format!("the gateway: {why}")));
        }
        wrongs.extend(self.end(scenario.subject, subjects, &way.upstream).await?);
        Ok(Found { measure, wrongs })
    }

    fn queue(&self, subject: Subject) -> String {
        let suffix = if subject == Subject::Floor { "floor" } else { "requests" };
        format!("{}.{suffix}", self.surroundings.queue_prefix)
    }

    async fn start(
        &self,
        scenario: &Scenario,
        upstream: &Upstream,
        provider: &str,
    ) -> Result<Vec<Process>, String> {
        let log = |index| self.surroundings.run.join(format!("subject-{index}.log"));
        if scenario.subject == Subject::Floor {
            let queue = self.queue(Subject::Floor);
            let channel = upstream.connection.create_channel().await.map_err(|error| error.to_string())?;
            broker::declare(&channel, &queue).await.map_err(|error| error.to_string())?;
            let floor = Process::start_role(&[floor::ROLE, &self.surroundings.broker, &queue], &log(0))?;
            return Ok(vec![floor]);
        }
        let mut of_scenario = vec![("SMS_BASE_URL", provider)];
        if scenario.part == Part::SlowProvider {
            of_scenario.push(("SMS_CONCURRENCY", "1024"));
        }
        let worker = |index| {
            let mut command = self.program(&["worker"]);
            command.envs(of_scenario.iter().copied()).stdout(Stdio::null());
            Process::start(&mut command, &log(index))
        };
        (0..scenario.workers).map(worker).collect()
    }

    /// Stops whoever answered, and takes the queues away. What a worker did wrong at its end is told.
    async fn end(
        &self,
        subject: Subject,
        subjects: Vec<Process>,
        upstream: &Upstream,
    ) -> Result<Vec<String>, String> {
        let mut wrongs = Vec::new();
        if subject == Subject::Floor {
            drop(subjects);
            let channel = upstream.connection.create_channel().await.map_err(|error| error.to_string())?;
            broker::delete(&channel, &self.queue(subject)).await.map_err(|error| error.to_string())?;
        } else {
            for worker in subjects {
                wrongs.extend(worker.stop().await.err().map(|why| format!("a worker: {why}")));
            }
            self.run(&["topology", "delete"])?;
        }
        let _ = upstream.connection.close(200, "done".into()).await;
        Ok(wrongs)
    }

    /// By frame pointers, which the program has to be built with.
    fn profiler(&self, scenario: &Scenario, pid: u32) -> Result<Option<Process>, String> {
        if !self.profile || scenario.subject == Subject::Floor {
            return Ok(None);
        }
        let (pid, data) = (pid.to_string(), self.surroundings.profile());
        let mut command = Command::new("perf");
        command.args(["record", "--freq", "999", "--call-graph", "fp", "--pid", &pid, "--output"]).arg(data);
        Process::start(command.stdout(Stdio::null()), &self.surroundings.run.join("perf.log")).map(Some)
    }

    fn clocks(&self, front: Option<&Front>, subjects: &[Process], provider: &Process) -> Clocks {
        Clocks {
            gateway: front.map(|front| usage::cpu(front.pid())),
            subject: subjects.iter().map(|subject| usage::cpu(subject.pid())).sum(),
            postgres: self.servers.postgres.map(usage::cpu),
            broker: self.servers.broker.map(usage::cpu),
            provider: usage::cpu(provider.pid()),
            publisher: usage::cpu_alone(std::process::id()),
            machine: usage::cpu_of_machine(),
        }
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.surroundings.program);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned()).current_dir("/");
        command
    }

    /// To its end.
    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        let ran = self.program(arguments).output().map_err(|error| error.to_string())?;
        if ran.status.success() {
            return Ok(());
        }
        Err(format!("session-invite {}: {}", arguments[0], String::from_utf8_lossy(&ran.stderr).trim_end()))
    }
}

impl Way {
    /// Over HTTP, every connection has to be there.
    fn warm_up(&self) -> u32 {
        if self.client.is_some() { WARM_UP.max(u32::try_from(WINDOW).unwrap_or(u32::MAX)) } else { WARM_UP }
    }

    async fn load(&mut self, invites: u32, rate: Option<u32>) -> Result<Outcome, String> {
        match &mut self.client {
            Some(client) => Ok(client.load(invites, rate).await),
            None => self.upstream.load(&self.queue, invites, rate).await.map_err(|error| amqp(&error)),
        }
    }
}

impl Clocks {
    fn since(&self, before: &Self, invites: u32) -> Cpu {
        let each = |after: Duration, before: Duration| {
            Some(after.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(invites.max(1)))
        };
        let each_of = |after: Option<Duration>, before: Option<Duration>| each(after?, before?);
        Cpu {
            gateway: each_of(self.gateway, before.gateway),
            worker: each(self.subject, before.subject),
            postgres: each_of(self.postgres, before.postgres),
            broker: each_of(self.broker, before.broker),
            provider: each(self.provider, before.provider),
            publisher: each(self.publisher, before.publisher),
            machine: each(self.machine, before.machine),
        }
    }
}

fn amqp(error: &lapin::Error) -> String {
    format!("RabbitMQ: {error}")
}

fn mebibytes(kibibytes: u64) -> f64 {
    u32::try_from(kibibytes).map_or(f64::INFINITY, |kibibytes| f64::from(kibibytes) / 1_024.0)
}
