//! `/readyz` says what is wrong with the provider, with its true cause, and stays at 200: the worker does its work.

use crate::support::{Message, Setup, World, side_by_side, until, until_within};
use serde_json::{Value, json};
use std::time::Duration;

/// How soon a fault has to be reported. The promise is 10 s; a slow machine gets 10 s more.
const REPORTED_WITHIN: Duration = Duration::from_secs(20);

struct ProviderFault {
    name: &'static str,
    settings: Value,
    /// For the field `provider`.
    state: &'static str,
    /// Parts of the problem: the cause, the last answer, and the remedy.
    says: &'static [&'static str],
}

/// Each of these answers every text.
fn faults() -> [ProviderFault; 6] {
    let fault = |name, settings, state, says| ProviderFault { name, settings, state, says };
    [
        fault(
            "503",
            json!({"fail": 1.0}),
            "answers with errors",
            &[
                "since 20",
                "in a row",
                "503, code 20503",
                "looked for",
                "What to do: ",
                "curl -sSI http://127.",
            ],
        ),
        fault(
            "429",
            json!({"throttle": 1.0}),
            "wants fewer texts",
            &["since 20", "429, code 20429", "SMS_MAX_ATTEMPTS", "What to do: set SMS_PER_SECOND"],
        ),
        fault(
            "garbage",
            json!({"garbage": 1.0}),
            "answers as no provider does",
            &["since 20", "SMS_BASE_URL", "200, ", "looked for", "What to do: ", "curl -sSi http://127."],
        ),
        fault(
            "a daily limit",
            json!({"daily_limit": 1.0}),
            "has reached the daily limit",
            &["since 20", "429, code 63038", "fails at once", "What to do: let the provider raise"],
        ),
        fault(
            "a suspended account",
            json!({"error_code": 30_002, "error_status": 400}),
            "refuses the account",
            &["refuses the operator's account (30002)", "What to do: in the provider's console"],
        ),
        fault(
            "silence",
            json!({"hang": 1.0}),
            "does not answer",
            &["has answered no text for", "looked for", "What to do: ", "curl -sS -m 10"],
        ),
    ]
}

/// The problems of `/readyz`, which has to be 200, once its field `provider` is `state`.
async fn problems_with(world: &World, state: &str) -> Vec<String> {
    until_within(REPORTED_WITHIN, &format!("the provider {state}"), || async {
        let (status, body) = world.running().readiness().await;
        assert_eq!((status, &body["ready"]), (200, &json!(true)), "{body}");
        let problems = body["problems"].as_array().expect("a list").iter();
        let problems = problems.map(|problem| problem.as_str().expect("a text").to_owned()).collect();
        (body["provider"] == state).then_some(problems)
    })
    .await
}

async fn is_reported_until_a_text_is_accepted(fault: ProviderFault) {
    let world = Setup::default().short_waits().set("SMS_TIMEOUT", "8s").start().await;
    assert_eq!(problems_with(&world, "ok").await, Vec::<String>::new());
    if fault.name == "a suspended account" {
        world.expect_error("the provider refuses the operator's account");
    }
    world.provider.set(fault.settings.clone()).await;
    world.broker.request(Message::json(&world.request_to_number(1)).correlation("hit")).await;
    let problems = problems_with(&world, fault.state).await;
    let [problem] = problems.as_slice() else { panic!("{}: {problems:#?}", fault.name) };
    for part in fault.says {
        assert!(problem.contains(part), "{}: {part:?} is not in {problem:?}", fault.name);
    }
    assert!(!problem.contains("2015550001") && !problem.contains("Join your session"), "{problem}");
    let well = fault.settings.as_object().expect("settings").keys().map(|name| {
        let value = if name == "error_code" { Value::Null } else { json!(0.0) };
        (name.clone(), value)
    });
    let well: serde_json::Map<_, _> = well.filter(|(name, _)| name != "error_status").collect();
    world.provider.set(Value::Object(well)).await;
    world.invite(&world.request_to_number(2)).await.sent();
    assert_eq!(problems_with(&world, "ok").await, Vec::<String>::new());
    world.provider.until_posts(2).await;
    // Its own outcome is the subject of other tests.
    drop(world.broker.reply_within(Duration::from_mins(1), "hit").await);
}

#[test]
fn a_fault_of_the_provider_is_a_problem_until_a_text_is_accepted() {
    side_by_side(faults(), is_reported_until_a_text_is_accepted);
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_a_problem_with_the_connections_own_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = Setup::default().one_try().set("SMS_BASE_URL", &format!("http://{free}")).start().await;
    world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    let problems = problems_with(&world, "cannot be reached").await;
    let problem = problems.concat();
    for part in [
        "the provider cannot be reached",
        "Connection refused",
        &format!("curl -sS -m 10 -o /dev/null http://{free}/"),
    ] {
        assert!(problem.contains(part), "{part:?} is not in {problem:?}");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_a_problem_of_its_own() {
    let world = Setup::default().short_waits().start().await;
    world.provider.set(json!({"next": ["cut_before"], "list_status": 503})).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    until("the list is reported", || async {
        let (status, body) = world.running().readiness().await;
        assert_eq!(status, 200, "{body}");
        let problems = body["problems"].to_string();
        (problems.contains("the provider's list of texts cannot be read") && problems.contains("503"))
            .then_some(())
    })
    .await;
    world.provider.set(json!({"list_status": null})).await;
    // The next look may be half a minute away.
    world.broker.reply_within(Duration::from_mins(1), "x").await.sent();
    assert_eq!(problems_with(&world, "ok").await, Vec::<String>::new());
}
