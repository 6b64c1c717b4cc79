//! Messages whose properties the client library cannot decode: they affect no other message and end no process (contract,
//! section 2).

use crate::support::{
    Message, Setup, TlsFront, World, broker_server, nested, publish_raw, run, send, try_send, until_within,
};
use std::time::Duration;

/// Properties that a sender can write and that lapin cannot decode. The deepest has so many levels.
fn undecodable_properties(deepest: usize) -> Vec<Vec<u8>> {
    vec![
        nested(b'A', 1_000),
        nested(b'F', 1_000),
        nested(b'A', deepest),
        nested(b'A', 65),
        // A correlation id, a reply_to, an app id and a header's name that are not UTF-8.
        vec![0x04, 0, 1, 0xff],
        vec![0x02, 0, 2, b'q', 0xc3],
        vec![0, 0x08, 1, 0x80],
        b"\x20\0\0\0\0\x07\x01\xffS\0\0\0\0".to_vec(),
        // A value of a type that the library does not know.
        b"\x20\0\0\0\0\x04\x02abZ".to_vec(),
    ]
}

async fn publish(queue: String, properties: Vec<u8>) {
    let publishing = move || publish_raw(&broker_server(), ("", &queue), &properties, b"{}");
    tokio::task::spawn_blocking(publishing).await.expect("it is published");
}

/// A setup whose processes and commands connect to the broker by TLS.
fn behind(front: &TlsFront) -> Setup {
    Setup::default().set("AMQP_URL", &front.url).set("SSL_CERT_FILE", front.ca())
}

#[tokio::test]
async fn undecodable_requests_go_to_the_unreadable_queue_and_all_others_are_answered() {
    undecodable_requests_are_unreadable(Setup::default(), 26_000).await;
}

#[tokio::test]
async fn over_tls_undecodable_requests_go_to_the_unreadable_queue_too() {
    undecodable_requests_are_unreadable(behind(&TlsFront::of(&broker_server())), 10_000).await;
}

async fn undecodable_requests_are_unreadable(setup: Setup, deepest: usize) {
    let world = setup.start().await;
    let requests = world.broker.queue("requests");
    let all = undecodable_properties(deepest);
    let (count, mut published) = (all.len(), 0);
    for (n, properties) in all.into_iter().enumerate() {
        // RabbitMQ itself refuses some of them.
        let queue = requests.clone();
        let publishing = move || publish_raw(&broker_server(), ("", &queue), &properties, b"{}");
        published += u32::from(tokio::task::spawn_blocking(publishing).await.is_ok());
        world.broker.request(Message::json(&world.request()).correlation(&format!("good{n}"))).await;
    }
    assert!(published >= 7, "RabbitMQ takes {published} of them");
    for n in 0..count {
        world.broker.reply(&format!("good{n}")).await.sent();
    }
    let unreadable = world.broker.queue("unreadable");
    // RabbitMQ is slow to encode deeply nested headers again, once it has added one of its own.
    until_within(Duration::from_secs(90), "they are in the queue of unreadable messages", || async {
        (world.broker.depth(&unreadable).await == Some(published)).then_some(())
    })
    .await;
    // The consumers never lost their connection.
    let metrics = world.running().metrics().await;
    for connection in ["consumer", "publisher"] {
        let never =
            format!("session_invite_broker_connections_lost_total{{connection=\"{connection}\"}} 0\n");
        assert!(metrics.contains(&never), "{metrics}");
    }
    world.broker.purge("unreadable").await;
}

#[tokio::test]
async fn nested_headers_up_to_the_bound_are_accepted() {
    let world = World::start().await;
    let queue = world.broker.queue("requests");
    for levels in [1, 32, 64] {
        publish(queue.clone(), nested(b'A', levels)).await;
        world.broker.take("replies").await.refused("rejected", "credential_missing", 401);
    }
}

#[tokio::test]
async fn a_routing_key_that_is_not_utf_8_does_not_matter() {
    let world = World::start().await;
    let exchange = world.broker.fanout_to("requests").await;
    let publishing = move || publish_raw(&broker_server(), (&exchange, b"k\xff"), &[0, 0], b"{}");
    tokio::task::spawn_blocking(publishing).await.expect("it is published");
    world.broker.take("replies").await.refused("rejected", "credential_missing", 401);
    world.invite(&world.request()).await.sent();
}

#[tokio::test]
async fn undecodable_dead_letters_are_listed_and_not_replayed() {
    undecodable_dead_letters_stay(Setup::default()).await;
}

#[tokio::test]
async fn over_tls_undecodable_dead_letters_are_listed_and_not_replayed() {
    undecodable_dead_letters_stay(behind(&TlsFront::of(&broker_server()))).await;
}

async fn undecodable_dead_letters_stay(setup: Setup) {
    let world = setup.start().await;
    let dead = world.broker.queue("dead");
    publish(dead.clone(), nested(b'F', 5_000)).await;
    publish(dead.clone(), vec![0x04, 0, 1, 0xff]).await;
    world.broker.publish_to(&dead, Message::bytes("{}").text_header("x-kind", "other")).await;
    let listed = world.run(&["dead", "list", "--json"]).ok();
    assert_eq!(listed.matches("cannot be decoded").count(), 2, "{listed}");
    let replayed = world.run(&["dead", "replay", "--all"]);
    assert_eq!(replayed.code, Some(1), "{replayed:?}");
    assert!(replayed.stdout.contains("cannot be decoded"), "{replayed:?}");
    world.run(&["dead", "drop", "--all", "--yes"]).ok();
    assert_eq!(world.broker.depth(&dead).await, Some(0));
}

#[tokio::test]
async fn the_gateway_ignores_undecodable_replies() {
    undecodable_replies_are_ignored(Setup::default()).await;
}

#[tokio::test]
async fn over_tls_the_gateway_ignores_undecodable_replies() {
    undecodable_replies_are_ignored(behind(&TlsFront::of(&broker_server()))).await;
}

async fn undecodable_replies_are_ignored(setup: Setup) {
    let world = setup.without_worker().await;
    world.run(&["migrate"]).ok();
    world.run(&["topology", "declare"]).ok();
    world.add_group(72, &[]);
    let gateway = world.start_gateway(&[]).await;
    let invite = tokio::spawn(try_send(gateway.invite(&world)));
    let request = world.broker.take("requests").await;
    let reply_to =
        request.properties.reply_to().clone().expect("the gateway requests a direct reply").to_string();
    for properties in [nested(b'A', 5_000), vec![0x04, 0, 1, 0xff]] {
        publish(reply_to.clone(), properties).await;
    }
    let mut worker = world.start_worker().await;
    world.broker.publish(Message { body: request.bytes, properties: request.properties }).await;
    invite.await.expect("no panic").expect("an answer").ok();
    send(gateway.invite(&world)).await.ok();
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_broker_whose_certificate_is_not_trusted_is_not_used() {
    let front = TlsFront::of(&broker_server());
    let world = behind(&front).without_worker().await;
    world.run(&["topology", "declare"]).ok();
    let other = TlsFront::of(&broker_server());
    let changes = [("SSL_CERT_FILE", other.ca())];
    let complaint = run(&world.environment(&changes), &["topology", "declare"]).fails(1);
    assert!(complaint.contains("certificate"), "{complaint}");
}
