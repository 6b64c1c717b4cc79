//! One measurement, from an empty table and new queues to its figures.

use crate::{
    broker,
    database::Database,
    figures::{CpuPerInvite, Figures},
    gateway::GatewayProcesses,
    http_client::HttpClient,
    load_result::LoadResult,
    machine::ServerPids,
    options::{BenchEnvironment, Options},
    processes::ChildProcess,
    provider,
    queue_client::{GROUP, QueueClient},
    scenario::{BenchPart, MAX_UNANSWERED, Scenario, Subject},
    usage,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    process::{Command, Stdio},
    time::Duration,
};
use test_support::process;

/// Invites before the measurement, which fill the connections and the caches.
const WARM_UP: u32 = 1_000;

/// What all measurements of a run share.
pub(crate) struct Bench {
    environment: BenchEnvironment,
    database: Database,
    servers: ServerPids,
    /// Environment variables of the program, except for the provider's URL.
    settings: Vec<(String, String)>,
    api_key: String,
    profile: bool,
}

/// The figures, and what must not have happened.
pub(crate) struct Measurement {
    pub figures: Figures,
    pub violations: Vec<String>,
}

/// The clients that send invites.
struct LoadClients {
    upstream: QueueClient,
    /// The default exchange, or that of the shards.
    exchange: String,
    queue: String,
    /// If present, invites go over HTTP.
    http: Option<HttpClient>,
}

/// CPU times so far.
struct CpuTimes {
    gateway: Option<Duration>,
    subject: Duration,
    postgres: Option<Duration>,
    broker: Option<Duration>,
    provider: Duration,
    publisher: Duration,
    machine: Duration,
}

impl Bench {
    /// Creates the schema, and a group with a key.
    pub(crate) fn prepare(
        options: &Options,
        environment: BenchEnvironment,
        database: Database,
    ) -> Result<Self, String> {
        let settings = [
            ("DATABASE_URL", environment.run.database_url.as_str()),
            ("AMQP_URL", &environment.run.amqp_url),
            ("QUEUE_PREFIX", &environment.queue_prefix),
            ("SECRETS_KEY", &BASE64_STANDARD.encode(rand::random::<[u8; 32]>())),
            ("SMS_BASE_URL", "http://127.0.0.1:1"),
            ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001"),
            ("TWILIO_AUTH_TOKEN", "bench"),
            ("SMS_FROM", "+15005550006"),
            ("HTTP_ADDR", "127.0.0.1:0"),
            ("RUST_LOG", "warn"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = settings.into_iter().chain(options.settings.iter().cloned()).collect();
        let servers = ServerPids::find(&environment.run);
        let api_key = uuid::Uuid::new_v4().simple().to_string();
        let bench = Self { environment, database, servers, settings, api_key, profile: options.profile };
        bench.run(&["migrate"])?;
        let group = GROUP.to_string();
        let options = ["--key-length", "9", "--per-number", "0"];
        bench.run(&[&["groups", "add", &group, "--api-key", &bench.api_key][..], &options].concat())?;
        Ok(bench)
    }

    pub(crate) async fn measure(&mut self, scenario: &Scenario) -> Result<Measurement, String> {
        self.database.fill(scenario.rows).await.map_err(|error| error.to_string())?;
        let logs = self.environment.run.run.clone();
        let upstream = QueueClient::connect(&self.environment.run.amqp_url, &self.api_key)
            .await
            .map_err(|error| amqp_error(&error))?;
        let latency = scenario.provider_ms.to_string();
        let mut provider = ChildProcess::start_role(&["provider", &latency], &logs.join("provider.log"))?;
        let provider_url = provider.first_line()?;
        let queue = self.queue(scenario.subject);
        let subjects = self.start(scenario, &upstream, &provider_url).await?;
        let exchange = self.wait_for_workers(scenario, &upstream, &queue).await?;
        let (gateway, http) = if scenario.subject == Subject::Gateway {
            let mut command = self.program(&["gateway"]);
            command.env("SMS_BASE_URL", &provider_url);
            let (gateway, http) = GatewayProcesses::start(command, scenario, &self.api_key, &logs).await?;
            (Some(gateway), Some(http))
        } else {
            (None, None)
        };
        let mut clients = LoadClients { upstream, exchange, queue, http };

        let warm_up = clients.load(clients.warm_up().min(scenario.invites), None).await?;
        let profiled = gateway.as_ref().map_or(subjects[0].pid(), GatewayProcesses::pid);
        let profiler = self.profiler(scenario, profiled)?;
        let before = self.cpu_times(gateway.as_ref(), &subjects, &provider);
        let result = clients.load(scenario.invites, scenario.rate).await?;
        let after = self.cpu_times(gateway.as_ref(), &subjects, &provider);
        if let Some(profiler) = profiler {
            // At SIGTERM perf writes its data. It then ends with an error, which is expected.
            let _ = profiler.stop().await;
        }

        let mut figures = result.figures();
        figures.cpu = after.since(&before, result.answered);
        let peaks = subjects.iter().filter_map(|subject| process::peak_memory(subject.pid()));
        figures.peak_mib = peaks.map(mebibytes).fold(0.0, f64::max);
        figures.gateway_mib = gateway.as_ref().and_then(GatewayProcesses::peak_memory).map_or(0.0, mebibytes);
        let mut violations = [warm_up.violations(), result.violations()].concat();
        if scenario.subject != Subject::Floor {
            let texts = provider::accepted(&provider_url).await?;
            let answered = u64::from(warm_up.answered + result.answered);
            if texts != answered {
                violations.push(format!("{texts} texts for {answered} invites with a reply"));
            }
        }
        // This closes the client's connections, so that the gateway does not wait for them.
        clients.http = None;
        if let Some(gateway) = gateway {
            violations.extend(gateway.stop().await.err().map(|error| format!("the gateway: {error}")));
        }
        violations.extend(self.stop(scenario, subjects, &clients.upstream).await?);
        Ok(Measurement { figures, violations })
    }

    fn queue(&self, subject: Subject) -> String {
        let suffix = if subject == Subject::Floor { "floor" } else { "requests" };
        format!("{}.{suffix}", self.environment.queue_prefix)
    }

    /// Waits until the workers consume, and gives the exchange that invites are published to.
    async fn wait_for_workers(
        &self,
        scenario: &Scenario,
        upstream: &QueueClient,
        queue: &str,
    ) -> Result<String, String> {
        if scenario.shards == 0 {
            broker::wait_for_consumers(&upstream.connection, queue, scenario.workers).await?;
            return Ok(String::new());
        }
        let queues: Vec<_> =
            (0..scenario.shards).map(|shard| format!("{}.requests", self.shard(shard))).collect();
        for queue in &queues {
            broker::wait_for_consumers(&upstream.connection, queue, 1).await?;
        }
        let channel = upstream.connection.create_channel().await.map_err(|error| error.to_string())?;
        let exchange = self.environment.queue_prefix.clone();
        let bound = broker::bind_shards(&channel, &exchange, &queues).await;
        bound
            .map_err(|error| format!("{} (./dev shards has a broker with the plugin)", amqp_error(&error)))?;
        Ok(exchange)
    }

    /// The prefix of a shard's queues.
    fn shard(&self, shard: u32) -> String {
        format!("{}-{shard}", self.environment.queue_prefix)
    }

    /// Starts the workers, or the floor.
    async fn start(
        &self,
        scenario: &Scenario,
        upstream: &QueueClient,
        provider_url: &str,
    ) -> Result<Vec<ChildProcess>, String> {
        let log = |index| self.environment.run.run.join(format!("subject-{index}.log"));
        if scenario.subject == Subject::Floor {
            let queue = self.queue(Subject::Floor);
            let channel = upstream.connection.create_channel().await.map_err(|error| error.to_string())?;
            broker::declare(&channel, &queue).await.map_err(|error| error.to_string())?;
            let arguments = ["floor", &self.environment.run.amqp_url, &queue];
            return Ok(vec![ChildProcess::start_role(&arguments, &log(0))?]);
        }
        let mut settings = vec![("SMS_BASE_URL", provider_url)];
        if scenario.part == BenchPart::SlowProvider {
            settings.push(("SMS_CONCURRENCY", "1024"));
        }
        let worker = |index| {
            let mut command = self.program(&["worker"]);
            command.envs(settings.iter().copied()).stdout(Stdio::null());
            if scenario.shards > 0 {
                command.env("QUEUE_PREFIX", self.shard(index));
            }
            ChildProcess::start(&mut command, &log(index))
        };
        (0..scenario.workers).map(worker).collect()
    }

    /// Stops the workers or the floor, and deletes the queues. Gives the workers' failures to stop.
    async fn stop(
        &self,
        scenario: &Scenario,
        subjects: Vec<ChildProcess>,
        upstream: &QueueClient,
    ) -> Result<Vec<String>, String> {
        let mut violations = Vec::new();
        if scenario.subject == Subject::Floor {
            drop(subjects);
            let channel = upstream.connection.create_channel().await.map_err(|error| error.to_string())?;
            broker::delete(&channel, &self.queue(scenario.subject))
                .await
                .map_err(|error| error.to_string())?;
        } else {
            for worker in subjects {
                violations.extend(worker.stop().await.err().map(|error| format!("a worker: {error}")));
            }
            self.run(&["topology", "delete"])?;
            for shard in 0..scenario.shards {
                self.run(&["topology", "delete", "--queue-prefix", &self.shard(shard)])?;
            }
            if scenario.shards > 0 {
                let channel =
                    upstream.connection.create_channel().await.map_err(|error| error.to_string())?;
                let deleted = broker::delete_exchange(&channel, &self.environment.queue_prefix).await;
                deleted.map_err(|error| amqp_error(&error))?;
            }
        }
        let _ = upstream.connection.close(200, "done".into()).await;
        Ok(violations)
    }

    /// Starts perf, if `--profile` is given. It uses frame pointers, so the program must be built with them.
    fn profiler(&self, scenario: &Scenario, pid: u32) -> Result<Option<ChildProcess>, String> {
        if !self.profile || scenario.subject == Subject::Floor {
            return Ok(None);
        }
        let (pid, data) = (pid.to_string(), self.environment.profile_file());
        let mut command = Command::new("perf");
        command.args(["record", "--freq", "999", "--call-graph", "fp", "--pid", &pid, "--output"]).arg(data);
        let log = self.environment.run.run.join("perf.log");
        ChildProcess::start(command.stdout(Stdio::null()), &log).map(Some)
    }

    fn cpu_times(
        &self,
        gateway: Option<&GatewayProcesses>,
        subjects: &[ChildProcess],
        provider: &ChildProcess,
    ) -> CpuTimes {
        CpuTimes {
            gateway: gateway.map(|gateway| usage::cpu(gateway.pid())),
            subject: subjects.iter().map(|subject| usage::cpu(subject.pid())).sum(),
            postgres: self.servers.postgres.map(usage::cpu),
            broker: self.servers.broker.map(usage::cpu),
            provider: usage::cpu(provider.pid()),
            publisher: usage::cpu_alone(std::process::id()),
            machine: usage::cpu_of_machine(),
        }
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.environment.run.program);
        command.args(arguments).env_clear().envs(self.settings.iter().cloned()).current_dir("/");
        command
    }

    /// Runs a command of the program, and waits for its end.
    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        let output = self.program(arguments).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "session-invite {}: {}",
            arguments[0],
            String::from_utf8_lossy(&output.stderr).trim_end()
        ))
    }
}

impl LoadClients {
    /// How many invites warm up. Over HTTP, each connection needs one.
    fn warm_up(&self) -> u32 {
        if self.http.is_some() {
            WARM_UP.max(u32::try_from(MAX_UNANSWERED).unwrap_or(u32::MAX))
        } else {
            WARM_UP
        }
    }

    async fn load(&mut self, invites: u32, rate: Option<u32>) -> Result<LoadResult, String> {
        match &mut self.http {
            Some(client) => Ok(client.load(invites, rate).await),
            None => self
                .upstream
                .load((&self.exchange, &self.queue), invites, rate)
                .await
                .map_err(|error| amqp_error(&error)),
        }
    }
}

impl CpuTimes {
    fn since(&self, before: &Self, invites: u32) -> CpuPerInvite {
        let per_invite = |after: Duration, before: Duration| {
            Some(after.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(invites.max(1)))
        };
        let per_invite_if_known =
            |after: Option<Duration>, before: Option<Duration>| per_invite(after?, before?);
        CpuPerInvite {
            gateway: per_invite_if_known(self.gateway, before.gateway),
            worker: per_invite(self.subject, before.subject),
            postgres: per_invite_if_known(self.postgres, before.postgres),
            broker: per_invite_if_known(self.broker, before.broker),
            provider: per_invite(self.provider, before.provider),
            publisher: per_invite(self.publisher, before.publisher),
            machine: per_invite(self.machine, before.machine),
        }
    }
}

fn amqp_error(error: &lapin::Error) -> String {
    format!("RabbitMQ: {error}")
}

fn mebibytes(kibibytes: u64) -> f64 {
    u32::try_from(kibibytes).map_or(f64::INFINITY, |kibibytes| f64::from(kibibytes) / 1_024.0)
}
