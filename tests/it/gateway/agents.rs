//! Agents look sessions up by their key, join them and end them.

use crate::support::{Answer, Gateway, Setup, World, claims, gjwt, gkey, http_invite, send, until};
use serde_json::{Value, json};

async fn look_up(gateway: &Gateway, world: &World, key: &str) -> Answer {
    send(gateway.look_up(world, key)).await
}

fn by_key(key: &str) -> String {
    json!({ "sessionKey": key }).to_string()
}

#[tokio::test]
async fn an_agent_looks_a_session_up_joins_it_and_ends_it() {
    let world = World::start().await;
    world.provider.set(json!({"deliver": "none"})).await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let found = look_up(&gateway, &world, &key).await.ok();
    let row = world.database.session().await;
    let fields: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    let mut documented = [
        "sessionId",
        "sessionKey",
        "groupid",
        "status",
        "sessiontype",
        "sessionParams",
        "createdAt",
        "expiresAt",
        "joinedAt",
    ];
    documented.sort_unstable();
    assert_eq!(fields, documented);
    assert_eq!((&found["sessionId"], &found["sessionKey"]), (&json!(row.id), &json!(key)));
    assert_eq!((&found["groupid"], &found["sessiontype"]), (&json!(72), &json!(1)));
    assert_eq!(found["sessionParams"], json!({"camera": "back", "resolution": "352x288"}));
    assert_eq!((&found["status"], &found["joinedAt"]), (&json!("sent"), &Value::Null));
    for at in ["createdAt", "expiresAt"] {
        let text = found[at].as_str().unwrap();
        assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
    }

    let joined = send(gateway.join(&world, &key)).await.ok();
    assert_eq!(joined["status"], "joined");
    assert!(joined["joinedAt"].is_string(), "{joined}");
    assert_eq!(
        send(gateway.act(&world, "JOIN", by_key(&key))).await.ok(),
        joined,
        "a repeat gets the same answer"
    );
    assert_eq!(look_up(&gateway, &world, &key).await.ok(), joined);
    let ended = send(gateway.end(&world, &key)).await.ok();
    assert_eq!(ended["status"], "ended");
    send(gateway.end(&world, &key)).await.problem(404, "session_not_found");
    send(gateway.join(&world, &key)).await.problem(404, "session_not_found");
    look_up(&gateway, &world, &key).await.problem(404, "session_not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn agents_requests_are_checked_in_the_order_of_an_invite() {
    let world = World::start().await;
    world.add_group(73, &[]);
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    for (body, status, code) in [
        ("", 400, "request_malformed"),
        ("[]", 400, "request_malformed"),
        (r#"{"sessionKey": "1234", "sessionKey": "1234"}"#, 400, "request_malformed"),
        (r#"{"x": 1, "x": 1, "sessionKey": "1234"}"#, 400, "request_malformed"),
        ("{}", 400, "field_missing"),
        (r#"{"sessionKey": null}"#, 400, "field_missing"),
        (r#"{"sessionKey": 123456}"#, 400, "field_invalid"),
        (r#"{"sessionKey": "123"}"#, 400, "field_invalid"),
        (r#"{"sessionKey": "1234567890123"}"#, 400, "field_invalid"),
        (r#"{"sessionKey": "12345٦"}"#, 400, "field_invalid"),
        (r#"{"sessionKey": "12345\n"}"#, 400, "field_invalid"),
    ] {
        for verb in ["join", "end"] {
            let problem = send(gateway.act(&world, verb, body)).await.problem(status, code);
            if code != "request_malformed" {
                assert_eq!(problem.field, "sessionKey", "{body}");
            }
        }
    }
    let get = |query: &str, credential: &str| {
        let request = gateway.request("GET", &format!("/api/sessioninvitation/session?{query}"));
        request.header("Authorization", credential)
    };
    let (good, other) = (world.credential(), gjwt(&claims(73), &world.jwt_secret));
    let whole = format!("groupid=72&sessionKey={key}");
    send(get(&whole, "Bearer GKEY x")).await.problem(401, "credential_malformed");
    send(get(&whole, &gkey(72, "1", "wrong"))).await.problem(401, "credential_invalid");
    send(get(&whole, &other)).await.problem(401, "credential_invalid");
    send(get(&format!("groupid=73&sessionKey={key}"), &good)).await.problem(403, "group_mismatch");
    for (query, code, field) in [
        (format!("sessionKey={key}"), "field_missing", "groupid"),
        (format!("groupid=x&sessionKey={key}"), "field_invalid", "groupid"),
        (format!("groupid=72&GROUPID=72&sessionKey={key}"), "field_invalid", "groupid"),
        ("groupid=72".to_owned(), "field_missing", "sessionKey"),
        ("groupid=72&sessionKey=".to_owned(), "field_invalid", "sessionKey"),
        (format!("groupid=72&sessionKey={key}&sessionkey={key}"), "field_invalid", "sessionKey"),
    ] {
        assert_eq!(send(get(&query, &good)).await.problem(400, code).field, field, "{query}");
    }
    send(get(&format!("SESSIONKEY={key}&GroupID=72&x=1"), &good)).await.ok();
    let form = gateway
        .request("POST", "/api/SessionInvitation/session/join?groupid=72")
        .header("Authorization", &good);
    send(form.header("Content-Type", "text/plain").body(by_key(&key)))
        .await
        .problem(415, "request_malformed");
    world.run(&["groups", "disable", "72"]).ok();
    until("the group is switched off", || async {
        (send(get(&whole, &good)).await.status == 403).then_some(())
    })
    .await;
    send(get(&whole, &good)).await.problem(403, "group_disabled");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_key_finds_no_session_of_another_group() {
    let world = World::start().await;
    world.add_group(73, &["--api-key".to_owned(), "another-key-of-73".to_owned()]);
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let path = format!("/api/SessionInvitation/session/?groupid=73&sessionKey={key}");
    let look_up = gateway.request("GET", &path).header("Authorization", gkey(73, "1", "another-key-of-73"));
    send(look_up).await.problem(404, "session_not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_user_who_guesses_keys_is_limited_and_other_users_are_not() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let wrong = if key == "000000" { "000001" } else { "000000" };
    let mut tried = 0;
    let limited = loop {
        let answer = look_up(&gateway, &world, wrong).await;
        if answer.status == 429 {
            break answer;
        }
        answer.problem(404, "session_not_found");
        tried += 1;
        assert!(tried < 100, "guesses are not limited");
    };
    let problem = limited.problem(429, "rate_limited");
    let after = limited.header("retry-after").unwrap();
    assert_eq!(problem.retry_after_seconds.map(|seconds| seconds.to_string()).as_deref(), Some(after));
    assert!(tried >= 5, "{tried}");
    // The limit holds for a right key and for other requests too.
    look_up(&gateway, &world, &key).await.problem(429, "rate_limited");
    send(gateway.join(&world, &key)).await.problem(429, "rate_limited");
    send(gateway.end(&world, &key)).await.problem(429, "rate_limited");
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    let other = gkey(72, "someone-else", &world.api_key);
    send(gateway.request("GET", &path).header("Authorization", other)).await.ok();
    // Invites are not limited by it.
    send(gateway.invite(&world)).await.ok();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_look_up_that_waits_too_long_for_others_is_answered_503() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    for n in 0..19 {
        look_up(&gateway, &world, &format!("{n:07}")).await.problem(404, "session_not_found");
    }
    // The last request waits for as long as its row is locked.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("select id from sessions for update").fetch_all(&mut *lock).await.unwrap();
    let waiting = async {
        let waits = "select count(*) > 0 from pg_stat_activity
                      where datname = current_database() and wait_event_type = 'Lock'";
        world.database.until_true("the request waits for the lock", waits).await;
        let answer = look_up(&gateway, &world, &key).await;
        lock.rollback().await.unwrap();
        let problem = answer.problem(503, "unavailable");
        assert_eq!(problem.detail, "too many look-ups of this group wait");
        assert_eq!(answer.header("retry-after"), Some("2"));
    };
    let (joined, ()) = tokio::join!(send(gateway.join(&world, &key)), waiting);
    // It waits for the lock for a few seconds at most.
    assert!(matches!(joined.status, 200 | 503), "{joined:?}");
    look_up(&gateway, &world, &key).await.ok();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn guesses_at_the_same_time_do_not_exceed_the_limit() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[]).await;
    send(gateway.invite_with(&world, &http_invite())).await.ok();
    let guesses = (0..300).map(|n| {
        let (gateway, world) = (&gateway, &world);
        async move { look_up(gateway, world, &format!("{n:07}")).await.status }
    });
    let statuses = futures::future::join_all(guesses).await;
    // A guess that waits too long for the others is answered 503.
    assert!(statuses.iter().all(|status| matches!(status, 404 | 429 | 503)), "{statuses:?}");
    let wrong = statuses.iter().filter(|status| **status == 404).count();
    // The limit allows one more each half minute.
    let least = if statuses.contains(&503) { 0 } else { 20 };
    assert!((least..=21).contains(&wrong), "{wrong} guesses were answered");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_session_whose_text_is_being_sent_can_be_joined_and_ended_later() {
    let world = Setup::default().set("SMS_TIMEOUT", "20s").start().await;
    // The text has to be on its way for longer than a slow machine takes for the agent's requests.
    world.provider.set(json!({"latency_ms": 14_000})).await;
    let mut gateway = world.start_gateway(&[]).await;
    let inviting = send(gateway.invite(&world));
    let agent = async {
        let key = world.database.until_key().await;
        assert_eq!(look_up(&gateway, &world, &key).await.ok()["status"], "sending");
        assert_eq!(send(gateway.join(&world, &key)).await.ok()["status"], "joined");
        let begun = std::time::Instant::now();
        let ending = send(gateway.end(&world, &key)).await;
        ending.problem(409, "session_not_settled");
        assert_eq!(ending.header("retry-after"), Some("1"));
        assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
        key
    };
    let (answer, key) = tokio::join!(inviting, agent);
    answer.ok();
    send(gateway.end(&world, &key)).await.ok();
    assert!(gateway.process.stop().success());
}
