//! One soak from its start to its verdict.

use crate::{
    audit::{Evidence, audit},
    broker::{self, QueueContent},
    chaos::Chaos,
    cluster::{ClusterControl, Replication},
    gateway_client::GatewayClient,
    invite::{self, Invite},
    journal::Journal,
    logs, nodes,
    options::{Options, SoakEnvironment},
    plan,
    processes::{ProcessSlot, ProcessSlots},
    provider::Provider,
    publisher::{self, PublisherContext},
    report::{SoakReport, resume_times},
    servers::{self, ServerControl},
    setup,
    upgrade::{Upgrade, first_environment},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use test_support::driver::RunEnvironment;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

/// How long the processes may take to be ready, and the queues to be empty.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// The queues that must be empty at the end.
const EMPTY_QUEUES: [&str; 8] =
    ["requests", "retry.1s", "retry.5s", "retry.30s", "retry.120s", "dropped", "dead", "replies"];

pub(crate) async fn run(options: Options, environment: SoakEnvironment, slots: &ProcessSlots) -> ExitCode {
    let SoakEnvironment { run: this_release, xtask } = environment;
    let environment = first_environment(&this_release, options.previous.as_ref());
    let seed = options.seed();
    let logs = announce(seed, &options, &environment);
    let provider = Provider::start(seed, &options).await;
    let (secrets, addresses) = (setup::group_secrets(), setup::free_addresses());
    let settings = setup::settings(&options, &environment, &provider, &addresses[0]);
    setup::prepare(&environment, &settings, &secrets);
    let control = ServerControl { run: environment.run.clone(), xtask };
    let cluster = find_cluster(&environment, &control, options.replication()).await;
    broker::bind_events(&environment.amqp_url).await.expect("a queue for events");
    setup::start_workers(slots, &options, &environment, &provider, &settings, &logs).await;
    setup::start_gateways(slots, &addresses, &environment, &provider, &settings, &logs).await;
    let mut problems = wait_until_ready(&slots.all()).await;

    let plan = plan::faults(&options, seed);
    let times: Vec<_> = plan.iter().map(|(at, _)| *at).collect();
    let invites = invite::invites(&options, seed, &times);
    let journal = Arc::new(Journal::new(invites.len()));
    follow_queues(&options, &environment, &journal).await;
    let start = Instant::now();
    let context = PublisherContext {
        amqp_url: environment.amqp_url.clone(),
        journal: journal.clone(),
        secrets: Arc::new(secrets),
        gateways: GatewayClient::new(addresses),
        is_cluster: options.cluster,
        permits: Arc::new(Semaphore::new(options.window.into())),
    };
    let mut publishers = start_publishers(&options, &context, &invites);
    let (workers, gateways) = (slots.of("worker"), slots.of("gateway"));
    let chaos = Arc::new(Chaos::new(environment.clone(), control, cluster, workers, gateways));
    let progress = tokio::spawn(print_progress(journal.clone(), chaos.clone(), start));
    let length = Duration::from_secs(options.seconds());
    let upgrade = Upgrade {
        slots,
        this: &this_release,
        previous: options.previous.as_deref(),
        provider: &provider,
        settings: &settings,
        logs: &logs,
        journal: &journal,
    };
    let ((), upgrade_problems) = tokio::join!(chaos.clone().run(plan), upgrade.run(length));
    problems.extend(upgrade_problems);
    sleep(length.saturating_sub(start.elapsed())).await;
    provider.end_faults().await;
    wait_for_publishers(&mut publishers, Duration::from_secs(options.patience), &mut problems).await;
    let (duration, chaos) = (start.elapsed(), chaos.summary());
    progress.abort();

    let (depths, unreadable) = drain(&environment, slots, &options, chaos.undecodable, &mut problems).await;

    let replication = options.replication();
    let evidence =
        collect_evidence(invites, &journal, &environment, &provider, replication, &mut problems).await;
    let report = SoakReport {
        seed,
        audit: audit(&evidence),
        resume_times: resume_times(&chaos.broker_restarts, &chaos.resumptions, &evidence),
        chaos,
        depths,
        unreadable,
        peak_memory: slots.all().iter().map(|slot| slot.peak_memory()).max().unwrap_or_default(),
        process_faults: slots.all().iter().flat_map(|slot| slot.faults()).collect(),
        errors: logs::errors(&logs),
        problems,
        duration,
        provider_stats: provider.stats().await,
    };
    conclude(&report, &evidence, &options, &environment.run, &logs)
}

/// Ends the processes when outbox and queues are empty. Gives what is left in the queues.
async fn drain(
    environment: &RunEnvironment,
    slots: &ProcessSlots,
    options: &Options,
    undecodable: u32,
    problems: &mut Vec<String>,
) -> (Vec<(&'static str, u32)>, u32) {
    problems.extend(wait_until_ready(&slots.all()).await);
    if !servers::wait_for_empty_outbox(&environment.database_url).await {
        problems.push("events stay in the outbox".to_owned());
    }
    wait_until_empty(environment, undecodable).await;
    // The gateways end first: a late receipt makes an event, which a worker has to publish.
    for slot in slots.of("gateway") {
        slot.close().await;
    }
    servers::wait_for_empty_outbox(&environment.database_url).await;
    for slot in slots.of("worker") {
        slot.close().await;
    }
    let left = wait_until_empty(environment, undecodable).await;
    // Until the journal has what was taken from the queues, in a cluster also what has to be delivered once more.
    sleep(if options.cluster { broker::IDLE * 2 } else { Duration::from_millis(300) }).await;
    left
}

/// The cluster of the run, if it has one; its commits wait for the standby from now on, if they are to.
async fn find_cluster(
    environment: &RunEnvironment,
    control: &ServerControl,
    replication: Replication,
) -> Option<ClusterControl> {
    let cluster = ClusterControl::new(environment, control.clone(), replication)?;
    cluster.set_replication().await.expect("the primary takes its setting");
    Some(cluster)
}

async fn wait_for_publishers(publishers: &mut JoinSet<()>, patience: Duration, problems: &mut Vec<String>) {
    let all_answered =
        async { while publishers.join_next().await.transpose().expect("no publisher panics").is_some() {} };
    if timeout(patience, all_answered).await.is_err() {
        problems.push(format!("invites are unanswered {patience:?} after the last fault"));
    }
}

/// Prints the seed and the size of the soak, and makes an empty directory for the logs.
fn announce(seed: u64, options: &Options, environment: &RunEnvironment) -> PathBuf {
    println!(
        "seed {seed}: {} invites, {} s, {} workers",
        options.invites(),
        options.seconds(),
        options.workers
    );
    let logs = environment.reports.join(format!("soak-{seed}"));
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs).expect("a directory for the logs");
    logs
}

/// What publishers, provider and database have at the end. Complaints of the journal go to `problems`.
async fn collect_evidence(
    invites: Vec<Invite>,
    journal: &Journal,
    environment: &RunEnvironment,
    provider: &Provider,
    replication: Replication,
    problems: &mut Vec<String>,
) -> Evidence {
    let other = journal.other();
    problems.extend(other.complaints.iter().map(|(what, count)| format!("{what} ({count} times)")));
    let rows = servers::session_rows(&environment.database_url).await;
    Evidence {
        invites,
        entries: journal.entries(),
        strays: other.strays,
        dead: other.dead,
        texts: provider.inbox().await,
        rows: rows.expect("the sessions can be read"),
        events: other.events,
        replication,
    }
}

/// Prints the report and the verdict. Keeps the logs if the soak failed.
fn conclude(
    report: &SoakReport,
    evidence: &Evidence,
    options: &Options,
    run: &Path,
    logs: &Path,
) -> ExitCode {
    println!("\n{}", report.table());
    for (error, count) in report.kinds_of_errors().iter().take(10) {
        println!("  log, {count} times: {error}");
    }
    let failures = report.failures();
    for line in &failures {
        println!("  ! {line}");
    }
    let verdict = if failures.is_empty() { "PASSED" } else { "FAILED" };
    let command = if options.previous.is_some() { "upgrade" } else { "soak" };
    println!("{verdict}. Again: ./dev {command} {}", repeat_options(report.seed));
    if failures.is_empty() && !options.keep {
        let _ = std::fs::remove_dir_all(logs);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = report.write(evidence, logs) {
        println!("the report cannot be written: {error}");
    }
    for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_of_server = ["rabbitmq", "postgres"].iter().any(|it| name.to_string_lossy().starts_with(it));
        if is_of_server && entry.path().extension().is_some_and(|extension| extension == "log") {
            let _ = std::fs::copy(entry.path(), logs.join(name));
        }
    }
    println!("The report and the logs: {}", logs.display());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The options that repeat this run.
fn repeat_options(seed: u64) -> String {
    let mut words = Vec::new();
    if let Some(series) = std::env::var("SOAK_SERIES").ok().filter(|series| series != "old") {
        words.extend(["--series".to_owned(), series]);
    }
    words.extend(["--seed".to_owned(), seed.to_string()]);
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        match word.as_str() {
            "--seed" | "--previous" => drop(given.next()),
            other if other.starts_with("--seed=") => {}
            _ => words.push(word),
        }
    }
    words.join(" ")
}

/// Waits until all processes are ready; gives a problem for each that is not.
async fn wait_until_ready(slots: &[Arc<ProcessSlot>]) -> Vec<String> {
    let (start, mut problems) = (Instant::now(), Vec::new());
    for (index, slot) in slots.iter().enumerate() {
        while !slot.is_ready().await {
            if start.elapsed() > SETTLE_TIMEOUT {
                problems.push(format!("process {index} is not ready within {SETTLE_TIMEOUT:?}"));
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    problems
}

/// Notes all replies, dead letters and events in the journal.
async fn follow_queues(options: &Options, environment: &RunEnvironment, journal: &Arc<Journal>) {
    for publisher in 0..usize::from(options.publishers) {
        let queue = match broker::reply_queue(publisher) {
            None => broker::queue("replies"),
            Some(own) => {
                broker::declare(&environment.amqp_url, &own).await.expect("a queue for replies");
                own
            }
        };
        // One that is connected to a node that falls silent gets nothing meanwhile, so there is one at each node.
        for url in nodes::broker_urls(&environment.amqp_url) {
            tokio::spawn(broker::follow(url, queue.clone(), QueueContent::Replies, journal.clone()));
        }
    }
    for (queue, content) in [
        (broker::queue("dead"), QueueContent::DeadLetters),
        (broker::EVENTS_QUEUE.to_owned(), QueueContent::Events),
    ] {
        tokio::spawn(broker::follow(environment.amqp_url.clone(), queue, content, journal.clone()));
    }
}

fn start_publishers(options: &Options, context: &PublisherContext, invites: &[Invite]) -> JoinSet<()> {
    let count = usize::from(options.publishers);
    let mut publishers = JoinSet::new();
    for number in 0..count {
        let own = invites.iter().filter(|invite| invite.index % count == number).cloned().collect();
        publishers.spawn(publisher::run(context.clone(), number, own));
    }
    publishers
}

async fn print_progress(journal: Arc<Journal>, chaos: Arc<Chaos>, start: Instant) {
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (published, answered) = journal.progress();
        let chaos = chaos.summary();
        println!(
            "{:>4} s: {published} published, {answered} answered; {} kills, {} faults of the broker, {} of the database",
            start.elapsed().as_secs(),
            chaos.kills,
            chaos.broker_faults(),
            chaos.database_restarts + chaos.promotions,
        );
    }
}

/// Waits until the worker's queues are empty and `.unreadable` has the undecodable messages. Gives the depths of both.
async fn wait_until_empty(environment: &RunEnvironment, undecodable: u32) -> (Vec<(&'static str, u32)>, u32) {
    let start = Instant::now();
    loop {
        let depths = broker::depths(&environment.amqp_url, &EMPTY_QUEUES).await;
        let unreadable = broker::depths(&environment.amqp_url, &["unreadable"]).await;
        if let Some((depths, unreadable)) = depths.zip(unreadable) {
            let unreadable = unreadable[0].1;
            let is_empty = depths.iter().all(|(_, count)| *count == 0) && unreadable >= undecodable;
            if is_empty || start.elapsed() > SETTLE_TIMEOUT {
                return (depths, unreadable);
            }
        }
        assert!(start.elapsed() < 2 * SETTLE_TIMEOUT, "the broker does not give the depths of its queues");
        sleep(Duration::from_millis(200)).await;
    }
}
