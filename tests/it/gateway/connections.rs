//! The gateway's connections: many, slow, kept alive, and open when it stops.

use super::{is_closed, raise_open_file_limit};
use crate::support::{DEADLINE, Http, Setup, Worker, World, send, try_send, until, with_gateway_under_path};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A head and a body may take 10 s each. A library's own limit would be 30 s.
const ENDED_WITHIN: Duration = Duration::from_secs(25);

/// The bytes that come until the connection is closed, or until none come for a while.
fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    String::from_utf8(read).expect("UTF-8 is answered")
}

/// Waits until the gateway has closed all of them.
async fn until_all_are_closed(mut streams: Vec<TcpStream>) {
    until("the last connections are closed", || {
        streams.retain_mut(|stream| !is_closed(stream));
        let left = streams.len();
        async move { (left == 0).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn a_thousand_idle_and_two_hundred_slow_connections_delay_no_invite() {
    raise_open_file_limit();
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let idle: Vec<_> = (0..1_000).map(|_| gateway.connect()).collect();
    let mut slow: Vec<_> = (0..200).map(|_| gateway.connect()).collect();
    let begun = Instant::now();
    for stream in &mut slow {
        stream.write_all(b"POST /api/SessionInvitation/smsInvite/ HTTP/1.1\r\nHost: x\r\nX-A: ").unwrap();
    }
    let mut times = Vec::new();
    while !slow.is_empty() {
        for stream in &mut slow {
            let _ = stream.write_all(b"a");
        }
        slow.retain_mut(|stream| !is_closed(stream));
        let sent = Instant::now();
        send(gateway.invite(&world)).await.ok();
        times.push(sent.elapsed());
        assert!(begun.elapsed() < ENDED_WITHIN, "{} slow ones are left", slow.len());
        // The pace of the slow clients: two bytes a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // One invite may be slow for another reason. If they waited for the slow connections, the first would take 10 s.
    assert!(times.len() >= 4, "{times:?}");
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_secs(6), "invites took {times:?} meanwhile");
    until_all_are_closed(idle).await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn idle_connections_to_the_operators_address_are_bounded_and_closed() {
    let world = Setup::default().without_worker().await;
    let mut worker = Worker::spawn_with_files("worker", 256, &world.environment(&[]), &world.log);
    worker.ready().await;
    world.add_group(72, &[]);
    // 264 of the files are reserved for operators' connections and other uses.
    let mut gateway = world.start_gateway_with_files(304).await;
    for address in [worker.address().await, gateway.operators_address().await] {
        let connect = || TcpStream::connect(&address).expect("the address takes connections");
        let mut idle: Vec<_> = (0..300).map(|_| connect()).collect();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(send(Http::at(&address).request("GET", path)).await.status, 200, "{path}");
        }
        send(gateway.invite(&world)).await.ok();
        idle.retain_mut(|stream| !is_closed(stream));
        assert!(idle.len() <= 64, "{} are left", idle.len());
        until_all_are_closed(idle).await;
    }
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn a_connection_is_kept_alive_and_may_pipeline_requests() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let mut stream = gateway.connect();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(&[&request[..], request].concat()).unwrap();
    let mut answers = String::new();
    while answers.matches("\r\n\r\nok\n").count() < 2 {
        let mut some = [0; 1_024];
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{answers}");
        answers.push_str(std::str::from_utf8(&some[..count]).unwrap());
    }
    stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert!(rest(&mut stream).contains("\"openapi\":\"3.1.0\""));
    let http_1_0 = gateway.raw("GET /healthz HTTP/1.0\r\n\r\n");
    assert!(http_1_0.starts_with("HTTP/1.0 200 OK\r\n") && http_1_0.ends_with("ok\n"), "{http_1_0}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_unknown_address_is_404_and_an_unknown_method_405() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let path = format!("/api/SessionInvitation/session?groupid=72&sessionKey={key}");
    let head = gateway.request("HEAD", &path).header("Authorization", world.credential());
    let head = send(head).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.header("content-length").unwrap().parse::<u64>().unwrap() > 100);
    let head = send(gateway.request("HEAD", &path)).await;
    assert_eq!((head.status, head.body.as_str()), (401, ""));
    for path in ["/", "/api", "/api/SessionInvitation", "/s", "/nothing?x=%00", "//healthz"] {
        send(gateway.request("GET", path)).await.problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("GET", "/api/SessionInvitation/smsInvite/", "POST"),
        ("DELETE", "/api/SessionInvitation/session/", "GET,HEAD"),
        ("PUT", "/api/sessioninvitation/session/JOIN", "POST"),
        ("OPTIONS", "/healthz", "GET,HEAD"),
        ("TRACE", "/docs/", "GET,HEAD"),
    ] {
        let answer = send(gateway.request(method, path)).await;
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn too_large_heads_and_bodies_and_too_slow_bodies_have_their_own_status() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let head = |headers: &str| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    for headers in [format!("X-A: {}\r\n", "a".repeat(40_000)), "X-A: a\r\n".repeat(101)] {
        let answer = gateway.raw(head(&headers));
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let largest = gateway.raw(head(&format!("X-A: {}\r\nConnection: close\r\n", "a".repeat(16_000))));
    assert!(largest.starts_with("HTTP/1.1 200 "), "{largest}");
    let post = format!(
        "POST /api/sessioninvitation/smsinvite HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n",
        world.credential()
    );
    // The gateway reads on for a while, so that the client gets the answer.
    let large = format!("{post}Content-Length: 300000\r\nConnection: close\r\n\r\n{}", "a".repeat(300_000));
    assert!(gateway.raw(large).starts_with("HTTP/1.1 413 "));
    let chunks = "4000\r\n".to_owned() + &"a".repeat(0x4000) + "\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.repeat(5));
    let mut stream = gateway.connect();
    stream.write_all(chunked.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    let begun = Instant::now();
    let late = gateway.raw(format!("{post}Content-Length: 10\r\n\r\n{{"));
    assert!(late.starts_with("HTTP/1.1 408 ") && late.contains("request_timeout"), "{late}");
    assert!(begun.elapsed() < ENDED_WITHIN, "{:?}", begun.elapsed());
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_stop_answers_requests_in_flight_and_takes_no_more() {
    for signal in ["TERM", "INT"] {
        let world = Setup::default().set("SMS_TIMEOUT", "20s").start().await;
        let mut gateway = world.start_gateway(&[]).await;
        world.provider.set(json!({"latency_ms": 9_000})).await;
        let mut idle = gateway.connect();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut half = gateway.connect();
        half.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        let invites = futures::future::join_all((0..20).map(|_| send(gateway.invite(&world))));
        let stopping = async {
            world.provider.until_posts(20).await;
            let begun = Instant::now();
            gateway.process.signal(signal);
            until("new connections are refused", || async {
                TcpStream::connect(&gateway.address).is_err().then_some(())
            })
            .await;
            begun
        };
        let (answers, begun) = tokio::join!(invites, stopping);
        for answer in answers {
            answer.ok();
            assert_eq!(answer.header("connection"), Some("close"));
        }
        assert!(gateway.process.wait().success());
        // The texts take 9 s. A gateway that waited for the other connections would end with its grace, after 25 s.
        assert!(begun.elapsed() < Duration::from_secs(23), "{:?}", begun.elapsed());
        assert!(rest(&mut idle).contains("200 OK") && rest(&mut half).is_empty());
    }
}

#[tokio::test]
async fn a_stop_answers_504_before_its_grace_ends_and_a_second_signal_ends_at_once() {
    let world = Setup::default().set("SHUTDOWN_GRACE", "300ms").set("SMS_TIMEOUT", "20s").start().await;
    world.provider.set(json!({"latency_ms": 8_000})).await;
    let mut gateway = world.start_gateway(&[]).await;
    let with_key = gateway.invite(&world).header("Idempotency-Key", "one");
    let without_key = gateway.invite(&world);
    let cut = async {
        world.provider.until_posts(2).await;
        let begun = Instant::now();
        assert!(gateway.process.stop().success());
        begun.elapsed()
    };
    let (answer, other, took) = tokio::join!(send(with_key), send(without_key), cut);
    for answer in [&answer, &other] {
        answer.problem(504, "reply_timeout");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(answer.header("idempotency-key"), Some("one"));
    let generated = other.header("idempotency-key").expect("the gateway generates a key").to_owned();
    assert!(took < DEADLINE, "{took:?}");
    let mut gateway = world.start_gateway(&[("SHUTDOWN_GRACE", "25s")]).await;
    let invite = gateway.invite(&world).header("Idempotency-Key", "two");
    let cut = async {
        world.provider.until_posts(3).await;
        gateway.process.signal("TERM");
        gateway.process.logs("stopping").await;
        gateway.process.signal("TERM");
        gateway.process.wait()
    };
    let (_, ended) = tokio::join!(try_send(invite), cut);
    assert_eq!(ended.code(), Some(130));
    // The workers have continued with all three.
    let mut gateway = world.start_gateway(&[]).await;
    for key in ["one", "two", &generated] {
        send(gateway.invite(&world).header("Idempotency-Key", key)).await.ok();
    }
    assert_eq!(world.provider.texts().await.len(), 3);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn requests_may_have_the_path_of_public_url_or_not() {
    let (_world, mut gateway) = with_gateway_under_path(Setup::default(), "/Invite").await;
    for path in ["/Invite/healthz", "/invite/healthz/", "/healthz"] {
        assert_eq!(send(gateway.request("GET", path)).await.body, "ok\n", "{path}");
    }
    let docs = send(gateway.request("GET", "/invite/docs/")).await;
    assert!(docs.body.contains("href=\"/Invite/openapi.json\""), "{}", docs.body);
    send(gateway.request("GET", "/invited/healthz")).await.problem(404, "not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_clients_address_is_taken_from_trusted_proxies_only() {
    let world = World::start().await;
    let wrong = "/s/abcdefgh12345678";
    for (trusted, is_trusted) in [("127.0.0.0/8, 10.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let mut gateway = world.start_gateway(&[("TRUSTED_PROXIES", trusted)]).await;
        let from = |address: &str| send(gateway.request("GET", wrong).header("X-Forwarded-For", address));
        // Wrong links are limited by address.
        until("one address is limited", || async {
            (from("6.6.6.6, 192.0.2.1, 10.0.0.9").await.status == 429).then_some(())
        })
        .await;
        let other = if is_trusted { 404 } else { 429 };
        assert_eq!(from("192.0.2.1, 192.0.2.2, 10.0.0.9").await.status, other, "{trusted}");
        assert_eq!(
            from("7.7.7.7, 192.0.2.1").await.status,
            429,
            "addresses left of the client's do not count"
        );
        assert!(gateway.process.stop().success());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_disconnected() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let size = send(gateway.request("GET", "/openapi.json")).await.body.len();
    let mut stream = gateway.connect();
    let count = 400;
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(count);
    // Before the requests, so that a slow machine cannot make the time shorter.
    let begun = Instant::now();
    stream.write_all(requests.as_bytes()).unwrap();
    // Writes fail once the connection is closed.
    until("the connection is closed", || {
        let closed = stream.write_all(b"GET /").is_err();
        async move { closed.then_some(()) }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    assert!(read.len() < count * size, "all requests were answered");
    assert!(gateway.process.stop().success());
}
