//! Messages and `reply_to` addresses of one sender that must not stop the worker for the others.

use crate::support::{
    Message, SessionStatus, Setup, Tunnel, World, broker_server, connect_broker, send, until,
};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use lapin::{
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::json;

#[tokio::test]
async fn a_message_with_very_large_headers_is_answered() {
    let world = World::start().await;
    world
        .broker
        .request(Message::bytes("{}").text_header("junk", &"x".repeat(60_000)).correlation("junk"))
        .await;
    for n in 0..5 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("good{n}"))).await;
    }
    world.broker.reply("junk").await.refused("rejected", "credential_missing", 401);
    for n in 0..5 {
        world.broker.reply(&format!("good{n}")).await.sent();
    }
}

#[tokio::test]
async fn an_invented_direct_reply_queue_does_not_stop_other_replies() {
    let world = World::start().await;
    for made_up in ["g1h2AA==.xyz", "g2dkAApyYWJiaXRAbG9jYWxob3N0AAA.key", "garbage", ""] {
        let queue = format!("amq.rabbitmq.reply-to.{made_up}");
        world.broker.publish(Message::bytes("{}").reply_to(&queue)).await;
    }
    for n in 0..5 {
        world.broker.request(Message::json(&world.request()).correlation(&format!("good{n}"))).await;
    }
    for n in 0..5 {
        world.broker.reply(&format!("good{n}")).await.sent();
    }
    world.running().idle().await;
    assert!(world.broker.replies_left().is_empty(), "one reply each");
}

#[tokio::test]
async fn a_reply_to_a_full_queue_is_set_aside_and_delays_no_other_reply() {
    let world = World::start().await;
    let connection = connect_broker().await;
    let channel = connection.create_channel().await.unwrap();
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(0));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let queue = format!("full-{}", world.broker.queue("x"));
    channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), full).await.unwrap();

    world.broker.publish(Message::bytes("{}").reply_to(&queue)).await;
    world.invite(&world.request()).await.sent();
    let dead = world.broker.take("dead").await;
    assert_eq!(dead.header("x-kind").as_deref(), Some("reply"));
    assert!(dead.header("x-reason").unwrap().contains("refused by the broker"), "{dead:?}");
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn numbers_that_postgres_cannot_store_are_invalid_fields() {
    let world = World::start().await;
    for number in ["1e-99999", "1e999", "-4e-400"] {
        let body = world.request_with(json!({"sessionParams": {"z": 0}})).to_string();
        let body = body.replace("{\"z\":0}", &format!("{{\"z\":{number}}}"));
        let reply = world.call(Message::bytes(body)).await;
        assert_eq!(reply.refused("rejected", "field_invalid", 400).field, "sessionParams.z");
    }
    let body = world.request_with(json!({"sessionParams": {"z": 0}})).to_string();
    world.call(Message::bytes(body.replace("{\"z\":0}", "{\"z\":0e-99999}"))).await.sent();
}

#[tokio::test]
async fn a_stop_while_the_broker_is_away_finishes_the_text_in_flight() {
    let world = Setup::default().set("SHUTDOWN_GRACE", "10s").without_worker().await;
    let tunnel = Tunnel::opened(&broker_server());
    world.run(&["migrate"]).ok();
    world.add_group(72, &[]);
    let mut worker = world.spawn(&[("AMQP_URL", &tunnel.url)]);
    worker.ready().await;
    world.provider.set(json!({"latency_ms": 3_000})).await;
    world.broker.request(Message::json(&world.request()).id("in-flight").correlation("in-flight")).await;
    world.provider.until_posts(1).await;
    tunnel.close();
    assert!(worker.stop().success());
    assert_eq!(world.database.session().await.status, SessionStatus::Sent);

    // The reply could not be published. The next worker publishes it from the row.
    let mut next = world.start_worker().await;
    world.broker.reply("in-flight").await.sent();
    assert_eq!(world.provider.posts().await, 1);
    assert!(next.stop().success());
}

#[tokio::test]
async fn repeats_that_wait_for_an_outcome_do_not_count_towards_sms_concurrency() {
    let setup = Setup::default().set("SMS_CONCURRENCY", "2").set("SMS_TIMEOUT", "3s");
    let world = setup.start().await;
    world.provider.next(&["hang"]).await;
    for _ in 0..10 {
        world.broker.request(Message::json(&world.request()).id("slow").correlation("slow")).await;
    }
    world.provider.until_posts(1).await;
    world.invite(&world.request()).await.sent();
    world.broker.reply("slow").await.sent();
    for _ in 1..10 {
        world.broker.reply("slow").await.sent();
    }
}

#[tokio::test]
async fn a_dead_letter_whose_headers_leave_no_room_loses_its_own_headers() {
    let world = World::start().await;
    world.expect_error("it is set aside");
    // Published straight to the queue for messages that the broker dropped, without a reason.
    let large = Message::bytes("{}").text_header("junk", &"x".repeat(120_000)).id("large");
    world.broker.publish_to(&world.broker.queue("dropped"), large).await;
    let dead = world.broker.take("dead").await;
    let reason = dead.header("x-reason").unwrap();
    assert!(reason.contains("too large to be kept") && dead.header("junk").is_none(), "{reason}");
    assert_eq!(dead.message_id().as_deref(), Some("large"));
    world.broker.take("replies").await.refused("failed", "internal_error", 500);
}

#[tokio::test]
async fn direct_replies_to_missing_requesters_delay_no_invite_over_http() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let process = |node: &str| {
        let length = u8::try_from(node.len()).expect("a short name");
        STANDARD.encode([b"\x83Xw", &[length][..], node.as_bytes(), &[0; 12]].concat())
    };
    for n in 0..300 {
        // Not in the broker's form, no process, and a process of a node that does not exist.
        let name = match n % 3 {
            0 => "g1h2AA.x".to_owned(),
            1 => format!("g1h2AA==.{}", STANDARD.encode([n.to_string().as_bytes(), b"k"].concat())),
            _ => format!("{}.AAAA", process(&format!("reply@{n}"))),
        };
        let reply_to = format!("amq.rabbitmq.reply-to.{name}");
        world.broker.publish(Message::bytes("{}").reply_to(&reply_to)).await;
        if n % 50 == 0 {
            let begun = std::time::Instant::now();
            send(gateway.invite(&world)).await.ok();
            assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        }
    }
    for _ in 0..5 {
        send(gateway.invite(&world)).await.ok();
    }
    for _ in 0..100 {
        world.broker.take("replies").await.refused("rejected", "credential_missing", 401);
    }
}

/// The name that the broker gives a requester's direct reply-to.
async fn direct_reply_name(channel: &lapin::Channel, queue: &str) -> String {
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), exclusive, FieldTable::default()).await.expect("a queue");
    let Message { body, properties } = Message::bytes("{}").reply_to("amq.rabbitmq.reply-to");
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), queue.into(), options, &body, properties)
        .await
        .expect("a channel that works");
    until("the message is in its queue", || async {
        let got = channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true })
            .await
            .expect("the queue is there")?;
        got.delivery.properties.reply_to().as_ref().map(ToString::to_string)
    })
    .await
}

/// Names that differ from a real one in one part, and name the same node.
fn mutations(real: &str) -> Vec<String> {
    let prefix = "amq.rabbitmq.reply-to";
    let (process, key) = real[prefix.len() + 1..].split_once('.').expect("two parts");
    let term = STANDARD.decode(process).expect("base64");
    assert_eq!(&term[..4], b"\x83Xv\0", "as RabbitMQ 3.10 writes it");
    let (node, id) = term[5..].split_at(term[4].into());
    let (short, long) = ([term[4]], [0, term[4]]);
    let terms = [
        [b"\x83Xd", &long[..], node, id].concat(),
        [b"\x83Xs", &short[..], node, id].concat(),
        [b"\x83Xw", &short[..], node, id].concat(),
        [b"\x83gd", &long[..], node, &id[..9]].concat(),
        [b"\x83gs", &short[..], node, &id[..9]].concat(),
        [b"\x83gw", &short[..], node, &id[..9]].concat(),
        [b"\x83Xw", &short[..], node, &[0; 12]].concat(),
        [b"\x83Xw", &short[..], node, &[0xff; 12]].concat(),
        [b"\x83Xw", &short[..], node, &id[..11]].concat(),
        [b"\x83Xw", &short[..], node, id, b"\0"].concat(),
        [b"\x83Xw", &short[..], node, &id[..8], &[0xff; 4]].concat(),
    ];
    let mut names: Vec<_> = terms.iter().map(|term| format!("{}.{key}", STANDARD.encode(term))).collect();
    let url_safe = process.replace('+', "-").replace('/', "_");
    names.extend([
        format!("{}.{key}", url_safe.trim_end_matches('=')),
        format!("{}.{key}", process.trim_end_matches('=')),
        format!("{process}.{}", key.trim_end_matches('=')),
        format!("{process}.AAAA"),
        format!("{process}.-_8"),
        format!(
            "{}.{key}",
            STANDARD.encode([&term[..], b"..."].concat()).replace('+', "-").replace('/', "_")
        ),
    ]);
    names.into_iter().map(|name| format!("{prefix}.{name}")).collect()
}

#[tokio::test]
async fn an_invented_name_of_a_real_node_does_not_stop_other_direct_replies() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let connection = connect_broker().await;
    let channel = connection.create_channel().await.unwrap();
    let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let direct = "amq.rabbitmq.reply-to";
    let _replies =
        channel.basic_consume(direct.into(), "".into(), automatic, FieldTable::default()).await.unwrap();
    let real = direct_reply_name(&channel, &format!("{}.mine", world.broker.prefix)).await;
    // From here on the worker knows the node's name.
    send(gateway.invite(&world)).await.ok();
    for (n, made_up) in mutations(&real).iter().enumerate() {
        world.broker.publish(Message::bytes("{}").reply_to(made_up)).await;
        world.broker.publish(Message::json(&world.request_to_number(n)).reply_to(made_up)).await;
        let begun = std::time::Instant::now();
        send(gateway.invite(&world)).await.ok();
        assert!(begun.elapsed().as_secs() < 10, "{made_up}: {:?}", begun.elapsed());
    }
    world.running().idle().await;
    let lost = |line: &String| line.contains("the connection for publishing is lost");
    let lost: Vec<_> = world.log.lines().into_iter().filter(lost).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn dead_letters_without_a_credential_are_limited_and_others_are_not() {
    let world = World::start().await;
    world.expect_error("it is set aside");
    let dropped = world.broker.queue("dropped");
    for n in 0..150 {
        world.broker.publish_to(&dropped, Message::bytes(format!("{n}"))).await;
    }
    for _ in 0..150 {
        world.broker.take("replies").await.refused("failed", "internal_error", 500);
    }
    let set_aside = world.broker.depth(&world.broker.queue("dead")).await.unwrap_or_default();
    assert!((100..150).contains(&set_aside), "{set_aside} dead letters");
    let missing = world.broker.queue("missing");
    for _ in 0..50 {
        world.broker.publish(Message::bytes("{}").reply_to(&missing)).await;
    }
    // A request with a credential is always set aside.
    world.broker.publish_to(&dropped, Message::json(&world.request()).id("known")).await;
    world.broker.take("replies").await.refused("failed", "internal_error", 500);
    let among_the_dead = |header: &'static str, value: &'static str| {
        let world = &world;
        async move {
            until("it is among the dead letters", || async {
                let letter = world.broker.take("dead").await;
                let id = letter.properties.message_id().as_ref().map(ToString::to_string);
                let found = if header.is_empty() { id } else { letter.header(header) };
                found.is_some_and(|found| found.contains(value)).then_some(letter)
            })
            .await
        }
    };
    let dead = among_the_dead("", "known").await;
    assert_eq!(dead.header("x-kind").as_deref(), Some("request"));
    // So is a reply to it whose queue does not exist.
    let known = Message::json(&world.request()).id("known").reply_to(&format!("{missing}.too"));
    world.broker.publish_to(&dropped, known).await;
    let dead = among_the_dead("x-reason", ".missing.too").await;
    assert_eq!(dead.header("x-kind").as_deref(), Some("reply"));
    world.broker.purge("dead").await;
}
