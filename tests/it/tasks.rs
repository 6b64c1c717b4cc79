//! The contract's section 8, promise 8: no task of a process ends in silence.

use crate::support::{Gateway, Message, Setup, Worker, World, send, until};
use serde_json::{Value, json};
use session_invite::supervise::{Process, Task};
use std::time::Duration;

/// Of an invite whose worker was gone after the text: the claim's margin, and a look at the provider's list.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the tasks meet, and at which of their steps.
const MEETS: &str = "SESSION_INVITE_FAILPOINT";

/// Waits until the log names each task of the process that was made to end.
async fn all_are_named(process: &Worker, of: Process) {
    for task in Task::ALL.iter().filter(|task| task.processes().contains(&of)) {
        process.says(&format!("task=\"{}\"", task.name())).await;
    }
}

/// Invites of all kinds, each answered, texted once, and with an event.
async fn works(world: &World, gateway: &Gateway) {
    for n in 0..3 {
        let named = world.request_with(json!({"smsPhone": format!("201-555-01{n:02}")}));
        let correlation = format!("named {n}");
        world.broker.request(Message::json(&named).id(&correlation).correlation(&correlation)).await;
        world.broker.reply_within(PATIENCE, &correlation).await.sent();
        let anonymous = world.request_with(json!({"smsPhone": format!("201-555-02{n:02}")}));
        let correlation = format!("anonymous {n}");
        world.broker.request(Message::json(&anonymous).correlation(&correlation)).await;
        world.broker.reply_within(PATIENCE, &correlation).await.sent();
        // Its reply is a direct one.
        send(gateway.invite(world)).await.ok();
    }
    assert_eq!(world.provider.texts().await.len(), 9);
    until("the outbox is empty", || async {
        let left: i64 = world.database.value("select count(*) from events").await;
        (left == 0).then_some(())
    })
    .await;
}

async fn every_task_of_the_worker_may_end(meets: &str) {
    let world = Setup::default().hurried().set(MEETS, meets).start().await;
    world.expect_error("ended unasked");
    if meets.contains("panic") {
        world.expect_error("panicked");
    }
    let mut gateway = world.start_gateway(&[(MEETS, ""), ("GATEWAY_TIMEOUT", "90s")]).await;
    works(&world, &gateway).await;
    assert!(gateway.process.stop().success());
    if meets.ends_with(":1") {
        all_are_named(world.running(), Process::Worker).await;
    }
    // The world stops its worker by a signal, which has to end in order.
}

#[tokio::test]
async fn every_task_of_the_worker_that_panics_at_its_start_is_named_and_started_again() {
    every_task_of_the_worker_may_end("task/*:panic:1").await;
}

#[tokio::test]
async fn every_task_of_the_worker_that_returns_at_its_start_is_named_and_started_again() {
    every_task_of_the_worker_may_end("task/*:return:1").await;
}

#[tokio::test]
async fn every_task_of_the_worker_that_panics_in_its_work_is_started_again_and_nobody_is_texted_twice() {
    every_task_of_the_worker_may_end("task/*:panic:2").await;
}

#[tokio::test]
async fn every_task_of_the_worker_that_returns_in_its_work_is_started_again_and_nobody_is_texted_twice() {
    every_task_of_the_worker_may_end("task/*:return:2").await;
}

/// An invite is sent. A task of the connection to the broker may end under it: then it is asked again, as 503 says.
async fn is_answered(world: &World, gateway: &Gateway) {
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

async fn every_task_of_the_gateway_may_end(how: &str) {
    let world = World::start().await;
    world.expect_error("ended unasked");
    if how == "panic" {
        world.expect_error("panicked");
    }
    for step in [1, 2] {
        let mut gateway = world.start_gateway(&[(MEETS, &format!("task/*:{how}:{step}"))]).await;
        for _ in 0..3 {
            is_answered(&world, &gateway).await;
        }
        if step == 1 {
            all_are_named(&gateway.process, Process::Gateway).await;
        }
        assert!(gateway.process.stop().success());
    }
}

#[tokio::test]
async fn every_task_of_the_gateway_that_panics_is_named_and_started_again() {
    every_task_of_the_gateway_may_end("panic").await;
}

#[tokio::test]
async fn every_task_of_the_gateway_that_returns_is_named_and_started_again() {
    every_task_of_the_gateway_may_end("return").await;
}

#[tokio::test]
async fn a_panic_in_a_statement_fails_its_own_invite_and_the_next_one_is_sent() {
    let world = Setup::default().set(MEETS, "task/insert sessions:panic:3").start().await;
    world.expect_error("panicked");
    world.expect_error("it is set aside");
    world.invite(&world.request()).await.refused("failed", "internal_error", 500);
    let reason = world.broker.take("dead").await.header("x-reason").expect("a reason");
    assert!(reason.contains("panic"), "{reason}");
    world.invite(&world.request()).await.sent();
}

async fn problems(process: &Worker) -> Vec<String> {
    let body = process.ask("/readyz").await.text().await.expect("text");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let problems = body["problems"].as_array().expect("a list").iter();
    problems.map(|problem| problem.as_str().expect("a text").to_owned()).collect()
}

/// Waits until `/readyz` names the task, which leaves it at 200.
async fn is_named_as_stuck(process: &Worker, task: Task) {
    let stuck = format!("the task \"{}\" has made no step", task.name());
    until("the stuck task is named", || async {
        problems(process).await.iter().any(|problem| problem.starts_with(&stuck)).then_some(())
    })
    .await;
    assert_eq!(process.get("/readyz").await, 200);
}

#[tokio::test]
async fn a_task_of_the_worker_without_a_step_for_a_minute_is_a_problem() {
    // At what no invite needs, and which holds nothing that others wait for.
    let meets = format!("task/{}:hang:2", Task::Dropped.name());
    let setup = Setup::default().set(MEETS, &meets).set("SESSION_INVITE_MINUTE", "4s");
    // It cannot be asked to end.
    let world = setup.set("SHUTDOWN_GRACE", "1s").start().await;
    assert!(problems(world.running()).await.is_empty());
    world.invite(&world.request()).await.sent();
    is_named_as_stuck(world.running(), Task::Dropped).await;
}

#[tokio::test]
async fn a_task_of_the_gateway_without_a_step_for_a_minute_is_a_problem() {
    let world = World::start().await;
    let meets = format!("task/{}:hang:2", Task::Backlog.name());
    let mut gateway = world.start_gateway(&[(MEETS, &meets), ("SESSION_INVITE_MINUTE", "4s")]).await;
    is_named_as_stuck(&gateway.process, Task::Backlog).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_process_whose_runtime_stands_still_ends_and_names_the_task_that_blocks_it() {
    let world = World::start().await;
    world.expect_error("the runtime has run no task for a minute");
    let meets = format!("task/{}:block:2", Task::Groups.name());
    let blocked = [(MEETS, meets.as_str()), ("SESSION_INVITE_MINUTE", "3s"), ("TOKIO_WORKER_THREADS", "1")];
    let mut worker = world.spawn(&blocked);
    assert_eq!(worker.ended().code(), Some(1));
    assert!(worker.log().contains("the task \"groups\" has made no step"), "{}", worker.log());
}
