//! The contract's section 12: what was set aside is looked at, replayed and dropped, and none of it is lost.

use crate::support::{Message, Ran, Reply, Setup, World, program, run, until};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// A data error of the database's for one number only.
const REFUSE_ONE: &str = "alter table sessions add constraint never_this_one check (phone <> '+12015550100')";

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A message as the worker sets it aside.
fn set_aside(message: Message, kind: &str, queue: &str, publish_id: &str) -> Message {
    let id = message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    message
        .text_header("x-kind", kind)
        .text_header("x-reason", &format!("a test put it there; the queue is {queue}"))
        .text_header("x-code", "internal_error")
        .header("x-attempts", AMQPValue::LongLongInt(3))
        .text_header("x-first-at", "2026-11-23T20:00:00.5Z")
        .text_header("x-last-at", "2026-11-23T20:05:00Z")
        .text_header("x-queue", queue)
        .text_header("x-publish-id", publish_id)
        .text_header("x-message-id", &id)
}

/// What `dead list` calls it.
fn id_of(publish_id: &str) -> String {
    let hash = Sha256::digest(publish_id);
    format!("{:012x}", hash.iter().take(6).fold(0_u64, |id, byte| id << 8 | u64::from(*byte)))
}

fn uuid() -> String {
    Uuid::new_v4().to_string()
}

impl World {
    /// Puts a request among the dead letters; returns its id.
    async fn dead_request(&self, message: Message) -> String {
        let publish_id = uuid();
        let requests = self.broker.queue("requests");
        self.put_dead(set_aside(message, "request", &requests, &publish_id)).await;
        id_of(&publish_id)
    }

    /// Puts a reply for this queue among the dead letters; returns its id.
    async fn dead_reply(&self, queue: &str) -> String {
        let publish_id = uuid();
        let reply = json!({"status": "sent", "sessionKey": "424242", "invitationText": "Join: http://x/s/tokentoken",
                           "sessionId": Uuid::from_u128(1), "groupid": 72, "smsPhone": "+12015550123"});
        let message = Message::json(&reply).correlation("c-1").content_type("application/json");
        self.put_dead(set_aside(message, "reply", queue, &publish_id)).await;
        id_of(&publish_id)
    }

    async fn put_dead(&self, message: Message) {
        self.broker.publish_to(&self.broker.queue("dead"), message).await;
    }

    fn dead(&self, args: &[&str]) -> Ran {
        self.run(&[&["dead"], args].concat())
    }

    fn listed(&self) -> Vec<Value> {
        self.dead(&["list", "--json"]).json().as_array().expect("an array").clone()
    }

    async fn left(&self) -> u32 {
        self.broker.depth(&self.broker.queue("dead")).await.expect("the queue is there")
    }

    /// Stops the worker, so that what goes to its queue stays there.
    fn stop_worker(&mut self) {
        assert!(self.take_worker().stop().success());
    }
}

fn property(reply: &Reply, name: &str) -> Option<String> {
    let properties = &reply.properties;
    let of = match name {
        "message_id" => properties.message_id(),
        "reply_to" => properties.reply_to(),
        "expiration" => properties.expiration(),
        other => panic!("no property {other}"),
    };
    of.as_ref().map(ToString::to_string)
}

#[tokio::test]
async fn the_list_says_what_is_dead_and_why_and_how_many_there_are() {
    let world = World::start().await;
    let queue = world.broker.queue("dead");
    assert_eq!(world.dead(&["list"]).ok(), format!("{queue} is empty\n"));
    assert_eq!(world.listed(), Vec::<Value>::new());

    let request = world.dead_request(Message::json(&world.request()).id("order-17")).await;
    let reply = world.dead_reply("crm.replies").await;
    // Somebody's own, without a header of ours, and with none that could be decoded as one.
    world.put_dead(Message::bytes(*b"\xff\0{")).await;
    world
        .put_dead(
            Message::bytes("").header("x-kind", AMQPValue::LongInt(7)).text_header("x-attempts", "many"),
        )
        .await;

    let listed = world.listed();
    assert_eq!(listed.len(), 4);
    let first = &listed[0];
    for (name, expected) in [
        ("position", json!(1)),
        ("id", json!(request)),
        ("kind", json!("request")),
        ("code", json!("internal_error")),
        ("attempts", json!(3)),
        ("firstAt", json!("2026-11-23T20:00:00Z")),
        ("lastAt", json!("2026-11-23T20:05:00Z")),
        ("messageId", json!("order-17")),
        ("queue", json!(world.broker.queue("requests"))),
    ] {
        assert_eq!(first[name], expected, "{name}");
    }
    assert!(first["reason"].as_str().unwrap().starts_with("a test put it there"));
    assert_eq!((&listed[1]["kind"], &listed[1]["messageId"]), (&json!("reply"), &Value::Null));
    assert_eq!((&listed[2]["kind"], &listed[2]["attempts"]), (&Value::Null, &Value::Null));
    let ids: Vec<_> = listed.iter().map(|line| line["id"].clone()).collect();
    assert_eq!(ids, world.listed().iter().map(|line| line["id"].clone()).collect::<Vec<_>>());

    let table = world.dead(&["list"]).ok();
    for expected in [request.as_str(), "crm.replies", "order-17", &format!("4 messages in {queue}")] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    let two = world.dead(&["list", "--limit", "2"]).ok();
    assert!(two.contains(&format!("the first 2 of 4 messages in {queue}")), "{two}");
    let replies = world.dead(&["list", "--kind", "reply"]).ok();
    assert!(replies.contains(&reply) && !replies.contains(&request), "{replies}");
    let programs = world.dead(&["list", "--json", "--limit", "1"]);
    assert!(programs.stderr.contains("the first 1 of 4"), "{programs:?}");
    assert_eq!(programs.json().as_array().unwrap().len(), 1);

    // Each can be shown, and none was lost.
    for id in ids {
        world.dead(&["show", id.as_str().unwrap()]).ok();
    }
    assert_eq!(world.left().await, 4);
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let world = World::start().await;
    let credential = world.credential();
    let signature = credential.rsplit('$').next().unwrap().to_owned();
    let ticket = uuid();
    let bodies = [
        json!({"authorization": credential, "groupid": 72, "smsPhone": "201-555-0177"}).to_string(),
        json!({"authorization": [credential], "gssnid": {"is": credential}, "smsPhone": 2_015_550_177_u64})
            .to_string(),
        json!([{"anything": credential}, credential, "2015550177"]).to_string(),
        json!({"Authorization": "x", credential.as_str(): "2015550177"}).to_string(),
        format!("{{\"authorization\": \"{credential}\", \"smsPhone\": \"2015550177\""),
        format!("\u{1b}[2J{credential} 2015550177"),
    ];
    let mut ids = Vec::new();
    for (number, body) in bodies.into_iter().enumerate() {
        let message = Message::bytes(body)
            .id(&format!("id\u{1b}[2J{number}"))
            .text_header(["Authorization", "authorization", "AUTHORIZATION"][number % 3], &credential)
            .text_header("x-gssnid", "joe.1589912963.AAAAAAAAAAAAAAAA")
            .text_header("x-ticket", &ticket)
            .text_header("note", "\u{1b}[2J\u{9b}31m");
        ids.push(world.dead_request(message).await);
    }
    ids.push(world.dead_reply("crm.replies").await);
    for id in &ids {
        for args in [&["show", id][..], &["show", id, "--json"], &["list"], &["list", "--json"]] {
            let ran = world.dead(args);
            for (secret, what) in [
                (signature.as_str(), "a login key"),
                ("AAAAAAAAAAAAAAAA", "a website session"),
                (&ticket, "a ticket"),
                ("5550177", "a phone number"),
                ("555-0177", "a phone number"),
                ("5550123", "a reply's phone number"),
                ("424242", "a session key"),
                ("tokentoken", "a link"),
                ("\u{1b}", "a control character"),
                ("\u{9b}", "a control character"),
            ] {
                assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{what}: {ran:#?}");
            }
            ran.ok();
        }
    }
    let shown = world.dead(&["show", &ids[0], "--json"]).json();
    assert_eq!(shown["body"], json!({"authorization": "[masked]", "groupid": 72, "smsPhone": "[masked]"}));
    assert_eq!(shown["headers"]["Authorization"], "[masked]");
    assert_eq!(shown["headers"]["x-kind"], "request");
    assert_eq!(shown["properties"]["messageId"], "id\u{fffd}[2J0");
    let people = world.dead(&["show", &ids[0]]).ok();
    assert!(people.contains("\"groupid\": 72") && people.contains("header x-kind"), "{people}");
    // Of what is not JSON only the size and a hash.
    let broken = world.dead(&["show", &ids[4], "--json"]).json();
    assert_eq!((&broken["body"], broken["bodySha256"].as_str().map(str::len)), (&Value::Null, Some(64)));
    assert!(world.dead(&["show", &ids[5]]).ok().contains("not JSON, SHA-256 "));
    let reply = world.dead(&["show", ids.last().unwrap(), "--json"]).json();
    assert_eq!(
        (&reply["body"]["status"], &reply["body"]["sessionKey"]),
        (&json!("sent"), &json!("[masked]"))
    );
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_request_that_failed_is_replayed_under_its_own_id_and_texts_once() {
    let world = World::start().await;
    world.database.execute(REFUSE_ONE).await;
    world.expect_error("it is set aside");
    let request = world.request_with(json!({"smsPhone": "201-555-0100"}));
    let message =
        Message::json(&request).id("order-17").correlation("first").timestamp(crate::support::now() - 60);
    world.broker.request(message).await;
    world.broker.reply("first").await.refused("failed", "internal_error", 500);
    let listed = world.listed();
    assert_eq!(
        (listed.len(), &listed[0]["messageId"], &listed[0]["kind"]),
        (1, &json!("order-17"), &json!("request"))
    );
    let id = listed[0]["id"].as_str().unwrap();

    // Not mended: it fails again, is told so, and is among the dead again.
    let replayed = world.dead(&["replay", "--all", "--json"]).json();
    assert_eq!((&replayed["replayed"], &replayed["stayed"]), (&json!(1), &json!(0)));
    world.broker.reply("first").await.refused("failed", "internal_error", 500);
    until("it is back", || async { (world.left().await == 1).then_some(()) }).await;
    let again = world.listed()[0]["id"].as_str().unwrap().to_owned();
    assert_ne!(again, id, "it died anew");
    assert_eq!(world.provider.posts().await, 0);

    world.database.execute("alter table sessions drop constraint never_this_one").await;
    let said = world.dead(&["replay", &again[..6]]).ok();
    assert!(said.starts_with("1 message replayed (1 as requests)"), "{said}");
    world.broker.reply("first").await.sent();
    assert_eq!(world.database.session().await["message_id"], "order-17");
    // A repeat of it gets the same outcome.
    world.ask(Message::json(&request).id("order-17")).await.sent();
    assert_eq!((world.provider.posts().await, world.left().await), (1, 0));
}

#[tokio::test]
async fn a_request_goes_as_it_was_with_a_new_timestamp() {
    let mut world = World::start().await;
    world.stop_worker();
    let message = Message::json(&world.request())
        .id("order-17")
        .correlation("c")
        .reply_to("crm.replies")
        .content_type("application/json")
        .timestamp(1_000)
        .expiration("3600000")
        .text_header("tenant", "a")
        .text_header("x-first-death-queue", "q");
    let body = message.body.clone();
    let id = world.dead_request(message).await;
    world.dead(&["replay", &id]).ok();
    let request = world.broker.take("requests").await;
    assert_eq!(request.bytes, body);
    assert_eq!(property(&request, "message_id").as_deref(), Some("order-17"));
    assert_eq!(property(&request, "reply_to").as_deref(), Some("crm.replies"));
    assert_eq!((request.correlation().as_deref(), property(&request, "expiration")), (Some("c"), None));
    assert!(request.properties.timestamp().unwrap() + 60 > crate::support::now());
    let headers = request.properties.headers().clone().unwrap();
    // The broker adds its count at each delivery.
    let names = headers.inner().keys().map(ToString::to_string).filter(|name| name != "x-delivery-count");
    assert_eq!(names.collect::<Vec<_>>(), ["tenant"]);

    // A copy from a retry queue, as it is.
    let ids = [uuid(), uuid()];
    let copy = Message::bytes("{}").text_header("x-session-id", &ids[0]).text_header("x-ticket", &ids[1]);
    let id = world.dead_request(copy).await;
    world.dead(&["replay", &id]).ok();
    let copy = world.broker.take("requests").await;
    assert_eq!(copy.header("x-first-at").as_deref(), Some("2026-11-23T20:00:00.5Z"), "it goes on counting");
    assert_eq!((copy.bytes.as_slice(), copy.header("x-ticket").as_ref()), (&b"{}"[..], Some(&ids[1])));
    assert_eq!(copy.header("x-session-id").as_ref(), Some(&ids[0]));
}

#[tokio::test]
async fn a_request_that_was_authenticated_goes_on_without_its_credential() {
    let mut world = World::start().await;
    let here = world.broker.reply_queue.clone();
    let named = Message::json(&world.request())
        .id("order-17")
        .correlation("named")
        .timestamp(crate::support::now())
        .text_header("traceparent", TRACE);
    let in_header = world.request_with(json!({"authorization": null, "groupid": null}));
    let anonymous = Message::json(&in_header)
        .correlation("anonymous")
        .text_header("Authorization", &world.credential())
        .header("GroupId", AMQPValue::LongInt(72));
    let mut ids = HashMap::new();
    let again = named.clone();
    for (name, message) in [("named", &named), ("anonymous", &anonymous)] {
        world.broker.request(message.clone()).await;
        let sent = world.broker.reply(name).await.sent();
        ids.insert(name, sent["sessionId"].as_str().unwrap().to_owned());
    }
    world.stop_worker();
    // As if the worker had died with it before its acknowledgement was sure.
    world.database.execute("update sessions set acknowledged = false where message_id is null").await;

    for (name, message) in [("named", named), ("anonymous", anonymous)] {
        let dead = world.dead_request(message.reply_to(&here)).await;
        let would = world.dead(&["replay", "--dry-run", "--all", "--json"]).json();
        assert_eq!(would["messages"][0]["sessionId"], ids[name].as_str(), "{would}");
        let said = world.dead(&["replay", &dead]).ok();
        assert!(said.contains("1 by their sessions"), "{said}");
        let copy = world.broker.take("requests").await;
        assert_eq!(copy.bytes, b"{}");
        assert_eq!(copy.header("x-session-id").as_deref(), Some(ids[name].as_str()));
        let ticket = format!("select ticket::text from sessions where id = '{}'", ids[name]);
        assert_eq!(copy.header("x-ticket"), Some(world.database.value(&ticket).await));
        assert_eq!(copy.correlation().as_deref(), Some(name));
        assert_eq!(property(&copy, "reply_to").as_ref(), Some(&here));
        assert_eq!(property(&copy, "message_id").as_deref(), (name == "named").then_some("order-17"));
        assert!(copy.header("Authorization").is_none());
        assert_eq!(copy.header("traceparent").as_deref(), (name == "named").then_some(TRACE));
        assert!(copy.properties.timestamp().unwrap() + 60 > crate::support::now());
    }

    // A worker takes it for the same invite, though its sender would be refused by now.
    let mut next = world.start_worker().await;
    world.run(&["groups", "disable", "72"]).ok();
    world.dead_request(again.reply_to(&here)).await;
    world.dead(&["replay", "--all"]).ok();
    assert_eq!(world.broker.reply("named").await.sent()["sessionId"], ids["named"].as_str());
    assert_eq!(world.provider.posts().await, 2);
    assert!(next.stop().success());

    // The same message id and another content: nobody was authenticated for that.
    let other = world.request_with(json!({"sessiontype": 2}));
    let dead = world.dead_request(Message::json(&other).id("order-17").reply_to(&here)).await;
    world.dead(&["replay", &dead]).ok();
    assert_eq!(world.broker.take("requests").await.json()["sessiontype"], 2);
}

#[tokio::test]
async fn a_reply_goes_to_its_queue_and_one_that_nobody_takes_stays() {
    let world = World::start().await;
    let gone = world.broker.queue("gone");
    let reserved = world.broker.queue("requests");
    let here = world.broker.reply_queue.clone();
    let (good, bad) = (world.dead_reply(&here).await, world.dead_reply(&gone).await);
    world.dead_reply(&reserved).await;
    world.dead_reply("amq.rabbitmq.reply-to.g1h2AA").await;
    world.put_dead(Message::bytes("who knows")).await;

    let ran = world.dead(&["replay", "--all"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let first = ran.stdout.lines().next().unwrap_or_default();
    assert_eq!(first, format!("1 message replayed (1 as replies); 4 stay in {}", world.broker.queue("dead")));
    assert!(ran.stdout.contains(&format!("{bad}  stays: the queue {gone} is not there")), "{ran:?}");
    assert!(!ran.stdout.contains(&good), "{ran:?}");
    let reply = world.broker.reply("c-1").await;
    assert_eq!(reply.sent()["sessionKey"], "424242");
    assert!(reply.properties.headers().is_none(), "{reply:?}");
    assert_eq!(world.listed().len(), 4);

    // By name, with its fault for programs.
    let ran = world.dead(&["replay", &bad, "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["replayed"], &report["stayed"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&report["messages"][0]["id"], &report["messages"][0]["action"]),
        (&json!(bad), &json!("stay"))
    );
    assert_eq!(world.left().await, 4);
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_reply_whose_queue_was_gone_is_replayed_once_it_is_there() {
    let world = World::start().await;
    let gone = world.broker.queue("gone");
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&gone)).await;
    until("its reply is dead", || async { (world.left().await == 1).then_some(()) }).await;
    let listed = world.listed();
    assert_eq!((&listed[0]["kind"], &listed[0]["queue"]), (&json!("reply"), &json!(gone)));
    assert_eq!(listed[0]["messageId"], Value::Null, "a reply has none");
    world.dead(&["replay", "--all"]).fails(1);

    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    world.broker.channel.queue_declare(gone.as_str().into(), exclusive, FieldTable::default()).await.unwrap();
    world.dead(&["replay", "--all"]).ok();
    let reply = world.broker.take("gone").await;
    reply.sent();
    assert_eq!(reply.correlation().as_deref(), Some("lost"));
    assert_eq!(property(&reply, "message_id"), None);
    assert_eq!(reply.properties.kind().as_ref().map(ToString::to_string).as_deref(), Some("invite.sent"));
    assert_eq!((world.provider.posts().await, world.left().await), (1, 0));
}

#[tokio::test]
async fn a_dry_run_or_a_database_that_is_away_changes_nothing() {
    let mut world = World::start().await;
    world.stop_worker();
    let id = world.dead_request(Message::json(&world.request()).id("order-17")).await;
    let reply = world.dead_reply(&world.broker.reply_queue).await;
    let would = world.dead(&["replay", "--all", "--dry-run"]).ok();
    assert!(would.starts_with("2 messages would be replayed (1 as requests, 1 as replies)"), "{would}");
    for (id, queue) in [(&id, world.broker.queue("requests")), (&reply, world.broker.reply_queue.clone())] {
        assert!(would.contains(&format!("{id}  to {queue}")), "{would}");
    }
    let away = world.environment(&[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")]);
    let complaint = run(&away, &["dead", "replay", "--all"]).fails(1);
    assert!(complaint.contains("the database is away"), "{complaint}");
    assert_eq!((world.left().await, world.broker.depth(&world.broker.queue("requests")).await), (2, Some(0)));
    assert!(world.broker.left().is_empty());

    // The others need no database.
    let without = world.environment(&[("DATABASE_URL", "")]);
    for args in [&["list"][..], &["show", &id], &["drop", &id, &reply]] {
        run(&without, &[&["dead"], args].concat()).ok();
    }
    assert_eq!(world.left().await, 0);
}

#[tokio::test]
async fn all_are_replayed_no_faster_than_asked_and_of_one_kind() {
    let mut world = World::start().await;
    world.stop_worker();
    for number in 0..6 {
        world.dead_request(Message::json(&world.request()).id(&format!("order-{number}"))).await;
        world.dead_reply(&world.broker.reply_queue).await;
    }
    let begun = Instant::now();
    let report = world.dead(&["replay", "--all", "--kind", "request", "--rate", "10", "--json"]).json();
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!((&report["requests"], &report["replies"]), (&json!(6), &json!(0)));
    for number in 0..6 {
        let request = world.broker.take("requests").await;
        assert_eq!(property(&request, "message_id"), Some(format!("order-{number}")), "in their order");
    }
    assert_eq!(world.dead(&["replay", "--all", "--json"]).json()["replies"], 6);
    assert_eq!(world.left().await, 0);
    assert!(world.dead(&["replay", "--all"]).ok().starts_with("0 messages replayed"));
}

#[tokio::test]
async fn a_replay_that_is_stopped_or_killed_leaves_the_rest() {
    let mut world = World::start().await;
    world.stop_worker();
    for number in 0..6 {
        world.dead_request(Message::json(&world.request()).id(&format!("order-{number}"))).await;
    }
    let requests = world.broker.queue("requests");
    for (signal, code, already) in [("INT", Some(1), 0), ("KILL", None, 2)] {
        let mut replay = program(&world.environment(&[]));
        replay.args(["dead", "replay", "--all", "--rate", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let replay = replay.spawn().expect("the program starts");
        let enough = || async { (world.broker.depth(&requests).await? >= already + 2).then_some(()) };
        until("two are replayed", enough).await;
        let kill = format!("kill -{signal} {}", replay.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let ended = replay.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), code);
        if signal == "INT" {
            let said = String::from_utf8(ended.stdout).unwrap();
            assert!(said.starts_with("2 messages replayed"), "{said}");
            assert!(String::from_utf8(ended.stderr).unwrap().contains("stopped by a signal"));
        }
    }
    // Killed between the confirm and the acknowledgement, it would be in both.
    until("all are somewhere", || async {
        (world.left().await + world.broker.depth(&requests).await? >= 6).then_some(())
    })
    .await;
    world.dead(&["drop", "--all", "--yes"]).ok();
    world.broker.purge("requests").await;
}

#[tokio::test]
async fn copies_of_one_publish_are_one_message() {
    let mut world = World::start().await;
    world.stop_worker();
    let requests = world.broker.queue("requests");
    let copy = set_aside(Message::json(&world.request()), "request", &requests, "twice");
    for _ in 0..2 {
        world.put_dead(copy.clone()).await;
    }
    let shown = world.dead(&["show", &id_of("twice"), "--json"]).json();
    assert_eq!(shown["copies"], 2);
    let said = world.dead(&["replay", &id_of("twice")]).ok();
    assert!(said.starts_with("1 message replayed (1 as requests), with a copy of them"), "{said}");
    assert_eq!((world.left().await, world.broker.depth(&requests).await), (0, Some(1)));
    world.broker.purge("requests").await;
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_a_wrong_id_is_told() {
    let world = World::start().await;
    let first = world.dead_request(Message::json(&world.request()).id("a")).await;
    let second = world.dead_request(Message::json(&world.request()).id("b")).await;
    // Two whose ids begin alike.
    let mut seen = HashMap::new();
    let (one, other) = loop {
        let publish_id = uuid();
        if let Some(one) = seen.insert(id_of(&publish_id)[..4].to_owned(), publish_id.clone()) {
            break (one, publish_id);
        }
    };
    for publish_id in [&one, &other] {
        let message = set_aside(Message::json(&json!({})), "reply", "crm.replies", publish_id);
        world.put_dead(message).await;
    }
    let alike = &id_of(&one)[..4];
    for command in ["drop", "replay"] {
        let complaint = world.dead(&[command, &first, "000000000000", alike]).fails(1);
        for expected in ["000000000000", &id_of(&one), &id_of(&other), "nothing was done"] {
            assert!(complaint.contains(expected), "{expected}: {complaint}");
        }
    }
    world.dead(&["show", "000000000000"]).fails(1);
    world.dead(&["show", alike]).fails(1);
    for wrong in [
        &["drop", "--all"][..],
        &["drop"],
        &["drop", "no-hex"],
        &["drop", &first, "--all", "--yes"],
        &["drop", &first, "--kind", "reply"],
        &["replay"],
        &["replay", "--all", "--rate", "0"],
        &["list", "--kind", "letter"],
    ] {
        world.dead(wrong).fails(2);
    }
    assert_eq!(world.left().await, 4);

    let said = world.dead(&["drop", &first.to_uppercase(), &id_of(&one)]).ok();
    assert_eq!(said, format!("2 messages dropped, 2 left in {}\n", world.broker.queue("dead")));
    assert_eq!(world.dead(&["drop", "--all", "--kind", "reply", "--yes", "--json"]).json()["dropped"], 1);
    assert_eq!(world.listed()[0]["id"], second.as_str());
    world.dead(&["drop", "--all", "--yes"]).ok();
    assert_eq!(world.left().await, 0);
}

/// RabbitMQ 4.x throws a message away after 20 deliveries, and each look is one. An older one does where it is told to.
#[tokio::test]
async fn looking_often_loses_nothing() {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let mut limited = FieldTable::default();
    limited.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    limited.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(20));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let queue = world.broker.queue("dead");
    world.broker.channel.queue_declare(queue.as_str().into(), durable, limited).await.unwrap();
    let id = world.dead_request(Message::json(&world.request()).id("order-17")).await;
    world.put_dead(Message::bytes("mine").id("by-hand").text_header("a", "b")).await;
    let mine = world.listed()[1]["id"].clone();
    let gone = world.dead_reply("nobody.takes.this").await;
    for look in 0..30 {
        let args: &[&str] = match look % 3 {
            0 => &["list", "--json"],
            1 => &["show", &id],
            _ => &["replay", &gone],
        };
        let ran = world.dead(args);
        assert_eq!(ran.code, Some(i32::from(args[0] == "replay")), "{ran:?}");
    }
    let mut ids: Vec<_> = world.listed().iter().map(|line| line["id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    let mut expected = vec![json!(id), mine, json!(gone)];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(ids, expected);
    for _ in 0..3 {
        let dead = world.broker.take("dead").await;
        let looks: u32 = dead.header("x-delivery-count").unwrap_or_default().parse().unwrap_or_default();
        assert!(looks < 20, "{looks}");
        if property(&dead, "message_id").as_deref() == Some("order-17") {
            assert_eq!(dead.json()["groupid"], 72);
            assert_eq!(dead.header("x-attempts").as_deref(), Some("3"));
        }
    }
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_told() {
    let world = World::start().await;
    let elsewhere = world.environment(&[("QUEUE_PREFIX", "nobody.has.this")]);
    for args in [&["list"][..], &["show", "0000"], &["replay", "--all"], &["drop", "--all", "--yes"]] {
        let complaint = run(&elsewhere, &[&["dead"], args].concat()).fails(1);
        assert!(complaint.contains("there is no queue nobody.has.this.dead; start a worker"), "{complaint}");
    }
}
