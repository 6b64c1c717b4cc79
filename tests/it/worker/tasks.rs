//! The contract's section 8, promise 8: a task that ends is logged and started again.

use crate::support::{Collector, Gateway, Message, Setup, Worker, World, send, until};
use serde_json::json;
use session_invite::internals::{Process, Task};
use std::time::Duration;

/// Time for an invite whose task ended after the text: the claim's margin, and a look at the provider's list.
const PATIENCE: Duration = Duration::from_secs(90);
/// Sets a fault for tasks, and at which of their steps it happens.
const FAILPOINT: &str = "SESSION_INVITE_FAILPOINT";

/// Waits until the log names every task of this kind of process.
async fn until_all_tasks_are_logged(process: &Worker, kind: Process) {
    for task in Task::ALL.iter().filter(|task| task.processes().contains(&kind)) {
        process.logs(&format!("task=\"{}\"", task.name())).await;
    }
}

/// Asserts that invites of every kind are answered and texted once, and that their events are published.
async fn assert_works(world: &World, gateway: &Gateway) {
    for n in 0..3 {
        let named = world.request_with(json!({"smsPhone": format!("201-555-01{n:02}")}));
        let correlation = format!("named {n}");
        world.broker.request(Message::json(&named).id(&correlation).correlation(&correlation)).await;
        world.broker.reply_within(PATIENCE, &correlation).await.sent();
        let anonymous = world.request_with(json!({"smsPhone": format!("201-555-02{n:02}")}));
        let correlation = format!("anonymous {n}");
        world.broker.request(Message::json(&anonymous).correlation(&correlation)).await;
        world.broker.reply_within(PATIENCE, &correlation).await.sent();
        // The gateway gets a direct reply.
        send(gateway.invite(world)).await.ok();
    }
    assert_eq!(world.provider.texts().await.len(), 9);
    world.database.until_outbox_is_empty().await;
}

async fn assert_every_worker_task_may_end(failpoint: &str) {
    let collector = Collector::start();
    let setup = Setup::default().short_waits().set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    let world = setup.set(FAILPOINT, failpoint).start().await;
    world.expect_error("ended unexpectedly");
    if failpoint.contains("panic") {
        world.expect_error("panicked");
    }
    let mut gateway = world.start_gateway(&[(FAILPOINT, ""), ("GATEWAY_TIMEOUT", "90s")]).await;
    assert_works(&world, &gateway).await;
    assert!(gateway.process.stop().success());
    if failpoint.ends_with(":1") {
        until_all_tasks_are_logged(world.running(), Process::Worker).await;
    }
    // The world stops its worker at the end, which has to succeed.
}

#[tokio::test]
async fn every_worker_task_that_panics_at_its_start_is_logged_and_started_again() {
    assert_every_worker_task_may_end("task/*:panic:1").await;
}

#[tokio::test]
async fn every_worker_task_that_returns_at_its_start_is_logged_and_started_again() {
    assert_every_worker_task_may_end("task/*:return:1").await;
}

#[tokio::test]
async fn every_worker_task_that_panics_in_its_work_is_started_again_and_no_text_is_repeated() {
    assert_every_worker_task_may_end("task/*:panic:2").await;
}

#[tokio::test]
async fn every_worker_task_that_returns_in_its_work_is_started_again_and_no_text_is_repeated() {
    assert_every_worker_task_may_end("task/*:return:2").await;
}

/// Sends an invite, and repeats it after 503: a task of the connection to the broker may end meanwhile.
async fn until_sent(world: &World, gateway: &Gateway) {
    until("an invite is sent", || async {
        let answer = send(gateway.invite(world)).await;
        if answer.status == 503 {
            answer.problem(503, "unavailable");
            return None;
        }
        answer.ok();
        Some(())
    })
    .await;
}

async fn assert_every_gateway_task_may_end(how: &str) {
    let world = World::start().await;
    world.expect_error("ended unexpectedly");
    if how == "panic" {
        world.expect_error("panicked");
    }
    for step in [1, 2] {
        let mut gateway = world.start_gateway(&[(FAILPOINT, &format!("task/*:{how}:{step}"))]).await;
        for _ in 0..3 {
            until_sent(&world, &gateway).await;
        }
        if step == 1 {
            until_all_tasks_are_logged(&gateway.process, Process::Gateway).await;
        }
        assert!(gateway.process.stop().success());
    }
}

#[tokio::test]
async fn every_gateway_task_that_panics_is_logged_and_started_again() {
    assert_every_gateway_task_may_end("panic").await;
}

#[tokio::test]
async fn every_gateway_task_that_returns_is_logged_and_started_again() {
    assert_every_gateway_task_may_end("return").await;
}

#[tokio::test]
async fn a_panic_in_a_statement_fails_its_own_invite_and_the_next_one_is_sent() {
    let world = Setup::default().set(FAILPOINT, "task/insert sessions:panic:3").start().await;
    world.expect_error("panicked");
    world.expect_error("it is set aside");
    world.invite(&world.request()).await.refused("failed", "internal_error", 500);
    let reason = world.broker.take("dead").await.header("x-reason").expect("a reason");
    assert!(reason.contains("panic"), "{reason}");
    world.invite(&world.request()).await.sent();
}

async fn problems(process: &Worker) -> Vec<String> {
    let (_, body) = process.readiness().await;
    let problems = body["problems"].as_array().expect("a list").iter();
    problems.map(|problem| problem.as_str().expect("a text").to_owned()).collect()
}

/// Waits until `/readyz` reports the stuck task. Its status stays 200.
async fn until_reported_as_stuck(process: &Worker, task: Task) {
    let stuck = format!("the task \"{}\" has made no step", task.name());
    until("the stuck task is reported", || async {
        problems(process).await.iter().any(|problem| problem.starts_with(&stuck)).then_some(())
    })
    .await;
    assert_eq!(process.status("/readyz").await, 200);
}

#[tokio::test]
async fn a_worker_task_without_a_step_for_a_minute_is_a_problem() {
    // A task that no invite needs, and for which no other task waits.
    let failpoint = format!("task/{}:hang:2", Task::Dropped.name());
    let setup = Setup::default().set(FAILPOINT, &failpoint).set("SESSION_INVITE_MINUTE", "4s");
    // The stuck task cannot be stopped, so the grace is short.
    let world = setup.set("SHUTDOWN_GRACE", "1s").start().await;
    assert!(problems(world.running()).await.is_empty());
    world.invite(&world.request()).await.sent();
    until_reported_as_stuck(world.running(), Task::Dropped).await;
}

#[tokio::test]
async fn a_gateway_task_without_a_step_for_a_minute_is_a_problem() {
    let world = World::start().await;
    let failpoint = format!("task/{}:hang:2", Task::Backlog.name());
    let mut gateway = world.start_gateway(&[(FAILPOINT, &failpoint), ("SESSION_INVITE_MINUTE", "4s")]).await;
    until_reported_as_stuck(&gateway.process, Task::Backlog).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_process_whose_runtime_is_blocked_ends_and_names_the_blocking_task() {
    let world = World::start().await;
    world.expect_error("the runtime has run no task for a minute");
    let failpoint = format!("task/{}:block:2", Task::Groups.name());
    let blocked =
        [(FAILPOINT, failpoint.as_str()), ("SESSION_INVITE_MINUTE", "3s"), ("TOKIO_WORKER_THREADS", "1")];
    let mut worker = world.spawn(&blocked);
    assert_eq!(worker.wait().code(), Some(1));
    assert!(worker.log().contains("the task \"groups\" has made no step"), "{}", worker.log());
}
