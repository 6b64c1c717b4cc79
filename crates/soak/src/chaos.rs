//! Carries out the planned faults.

use crate::{
    broker,
    cluster::ClusterControl,
    nodes,
    plan::{Fault, StopMode},
    processes::ProcessSlot,
    servers::{self, ServerControl},
};
use std::{
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use test_support::{
    driver::RunEnvironment,
    process::{Signal, signal},
    raw_amqp,
};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};

/// Counts of the faults so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct ChaosSummary {
    pub kills: u64,
    pub terms: u64,
    pub stops: u64,
    pub long_stops: u64,
    pub gateway_kills: u64,
    pub gateway_terms: u64,
    pub gateway_stops: u64,
    /// By [`crate::plan::ServerKind`].
    pub cuts: [u64; 3],
    pub stalls: [u64; 3],
    pub broker_restarts: Vec<BrokerRestart>,
    /// From when work has to go on, after faults of a cluster.
    pub resumptions: Vec<Resumption>,
    pub broker_kills: u64,
    pub partitions: u64,
    pub slownesses: u64,
    pub promotions: u64,
    pub rolling_restarts: u64,
    pub database_restarts: u64,
    /// How often all backends were terminated, and how many they were in all.
    pub terminations: u64,
    pub terminated_backends: i64,
    /// Undecodable messages that the broker confirmed.
    pub undecodable: u32,
    /// Undecodable messages without a confirm. The broker may have them or not.
    pub unconfirmed_undecodable: u32,
    /// Faults that the soak failed to carry out.
    pub failures: Vec<String>,
    /// One line for each fault.
    pub timeline: String,
}

impl ChaosSummary {
    pub(crate) fn broker_faults(&self) -> u64 {
        self.broker_restarts.len() as u64 + self.broker_kills + self.partitions
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokerRestart {
    pub mode: StopMode,
    /// When the broker answered again.
    pub up: OffsetDateTime,
}

/// A moment from which work can go on.
#[derive(Debug, Clone)]
pub(crate) struct Resumption {
    pub what: String,
    /// When the broker had a majority, and a database node took writes.
    pub since: OffsetDateTime,
    /// How long the workers may take.
    pub limit: Duration,
}

pub(crate) struct Chaos {
    environment: RunEnvironment,
    control: ServerControl,
    pub(crate) cluster: Option<ClusterControl>,
    pub(crate) workers: Vec<Arc<ProcessSlot>>,
    pub(crate) gateways: Vec<Arc<ProcessSlot>>,
    /// Held during each fault of that server.
    pub(crate) broker: tokio::sync::Mutex<()>,
    pub(crate) database: tokio::sync::Mutex<()>,
    summary: Mutex<ChaosSummary>,
}

impl Chaos {
    pub(crate) fn new(
        environment: RunEnvironment,
        control: ServerControl,
        cluster: Option<ClusterControl>,
        workers: Vec<Arc<ProcessSlot>>,
        gateways: Vec<Arc<ProcessSlot>>,
    ) -> Self {
        Self {
            environment,
            control,
            cluster,
            workers,
            gateways,
            broker: tokio::sync::Mutex::default(),
            database: tokio::sync::Mutex::default(),
            summary: Mutex::default(),
        }
    }

    pub(crate) fn lock_summary(&self) -> MutexGuard<'_, ChaosSummary> {
        self.summary.lock().expect("no fault panics")
    }

    /// Adds a line to the timeline.
    pub(crate) fn note(&self, line: &str) {
        let _ = writeln!(self.lock_summary().timeline, "{line}");
    }

    pub(crate) fn summary(&self) -> ChaosSummary {
        self.lock_summary().clone()
    }

    /// Starts each fault at its time, while earlier ones may still last. Ends when the last has ended.
    pub(crate) async fn run(self: Arc<Self>, plan: Vec<(Duration, Fault)>) {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (at, fault) in plan {
            sleep(at.saturating_sub(start.elapsed())).await;
            let chaos = self.clone();
            tasks.spawn(async move {
                chaos.note(&format!("{} {fault:?}", OffsetDateTime::now_utc()));
                if let Err(failure) = chaos.carry_out(fault).await {
                    chaos.lock_summary().failures.push(format!("{fault:?}: {failure}"));
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no fault panics");
        }
    }

    async fn carry_out(&self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill(worker) => {
                self.workers[worker].kill();
                self.lock_summary().kills += 1;
            }
            Fault::Term(worker) => {
                self.workers[worker].term().await;
                self.lock_summary().terms += 1;
            }
            Fault::Stop(worker, length) => {
                self.lock_summary().stops += 1;
                self.lock_summary().long_stops += u64::from(length > Duration::from_secs(10));
                self.workers[worker].freeze(length).await;
            }
            Fault::KillGateway(gateway) => {
                self.gateways[gateway].kill();
                self.lock_summary().gateway_kills += 1;
            }
            Fault::TermGateway(gateway) => {
                self.gateways[gateway].term().await;
                self.lock_summary().gateway_terms += 1;
            }
            Fault::StopGateway(gateway, length) => {
                self.lock_summary().gateway_stops += 1;
                self.gateways[gateway].freeze(length).await;
            }
            Fault::Cut(server, worker) => {
                if worker.is_none() {
                    self.gateways.iter().for_each(|gateway| gateway.cut(server));
                }
                for (index, slot) in self.workers.iter().enumerate() {
                    if worker.is_none_or(|worker| worker == index) {
                        slot.cut(server);
                    }
                }
                self.lock_summary().cuts[server as usize] += 1;
            }
            Fault::Stall(server, worker, length) => {
                self.workers[worker].stall(server, length);
                self.lock_summary().stalls[server as usize] += 1;
                sleep(length).await;
            }
            Fault::RestartBroker(mode) => self.restart_broker(mode).await?,
            Fault::RestartDatabase(mode) => self.restart_database(mode).await?,
            Fault::KillBackend => self.kill_backend().await?,
            Fault::TerminateBackends => self.terminate_backends().await?,
            Fault::Undecodable => self.publish_undecodable().await,
            Fault::Cluster(fault) => self.carry_out_on_cluster(fault).await?,
        }
        Ok(())
    }

    async fn restart_broker(&self, mode: StopMode) -> Result<(), String> {
        let _alone = self.broker.lock().await;
        self.control.act("rabbitmq", mode.action()).await?;
        self.control.act("rabbitmq", "start").await?;
        let up = servers::wait_for_broker(&self.environment.amqp_url, servers::START_TIMEOUT).await?;
        self.note(&format!("{up} the broker is up"));
        self.lock_summary().broker_restarts.push(BrokerRestart { mode, up });
        Ok(())
    }

    async fn restart_database(&self, mode: StopMode) -> Result<(), String> {
        let _alone = self.database.lock().await;
        self.control.act("postgres", mode.action()).await?;
        self.control.act("postgres", "start").await?;
        servers::wait_for_database(&self.environment.database_url).await?;
        self.lock_summary().database_restarts += 1;
        Ok(())
    }

    async fn kill_backend(&self) -> Result<(), String> {
        let _alone = self.database.lock().await;
        let database_url = &self.environment.database_url;
        let backend = servers::random_backend(database_url).await.map_err(|error| error.to_string())?;
        let backend = backend.and_then(|pid| u32::try_from(pid).ok());
        let backend = backend.ok_or("no worker is connected to the database")?;
        signal(backend, Signal::KILL)
            .map_err(|error| format!("the backend {backend} cannot be killed: {error}"))?;
        servers::wait_for_database(database_url).await?;
        self.lock_summary().database_restarts += 1;
        Ok(())
    }

    async fn terminate_backends(&self) -> Result<(), String> {
        let _alone = self.database.lock().await;
        let terminated = servers::terminate_backends(&self.environment.database_url).await;
        let terminated = terminated.map_err(|error| error.to_string())?;
        let mut summary = self.lock_summary();
        summary.terminations += 1;
        summary.terminated_backends += terminated;
        Ok(())
    }

    async fn publish_undecodable(&self) {
        let _alone = self.broker.lock().await;
        let url = nodes::broker_urls(&self.environment.amqp_url).remove(0);
        // It panics when its connection fails. Then the broker may have the message or not.
        let published = tokio::task::spawn_blocking(move || {
            raw_amqp::publish_undecodable(&url, &broker::queue("requests"));
        })
        .await;
        let mut summary = self.lock_summary();
        if published.is_ok() {
            summary.undecodable += 1;
        } else {
            summary.unconfirmed_undecodable += 1;
        }
    }
}
