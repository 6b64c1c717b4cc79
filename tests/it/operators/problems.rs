//! `/readyz` names groups with trouble, and a backlog, with what to do. It stays at 200: the process works.

use crate::support::{GROUP, Message, Setup, Worker, World, gkey, gkey_until, now, until, until_within};
use serde_json::{Value, json};
use std::time::Duration;

/// How soon a fault has to be reported. The promise is 10 s; a slow machine gets 10 s more.
const REPORTED_WITHIN: Duration = Duration::from_secs(20);

/// `None` while it is not at 200, as when a slow machine holds the process up.
async fn problems(process: &Worker) -> Option<Vec<String>> {
    let (status, body) = process.readiness().await;
    let problems = body["problems"].as_array().expect("a list").iter().filter_map(Value::as_str);
    (status == 200).then(|| problems.map(str::to_owned).collect())
}

/// The problem that has all these parts.
async fn until_listed(process: &Worker, parts: &[&str]) {
    until_within(REPORTED_WITHIN, &format!("{parts:?} is listed"), || async {
        let problems = problems(process).await?;
        problems.iter().any(|problem| parts.iter().all(|part| problem.contains(part))).then_some(())
    })
    .await;
}

async fn until_none_is_listed(process: &Worker) {
    until("no problem is listed", || async { problems(process).await?.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn groups_without_keys_and_with_unusable_templates_are_named() {
    let world = World::start().await;
    for group in [80, 81] {
        world.add_group(group, &["--name".to_owned(), format!("Tenant {group}")]);
    }
    until_none_is_listed(world.running()).await;
    for keys in ["group_api_keys", "group_jwt_secrets"] {
        let revoke = format!("update {keys} set revoked_at = now() where group_id = 80");
        world.database.execute(&revoke).await;
    }
    let remedy = "What to do: session-invite groups rotate-key 80";
    until_listed(world.running(), &["group 80 (Tenant 80) has no active key", remedy]).await;
    world.run(&["groups", "rotate-key", "80"]).ok();
    until_none_is_listed(world.running()).await;
    world.expect_error("a group's templates are unusable");
    world.database.execute("update groups set template = 'Join {nonsense}' where id = 81").await;
    let parts = ["the templates of group 81 (Tenant 81) are unusable", "groups set 81 --template"];
    until_listed(world.running(), &parts).await;
    world.run(&["groups", "set", "81", "--template", "Join: {link}"]).ok();
    until_none_is_listed(world.running()).await;
}

#[tokio::test]
async fn a_group_whose_credentials_are_all_refused_is_named_by_worker_and_gateway() {
    let world = Setup::default().group(&["--name", "Acme"]).start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let wrong = gkey(GROUP, "12345", "not the key of this group");
    for _ in 0..5 {
        let request = world.request_with(json!({ "authorization": wrong }));
        world.invite(&request).await.refused("rejected", "credential_invalid", 401);
        let look_up = gateway.request("GET", "/api/SessionInvitation/session/?groupid=72&sessionKey=123456");
        let answer = crate::support::send(look_up.header("Authorization", &wrong)).await;
        answer.problem(401, "credential_invalid");
    }
    let parts =
        ["all credentials of group 72 (Acme) are refused: 5 in a row", "session-invite groups show 72"];
    for process in [world.running(), &gateway.process] {
        until_listed(process, &parts).await;
    }
    world.invite(&world.request()).await.sent();
    until_none_is_listed(world.running()).await;
    let over = gkey_until(GROUP, "12345", &world.api_key, now() - 60);
    for _ in 0..5 {
        let request = world.request_with(json!({ "authorization": over }));
        world.invite(&request).await.refused("rejected", "credential_expired", 401);
    }
    until_listed(world.running(), &["group 72 (Acme)", "an expiry that is over", "date -u"]).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_group_whose_session_keys_are_nearly_used_up_is_named() {
    let world = Setup::default().group(&["--key-length", "4"]).start().await;
    world.invite(&world.request()).await.sent();
    until_none_is_listed(world.running()).await;
    // All keys but a few are held.
    world
        .database
        .execute(
            "insert into sessions
             select r.* from (select * from sessions limit 1) s, generate_series(0, 9998) n,
                    jsonb_populate_record(null::sessions, to_jsonb(s) || jsonb_build_object('id', gen_random_uuid(),
                        'session_key', lpad(n::text, 4, '0'), 'token', lpad(n::text, 16, 'x'), 'message_id', null,
                        'provider_message_id', 'SM' || lpad(n::text, 32, '0'), 'owns_message_id', false)) r
              where lpad(n::text, 4, '0') <> s.session_key",
        )
        .await;
    world.invite(&world.request()).await.sent();
    let parts =
        ["the session keys of group 72 are nearly used up", "session-invite groups set 72 --key-length 5"];
    until_listed(world.running(), &parts).await;
}

#[tokio::test]
async fn a_backlog_that_needs_minutes_is_named_with_its_rate() {
    let world = Setup::default().set("PREFETCH", "4").set("SMS_CONCURRENCY", "1").start().await;
    world.provider.set(json!({"latency_ms": 2_000})).await;
    for n in 0..120 {
        world.broker.request(Message::json(&world.request_to_number(n))).await;
    }
    let parts = ["invites wait in the queue", "in its hands, takes", "start another worker"];
    // The queues are measured every 10 s, and the backlog of 120 invites would last for four minutes.
    until_within(Duration::from_mins(1), "the backlog is listed", || async {
        let problems = problems(world.running()).await?;
        problems.iter().any(|problem| parts.iter().all(|part| problem.contains(part))).then_some(())
    })
    .await;
    world.provider.set(json!({"latency_ms": 0})).await;
    world.broker.until_queues_are_empty().await;
    world.running().idle().await;
    until_none_is_listed(world.running()).await;
}
