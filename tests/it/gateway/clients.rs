//! Clients that send half a request, disconnect early, or send requests to the wrong address.

use super::{is_closed, raise_open_file_limit};
use crate::support::{
    DEADLINE, Gateway, INBOUND, Setup, World, send, try_send, until, webhook_request,
    with_gateway_and_callbacks,
};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const POST: &str = "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: x\r\n";

/// Connects, and sends these bytes.
fn connect_and_send(gateway: &Gateway, bytes: &[u8]) -> TcpStream {
    let mut stream = gateway.connect();
    stream.write_all(bytes).expect("the gateway reads");
    stream
}

async fn until_closed(what: &str, stream: &mut TcpStream) {
    until(what, || {
        let closed = is_closed(stream);
        async move { closed.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_not_complete_do_not_count_as_concurrent() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[("GATEWAY_CONCURRENCY", "2")]).await;
    let head = format!("{POST}Authorization: {}\r\n", world.credential());
    let body = crate::support::http_invite().to_string();
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    let kinds = [
        String::new(),
        POST.to_owned(),
        format!("{head}{length}"),
        format!("{head}{length}{}", &body[..20]),
        format!("{head}Expect: 100-continue\r\n{length}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{    \r\n"),
        format!("POST /webhooks/twilio/inbound HTTP/1.1\r\nHost: x\r\n{length}"),
    ];
    let mut waiting: Vec<_> =
        kinds.iter().flat_map(|kind| (0..20).map(|_| connect_and_send(&gateway, kind.as_bytes()))).collect();
    for _ in 0..3 {
        send(gateway.invite(&world)).await.ok();
        for stream in &mut waiting[20..40] {
            let _ = stream.write_all(b"X-A: a\r\n");
        }
    }
    // A slow client gets its answer too.
    let slow = &mut waiting[3 * 20];
    slow.write_all(&body.as_bytes()[20..]).expect("the gateway reads");
    let mut start = [0; 12];
    slow.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn when_all_connections_are_in_use_the_one_that_has_waited_longest_is_closed() {
    let world = World::start().await;
    world.provider.set(json!({"latency_ms": 1_000})).await;
    // 264 of the files are reserved for operators' connections and other uses.
    let mut gateway = world.start_gateway_with_files(304).await;
    let invite = gateway.invite(&world);
    let crowding = async {
        world.provider.until_posts(1).await;
        let mut crowd: Vec<_> = (0..60).map(|_| connect_and_send(&gateway, POST.as_bytes())).collect();
        until_closed("the oldest is closed", &mut crowd[0]).await;
        send(gateway.request("GET", "/healthz")).await;
        assert!(!is_closed(&mut crowd[59]), "the newest stays open");
    };
    let (answer, ()) = tokio::join!(send(invite), crowding);
    answer.ok();
    // All connections are now of clients that wait.
    let crowd: Vec<_> = (0..200).map(|_| connect_and_send(&gateway, POST.as_bytes())).collect();
    world.provider.set(json!({"latency_ms": 0})).await;
    send(gateway.invite(&world)).await.ok();
    drop(crowd);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_memory_of_incomplete_bodies_is_bounded() {
    raise_open_file_limit();
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let head = format!("{POST}Content-Length: 65536\r\n\r\n{}", "a".repeat(65_000));
    let mut crowd: Vec<_> = (0..1_150).map(|_| connect_and_send(&gateway, head.as_bytes())).collect();
    until_closed("the oldest is closed", &mut crowd[0]).await;
    send(gateway.invite(&world)).await.ok();
    assert!(!is_closed(&mut crowd[1_149]), "the newest stays open");
    assert!(gateway.process.stop().success());
}

/// Sends requests, and disconnects before the answers, which a lock on the table delays. One that is limited already is
/// answered at once.
async fn send_and_disconnect(
    world: &World,
    table: &str,
    requests: impl IntoIterator<Item = reqwest::RequestBuilder>,
) {
    let mut locking = world.database.pool.begin().await.expect("a transaction");
    let lock = format!("lock table {table} in access exclusive mode");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *locking).await.expect("a lock");
    let requests = requests.into_iter().map(|request| request.timeout(Duration::from_millis(300)).send());
    for answer in futures::future::join_all(requests).await {
        match answer {
            Ok(answer) => assert_eq!(answer.status().as_u16(), 429, "the client disconnects"),
            Err(error) => assert!(error.is_timeout(), "{error:?}"),
        }
    }
    locking.rollback().await.expect("the lock is released");
}

#[tokio::test]
async fn wrong_keys_are_counted_although_their_clients_have_disconnected() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let wrong = |n: u32| format!("{n:08}");
    // A slow gateway does not read all of them before their clients disconnect.
    until("the wrong keys are counted", || async {
        let guesses = (0..12)
            .flat_map(|n| [gateway.look_up(&world, &wrong(n)), gateway.join(&world, &wrong(1_000 + n))]);
        send_and_disconnect(&world, "rate_buckets", guesses).await;
        let answer = send(gateway.look_up(&world, &key)).await;
        (answer.status == 429).then_some(())
    })
    .await;
    for _ in 0..10 {
        send(gateway.join(&world, &key)).await.problem(429, "rate_limited");
    }
    assert_eq!(world.database.session().await.joined_at, None);
    assert!(gateway.process.stop().success());
}

/// Looks a wrong key up, and resets the connection as soon as the request is written.
async fn guess_and_reset(gateway: &Gateway, credential: &str, key: u32) {
    let request = format!(
        "GET /api/SessionInvitation/session?groupid=72&sessionKey={key:08} HTTP/1.1\r\nHost: x\r\n\
         Authorization: {credential}\r\n\r\n"
    );
    let stream = connect_and_send(gateway, request.as_bytes());
    stream.set_nonblocking(true).expect("a socket");
    let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
    // A reset that comes with the request drops it unread. This pace leaves the gateway time to read some.
    tokio::time::sleep(Duration::from_millis(1)).await;
    stream.set_zero_linger().expect("a socket");
}

/// An attacker resets each connection as soon as the request is written.
#[tokio::test]
async fn a_flood_of_wrong_keys_on_reset_connections_is_limited() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let credential = world.credential();
    // A slow gateway reads few of the first ones.
    until("the wrong keys are counted", || async {
        for n in 0..400 {
            guess_and_reset(&gateway, &credential, n).await;
        }
        let answer = send(gateway.look_up(&world, &key)).await;
        (answer.status == 429).then_some(())
    })
    .await;
    for _ in 0..10 {
        send(gateway.join(&world, &key)).await.problem(429, "rate_limited");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_stop_is_stored_completely_although_its_client_has_disconnected() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    let form = [
        ("From", "+11110000000"),
        ("To", "+15005550006"),
        ("MessagingServiceSid", "MG0123456789abcdef0123456789abcdef"),
        ("Body", "STOP"),
        ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
    ];
    send_and_disconnect(&world, "optouts", [webhook_request(&world, &gateway, INBOUND, &form)]).await;
    until("the opt-out is stored for both senders", || async {
        let noted: i64 = world.database.value("select count(distinct sender) from optouts").await;
        (noted == 2).then_some(())
    })
    .await;
    // The process finishes what a handler has begun before it ends.
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn wrong_links_are_counted_although_their_clients_have_disconnected() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    let wrong = "/s/aB3aB3aB3aB3aB3a";
    send_and_disconnect(&world, "sessions", (0..30).map(|_| gateway.request("GET", wrong))).await;
    until("the wrong keys are counted", || async {
        let answer = send(gateway.request("GET", wrong)).await;
        (answer.status == 429).then_some(())
    })
    .await;
    let metrics = gateway.operators("/metrics").await.body;
    let counted = r#"session_invite_http_requests_total{route="/s/{token}",status="404"} 30"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_request_needs_exactly_one_valid_host_header() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let get = |version: &str, hosts: &[&str]| {
        let lines = hosts.iter().map(|host| format!("Host:{host}\r\n")).collect::<Vec<_>>().concat();
        let mut answer =
            gateway.raw(format!("GET /healthz HTTP/{version}\r\n{lines}Connection: close\r\n\r\n"));
        answer.truncate(answer.find("\r\n\r\n").map_or(answer.len(), |at| at + 4));
        answer
    };
    for good in [" x", " Example.com:8080", " 127.0.0.1", " [::1]:8080", "x "] {
        assert!(get("1.1", &[good]).starts_with("HTTP/1.1 200 "), "{good}");
    }
    assert!(get("1.0", &[]).starts_with("HTTP/1.0 200 "));
    for (version, hosts) in [
        ("1.1", &[][..]),
        ("1.1", &[" x", " x"]),
        ("1.1", &[" x", " y"]),
        ("1.0", &[" x", " y"]),
        ("1.1", &[""]),
        ("1.1", &[" a b"]),
        ("1.1", &[" a/b"]),
        ("1.1", &[" user@a"]),
        ("1.1", &[" a:b"]),
        ("1.1", &[" a:99999"]),
        ("1.1", &[" [::1"]),
        ("1.1", &[" é"]),
    ] {
        let answer = get(version, hosts);
        assert!(answer.starts_with(&format!("HTTP/{version} 400 ")), "{hosts:?}: {answer}");
        assert!(answer.contains("application/problem+json"), "{hosts:?}: {answer}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn metrics_are_on_the_operators_address_and_not_on_the_public_one() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    send(gateway.invite(&world)).await.ok();
    for path in ["/metrics", "/METRICS", "/metrics/", "/%6detrics", "/Metrics?x", "//metrics", "/./metrics"] {
        send(gateway.request("GET", path)).await.problem(404, "not_found");
        assert!(!gateway.raw(format!("GET {path} HTTP/1.0\r\n\r\n")).contains("session_invite_"), "{path}");
    }
    let metrics = gateway.operators("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("session_invite_http_requests_total"), "{}", metrics.body);
    assert_eq!(gateway.operators("/healthz").await.body, "ok\n");
    let ready = gateway.operators("/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    assert_eq!(gateway.operators("/api/SessionInvitation/session/").await.status, 404);
    // A gateway that shares its settings with a worker finds HTTP_ADDR in use.
    let taken = gateway.operators_address().await;
    let mut second = world.start_gateway(&[("HTTP_ADDR", &taken)]).await;
    let problems = send(second.request("GET", "/readyz")).await.json()["problems"].to_string();
    let log = second.process.log();
    for text in [&problems, &log] {
        assert!(
            text.contains("no /metrics") && text.contains(&taken) && text.contains("HTTP_ADDR"),
            "{text}"
        );
    }
    assert!(second.process.stop().success() && gateway.process.stop().success());
    // Any other fault of that address ends the start.
    let elsewhere = world.environment(&[("GATEWAY_ADDR", "127.0.0.1:0"), ("HTTP_ADDR", "192.0.2.1:9464")]);
    let complaint = crate::support::run(&elsewhere, &["gateway"]).fails(1);
    assert!(complaint.contains("HTTP_ADDR: ") && complaint.contains("192.0.2.1:9464"), "{complaint}");
}

#[tokio::test]
async fn unreadable_requests_are_answered_as_problems_and_503_has_a_retry_after() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    for path in ["/webhooks/twilio/status/%ff", "/api/SessionInvitation/session/?groupid=%ff", "/s%2f%ff"] {
        for method in ["GET", "POST"] {
            let answer = send(gateway.request(method, path)).await;
            assert!((400..500).contains(&answer.status), "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        }
    }
    assert!(gateway.process.stop().success());
    let unreachable = [("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let mut gateway = world.spawn_gateway(&unreachable).await;
    let unready = send(gateway.request("GET", "/readyz")).await;
    assert_eq!((unready.status, unready.header("retry-after")), (503, Some("1")));
    until("an invite is answered 503", || async {
        let answer = try_send(gateway.invite(&world).timeout(DEADLINE)).await.ok()?;
        answer.problem(503, "unavailable");
        Some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}
