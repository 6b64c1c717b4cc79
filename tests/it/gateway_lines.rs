//! The gateway's connections: many, slow, kept, and those that are there when it stops.

use crate::support::{DEADLINE, Http, Setup, Worker, World, at_home_under, send, try_send, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// What comes on a connection until it is closed, or until nothing comes for a while.
fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    String::from_utf8(read).expect("UTF-8 is answered")
}

/// Whether the gateway has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a time-out can be set");
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[tokio::test]
async fn a_thousand_idle_and_two_hundred_slow_connections_do_no_harm() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("enough files");
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let mut idle: Vec<_> = (0..1_000).map(|_| gateway.connect()).collect();
    let mut slow: Vec<_> = (0..200).map(|_| gateway.connect()).collect();
    let begun = Instant::now();
    for stream in &mut slow {
        stream.write_all(b"POST /api/SessionInvitation/smsInvite/ HTTP/1.1\r\nHost: x\r\nX-A: ").unwrap();
    }
    let mut longest = Duration::ZERO;
    while !slow.is_empty() {
        for stream in &mut slow {
            let _ = stream.write_all(b"a");
        }
        slow.retain_mut(|stream| !is_closed(stream));
        let asked = Instant::now();
        send(gateway.invite(&world)).await.ok();
        longest = longest.max(asked.elapsed());
        assert!(begun.elapsed() < DEADLINE, "{} slow ones are left", slow.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(longest < Duration::from_secs(2), "an invite took {longest:?} meanwhile");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    until("idle ones are hung up on too", || {
        idle.retain_mut(|stream| !is_closed(stream));
        let left = idle.len();
        async move { (left == 0).then_some(()) }
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn idle_connections_of_operators_are_few_and_not_for_long() {
    let world = Setup::default().without_worker().await;
    let mut worker = Worker::spawn_with_files("worker", 256, &world.environment(&[]), &world.log);
    worker.ready().await;
    world.add_group(72, &[]);
    // 264 are kept for operators and other things.
    let mut gateway = world.start_gateway_with_files(304).await;
    for address in [worker.address().await, gateway.operators_address().await] {
        let connect = || TcpStream::connect(&address).expect("it answers operators");
        let mut idle: Vec<_> = (0..300).map(|_| connect()).collect();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(send(Http::at(&address).request("GET", path)).await.status, 200, "{path}");
        }
        send(gateway.invite(&world)).await.ok();
        idle.retain_mut(|stream| !is_closed(stream));
        assert!(idle.len() <= 64, "{} are left", idle.len());
        until("the last ones are hung up on too", || {
            idle.retain_mut(|stream| !is_closed(stream));
            let left = idle.len();
            async move { (left == 0).then_some(()) }
        })
        .await;
    }
    assert!(gateway.process.stop().success() && worker.stop().success());
}

#[tokio::test]
async fn a_connection_is_kept_and_may_have_requests_ahead() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let mut stream = gateway.connect();
    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(&[&ask[..], ask].concat()).unwrap();
    let mut answers = String::new();
    while answers.matches("\r\n\r\nok\n").count() < 2 {
        let mut some = [0; 1_024];
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{answers}");
        answers.push_str(std::str::from_utf8(&some[..count]).unwrap());
    }
    stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert!(rest(&mut stream).contains("\"openapi\":\"3.1.0\""));
    let old = gateway.raw("GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("ok\n"), "{old}");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn methods_and_addresses_that_are_not_there_are_told_apart() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let key = send(gateway.invite(&world)).await.ok()["sessionKey"].as_str().unwrap().to_owned();
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
async fn what_is_too_large_or_too_slow_is_refused_by_name() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let head = |headers: &str| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    for headers in [format!("X-A: {}\r\n", "a".repeat(40_000)), "X-A: a\r\n".repeat(101)] {
        let answer = gateway.raw(head(&headers));
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let usual = gateway.raw(head(&format!("X-A: {}\r\nConnection: close\r\n", "a".repeat(16_000))));
    assert!(usual.starts_with("HTTP/1.1 200 "), "{usual}");
    let post = format!(
        "POST /api/sessioninvitation/smsinvite HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n",
        world.credential()
    );
    // It is read on for a while, so that its sender hears why.
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
    assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_stop_answers_what_is_in_hand_and_takes_nothing_more() {
    for signal in ["TERM", "INT"] {
        let world = World::start().await;
        let mut gateway = world.start_gateway(&[]).await;
        world.provider.set(json!({"latency_ms": 900})).await;
        let mut idle = gateway.connect();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut half = gateway.connect();
        half.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        let asking = (0..20).map(|_| send(gateway.invite(&world)));
        let asking = futures::future::join_all(asking);
        let begun = Instant::now();
        let stopping = async {
            until("they are in hand", || async { (world.provider.posts().await > 0).then_some(()) }).await;
            gateway.process.signal(signal);
            until("nobody is let in", || async {
                TcpStream::connect(&gateway.address).is_err().then_some(())
            })
            .await;
        };
        let (answers, ()) = tokio::join!(asking, stopping);
        for answer in answers {
            answer.ok();
            assert_eq!(answer.header("connection"), Some("close"));
        }
        assert!(gateway.process.ended().success());
        assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
        assert!(rest(&mut idle).contains("200 OK") && rest(&mut half).is_empty());
    }
}

#[tokio::test]
async fn what_waits_is_answered_before_the_grace_ends_and_a_second_signal_ends_the_gateway_at_once() {
    let world = Setup::default().set("SHUTDOWN_GRACE", "300ms").start().await;
    world.provider.set(json!({"latency_ms": 3_000})).await;
    let mut gateway = world.start_gateway(&[]).await;
    let asked = gateway.invite(&world).header("Idempotency-Key", "one");
    let unnamed = gateway.invite(&world);
    let cut = async {
        until("they are in hand", || async { (world.provider.posts().await == 2).then_some(()) }).await;
        let begun = Instant::now();
        assert!(gateway.process.stop().success());
        begun.elapsed()
    };
    let (answer, other, took) = tokio::join!(send(asked), send(unnamed), cut);
    for answer in [&answer, &other] {
        answer.problem(504, "reply_timeout");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(answer.header("idempotency-key"), Some("one"));
    let made = other.header("idempotency-key").expect("a key was made").to_owned();
    assert!(took < Duration::from_millis(300) + Duration::from_secs(2), "{took:?}");
    let mut gateway = world.start_gateway(&[("SHUTDOWN_GRACE", "25s")]).await;
    let asked = gateway.invite(&world).header("Idempotency-Key", "two");
    let cut = async {
        until("it is in hand", || async { (world.provider.posts().await == 3).then_some(()) }).await;
        gateway.process.signal("TERM");
        gateway.process.says("stopping").await;
        gateway.process.signal("TERM");
        gateway.process.ended()
    };
    let (_, ended) = tokio::join!(try_send(asked), cut);
    assert_eq!(ended.code(), Some(130));
    // All go on.
    let mut gateway = world.start_gateway(&[]).await;
    for key in ["one", "two", &made] {
        send(gateway.invite(&world).header("Idempotency-Key", key)).await.ok();
    }
    assert_eq!(world.provider.texts().await.len(), 3);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_path_of_public_url_may_be_there_or_not() {
    let (_world, mut gateway) = at_home_under(Setup::default(), "/Invite").await;
    for path in ["/Invite/healthz", "/invite/healthz/", "/healthz"] {
        assert_eq!(send(gateway.request("GET", path)).await.body, "ok\n", "{path}");
    }
    let docs = send(gateway.request("GET", "/invite/docs/")).await;
    assert!(docs.body.contains("href=\"/Invite/openapi.json\""), "{}", docs.body);
    send(gateway.request("GET", "/invited/healthz")).await.problem(404, "not_found");
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_clients_address_is_what_trusted_proxies_say_and_nobody_else() {
    let world = World::start().await;
    let wrong = "/s/abcdefgh12345678";
    for (trusted, believed) in [("127.0.0.0/8, 10.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let mut gateway = world.start_gateway(&[("TRUSTED_PROXIES", trusted)]).await;
        let from = |address: &str| send(gateway.request("GET", wrong).header("X-Forwarded-For", address));
        // Wrong links are limited by address.
        until("one address is stopped", || async {
            (from("6.6.6.6, 192.0.2.1, 10.0.0.9").await.status == 429).then_some(())
        })
        .await;
        let other = if believed { 404 } else { 429 };
        assert_eq!(from("192.0.2.1, 192.0.2.2, 10.0.0.9").await.status, other, "{trusted}");
        assert_eq!(from("7.7.7.7, 192.0.2.1").await.status, 429, "what stands left of it does not count");
        assert!(gateway.process.stop().success());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_hung_up_on() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let size = send(gateway.request("GET", "/openapi.json")).await.body.len();
    let mut stream = gateway.connect();
    let asked = 400;
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(asked);
    stream.write_all(ask.as_bytes()).unwrap();
    let begun = Instant::now();
    // More is asked now and then, until there is nobody to ask.
    until("it is hung up on", || {
        let gone = stream.write_all(b"GET /").is_err();
        async move { gone.then_some(()) }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read);
    assert!(read.len() < asked * size, "all is answered");
    assert!(gateway.process.stop().success());
}
