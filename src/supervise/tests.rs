use super::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The task's entry in `problems`, so much later. Tests of one process share the list, so each uses another task.
fn problem(task: Task, later: Duration) -> Option<String> {
    problem_at(task, Instant::now() + later)
}

fn problem_at(task: Task, at: Instant) -> Option<String> {
    let name = format!("\"{}\"", task.name());
    pulse::problems_at(at).into_iter().find(|problem| problem.contains(&name))
}

const NOW: Duration = Duration::ZERO;
const A_MINUTE: Duration = Duration::from_secs(61);

#[tokio::test]
async fn a_task_that_panics_or_returns_is_restarted_until_stop() {
    let (runs, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let (third_run, third_run_started) = tokio::sync::oneshot::channel();
    let (counter, until, mut third_run) = (runs.clone(), stop.clone(), Some(third_run));
    let task = keep_running(Task::Groups, stop.clone(), move |_| {
        let (run, until) = (counter.fetch_add(1, Ordering::Relaxed), until.clone());
        let third_run = third_run.take_if(|_| run == 2);
        async move {
            match run {
                0 => panic!("a test's panic"),
                1 => {}
                _ => {
                    drop(third_run);
                    until.cancelled().await;
                }
            }
        }
    });
    let _ = third_run_started.await as Result<(), _>;
    assert!(problem(Task::Groups, NOW).is_some_and(|problem| problem.contains("ended unexpectedly")));
    assert_eq!(problem(Task::Groups, A_MINUTE), None, "its last end is more than a minute ago by then");
    stop.cancel();
    assert!(matches!(task.ended().await, Ok(())));
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_fatal_error_ends_the_task() {
    let task = keep_running_unless_fatal(Task::Groups, CancellationToken::new(), |_| async { Err("fatal") });
    assert_eq!(task.ended().await, Err("fatal"));
}

#[test]
fn a_task_without_a_step_for_a_minute_is_named_with_its_last_step_and_an_idle_one_is_not() {
    let task = Task::MetricsUpkeep;
    let pulse = Pulse::of(task);
    assert_eq!(problem(task, A_MINUTE), None, "it waits for work");
    pulse.step("reading");
    // The step's moment is between these two, however slow this machine is.
    let before = Instant::now();
    pulse.step("writing");
    let after = Instant::now();
    assert_eq!(problem_at(task, before + Duration::from_secs(59)), None);
    let text = problem_at(task, after + A_MINUTE).expect("it is stuck");
    let longest = 62 + (after - before).as_secs();
    let has_its_time = (61..=longest).any(|seconds| text.contains(&format!("{seconds} s")));
    assert!(has_its_time && text.contains("writing"), "{text}");
    pulse.idle();
    assert_eq!(problem(task, A_MINUTE), None);
    pulse.step("reading");
    drop(pulse);
    assert_eq!(problem(task, A_MINUTE), None, "it has ended");
}

#[tokio::test]
async fn a_connections_task_that_returns_or_panics_ends_the_connection() {
    for panics in [false, true] {
        let lost = CancellationToken::new();
        spawn_for_connection(Task::Groups, lost.clone(), move |_| async move {
            assert!(!panics, "a test's panic");
        });
        lost.cancelled().await;
    }
}

#[tokio::test]
async fn work_that_panics_drops_the_channel_that_its_requester_waits_on() {
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    spawn_work("a test's work", async move {
        let _answer = answer;
        panic!("a test's panic");
    });
    assert!(answered.await.is_err());
}

#[test]
fn the_wrapper_of_work_hardly_needs_more_memory_than_the_work() {
    let work = async {
        let buffer = [0_u8; 4_096];
        std::future::pending::<()>().await;
        std::hint::black_box(buffer);
    };
    let own = size_of_val(&work);
    assert!(size_of_val(&super::keep::named("a test's work", work)) <= own + 64);
}

#[test]
fn no_two_tasks_share_a_name() {
    let names: std::collections::HashSet<_> = Task::ALL.iter().map(|task| task.name()).collect();
    assert_eq!(names.len(), Task::ALL.len());
}
