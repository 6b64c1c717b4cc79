//! Clients that send half a request, hang up too soon, or ask where they should not.

use crate::support::{
    Answer, DEADLINE, Gateway, Setup, World, at_home, send, try_send, until, webhook_request,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const POST: &str = "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: x\r\n";

fn many_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("enough files");
}

/// A connection on which this was sent.
fn sent(gateway: &Gateway, bytes: &[u8]) -> TcpStream {
    let mut stream = gateway.connect();
    stream.write_all(bytes).expect("the gateway reads");
    stream
}

/// Whether the gateway has closed it, without an answer.
fn is_cut(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a time-out can be set");
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

async fn until_cut(what: &str, stream: &mut TcpStream) {
    until(what, || {
        let cut = is_cut(stream);
        async move { cut.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn requests_whose_head_or_body_is_not_there_take_no_place() {
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
        kinds.iter().flat_map(|kind| (0..20).map(|_| sent(&gateway, kind.as_bytes()))).collect();
    for _ in 0..3 {
        send(gateway.invite(&world)).await.ok();
        for stream in &mut waiting[20..40] {
            let _ = stream.write_all(b"X-A: a\r\n");
        }
    }
    // A slow one gets its answer as well.
    let slow = &mut waiting[3 * 20];
    slow.write_all(&body.as_bytes()[20..]).expect("the gateway reads");
    let mut start = [0; 12];
    slow.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn where_all_connections_are_taken_the_one_that_has_waited_longest_is_closed() {
    let world = World::start().await;
    world.provider.set(json!({"latency_ms": 1_000})).await;
    // 264 are kept for operators and other things.
    let mut gateway = world.start_gateway_with_files(304).await;
    let asking = gateway.invite(&world);
    let crowding = async {
        until("it is in hand", || async { (world.provider.posts().await > 0).then_some(()) }).await;
        let mut crowd: Vec<_> = (0..60).map(|_| sent(&gateway, POST.as_bytes())).collect();
        until_cut("the first one is closed", &mut crowd[0]).await;
        send(gateway.request("GET", "/healthz")).await;
        assert!(!is_cut(&mut crowd[59]), "the last one may go on");
    };
    let (answer, ()) = tokio::join!(send(asking), crowding);
    answer.ok();
    // Nobody is there but those who wait.
    let crowd: Vec<_> = (0..200).map(|_| sent(&gateway, POST.as_bytes())).collect();
    world.provider.set(json!({"latency_ms": 0})).await;
    send(gateway.invite(&world)).await.ok();
    drop(crowd);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn bodies_that_do_not_come_whole_are_bounded_together() {
    many_files();
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let head = format!("{POST}Content-Length: 65536\r\n\r\n{}", "a".repeat(65_000));
    let mut crowd: Vec<_> = (0..1_150).map(|_| sent(&gateway, head.as_bytes())).collect();
    until_cut("the first one is closed", &mut crowd[0]).await;
    send(gateway.invite(&world)).await.ok();
    assert!(!is_cut(&mut crowd[1_149]), "the last one may go on");
    assert!(gateway.process.stop().success());
}

/// Sends a request, and hangs up before the answer, which a lock on the table holds back.
async fn hang_up(world: &World, table: &str, requests: impl IntoIterator<Item = reqwest::RequestBuilder>) {
    let mut locking = world.database.pool.begin().await.expect("a transaction");
    let lock = format!("lock table {table} in access exclusive mode");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *locking).await.expect("a lock");
    let requests = requests.into_iter().map(|request| request.timeout(Duration::from_millis(300)).send());
    for answer in futures::future::join_all(requests).await {
        assert!(answer.expect_err("nobody waits for the answer").is_timeout());
    }
    locking.rollback().await.expect("the lock is given back");
}

fn look_up(gateway: &Gateway, world: &World, key: &str) -> reqwest::RequestBuilder {
    let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
    gateway.request("GET", &path).header("Authorization", world.credential())
}

fn join(gateway: &Gateway, world: &World, key: &str) -> reqwest::RequestBuilder {
    let request = gateway.request("POST", "/api/SessionInvitation/session/join/?groupid=72");
    request.header("Authorization", world.credential()).body(json!({"sessionKey": key}).to_string())
}

async fn invited(gateway: &Gateway, world: &World) -> String {
    send(gateway.invite(world)).await.ok()["sessionKey"].as_str().expect("a key").to_owned()
}

#[tokio::test]
async fn wrong_keys_count_though_their_clients_are_gone() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
    let wrong = |n: u32| format!("{n:08}");
    let guesses = (0..12)
        .flat_map(|n| [look_up(&gateway, &world, &wrong(n)), join(&gateway, &world, &wrong(1_000 + n))]);
    hang_up(&world, "rate_buckets", guesses).await;
    until("they are counted", || async {
        let answer: Answer = send(look_up(&gateway, &world, &key)).await;
        (answer.status == 429).then_some(())
    })
    .await;
    for _ in 0..10 {
        send(join(&gateway, &world, &key)).await.problem(429, "rate_limited");
    }
    assert_eq!(world.database.session().await["joined_at"], json!(null));
    assert!(gateway.process.stop().success());
}

/// As an attacker would: the connection is reset as soon as the request is written.
#[tokio::test]
async fn a_flood_of_wrong_keys_that_are_reset_stops_the_right_one() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = invited(&gateway, &world).await;
    let credential = world.credential();
    for n in 0..400 {
        let ask = format!(
            "GET /api/SessionInvitation/session?groupid=72&sessionKey={n:08} HTTP/1.1\r\nHost: x\r\n\
             Authorization: {credential}\r\n\r\n"
        );
        let stream = tokio::net::TcpStream::from_std({
            let stream = sent(&gateway, ask.as_bytes());
            stream.set_nonblocking(true).expect("a socket");
            stream
        });
        let stream = stream.expect("a socket");
        tokio::time::sleep(Duration::from_millis(1)).await;
        stream.set_zero_linger().expect("a socket");
        drop(stream);
    }
    for _ in 0..10 {
        send(join(&gateway, &world, &key)).await.problem(429, "rate_limited");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_stop_is_noted_whole_though_its_client_is_gone() {
    let (world, mut gateway) = at_home(Setup::default()).await;
    let form = [
        ("From", "+11110000000"),
        ("To", "+15005550006"),
        ("MessagingServiceSid", "MG0123456789abcdef0123456789abcdef"),
        ("Body", "STOP"),
        ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
    ];
    hang_up(&world, "optouts", [webhook_request(&world, &gateway, "/webhooks/twilio/inbound", &form)]).await;
    until("it is noted for both senders", || async {
        let noted: i64 = world.database.value("select count(distinct sender) from optouts").await;
        (noted == 2).then_some(())
    })
    .await;
    // What a handler has begun is finished before the process ends, too.
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn wrong_links_count_though_their_clients_are_gone() {
    let (world, mut gateway) = at_home(Setup::default()).await;
    let wrong = "/s/aB3aB3aB3aB3aB3a";
    hang_up(&world, "sessions", (0..30).map(|_| gateway.request("GET", wrong))).await;
    until("they are counted", || async {
        let answer = send(gateway.request("GET", wrong)).await;
        (answer.status == 429).then_some(())
    })
    .await;
    let tried = gateway.operators("/metrics").await.body;
    let counted = r#"session_invite_http_requests_total{route="/s/{token}",status="404"} 30"#;
    assert!(tried.contains(counted), "{tried}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_host_has_to_be_there_once_and_be_one() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let asked = |version: &str, hosts: &[&str]| {
        let lines = hosts.iter().map(|host| format!("Host:{host}\r\n")).collect::<Vec<_>>().concat();
        let mut answer =
            gateway.raw(format!("GET /healthz HTTP/{version}\r\n{lines}Connection: close\r\n\r\n"));
        answer.truncate(answer.find("\r\n\r\n").map_or(answer.len(), |at| at + 4));
        answer
    };
    for good in [" x", " Example.com:8080", " 127.0.0.1", " [::1]:8080", "x "] {
        assert!(asked("1.1", &[good]).starts_with("HTTP/1.1 200 "), "{good}");
    }
    assert!(asked("1.0", &[]).starts_with("HTTP/1.0 200 "));
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
        let answer = asked(version, hosts);
        assert!(answer.starts_with(&format!("HTTP/{version} 400 ")), "{hosts:?}: {answer}");
        assert!(answer.contains("application/problem+json"), "{hosts:?}: {answer}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn metrics_are_where_operators_ask_and_not_on_the_public_port() {
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
    // It shares its settings with a worker on this machine that has the address already.
    let taken = gateway.operators_address().await;
    let mut second = world.start_gateway(&[("HTTP_ADDR", &taken)]).await;
    let problems = send(second.request("GET", "/readyz")).await.json()["problems"].to_string();
    let log = second.process.log();
    for said in [&problems, &log] {
        assert!(
            said.contains("no /metrics") && said.contains(&taken) && said.contains("HTTP_ADDR"),
            "{said}"
        );
    }
    assert!(second.process.stop().success() && gateway.process.stop().success());
    // Another fault of it is an error.
    let elsewhere = world.environment(&[("GATEWAY_ADDR", "127.0.0.1:0"), ("HTTP_ADDR", "192.0.2.1:9464")]);
    let complaint = crate::support::run(&elsewhere, &["gateway"]).fails(1);
    assert!(complaint.contains("HTTP_ADDR: 192.0.2.1:9464"), "{complaint}");
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem_too_and_a_client_knows_when_to_ask_again() {
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
    let away = [("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let mut gateway = world.spawn_gateway(&away).await;
    let unready = send(gateway.request("GET", "/readyz")).await;
    assert_eq!((unready.status, unready.header("retry-after")), (503, Some("1")));
    until("an invite is refused for now", || async {
        let answer = try_send(gateway.invite(&world).timeout(DEADLINE)).await.ok()?;
        answer.problem(503, "unavailable");
        Some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}
