//! A session's states (contract, section 5), each with what an agent, time and the provider may make of it.

use crate::{
    events::{listen, until_heard},
    support::{Answer, Gateway, Message, Setup, World, at_home_quietly, receipt, send, until},
};
use serde_json::{Value, json};

async fn act(gateway: &Gateway, world: &World, what: &str, key: &str) -> Answer {
    let path = format!("/api/SessionInvitation/session/{what}/?groupid=72");
    let request = gateway.request("POST", &path).header("Authorization", world.credential());
    send(request.body(json!({ "sessionKey": key }).to_string())).await
}

/// The one session's row, once it has this status.
async fn until_status(world: &World, status: &str) -> Value {
    until(&format!("the session is {status}"), || async {
        let row = world.database.session().await;
        (row["status"] == status).then_some(row)
    })
    .await
}

/// As if so much time had passed for the one session.
async fn age(world: &World, column: &str) {
    world.database.execute(&format!("update sessions set {column} = now(), due_at = now()")).await;
}

#[tokio::test]
async fn a_joined_session_does_not_expire_and_ends_in_the_end() {
    let (world, mut gateway) =
        at_home_quietly(Setup::default().group(&["--session-ttl", "2s", "--key-rest", "1s"])).await;
    let reply = send(gateway.invite(&world)).await.ok();
    let key = reply["sessionKey"].as_str().unwrap();
    act(&gateway, &world, "join", key).await.ok();
    until("its time to be joined is over", || async {
        world
            .database
            .value::<bool>("select expires_at < now() - interval '2 s' from sessions")
            .await
            .then_some(())
    })
    .await;
    assert_eq!(world.database.session().await["status"], "joined");
    act(&gateway, &world, "join", key).await.ok();
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    let found = send(gateway.request("GET", &path).header("Authorization", world.credential())).await.ok();
    assert_eq!(found["status"], "joined");
    // It lasts as long as it may.
    let left: f64 =
        world.database.value("select extract(epoch from due_at - joined_at)::float8 from sessions").await;
    assert!((left - 43_200.0).abs() < 1.0, "{left}");
    world.database.execute("update sessions set due_at = now()").await;
    until_status(&world, "ended").await;
    act(&gateway, &world, "join", key).await.problem(404, "session_not_found");
    until("its key is free", || async {
        world.database.value::<bool>("select not key_held from sessions").await.then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_ended_sessions_key_rests_and_is_free_after_that() {
    let (world, mut gateway) = at_home_quietly(Setup::default().group(&["--key-rest", "1h"])).await;
    let reply = send(gateway.invite(&world)).await.ok();
    let key = reply["sessionKey"].as_str().unwrap();
    act(&gateway, &world, "end", key).await.ok();
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["key_held"]), (&json!("ended"), &json!(true)));
    assert!(row["ended_at"].is_string() && row["joined_at"].is_null());
    let rest: f64 =
        world.database.value("select extract(epoch from due_at - ended_at)::float8 from sessions").await;
    assert!((rest - 3_600.0).abs() < 1.0, "{rest}");
    world.database.execute("update sessions set due_at = now()").await;
    until("its key is free", || async {
        world.database.value::<bool>("select not key_held from sessions").await.then_some(())
    })
    .await;
    assert_eq!(world.database.session().await["status"], "ended");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn whatever_a_text_came_to_an_agent_may_join_and_receipts_change_that_no_more() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    for before in ["sent", "delivered", "undelivered"] {
        world.database.execute("delete from sessions").await;
        let reply = send(gateway.invite(&world)).await.ok();
        let session = world.database.session().await;
        assert_eq!(receipt(&world, &gateway, &session, before).await.status, 204);
        assert_eq!(world.database.session().await["status"], before);
        act(&gateway, &world, "join", reply["sessionKey"].as_str().unwrap()).await.ok();
        assert_eq!(receipt(&world, &gateway, &session, "delivered").await.status, 204);
        let row = world.database.session().await;
        assert_eq!(row["status"], "joined", "{before}");
        assert!(row["delivered_at"].is_string(), "that it arrived is noted all the same");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_unknown_session_may_be_joined_and_its_answer_stays() {
    let (world, mut gateway) = at_home_quietly(Setup::default().never_sends_again().hurried()).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["cut"]).await;
    let reply = world.ask(Message::json(&world.request()).id("lost")).await;
    reply.refused("failed", "outcome_unknown", 504);
    let key = world.database.session().await["session_key"].as_str().unwrap().to_owned();
    assert_eq!(act(&gateway, &world, "join", &key).await.ok()["status"], "joined");
    let again = world.ask(Message::json(&world.request()).id("lost")).await;
    assert_eq!(again.bytes, reply.bytes);
    act(&gateway, &world, "end", &key).await.ok();
    assert_eq!(world.database.session().await["status"], "ended");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_text_that_is_lost_while_its_session_is_joined_leaves_it_joined() {
    let (world, mut gateway) = at_home_quietly(Setup::default().never_sends_again().hurried()).await;
    world.provider.set(json!({"list_lag_ms": 600_000})).await;
    world.provider.next(&["hang"]).await;
    world.broker.request(Message::json(&world.request()).id("lost").correlation("lost")).await;
    let key = until("the row is there", || async {
        world.database.sessions().await.first()?["session_key"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(act(&gateway, &world, "join", &key).await.ok()["status"], "joined");
    assert_eq!(world.database.session().await["status"], "sending");
    world.broker.reply("lost").await.refused("failed", "outcome_unknown", 504);
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["error_code"]), (&json!("joined"), &json!("outcome_unknown")));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn agents_at_once_are_told_the_truth() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let mut another = world.start_gateway(&[]).await;
    for _ in 0..10 {
        world.database.execute("delete from sessions; delete from events").await;
        let reply = send(gateway.invite(&world)).await.ok();
        let key = reply["sessionKey"].as_str().unwrap();
        let joins = (0..10).map(|n| act(if n % 2 == 0 { &gateway } else { &another }, &world, "join", key));
        let joined: Vec<Value> = futures::future::join_all(joins).await.iter().map(Answer::ok).collect();
        assert!(joined.iter().all(|one| *one == joined[0] && one["joinedAt"].is_string()), "{joined:?}");
        let joined_at: String =
            world.database.value("select to_char(joined_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') from sessions").await;
        assert_eq!(joined[0]["joinedAt"], joined_at);
        // Of those who end it at once, one has, and the others are told that it is over.
        let ends = (0..6).map(|n| act(if n % 2 == 0 { &gateway } else { &another }, &world, "end", key));
        let mut statuses: Vec<u16> =
            futures::future::join_all(ends).await.iter().map(|one| one.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404, 404, 404, 404, 404]);
        // Wrong guesses are not what this is about.
        world.database.execute("delete from rate_buckets").await;
    }
    assert!(gateway.process.stop().success() && another.process.stop().success());
}

#[tokio::test]
async fn join_and_expiry_at_once_agree() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let (mut joined, mut expired) = (0, 0);
    for n in 0..30 {
        world.database.execute("delete from sessions; delete from rate_buckets").await;
        let reply = send(gateway.invite(&world)).await.ok();
        let key = reply["sessionKey"].as_str().unwrap();
        if n % 2 == 0 {
            age(&world, "expires_at").await;
        } else {
            // Between the view of the agent's statement and its turn: as another statement that expires it would.
            let mut other = world.database.pool.begin().await.unwrap();
            sqlx::query("update sessions set status = 'expired', ended_at = now()")
                .execute(&mut *other)
                .await
                .unwrap();
            let joining = act(&gateway, &world, "join", key);
            let committing = async {
                until("the agent waits for it", || async {
                    let waits = "select exists (select from pg_locks where not granted)";
                    world.database.value::<bool>(waits).await.then_some(())
                })
                .await;
                other.commit().await.unwrap();
            };
            let (answer, ()) = tokio::join!(joining, committing);
            answer.problem(404, "session_not_found");
            assert!(world.database.session().await["joined_at"].is_null());
            expired += 1;
            continue;
        }
        let answer = act(&gateway, &world, "join", key).await;
        let row = world.database.session().await;
        match answer.status {
            200 => joined += i32::from(row["status"] == "joined" && row["joined_at"].is_string()),
            _ => expired += i32::from(row["joined_at"].is_null()),
        }
    }
    assert_eq!(joined + expired, 30, "{joined} joined, {expired} expired");
    assert!(gateway.process.stop().success());
}

/// A session that an agent has joined while the provider has its text still in hand.
async fn joined_while_sending(world: &World, gateway: &Gateway) -> String {
    world.broker.request(Message::json(&world.request()).id("joined").correlation("joined")).await;
    let key = until("the row is there", || async {
        world.database.sessions().await.first()?["session_key"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(act(gateway, world, "join", &key).await.ok()["status"], "joined");
    assert_eq!(world.database.session().await["status"], "sending");
    key
}

#[tokio::test]
async fn a_text_that_is_refused_while_its_session_is_joined_leaves_it_joined_to_be_ended() {
    let (world, mut gateway) = at_home_quietly(Setup::default()).await;
    let heard = listen(&world, "session.*.72").await;
    world.provider.set(json!({"error_code": 21211, "latency_ms": 3_000})).await;
    let key = joined_while_sending(&world, &gateway).await;
    world.broker.reply("joined").await.refused("rejected", "phone_invalid", 400);
    let row = world.database.session().await;
    assert_eq!((&row["status"], &row["error_code"]), (&json!("joined"), &json!("phone_invalid")));
    assert_eq!((&row["key_held"], &row["token"]), (&json!(true), &json!(null)), "nobody has its link");

    assert_eq!(act(&gateway, &world, "end", &key).await.ok()["status"], "ended");
    until_heard(&heard, &["session.joined.72", "session.ended.72"]).await;
    act(&gateway, &world, "end", &key).await.problem(404, "session_not_found");
    // Surely no text: its id is free, and its number has had none.
    world.provider.set(json!({"error_code": null, "latency_ms": 0})).await;
    world.ask(Message::json(&world.request()).id("joined")).await.sent();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_joined_session_whose_text_was_refused_ends_in_the_end_and_so_does_one_whose_text_waits() {
    for fault in
        [json!({"error_code": 21211, "latency_ms": 3_000}), json!({"throttle": 1.0, "retry_after": 60})]
    {
        let (mut world, mut gateway) = at_home_quietly(Setup::default()).await;
        let heard = listen(&world, "session.ended.#").await;
        let refused = fault["error_code"].is_number();
        world.provider.set(fault).await;
        joined_while_sending(&world, &gateway).await;
        if refused {
            world.broker.reply("joined").await.refused("rejected", "phone_invalid", 400);
        } else {
            // The copy that would have brought it on is lost.
            world.broker.take("retry.30s").await;
            world.database.execute("update sessions set lease_until = now()").await;
        }
        world.database.execute("update sessions set due_at = now()").await;
        let row = until_status(&world, "ended").await;
        assert_eq!(
            (&row["key_held"], row["ended_at"].is_string()),
            (&json!(true), true),
            "its key rests: {row}"
        );
        until_heard(&heard, &["session.ended.72"]).await;
        assert!(gateway.process.stop().success() && world.worker().is_running());
    }
}
