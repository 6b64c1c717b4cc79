//! One soak from its start to its verdict.

use crate::{
    account::{Evidence, account},
    ask::Gateways,
    book::Book,
    broker::{self, What},
    chaos::Chaos,
    invite::{self, Invite},
    logs,
    options::{Options, Surroundings},
    plan,
    provider::Provider,
    publish::{self, Upstream},
    report::{Findings, resumes},
    servers, setup,
    workers::{Place, Places},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

/// How long workers may take to be ready, and queues to be empty.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Where nothing may be left.
const EMPTY_AT_THE_END: [&str; 8] =
    ["requests", "retry.1s", "retry.5s", "retry.30s", "retry.120s", "dropped", "dead", "replies"];

pub async fn run(options: Options, surroundings: Surroundings, workers: &Places) -> ExitCode {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let logs = announce(seed, &options, &surroundings);
    let provider = Provider::start(seed, &options).await;
    let secrets = setup::secrets();
    let addresses = setup::addresses();
    let environment = setup::environment(&options, &surroundings, &provider, &addresses[0]);
    setup::prepare(&surroundings, &environment, &secrets);
    broker::bind_events(&surroundings.broker).await.expect("a queue for events");
    setup::start_workers(workers, &options, &surroundings, &provider, &environment, &logs).await;
    setup::start_gateways(workers, &addresses, &surroundings, &provider, &environment, &logs).await;
    let places = workers.all();
    let mut trouble = Vec::new();
    wait_until_ready(&places, &mut trouble).await;

    let plan = plan::events(&options, seed);
    let times: Vec<_> = plan.iter().map(|(at, _)| *at).collect();
    let invites = invite::invites(&options, seed, &times);
    let book = Arc::new(Book::new(invites.len()));
    follow_replies(&options, &surroundings, &book).await;
    let begun = Instant::now();
    let length = Duration::from_secs(options.seconds);
    let upstream = Upstream {
        url: surroundings.broker.clone(),
        book: book.clone(),
        secrets: Arc::new(secrets),
        gateways: Gateways::new(addresses),
        window: Arc::new(Semaphore::new(options.window.into())),
    };
    let mut publishers = publishers(&options, &upstream, &invites);
    let chaos = Arc::new(Chaos::new(surroundings.clone(), workers.of("worker"), workers.of("gateway")));
    let telling = tokio::spawn(tell_progress(book.clone(), chaos.clone(), begun));

    chaos.clone().run(plan).await;
    sleep(length.saturating_sub(begun.elapsed())).await;
    provider.calm().await;
    let patience = Duration::from_secs(options.patience);
    let all_answered =
        async { while publishers.join_next().await.transpose().expect("no publisher panics").is_some() {} };
    if timeout(patience, all_answered).await.is_err() {
        trouble.push(format!("not everything was answered {patience:?} after the last fault"));
    }
    let took = begun.elapsed();
    telling.abort();

    wait_until_ready(&places, &mut trouble).await;
    if !servers::outbox_is_empty(&surroundings.database).await {
        trouble.push("there are events in the outbox that nobody publishes".to_owned());
    }
    let done = chaos.summary();
    wait_until_empty(&surroundings, done.undecodable).await;
    for place in &places {
        place.close().await;
    }
    let (depths, unreadable) = wait_until_empty(&surroundings, done.undecodable).await;
    // What was taken from the queues is in the book in a moment.
    sleep(Duration::from_millis(300)).await;

    let evidence = evidence(invites, &book, &surroundings, &provider, &mut trouble).await;
    let findings = Findings {
        seed,
        account: account(&evidence),
        resumes: resumes(&done.broker, &evidence),
        done,
        depths,
        unreadable,
        peak: places.iter().map(|place| place.peak()).max().unwrap_or_default(),
        workers: places.iter().flat_map(|place| place.faults()).collect(),
        errors: logs::errors(&logs),
        trouble,
        took,
        provider: provider.stats().await,
    };
    verdict(&findings, &evidence, &options, &surroundings.run, &logs)
}

/// Says what is to come, and makes an empty directory for the logs.
fn announce(seed: u64, options: &Options, surroundings: &Surroundings) -> PathBuf {
    println!(
        "seed {seed}: {} invites, {} s, {} workers",
        options.invites(),
        options.seconds,
        options.workers
    );
    let logs = surroundings.reports.join(format!("soak-{seed}"));
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs).expect("a directory for the logs");
    logs
}

/// What publishers, provider and database know at the end. Complaints go to `trouble`.
async fn evidence(
    invites: Vec<Invite>,
    book: &Book,
    surroundings: &Surroundings,
    provider: &Provider,
    trouble: &mut Vec<String>,
) -> Evidence {
    let loose = book.loose();
    trouble.extend(loose.complaints.iter().map(|(what, count)| format!("{what} ({count} times)")));
    let rows = servers::rows(&surroundings.database).await;
    Evidence {
        invites,
        entries: book.entries(),
        strays: loose.strays,
        dead: loose.dead,
        texts: provider.inbox().await,
        rows: rows.expect("the sessions can be read"),
        events: loose.events,
    }
}

fn verdict(findings: &Findings, evidence: &Evidence, options: &Options, run: &Path, logs: &Path) -> ExitCode {
    println!("\n{}", findings.table());
    for (error, count) in findings.kinds_of_errors().iter().take(10) {
        println!("  log, {count} times: {error}");
    }
    let against = findings.against();
    for line in &against {
        println!("  ! {line}");
    }
    let verdict = if against.is_empty() { "PASSED" } else { "FAILED" };
    println!("{verdict}. Again: ./dev soak {}", again(findings.seed));
    if against.is_empty() && !options.keep {
        let _ = std::fs::remove_dir_all(logs);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = findings.write(evidence, logs) {
        println!("the report cannot be written: {error}");
    }
    for log in ["rabbitmq.before.log", "rabbitmq.log", "postgres.before.log", "postgres.log"] {
        let _ = std::fs::copy(run.join(log), logs.join(log));
    }
    println!("The report and the logs: {}", logs.display());
    if against.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The options that repeat this run.
fn again(seed: u64) -> String {
    let mut words = Vec::new();
    if let Some(series) = std::env::var("SOAK_SERIES").ok().filter(|series| series != "old") {
        words.extend(["--series".to_owned(), series]);
    }
    words.extend(["--seed".to_owned(), seed.to_string()]);
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        match word.as_str() {
            "--seed" => drop(given.next()),
            other if other.starts_with("--seed=") => {}
            _ => words.push(word),
        }
    }
    words.join(" ")
}

async fn wait_until_ready(places: &[Arc<Place>], trouble: &mut Vec<String>) {
    let begun = Instant::now();
    for (index, place) in places.iter().enumerate() {
        while !place.is_ready().await {
            if begun.elapsed() > SETTLED_WITHIN {
                trouble.push(format!("worker {index} is not ready within {SETTLED_WITHIN:?}"));
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn follow_replies(options: &Options, surroundings: &Surroundings, book: &Arc<Book>) {
    for publisher in 0..usize::from(options.publishers) {
        let queue = match broker::reply_queue(publisher) {
            None => broker::queue("replies"),
            Some(own) => {
                broker::declare(&surroundings.broker, &own).await.expect("a queue for replies");
                own
            }
        };
        tokio::spawn(broker::follow(surroundings.broker.clone(), queue, What::Replies, book.clone()));
    }
    for (queue, what) in
        [(broker::queue("dead"), What::DeadLetters), (broker::EVENTS.to_owned(), What::Events)]
    {
        tokio::spawn(broker::follow(surroundings.broker.clone(), queue, what, book.clone()));
    }
}

fn publishers(options: &Options, upstream: &Upstream, invites: &[Invite]) -> JoinSet<()> {
    let count = usize::from(options.publishers);
    let mut publishers = JoinSet::new();
    for publisher in 0..count {
        let own = invites.iter().filter(|invite| invite.index % count == publisher).cloned().collect();
        publishers.spawn(publish::run(upstream.clone(), publisher, own));
    }
    publishers
}

async fn tell_progress(book: Arc<Book>, chaos: Arc<Chaos>, begun: Instant) {
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (published, answered) = book.progress();
        let done = chaos.summary();
        println!(
            "{:>4} s: {published} published, {answered} answered; {} kills, {} broker restarts, {} database restarts",
            begun.elapsed().as_secs(),
            done.kills,
            done.broker.len(),
            done.database_restarts,
        );
    }
}

/// Waits until the worker's queues are empty, and the undecodable messages are where they belong. Gives what is there.
async fn wait_until_empty(surroundings: &Surroundings, undecodable: u32) -> (Vec<(&'static str, u32)>, u32) {
    let begun = Instant::now();
    loop {
        let left = broker::depths(&surroundings.broker, &EMPTY_AT_THE_END).await;
        let unreadable = broker::depths(&surroundings.broker, &["unreadable"]).await;
        if let Some((left, unreadable)) = left.zip(unreadable) {
            let unreadable = unreadable[0].1;
            let empty = left.iter().all(|(_, count)| *count == 0) && unreadable >= undecodable;
            if empty || begun.elapsed() > SETTLED_WITHIN {
                return (left, unreadable);
            }
        }
        assert!(begun.elapsed() < 2 * SETTLED_WITHIN, "the broker does not say what is left");
        sleep(Duration::from_millis(200)).await;
    }
}
