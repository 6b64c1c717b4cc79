//! What agents ask by a session's key.

use crate::support::{Answer, Gateway, Setup, World, claims, gjwt, gkey, http_invite, send, until};
use serde_json::{Value, json};

async fn look_up(gateway: &Gateway, world: &World, key: &str) -> Answer {
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    send(gateway.request("GET", &path).header("Authorization", world.credential())).await
}

async fn act(gateway: &Gateway, world: &World, what: &str, body: &str) -> Answer {
    let path = format!("/api/SessionInvitation/session/{what}/?groupid=72");
    let request = gateway.request("POST", &path).header("Authorization", world.credential());
    send(request.header("Content-Type", "application/json").body(body.to_owned())).await
}

async fn invited(gateway: &Gateway, world: &World) -> String {
    send(gateway.invite(world)).await.ok()["sessionKey"].as_str().expect("a key").to_owned()
}

fn by_key(key: &str) -> String {
    json!({ "sessionKey": key }).to_string()
}

#[tokio::test]
async fn an_agent_looks_a_session_up_joins_it_and_ends_it() {
    let world = World::start().await;
    world.provider.set(json!({"deliver": "none"})).await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
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
    assert_eq!((&found["sessionId"], &found["sessionKey"]), (&row["id"], &json!(key)));
    assert_eq!((&found["groupid"], &found["sessiontype"]), (&json!(72), &json!(1)));
    assert_eq!(found["sessionParams"], json!({"camera": "back", "resolution": "352x288"}));
    assert_eq!((&found["status"], &found["joinedAt"]), (&json!("sent"), &Value::Null));
    for at in ["createdAt", "expiresAt"] {
        let text = found[at].as_str().unwrap();
        assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
    }

    let joined = act(&gateway, &world, "join", &by_key(&key)).await.ok();
    assert_eq!(joined["status"], "joined");
    assert!(joined["joinedAt"].is_string(), "{joined}");
    assert_eq!(act(&gateway, &world, "JOIN", &by_key(&key)).await.ok(), joined, "once or many times");
    assert_eq!(look_up(&gateway, &world, &key).await.ok(), joined);
    let ended = act(&gateway, &world, "end", &by_key(&key)).await.ok();
    assert_eq!(ended["status"], "ended");
    act(&gateway, &world, "end", &by_key(&key)).await.problem(404, "session_not_found");
    act(&gateway, &world, "join", &by_key(&key)).await.problem(404, "session_not_found");
    look_up(&gateway, &world, &key).await.problem(404, "session_not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn what_is_asked_is_checked_in_the_order_of_an_invite() {
    let world = World::start().await;
    world.add_group(73, &[]);
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
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
        for what in ["join", "end"] {
            let problem = act(&gateway, &world, what, body).await.problem(status, code);
            if code != "request_malformed" {
                assert_eq!(problem["field"], "sessionKey", "{body}");
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
        assert_eq!(send(get(&query, &good)).await.problem(400, code)["field"], field, "{query}");
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
async fn another_group_finds_nothing_by_the_same_key() {
    let world = World::start().await;
    world.add_group(73, &["--api-key".to_owned(), "another-key-of-73".to_owned()]);
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
    let path = format!("/api/SessionInvitation/session/?groupid=73&sessionKey={key}");
    let asked = gateway.request("GET", &path).header("Authorization", gkey(73, "1", "another-key-of-73"));
    send(asked).await.problem(404, "session_not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn who_guesses_keys_is_stopped_and_nobody_else_is() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
    let wrong = if key == "000000" { "000001" } else { "000000" };
    let mut tried = 0;
    let limited = loop {
        let answer = look_up(&gateway, &world, wrong).await;
        if answer.status == 429 {
            break answer;
        }
        answer.problem(404, "session_not_found");
        tried += 1;
        assert!(tried < 100, "nobody stops it");
    };
    let problem = limited.problem(429, "rate_limited");
    let after = limited.header("retry-after").unwrap();
    assert_eq!(problem["retryAfterSeconds"].to_string(), after);
    assert!(tried >= 5, "{tried}");
    // Nor does a right key help a guesser, or another verb.
    look_up(&gateway, &world, &key).await.problem(429, "rate_limited");
    act(&gateway, &world, "join", &by_key(&key)).await.problem(429, "rate_limited");
    act(&gateway, &world, "end", &by_key(&key)).await.problem(429, "rate_limited");
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    let other = gkey(72, "someone-else", &world.api_key);
    send(gateway.request("GET", &path).header("Authorization", other)).await.ok();
    // Invites are no guesses.
    send(gateway.invite(&world)).await.ok();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_look_up_that_waits_for_others_too_long_is_answered_so() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
    for n in 0..19 {
        look_up(&gateway, &world, &format!("{n:07}")).await.problem(404, "session_not_found");
    }
    // The last one is in hand for as long as its row is locked.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("select id from sessions for update").fetch_all(&mut *lock).await.unwrap();
    let body = by_key(&key);
    let waiting = async {
        let waits = "select count(*) > 0 from pg_stat_activity
                      where datname = current_database() and wait_event_type = 'Lock'";
        until("it is in hand", || async { world.database.value::<bool>(waits).await.then_some(()) }).await;
        let answer = look_up(&gateway, &world, &key).await;
        lock.rollback().await.unwrap();
        let problem = answer.problem(503, "unavailable");
        assert_eq!(problem["detail"], "too many look-ups of this group wait");
        assert_eq!(answer.header("retry-after"), Some("2"));
    };
    let (joined, ()) = tokio::join!(act(&gateway, &world, "join", &body), waiting);
    joined.ok();
    look_up(&gateway, &world, &key).await.ok();
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn many_guesses_at_once_do_not_exceed_the_limit() {
    let world = Setup::default().start().await;
    let mut gateway = world.start_gateway(&[]).await;
    send(gateway.invite_with(&world, &http_invite())).await.ok();
    let guesses = (0..300).map(|n| {
        let (gateway, world) = (&gateway, &world);
        async move { look_up(gateway, world, &format!("{n:07}")).await.status }
    });
    let statuses = futures::future::join_all(guesses).await;
    let wrong = statuses.iter().filter(|status| **status == 404).count();
    // One more is allowed each half minute.
    assert!((20..=21).contains(&wrong), "{wrong} guesses got through");
    assert!(statuses.iter().all(|status| matches!(status, 404 | 429)), "{statuses:?}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_session_whose_text_is_under_way_can_be_joined_and_is_ended_in_its_time() {
    let world = World::start().await;
    world.provider.set(json!({"latency_ms": 5_000})).await;
    let mut gateway = world.start_gateway(&[]).await;
    let inviting = send(gateway.invite(&world));
    let agent = async {
        let key = until("the row is there", || async {
            world.database.sessions().await.first()?["session_key"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(look_up(&gateway, &world, &key).await.ok()["status"], "sending");
        assert_eq!(act(&gateway, &world, "join", &by_key(&key)).await.ok()["status"], "joined");
        let begun = std::time::Instant::now();
        let ending = act(&gateway, &world, "end", &by_key(&key)).await;
        ending.problem(409, "session_not_settled");
        assert_eq!(ending.header("retry-after"), Some("1"));
        assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
        key
    };
    let (answer, key) = tokio::join!(inviting, agent);
    answer.ok();
    act(&gateway, &world, "end", &by_key(&key)).await.ok();
    assert!(gateway.process.stop().success());
}
