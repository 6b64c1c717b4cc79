//! `session-invite trace`: the story of one invite.

use crate::support::{
    Message, Setup, TextState, World, receipt, run, send, status_path, until, webhook, with_gateway,
};
use serde_json::{Value, json};

/// The story for a program.
fn trace(world: &World, args: &[&str]) -> Value {
    world.run(&[&["trace", "--json"], args].concat()).json()
}

/// The kinds of the story's entries, in order, without the events that are not published yet.
fn kinds(story: &Value) -> Vec<&str> {
    let entries = story["story"].as_array().expect("a story");
    let entries = entries.iter().filter(|entry| entry["source"] != "event");
    entries.map(|entry| entry["kind"].as_str().expect("a kind")).collect()
}

async fn steps(world: &World) -> i64 {
    world.database.value("select count(*) from steps").await
}

#[tokio::test]
async fn a_plain_invite_is_shown_from_its_row_and_found_by_any_id() {
    let world = World::start().await;
    let correlation = "c-17";
    world.broker.request(Message::json(&world.request()).id("order-17").correlation(correlation)).await;
    let sent = world.broker.reply(correlation).await.sent();
    assert_eq!(steps(&world).await, 0, "a plain invite writes no step");
    let id = sent.session_id.to_string();
    for (given, found_by) in [
        (id.as_str(), "sessionId"),
        ("order-17", "messageId"),
        (correlation, "correlationId"),
        (sent.provider_message_id.as_str(), "providerId"),
        (sent.session_key.as_str(), "key"),
        ("(111) 000-0000", "phone"),
        ("+11110000000", "phone"),
    ] {
        let story = trace(&world, &[given]);
        assert_eq!((&story["session"]["id"], &story["foundBy"]), (&json!(id), &json!(found_by)), "{given}");
        assert_eq!(kinds(&story), ["created", "sent"], "{given}");
    }
    let output = world.run(&["trace", "order-17"]).ok();
    for part in ["gkey:12345", &sent.session_key, &sent.provider_message_id, "at the first try", "Next:"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    // A key that was released is found by reading the sessions.
    world
        .database
        .execute("update sessions set status = 'ended', ended_at = now(), key_held = false, due_at = null")
        .await;
    let story = trace(&world, &[&sent.session_key, "--since", "1h"]);
    assert_eq!((&story["foundBy"], kinds(&story)), (&json!("formerKey"), vec!["created", "sent", "ended"]));
}

#[tokio::test]
async fn nothing_found_is_an_answer_and_a_wrong_usage_is_not() {
    let world = World::start().await;
    let output = world.run(&["trace", "order-18"]).ok();
    assert!(output.contains("no session is known by order-18") && output.contains("--since 30d"), "{output}");
    let story = trace(&world, &["111-000-0000"]);
    assert_eq!((&story["found"], &story["session"]), (&json!(false), &Value::Null));
    for wrong in [&["trace"][..], &["trace", ""], &["trace", "x", "--group", "0"]] {
        world.run(wrong).fails(2);
    }
    run(&world.environment(&[("DATABASE_URL", "postgres://root@127.0.0.1:1/none")]), &["trace", "x"])
        .fails(1);
}

#[tokio::test]
async fn a_receipt_after_an_unknown_outcome_does_not_make_its_reply_a_success() {
    let (world, mut gateway) = with_gateway(Setup::default().short_waits().never_sends_again()).await;
    world.provider.next(&["cut_before", "cut_before"]).await;
    for (id, status, code) in [("order-1", "delivered", None), ("order-2", "undelivered", Some("30003"))] {
        let message = Message::json(&world.request()).id(id);
        world.call(message).await.refused("failed", "outcome_unknown", 504);
        let session = world.database.sessions().await.pop().expect("a session");
        let sid = format!("SM{}", session.id.simple());
        let mut form = vec![("MessageSid", sid.as_str()), ("MessageStatus", status)];
        form.extend(code.map(|code| ("ErrorCode", code)));
        assert_eq!(webhook(&world, &gateway, &status_path(&session), &form).await.status, 204);
        let story = world.run(&["trace", id]).ok();
        for part in ["The reply had come before that, and says outcome_unknown", "outcome is not known"] {
            assert!(story.contains(part), "{part}: {story}");
        }
        for part in ["The reply says sent", "with the code outcome_unknown"] {
            assert!(!story.contains(part), "{part}: {story}");
        }
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_opt_out_is_shown_with_its_time() {
    let world = World::start().await;
    world.run(&["optouts", "add", "111-000-0000", "--sender", "*"]).ok();
    world.call(Message::json(&world.request()).id("order-9")).await.refused("rejected", "opted_out", 403);
    let story = trace(&world, &["order-9"]);
    assert_eq!(kinds(&story), ["opt_out", "created", "rejected"], "{story:#}");
    let text = world.run(&["trace", "order-9"]).ok();
    assert!(
        text.contains("The number …00 has opted out of texts from any sender since then, by an operator"),
        "{text}"
    );
}

#[tokio::test]
async fn a_correlation_id_with_control_characters_is_found_as_it_was_sent() {
    let world = World::start().await;
    let id = "crm\t17\u{1}x";
    world.broker.request(Message::json(&world.request()).correlation(id)).await;
    let session = world.broker.reply(id).await.sent().session_id.to_string();
    for given in [id, "crm\u{fffd}17\u{fffd}x"] {
        let story = trace(&world, &[given]);
        assert_eq!((&story["session"]["id"], &story["foundBy"]), (&json!(session), &json!("correlationId")));
        assert!(story["notes"].to_string().contains("stands for a control character"), "{story}");
    }
}

#[tokio::test]
async fn throttled_tries_and_a_look_are_shown_in_order() {
    // The answer that throttles has to come in time.
    let world = Setup::default().short_waits().set("SMS_TIMEOUT", "8s").start().await;
    world.provider.next(&["throttle", "cut"]).await;
    let sent = world.call(Message::json(&world.request()).id("order-1")).await.sent();
    let story = trace(&world, &["order-1"]);
    let kinds = kinds(&story);
    assert_eq!(kinds.first(), Some(&"created"));
    assert_eq!(kinds[1..3], ["try_waits", "try_unknown"], "{story:#}");
    assert_eq!(kinds[kinds.len() - 2..], ["looked", "sent"], "{story:#}");
    assert_eq!(
        (&story["story"][1]["detail"]["status"], &story["story"][1]["detail"]["why"]),
        (&json!(429), &json!("throttled"))
    );
    let output = world.run(&["trace", "order-1"]).ok();
    for part in [
        "Try 1 of 5: the provider wants fewer requests (HTTP 429",
        "Try 2: the outcome is not known",
        &format!("found the text {}", sent.provider_message_id),
        "after 2 tries",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
}

#[tokio::test]
async fn the_last_try_is_announced_and_named_as_the_cause_of_the_end() {
    let world = Setup::default().set("SMS_MAX_ATTEMPTS", "2").start().await;
    world.provider.set(json!({"next": ["throttle", "throttle"], "retry_after": 10})).await;
    world.broker.request(Message::json(&world.request()).id("order-1").correlation("1")).await;
    world.database.until_true("the first try is over", "select count(*) >= 1 from steps").await;
    let waiting = world.run(&["trace", "order-1"]).ok();
    for part in ["Try 1 of 2: the provider wants", "Next: try 2 of 2, the last one (SMS_MAX_ATTEMPTS), at "] {
        assert!(waiting.contains(part), "{part}: {waiting}");
    }
    world.broker.reply("1").await.refused("failed", "provider_unavailable", 503);
    let ended = world.run(&["trace", "order-1"]).ok();
    assert!(ended.contains("Try 2 of 2: the provider wants fewer"), "{ended}");
    assert!(ended.contains("It was the last one (SMS_MAX_ATTEMPTS)."), "{ended}");
}

#[tokio::test]
async fn a_refusal_tells_its_code_and_an_invite_without_an_outcome_what_comes_next() {
    let world = World::start().await;
    world.call(Message::json(&world.request_with(json!({"smsPhone": "12"}))).id("short")).await.refused(
        "rejected",
        "phone_invalid",
        400,
    );
    let output = world.run(&["trace", "short"]).ok();
    assert!(output.contains("refused at once") && output.contains("phone_invalid"), "{output}");
    world.run(&["groups", "pause", "72"]).ok();
    until("the worker knows of the pause", || async {
        let (_, ready) = world.running().readiness().await;
        ready["problems"].to_string().contains("group 72 is paused").then_some(())
    })
    .await;
    world.broker.request(Message::json(&world.request()).id("paused").correlation("p")).await;
    world.database.until_true("it is held", "select exists (select from steps where kind = 'held')").await;
    let story = trace(&world, &["paused"]);
    assert_eq!(kinds(&story), ["created", "held"], "{story:#}");
    let output = world.run(&["trace", "paused"]).ok();
    assert!(output.contains("groups resume 72") && output.contains("It is too old at"), "{output}");
    world.run(&["groups", "resume", "72"]).ok();
    world.broker.reply("p").await.sent();
    let story = trace(&world, &["paused"]);
    assert!(kinds(&story).contains(&"resumed"), "{story:#}");
    // The message waits there for the pause.
    world.broker.purge("retry.120s").await;
}

#[tokio::test]
async fn an_invite_that_a_dead_worker_left_shows_its_redelivery_and_its_takeover() {
    let mut world = Setup::default().short_waits().start().await;
    let mut dies = world.replace_worker(&[("SESSION_INVITE_FAILPOINT", "begun:die")]).await;
    world.broker.request(Message::json(&world.request()).id("order-2").correlation("x")).await;
    until("the worker has died", || {
        let is_running = dies.is_running();
        async move { (!is_running).then_some(()) }
    })
    .await;
    let worker = world.start_worker().await;
    world.keep_worker(worker);
    world.database.end_leases().await;
    world.broker.reply("x").await.sent();
    let story = trace(&world, &["order-2"]);
    let kinds = kinds(&story);
    for kind in ["redelivered", "looked", "taken_over"] {
        assert!(kinds.contains(&kind), "{kind}: {story:#}");
    }
}

#[tokio::test]
async fn receipts_an_agents_join_and_the_end_are_shown() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let sent = world.call(Message::json(&world.request()).id("order-3")).await.sent();
    let session = world.database.session().await;
    for status in ["sent", "delivered", "delivered"] {
        assert_eq!(receipt(&world, &gateway, &session, status).await.status, 204);
    }
    assert_eq!(steps(&world).await, 2, "the row tells that the text has arrived");
    send(gateway.join(&world, &sent.session_key)).await.ok();
    send(gateway.end(&world, &sent.session_key)).await.ok();
    let story = trace(&world, &["order-3"]);
    assert_eq!(
        kinds(&story),
        ["created", "sent", "receipt", "delivered", "receipt", "joined", "ended"],
        "{story:#}"
    );
    let output = world.run(&["trace", "order-3"]).ok();
    assert!(
        output.contains("A receipt of the provider says delivered") && output.contains("It changed nothing."),
        "{output}"
    );
    // However often a receipt comes, a session's steps are bounded.
    world
        .database
        .execute(
            "insert into steps (session_id, kind) select id, 'held' from sessions, generate_series(1, 198)",
        )
        .await;
    for _ in 0..3 {
        assert_eq!(receipt(&world, &gateway, &session, "sent").await.status, 204);
    }
    assert_eq!(steps(&world).await, 200);
    assert!(world.run(&["trace", "order-3"]).ok().contains("Only the first 200 steps were kept."));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn dead_letters_are_shown_with_their_session_and_without_the_broker_that_is_said() {
    let world = World::start().await;
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).id("order-4").correlation("lost").reply_to(&missing)).await;
    until("its reply is a dead letter", || async {
        world.run(&["dead", "list", "--json"]).json()[0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let story = trace(&world, &["order-4"]);
    assert_eq!(kinds(&story), ["created", "sent", "dead_letter"], "{story:#}");
    assert_eq!(story["deadLetters"]["read"], json!(true));
    let away = world.environment(&[("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")]);
    let output = run(&away, &["trace", "order-4"]).ok();
    assert!(
        output.contains("at the first try") && output.contains("The dead letters could not be read: "),
        "{output}"
    );
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn of_several_sessions_the_newest_is_shown_and_the_others_are_listed() {
    let world = World::start().await;
    world.add_group(73, &["--key-length".to_owned(), "6".to_owned()]);
    let ids: Vec<_> = {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(world.invite(&world.request()).await.sent().session_id.to_string());
        }
        ids
    };
    let story = trace(&world, &["111-000-0000", "--limit", "1"]);
    assert_eq!((&story["session"]["id"], &story["others"][0]["id"]), (&json!(ids[2]), &json!(ids[1])));
    assert_eq!((story["others"].as_array().unwrap().len(), &story["hasMoreOthers"]), (1, &json!(true)));
    // One key in two groups.
    world.database.execute(&format!("update sessions set group_id = 73 where id = '{}'", ids[1])).await;
    world
        .database
        .execute(&format!(
            "update sessions set session_key = '4711' where id in ('{}', '{}')",
            ids[0], ids[1]
        ))
        .await;
    let story = trace(&world, &["4711"]);
    assert_eq!((&story["session"]["id"], &story["others"][0]["id"]), (&json!(ids[1]), &json!(ids[0])));
    let story = trace(&world, &["4711", "--group", "72"]);
    assert_eq!((&story["session"]["id"], &story["others"]), (&json!(ids[0]), &json!([])));
}

#[tokio::test]
async fn the_session_that_answers_for_a_message_id_comes_before_newer_ones() {
    let world = World::start().await;
    let first = world.call(Message::json(&world.request()).id("order-6")).await.sent().session_id.to_string();
    world
        .database
        .execute(
            "insert into sessions (id, group_id, status, requested_by, message_id, owns_message_id, error_code, ended_at)
             select 'ffffffff-ffff-7fff-8fff-ffffffffffff', group_id, 'rejected', requested_by, message_id, false, 'opted_out', now()
               from sessions",
        )
        .await;
    world.run(&["sessions", "forget", "--phone", "111-000-0000", "--end"]).ok();
    let story = trace(&world, &["order-6"]);
    assert_eq!(
        (&story["session"]["id"], &story["foundBy"]),
        (&json!(first), &json!("messageId")),
        "{story:#}"
    );
    assert_eq!(story["others"].as_array().expect("the others").len(), 1);
}

#[tokio::test]
async fn letters_that_another_reader_holds_are_said_to_be_missing() {
    let world = World::start().await;
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).id("order-7").reply_to(&missing)).await;
    until("its reply is a dead letter", || async {
        world.run(&["dead", "list", "--json"]).json()[0]["id"].as_str().map(str::to_owned)
    })
    .await;
    for n in 0..3000 {
        let message = Message::json(&json!({"groupid": "72"})).id(&format!("other-{n}"));
        world.broker.publish_to(&world.broker.queue("dead"), message).await;
    }
    // Each holds what it reads, so at least one of them misses some, if both read at the same time.
    let is_cut = |story: &Value| !story["deadLetters"]["incomplete"].is_null();
    until("one of two readers misses letters", || async {
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| trace(&world, &["order-7"]));
            (trace(&world, &["order-7"]), other.join().expect("a story"))
        });
        (is_cut(&one) || is_cut(&other)).then_some(())
    })
    .await;
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn hostile_values_forge_no_line() {
    let world = World::start().await;
    world.provider.next(&["throttle"]).await;
    world.call(Message::json(&world.request()).id("order-5")).await.sent();
    let forged = "'x' || chr(10) || '2026-01-01T00:00:00.000Z  forged ' || chr(27) || '[2J'";
    world.database.execute("alter table steps drop constraint steps_kind_check").await;
    for sql in [
        format!(
            "update sessions set correlation_id = {forged}, requested_by = {forged}, error_code = {forged}"
        ),
        format!("update steps set kind = {forged}, detail = jsonb_build_object('a', {forged})"),
    ] {
        world.database.execute(&sql).await;
    }
    let output = world.run(&["trace", "order-5"]).ok();
    assert!(!output.contains('\u{1b}') && output.contains("forged"), "{output:?}");
    assert!(!output.lines().any(|line| line.starts_with("2026-01-01")), "{output}");
}

#[tokio::test]
async fn steps_go_with_their_session() {
    let world = Setup::default().group(&["--key-rest", "1s"]).start().await;
    world.provider.next(&["throttle"]).await;
    world.invite(&world.request()).await.sent();
    assert_eq!(steps(&world).await, 1);
    world.database.until_texts_are(1, TextState::Accepted).await;
    world.database.execute("update sessions set updated_at = now() - interval '1 day'").await;
    world.run(&["groups", "remove", "72", "--yes", "--rest", "1s"]).ok();
    assert_eq!((steps(&world).await, world.database.sessions().await.len()), (0, 0));
}
