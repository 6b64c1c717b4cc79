use super::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What `problems` says of the task so much later. Tests of one process share the list, so each has a task of its own.
fn problem(task: Task, later: Duration) -> Option<String> {
    let name = format!("\"{}\"", task.name());
    pulse::problems_at(Instant::now() + later).into_iter().find(|problem| problem.contains(&name))
}

const NOW: Duration = Duration::ZERO;
const A_MINUTE: Duration = Duration::from_secs(61);

#[tokio::test]
async fn a_task_that_ends_in_a_panic_or_returns_is_started_again_until_it_is_asked_to_end() {
    let (lives, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let (third, lives_thrice) = tokio::sync::oneshot::channel();
    let (counted, asked, mut third) = (lives.clone(), stop.clone(), Some(third));
    let kept = keep_up(Task::Groups, stop.clone(), move |_| {
        let (life, asked) = (counted.fetch_add(1, Ordering::Relaxed), asked.clone());
        let third = third.take_if(|_| life == 2);
        async move {
            match life {
                0 => panic!("a test's panic"),
                1 => {}
                _ => {
                    drop(third);
                    asked.cancelled().await;
                }
            }
        }
    });
    let _ = lives_thrice.await as Result<(), _>;
    assert!(problem(Task::Groups, NOW).is_some_and(|problem| problem.contains("ended unasked")));
    assert_eq!(problem(Task::Groups, A_MINUTE), None, "it has been well for a minute by then");
    stop.cancel();
    assert!(matches!(kept.ended().await, Ok(())));
    assert_eq!(lives.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn an_error_that_no_start_mends_ends_the_task() {
    let kept = keep_up_unless(Task::Groups, CancellationToken::new(), |_| async { Err("no right") });
    assert_eq!(kept.ended().await, Err("no right"));
}

#[test]
fn a_task_without_a_step_for_a_minute_is_named_with_its_last_step_and_an_idle_one_is_not() {
    let task = Task::MetricsUpkeep;
    let pulse = Pulse::of(task);
    assert_eq!(problem(task, A_MINUTE), None, "it waits for work");
    pulse.step("reading");
    pulse.step("writing");
    assert_eq!(problem(task, Duration::from_secs(59)), None);
    let text = problem(task, A_MINUTE).expect("it is stuck");
    assert!(text.contains("61 s") && text.contains("writing"), "{text}");
    pulse.idle();
    assert_eq!(problem(task, A_MINUTE), None);
    pulse.step("reading");
    drop(pulse);
    assert_eq!(problem(task, A_MINUTE), None, "it is gone");
}

#[tokio::test]
async fn whatever_ends_a_connections_task_ends_the_connection() {
    for panics in [false, true] {
        let line = CancellationToken::new();
        part_of(Task::Groups, line.clone(), move |_| async move { assert!(!panics, "a test's panic") });
        line.cancelled().await;
    }
}

#[tokio::test]
async fn a_piece_of_work_that_panics_drops_what_its_requester_waits_for() {
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    aside("a test's work", async move {
        let _answer = answer;
        panic!("a test's panic");
    });
    assert!(answered.await.is_err());
}

#[test]
fn a_piece_of_work_has_hardly_more_room_than_its_own() {
    let work = async {
        let held = [0_u8; 4_096];
        std::future::pending::<()>().await;
        std::hint::black_box(held);
    };
    let own = size_of_val(&work);
    assert!(size_of_val(&super::keep::named("a test's work", work)) <= own + 64);
}

#[test]
fn no_two_tasks_share_a_name() {
    let names: std::collections::HashSet<_> = Task::ALL.iter().map(|task| task.name()).collect();
    assert_eq!(names.len(), Task::ALL.len());
}
