//! A session's states (contract, section 5), and how agents, time and the provider change them.

use crate::support::{
    Answer, Events, Gateway, Message,
    SessionStatus::{Delivered, Ended, Joined, Sending, Sent, Undelivered},
    Setup, World, receipt, send, with_gateway,
};
use serde_json::{Value, json};

async fn join(gateway: &Gateway, world: &World, key: &str) -> Answer {
    send(gateway.join(world, key)).await
}

async fn end(gateway: &Gateway, world: &World, key: &str) -> Answer {
    send(gateway.end(world, key)).await
}

#[tokio::test]
async fn a_joined_session_does_not_expire_and_ends_at_its_maximum() {
    let (world, mut gateway) = with_gateway(Setup::default().group(&["--key-rest", "1s"])).await;
    let key = gateway.invited(&world).await;
    join(&gateway, &world, &key).await.ok();
    world.database.execute("update sessions set expires_at = now()").await;
    // Longer than from one sweep to the next.
    let expired = "select expires_at < now() - interval '2 s' from sessions";
    world.database.until_true("its expiry has passed", expired).await;
    assert_eq!(world.database.session().await.status, Joined);
    join(&gateway, &world, &key).await.ok();
    assert_eq!(send(gateway.look_up(&world, &key)).await.ok()["status"], "joined");
    // It may last twelve hours.
    let left: f64 =
        world.database.value("select extract(epoch from due_at - joined_at)::float8 from sessions").await;
    assert!((left - 43_200.0).abs() < 1.0, "{left}");
    world.database.execute("update sessions set due_at = now()").await;
    world.database.until_status(Ended).await;
    join(&gateway, &world, &key).await.problem(404, "session_not_found");
    world.database.until_key_is_released().await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_key_of_an_ended_session_rests_and_is_then_released() {
    let (world, mut gateway) = with_gateway(Setup::default().group(&["--key-rest", "1h"])).await;
    let key = gateway.invited(&world).await;
    end(&gateway, &world, &key).await.ok();
    let row = world.database.session().await;
    assert_eq!((row.status, row.key_held), (Ended, true));
    assert!(row.ended_at.is_some() && row.joined_at.is_none());
    let rest: f64 =
        world.database.value("select extract(epoch from due_at - ended_at)::float8 from sessions").await;
    assert!((rest - 3_600.0).abs() < 1.0, "{rest}");
    world.database.execute("update sessions set due_at = now()").await;
    world.database.until_key_is_released().await;
    assert_eq!(world.database.session().await.status, Ended);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_agent_may_join_a_sent_delivered_or_undelivered_session_and_receipts_leave_it_joined() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    for (before, status) in [("sent", Sent), ("delivered", Delivered), ("undelivered", Undelivered)] {
        world.database.execute("delete from sessions").await;
        let key = gateway.invited(&world).await;
        let session = world.database.session().await;
        assert_eq!(receipt(&world, &gateway, &session, before).await.status, 204);
        assert_eq!(world.database.session().await.status, status);
        join(&gateway, &world, &key).await.ok();
        assert_eq!(receipt(&world, &gateway, &session, "delivered").await.status, 204);
        let row = world.database.session().await;
        assert_eq!(row.status, Joined, "{before}");
        assert!(row.delivered_at.is_some(), "the delivery is still recorded");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_unknown_session_may_be_joined_and_its_reply_does_not_change() {
    let (world, mut gateway) = with_gateway(Setup::default().never_sends_again().short_waits()).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["cut"]).await;
    let reply = world.call(Message::json(&world.request()).id("lost")).await;
    reply.refused("failed", "outcome_unknown", 504);
    let key = world.database.until_key().await;
    assert_eq!(join(&gateway, &world, &key).await.ok()["status"], "joined");
    let again = world.call(Message::json(&world.request()).id("lost")).await;
    assert_eq!(again.bytes, reply.bytes);
    end(&gateway, &world, &key).await.ok();
    assert_eq!(world.database.session().await.status, Ended);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_session_stays_joined_when_the_outcome_of_its_text_becomes_unknown() {
    let setup = Setup::default().never_sends_again().short_waits().set("SMS_TIMEOUT", "6s");
    let (world, mut gateway) = with_gateway(setup).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).id("lost").correlation("lost")).await;
    let key = world.database.until_key().await;
    assert_eq!(join(&gateway, &world, &key).await.ok()["status"], "joined");
    assert_eq!(world.database.session().await.status, Sending);
    world.broker.reply("lost").await.refused("failed", "outcome_unknown", 504);
    let row = world.database.session().await;
    assert_eq!((row.status, row.error_code()), (Joined, Some("outcome_unknown")));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn agents_who_join_or_end_at_the_same_time_get_consistent_answers() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let mut another = world.start_gateway(&[]).await;
    for _ in 0..10 {
        world.database.execute("delete from sessions; delete from events").await;
        let key = gateway.invited(&world).await;
        let joins = (0..10).map(|n| join(if n % 2 == 0 { &gateway } else { &another }, &world, &key));
        let joined: Vec<Value> = futures::future::join_all(joins).await.iter().map(Answer::ok).collect();
        assert!(joined.iter().all(|one| *one == joined[0] && one["joinedAt"].is_string()), "{joined:?}");
        let joined_at: String =
            world.database.value("select to_char(joined_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from sessions").await;
        assert_eq!(joined[0]["joinedAt"], joined_at);
        // One of the agents who end it at the same time succeeds. The others get 404.
        let ends = (0..6).map(|n| end(if n % 2 == 0 { &gateway } else { &another }, &world, &key));
        let mut statuses: Vec<u16> =
            futures::future::join_all(ends).await.iter().map(|one| one.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404, 404, 404, 404, 404]);
        // The 404s count as wrong guesses.
        world.database.execute("delete from rate_buckets").await;
    }
    assert!(gateway.process.stop().success() && another.process.stop().success());
}

#[tokio::test]
async fn a_join_and_an_expiry_at_the_same_time_have_one_result() {
    let (world, mut gateway) = with_gateway(Setup::default()).await;
    let (mut joined, mut expired) = (0, 0);
    for n in 0..30 {
        world.database.execute("delete from sessions; delete from rate_buckets").await;
        let key = gateway.invited(&world).await;
        if n % 2 == 0 {
            world.database.execute("update sessions set expires_at = now(), due_at = now()").await;
        } else {
            // Another statement expires the session while the agent's statement waits for its lock.
            let mut other = world.database.pool.begin().await.unwrap();
            sqlx::query("update sessions set status = 'expired', ended_at = now()")
                .execute(&mut *other)
                .await
                .unwrap();
            let joining = join(&gateway, &world, &key);
            let committing = async {
                let waits = "select exists (select from pg_locks where not granted)";
                world.database.until_true("the agent's statement waits", waits).await;
                other.commit().await.unwrap();
            };
            let (answer, ()) = tokio::join!(joining, committing);
            answer.problem(404, "session_not_found");
            assert!(world.database.session().await.joined_at.is_none());
            expired += 1;
            continue;
        }
        let answer = join(&gateway, &world, &key).await;
        let row = world.database.session().await;
        match answer.status {
            200 => joined += i32::from(row.status == Joined && row.joined_at.is_some()),
            _ => expired += i32::from(row.joined_at.is_none()),
        }
    }
    assert_eq!(joined + expired, 30, "{joined} joined, {expired} expired");
    assert!(gateway.process.stop().success());
}

/// Makes a session that an agent joins before the provider answers; returns its key.
async fn joined_while_sending(world: &World, gateway: &Gateway) -> String {
    world.broker.request(Message::json(&world.request()).id("joined").correlation("joined")).await;
    let key = world.database.until_key().await;
    assert_eq!(join(gateway, world, &key).await.ok()["status"], "joined");
    assert_eq!(world.database.session().await.status, Sending);
    key
}

#[tokio::test]
async fn a_session_stays_joined_when_its_text_is_refused_and_can_be_ended() {
    let (world, mut gateway) = with_gateway(Setup::default().set("SMS_TIMEOUT", "20s")).await;
    let events = Events::subscribe(&world, "session.*.72").await;
    world.provider.set(json!({"error_code": 21211, "latency_ms": 8_000})).await;
    let key = joined_while_sending(&world, &gateway).await;
    world.broker.reply("joined").await.refused("rejected", "phone_invalid", 400);
    let row = world.database.session().await;
    assert_eq!((row.status, row.error_code()), (Joined, Some("phone_invalid")));
    assert_eq!((row.key_held, &row.token), (true, &None), "its link was never sent");

    assert_eq!(end(&gateway, &world, &key).await.ok()["status"], "ended");
    events.until_keys_are(&["session.joined.72", "session.ended.72"]).await;
    end(&gateway, &world, &key).await.problem(404, "session_not_found");
    // There is surely no text, so its message_id is free.
    world.provider.set(json!({"error_code": null, "latency_ms": 0})).await;
    world.call(Message::json(&world.request()).id("joined")).await.sent();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_joined_session_ends_at_its_maximum_although_its_text_was_refused_or_waits() {
    for fault in
        [json!({"error_code": 21211, "latency_ms": 8_000}), json!({"throttle": 1.0, "retry_after": 60})]
    {
        let (mut world, mut gateway) = with_gateway(Setup::default().set("SMS_TIMEOUT", "20s")).await;
        let events = Events::subscribe(&world, "session.ended.#").await;
        let refused = fault["error_code"].is_number();
        world.provider.set(fault).await;
        joined_while_sending(&world, &gateway).await;
        if refused {
            world.broker.reply("joined").await.refused("rejected", "phone_invalid", 400);
        } else {
            // The retry copy is lost.
            world.broker.take("retry.30s").await;
            world.database.execute("update sessions set lease_until = now()").await;
        }
        world.database.execute("update sessions set due_at = now()").await;
        let row = world.database.until_status(Ended).await;
        assert!(row.key_held && row.ended_at.is_some(), "its key rests: {row:?}");
        events.until_keys_are(&["session.ended.72"]).await;
        assert!(gateway.process.stop().success() && world.worker().is_running());
    }
}
