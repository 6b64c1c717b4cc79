//! Carries the plan out.

use crate::{
    broker,
    options::Surroundings,
    plan::{End, Event},
    servers,
    workers::Place,
};
use std::{
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use test_support::raw_amqp;
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::sleep};

/// What was done, as it happened.
#[derive(Debug, Default, Clone)]
pub struct Done {
    pub kills: u64,
    pub terms: u64,
    pub stops: u64,
    pub long_stops: u64,
    pub gateway_kills: u64,
    pub gateway_terms: u64,
    pub gateway_stops: u64,
    /// To the broker, the database and the provider.
    pub cuts: [u64; 3],
    pub stalls: [u64; 3],
    pub broker: Vec<Outage>,
    pub database_restarts: u64,
    pub massacres: u64,
    pub massacred: i64,
    /// Undecodable messages that the broker confirmed, and that it may have or not.
    pub undecodable: u32,
    pub perhaps_undecodable: u32,
    /// Faults that could not be made: the soak itself failed there.
    pub failures: Vec<String>,
    /// One line for each fault.
    pub timeline: String,
}

/// One restart of the broker.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub end: End,
    /// When it answered again.
    pub up: OffsetDateTime,
}

/// The one who does it.
pub struct Chaos {
    pub surroundings: Surroundings,
    pub workers: Vec<Arc<Place>>,
    pub gateways: Vec<Arc<Place>>,
    /// One end of each server at a time.
    broker: tokio::sync::Mutex<()>,
    database: tokio::sync::Mutex<()>,
    done: Mutex<Done>,
}

impl Chaos {
    pub fn new(surroundings: Surroundings, workers: Vec<Arc<Place>>, gateways: Vec<Arc<Place>>) -> Self {
        Self {
            surroundings,
            workers,
            gateways,
            broker: tokio::sync::Mutex::default(),
            database: tokio::sync::Mutex::default(),
            done: Mutex::default(),
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().expect("no fault panics")
    }

    pub fn summary(&self) -> Done {
        self.done().clone()
    }

    /// Each event at its time, beside those that still go on; ends when the last has ended.
    pub async fn run(self: Arc<Self>, plan: Vec<(Duration, Event)>) {
        let begun = Instant::now();
        let mut going = JoinSet::new();
        for (at, event) in plan {
            sleep(at.saturating_sub(begun.elapsed())).await;
            let chaos = self.clone();
            going.spawn(async move {
                let _ = writeln!(chaos.done().timeline, "{} {event:?}", OffsetDateTime::now_utc());
                if let Err(failure) = chaos.carry_out(event).await {
                    chaos.done().failures.push(format!("{event:?}: {failure}"));
                }
            });
        }
        while let Some(ended) = going.join_next().await {
            ended.expect("no fault panics");
        }
    }

    async fn carry_out(&self, event: Event) -> Result<(), String> {
        match event {
            Event::Kill(worker) => {
                self.workers[worker].kill();
                self.done().kills += 1;
            }
            Event::Term(worker) => {
                self.workers[worker].term().await;
                self.done().terms += 1;
            }
            Event::Stop(worker, length) => {
                self.done().stops += 1;
                self.done().long_stops += u64::from(length > Duration::from_secs(10));
                self.workers[worker].freeze(length).await;
            }
            Event::KillGateway(gateway) => {
                self.gateways[gateway].kill();
                self.done().gateway_kills += 1;
            }
            Event::TermGateway(gateway) => {
                self.gateways[gateway].term().await;
                self.done().gateway_terms += 1;
            }
            Event::StopGateway(gateway, length) => {
                self.done().gateway_stops += 1;
                self.gateways[gateway].freeze(length).await;
            }
            Event::Cut(server, whose) => {
                // What hits all workers hits the gateways too.
                if whose.is_none() {
                    self.gateways.iter().for_each(|gateway| gateway.cut(server));
                }
                for (index, worker) in self.workers.iter().enumerate() {
                    if whose.is_none_or(|one| one == index) {
                        worker.cut(server);
                    }
                }
                self.done().cuts[server as usize] += 1;
            }
            Event::Stall(server, worker, length) => {
                self.workers[worker].stall(server, length);
                self.done().stalls[server as usize] += 1;
                sleep(length).await;
            }
            Event::Broker(end) => self.restart_broker(end).await?,
            Event::Database(end) => {
                let _alone = self.database.lock().await;
                servers::service(&self.surroundings, "postgres", end.name()).await?;
                servers::service(&self.surroundings, "postgres", "start").await?;
                servers::database_is_up(&self.surroundings.database).await?;
                self.done().database_restarts += 1;
            }
            Event::Backend => self.kill_backend().await?,
            Event::Massacre => {
                let _alone = self.database.lock().await;
                let ended =
                    servers::massacre(&self.surroundings.database).await.map_err(|e| e.to_string())?;
                let mut done = self.done();
                done.massacres += 1;
                done.massacred += ended;
            }
            Event::Undecodable => self.undecodable().await,
        }
        Ok(())
    }

    async fn restart_broker(&self, end: End) -> Result<(), String> {
        let _alone = self.broker.lock().await;
        servers::service(&self.surroundings, "rabbitmq", end.name()).await?;
        servers::service(&self.surroundings, "rabbitmq", "start").await?;
        let up = servers::broker_is_up(&self.surroundings.broker).await?;
        let _ = writeln!(self.done().timeline, "{up} the broker is up");
        self.done().broker.push(Outage { end, up });
        Ok(())
    }

    async fn kill_backend(&self) -> Result<(), String> {
        let _alone = self.database.lock().await;
        let database = &self.surroundings.database;
        let Some(backend) = servers::a_backend(database).await.map_err(|error| error.to_string())? else {
            return Err("no worker is connected to the database".to_owned());
        };
        let killed = std::process::Command::new("kill").args(["-KILL", &backend.to_string()]).status();
        if !killed.is_ok_and(|status| status.success()) {
            return Err(format!("the backend {backend} cannot be killed"));
        }
        servers::database_is_up(database).await?;
        self.done().database_restarts += 1;
        Ok(())
    }

    async fn undecodable(&self) {
        let _alone = self.broker.lock().await;
        let url = self.surroundings.broker.clone();
        // It panics when its connection does not hold; then the broker may have the message or not.
        let published = tokio::task::spawn_blocking(move || {
            raw_amqp::publish_undecodable(&url, &broker::queue("requests"));
        })
        .await;
        let mut done = self.done();
        if published.is_ok() {
            done.undecodable += 1;
        } else {
            done.perhaps_undecodable += 1;
        }
    }
}
