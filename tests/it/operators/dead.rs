//! The contract's section 12: `dead` lists, shows, replays and drops dead letters, and loses none.

use crate::support::{
    CommandResult, Message, Reply, Setup, Tunnel, World, broker_server, connect_broker, now, program, run,
    until,
};
use futures::future::join_all;
use lapin::{
    options::{BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    ops::Range,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Makes the database refuse one phone number.
const REFUSE_ONE: &str = "alter table sessions add constraint never_this_one check (phone <> '+12015550100')";

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A message as the worker sets it aside.
pub fn set_aside(message: Message, kind: &str, queue: &str, publish_id: &str) -> Message {
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

/// The same message as if it was set aside at another time, for another reason.
fn because(message: Message, code: &str, reason: &str, last_at: &str) -> Message {
    message.text_header("x-code", code).text_header("x-reason", reason).text_header("x-last-at", last_at)
}

/// The id in `dead list`.
pub fn id_of(publish_id: &str) -> String {
    let hash = Sha256::digest(publish_id);
    format!("{:012x}", hash.iter().take(6).fold(0_u64, |id, byte| id << 8 | u64::from(*byte)))
}

fn uuid() -> String {
    Uuid::new_v4().to_string()
}

impl World {
    /// Puts a request among the dead letters; returns its id.
    pub async fn dead_request(&self, message: Message) -> String {
        let publish_id = uuid();
        let requests = self.broker.queue("requests");
        self.put_dead(set_aside(message, "request", &requests, &publish_id)).await;
        id_of(&publish_id)
    }

    /// Puts a reply for this queue among the dead letters; returns its id.
    async fn dead_reply(&self, queue: &str) -> String {
        let publish_id = uuid();
        let reply = json!({"status": "sent", "sessionKey": "424242", "invitationText": "Join: http://x/s/tokentoken",
                           "sessionId": Uuid::from_u128(1), "groupid": 72, "smsPhone": "+12015550123",
                           "expiresAt": "2026-11-23T20:10:00Z", "providerMessageId": "SM1"});
        let message = Message::json(&reply).correlation("c-1").content_type("application/json");
        self.put_dead(set_aside(message, "reply", queue, &publish_id)).await;
        id_of(&publish_id)
    }

    pub async fn put_dead(&self, message: Message) {
        self.broker.publish_to(&self.broker.queue("dead"), message).await;
    }

    /// Requests among the dead letters, whose publish ids are these numbers, in their order.
    pub async fn put_many_dead(&self, numbers: Range<u32>) {
        let requests = self.broker.queue("requests");
        let letter = |n: u32| {
            let request = Message::json(&json!({"groupid": "72"})).id(&format!("order-{n}"));
            set_aside(request, "request", &requests, &n.to_string())
        };
        // The broker confirms those of one batch together.
        let mut numbers = numbers;
        loop {
            let batch: Vec<_> = numbers.by_ref().take(500).collect();
            if batch.is_empty() {
                return;
            }
            join_all(batch.into_iter().map(|n| self.put_dead(letter(n)))).await;
        }
    }

    fn dead(&self, args: &[&str]) -> CommandResult {
        self.run(&[&["dead"], args].concat())
    }

    fn list_dead(&self) -> Vec<Value> {
        self.dead(&["list", "--json"]).json().as_array().expect("an array").clone()
    }

    pub async fn count_dead(&self) -> u32 {
        self.broker.depth(&self.broker.queue("dead")).await.expect("the queue is there")
    }
}

fn property(reply: &Reply, name: &str) -> Option<String> {
    let properties = &reply.properties;
    let of = match name {
        "reply_to" => properties.reply_to(),
        "expiration" => properties.expiration(),
        other => panic!("no property {other}"),
    };
    of.as_ref().map(ToString::to_string)
}

#[tokio::test]
async fn the_list_has_each_dead_letter_its_reason_and_their_count() {
    let world = World::start().await;
    let queue = world.broker.queue("dead");
    assert_eq!(world.dead(&["list"]).ok(), format!("{queue} is empty\n"));
    assert_eq!(world.list_dead(), Vec::<Value>::new());

    let request = world.dead_request(Message::json(&world.request()).id("order-17")).await;
    let reply = world.dead_reply("crm.replies").await;
    // Two messages of another program: without the worker's headers, and with unexpected values in them.
    world.put_dead(Message::bytes(*b"\xff\0{")).await;
    world
        .put_dead(
            Message::bytes("").header("x-kind", AMQPValue::LongInt(7)).text_header("x-attempts", "many"),
        )
        .await;

    let listed = world.list_dead();
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
    assert_eq!(ids, world.list_dead().iter().map(|line| line["id"].clone()).collect::<Vec<_>>());

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

    // Each can be shown, and none is lost.
    for id in ids {
        world.dead(&["show", id.as_str().unwrap()]).ok();
    }
    assert_eq!(world.count_dead().await, 4);
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn no_output_has_a_secret_or_a_phone_number() {
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
    assert_eq!(shown["properties"]["messageId"], "id\\u{1b}[2J0");
    let people = world.dead(&["show", &ids[0]]).ok();
    assert!(people.contains("\"groupid\": 72") && people.contains("header x-kind"), "{people}");
    // Of a body that is not JSON, only the size and a hash are shown.
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
async fn a_failed_request_is_replayed_under_its_own_message_id_and_texted_once() {
    let world = World::start().await;
    world.database.execute(REFUSE_ONE).await;
    world.expect_error("it is set aside");
    let request = world.request_with(json!({"smsPhone": "201-555-0100"}));
    let message = Message::json(&request).id("order-17").correlation("first").timestamp(now() - 60);
    world.broker.request(message).await;
    world.broker.reply("first").await.refused("failed", "internal_error", 500);
    let listed = world.list_dead();
    assert_eq!(
        (listed.len(), &listed[0]["messageId"], &listed[0]["kind"]),
        (1, &json!("order-17"), &json!("request"))
    );
    let id = listed[0]["id"].as_str().unwrap();

    // Without a repair it fails again, is answered, and is a dead letter again.
    let replayed = world.dead(&["replay", "--all", "--json"]).json();
    assert_eq!((&replayed["replayed"], &replayed["stayed"]), (&json!(1), &json!(0)));
    world.broker.reply("first").await.refused("failed", "internal_error", 500);
    until("it is a dead letter again", || async { (world.count_dead().await == 1).then_some(()) }).await;
    let again = world.list_dead()[0]["id"].as_str().unwrap().to_owned();
    assert_ne!(again, id, "it is a new dead letter");
    assert_eq!(world.provider.posts().await, 0);

    world.database.execute("alter table sessions drop constraint never_this_one").await;
    let report = world.dead(&["replay", &again[..6]]).ok();
    assert!(report.starts_with("1 message replayed (1 as requests)"), "{report}");
    world.broker.reply("first").await.sent();
    assert_eq!(world.database.session().await.message_id.as_deref(), Some("order-17"));
    // A repeat of it gets the same outcome.
    world.call(Message::json(&request).id("order-17")).await.sent();
    assert_eq!((world.provider.posts().await, world.count_dead().await), (1, 0));
}

#[tokio::test]
async fn a_replayed_request_is_unchanged_but_for_a_new_timestamp() {
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
    assert_eq!(request.message_id().as_deref(), Some("order-17"));
    assert_eq!(property(&request, "reply_to").as_deref(), Some("crm.replies"));
    assert_eq!((request.correlation().as_deref(), property(&request, "expiration")), (Some("c"), None));
    assert!(request.properties.timestamp().unwrap() + 60 > now());
    let headers = request.properties.headers().clone().unwrap();
    // The broker counts deliveries in a header.
    let names = headers.inner().keys().map(ToString::to_string).filter(|name| name != "x-delivery-count");
    assert_eq!(names.collect::<Vec<_>>(), ["tenant"]);

    // A copy from a retry queue is replayed unchanged.
    let ids = [uuid(), uuid()];
    let copy = Message::bytes("{}").text_header("x-session-id", &ids[0]).text_header("x-ticket", &ids[1]);
    let id = world.dead_request(copy).await;
    world.dead(&["replay", &id]).ok();
    let copy = world.broker.take("requests").await;
    assert_eq!(copy.header("x-first-at").as_deref(), Some("2026-11-23T20:00:00.5Z"), "its age still counts");
    assert_eq!((copy.bytes.as_slice(), copy.header("x-ticket").as_ref()), (&b"{}"[..], Some(&ids[1])));
    assert_eq!(copy.header("x-session-id").as_ref(), Some(&ids[0]));
}

#[tokio::test]
async fn an_authenticated_request_is_replayed_without_its_credential() {
    let mut world = World::start().await;
    let here = world.broker.reply_queue.clone();
    let named = Message::json(&world.request())
        .id("order-17")
        .correlation("named")
        .timestamp(now())
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
        ids.insert(name, sent.session_id.to_string());
    }
    world.stop_worker();
    // The state after a worker that died before its acknowledgement was recorded.
    world.database.execute("update sessions set acknowledged = false where message_id is null").await;

    for (name, message) in [("named", named), ("anonymous", anonymous)] {
        let dead = world.dead_request(message.reply_to(&here)).await;
        let plan = world.dead(&["replay", "--dry-run", "--all", "--json"]).json();
        assert_eq!(plan["messages"][0]["sessionId"], ids[name].as_str(), "{plan}");
        let report = world.dead(&["replay", &dead]).ok();
        assert!(report.contains("1 by their sessions"), "{report}");
        let copy = world.broker.take("requests").await;
        assert_eq!(copy.bytes, b"{}");
        assert_eq!(copy.header("x-session-id").as_deref(), Some(ids[name].as_str()));
        let ticket = format!("select ticket::text from sessions where id = '{}'", ids[name]);
        assert_eq!(copy.header("x-ticket"), Some(world.database.value(&ticket).await));
        assert_eq!(copy.correlation().as_deref(), Some(name));
        assert_eq!(property(&copy, "reply_to").as_ref(), Some(&here));
        assert_eq!(copy.message_id().as_deref(), (name == "named").then_some("order-17"));
        assert!(copy.header("Authorization").is_none());
        assert_eq!(copy.header("traceparent").as_deref(), (name == "named").then_some(TRACE));
        assert!(copy.properties.timestamp().unwrap() + 60 > now());
    }

    // A worker continues the same invite, although its group is disabled by now.
    let mut next = world.start_worker().await;
    world.run(&["groups", "disable", "72"]).ok();
    world.dead_request(again.reply_to(&here)).await;
    world.dead(&["replay", "--all"]).ok();
    assert_eq!(world.broker.reply("named").await.sent().session_id.to_string(), ids["named"]);
    assert_eq!(world.provider.posts().await, 2);
    assert!(next.stop().success());

    // The same message_id with another content was not authenticated, so it keeps its credential.
    let other = world.request_with(json!({"sessiontype": 2}));
    let dead = world.dead_request(Message::json(&other).id("order-17").reply_to(&here)).await;
    world.dead(&["replay", &dead]).ok();
    assert_eq!(world.broker.take("requests").await.json()["sessiontype"], 2);
}

#[tokio::test]
async fn a_reply_is_replayed_to_its_queue_and_stays_if_the_queue_cannot_take_it() {
    let world = World::start().await;
    let missing = world.broker.queue("missing");
    let reserved = world.broker.queue("requests");
    let here = world.broker.reply_queue.clone();
    let (good, bad) = (world.dead_reply(&here).await, world.dead_reply(&missing).await);
    world.dead_reply(&reserved).await;
    world.dead_reply("amq.rabbitmq.reply-to.g1h2AA").await;
    world.put_dead(Message::bytes("of another program")).await;

    let ran = world.dead(&["replay", "--all"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let first = ran.stdout.lines().next().unwrap_or_default();
    assert_eq!(first, format!("1 message replayed (1 as replies); 4 stay in {}", world.broker.queue("dead")));
    assert!(ran.stdout.contains(&format!("{bad}  stays: the queue {missing} is not there")), "{ran:?}");
    assert!(!ran.stdout.contains(&good), "{ran:?}");
    let reply = world.broker.reply("c-1").await;
    assert_eq!(reply.sent().session_key, "424242");
    assert!(reply.properties.headers().is_none(), "{reply:?}");
    assert_eq!(world.list_dead().len(), 4);

    // By id, with JSON output.
    let ran = world.dead(&["replay", &bad, "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["replayed"], &report["stayed"]), (&json!(0), &json!(1)));
    assert_eq!(
        (&report["messages"][0]["id"], &report["messages"][0]["action"]),
        (&json!(bad), &json!("stay"))
    );
    assert_eq!(world.count_dead().await, 4);
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_reply_whose_queue_did_not_exist_is_replayed_once_it_does() {
    let world = World::start().await;
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).correlation("lost").reply_to(&missing)).await;
    until("its reply is a dead letter", || async { (world.count_dead().await == 1).then_some(()) }).await;
    let listed = world.list_dead();
    assert_eq!((&listed[0]["kind"], &listed[0]["queue"]), (&json!("reply"), &json!(missing)));
    assert_eq!(listed[0]["messageId"], Value::Null, "a reply has no message_id");
    world.dead(&["replay", "--all"]).fails(1);

    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    world
        .broker
        .channel
        .queue_declare(missing.as_str().into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    world.dead(&["replay", "--all"]).ok();
    let reply = world.broker.take("missing").await;
    reply.sent();
    assert_eq!(reply.correlation().as_deref(), Some("lost"));
    assert_eq!(reply.message_id(), None);
    assert_eq!(reply.properties.kind().as_ref().map(ToString::to_string).as_deref(), Some("invite.sent"));
    assert_eq!((world.provider.posts().await, world.count_dead().await), (1, 0));
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_neither_does_a_replay_without_the_database() {
    let mut world = World::start().await;
    world.stop_worker();
    let id = world.dead_request(Message::json(&world.request()).id("order-17")).await;
    let reply = world.dead_reply(&world.broker.reply_queue).await;
    let plan = world.dead(&["replay", "--all", "--dry-run"]).ok();
    assert!(plan.starts_with("2 messages would be replayed (1 as requests, 1 as replies)"), "{plan}");
    for (id, queue) in [(&id, world.broker.queue("requests")), (&reply, world.broker.reply_queue.clone())] {
        assert!(plan.contains(&format!("{id}  to {queue}")), "{plan}");
    }
    let unreachable = world.environment(&[("DATABASE_URL", "postgres://user@127.0.0.1:1/none")]);
    let complaint = run(&unreachable, &["dead", "replay", "--all"]).fails(1);
    assert!(complaint.contains("the database is away"), "{complaint}");
    assert_eq!(
        (world.count_dead().await, world.broker.depth(&world.broker.queue("requests")).await),
        (2, Some(0))
    );
    assert!(world.broker.replies_left().is_empty());

    // To look needs no database. To drop needs it, for the audit.
    let without = world.environment(&[("DATABASE_URL", "")]);
    for args in [&["list"][..], &["show", &id]] {
        run(&without, &[&["dead"], args].concat()).ok();
    }
    run(&without, &["dead", "drop", &id, &reply]).fails(2);
    run(&unreachable, &["dead", "drop", &id, &reply]).fails(1);
    assert_eq!(world.count_dead().await, 2);
    world.dead(&["drop", &id, &reply]).ok();
    assert_eq!(world.count_dead().await, 0);
}

#[tokio::test]
async fn a_replay_of_all_keeps_to_its_rate_and_its_kind() {
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
        assert_eq!(request.message_id(), Some(format!("order-{number}")), "in their order");
    }
    assert_eq!(world.dead(&["replay", "--all", "--json"]).json()["replies"], 6);
    assert_eq!(world.count_dead().await, 0);
    assert!(world.dead(&["replay", "--all"]).ok().starts_with("0 messages replayed"));
}

/// Sets requests of two groups aside: `72-bug`, `73-bug`, `72-full` and `72-old`, in this order.
async fn set_four_aside(world: &World) {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).expect("a time");
    for (id, group, code, reason, last_at) in [
        ("72-bug", 72, "internal_error", "a bug (Statement 7)", now.as_str()),
        ("73-bug", 73, "internal_error", "a bug (Statement 7)", &now),
        ("72-full", 72, "provider_unavailable", "the queue is full", &now),
        ("72-old", 72, "internal_error", "a bug (Statement 7)", "2026-11-01T00:00:00Z"),
    ] {
        let request = Message::json(&world.request_with(json!({"groupid": group}))).id(id);
        let requests = world.broker.queue("requests");
        world.put_dead(because(set_aside(request, "request", &requests, id), code, reason, last_at)).await;
    }
}

/// The message ids of the dead letters that these arguments select, in their order.
fn selected(world: &World, args: &[&str]) -> Vec<String> {
    let listed = world.dead(&[&["list", "--json"], args].concat()).json();
    let id = |row: &Value| row["messageId"].as_str().expect("a message id").to_owned();
    listed.as_array().expect("a listing").iter().map(id).collect()
}

#[tokio::test]
async fn dead_letters_are_selected_by_group_code_reason_and_time() {
    let mut world = World::start().await;
    world.stop_worker();
    set_four_aside(&world).await;
    for (args, expected) in [
        (&["--group", "72"][..], &["72-bug", "72-full", "72-old"][..]),
        (&["--group", "74"], &[]),
        (&["--code", "internal_error"], &["72-bug", "73-bug", "72-old"]),
        (&["--reason", "STATEMENT 7"], &["72-bug", "73-bug", "72-old"]),
        (&["--since", "2h"], &["72-bug", "73-bug", "72-full"]),
        (
            &["--since", "2026-11-01T00:00:00Z", "--kind", "request"],
            &["72-bug", "73-bug", "72-full", "72-old"],
        ),
        (&["--group", "72", "--code", "internal_error", "--reason", "bug", "--since", "1h"], &["72-bug"]),
    ] {
        assert_eq!(selected(&world, args), expected, "{args:?}");
    }
    let said = world.dead(&["list", "--group", "73"]).ok();
    assert!(
        said.contains(&format!("1 that match, of 4 messages in {}", world.broker.queue("dead"))),
        "{said}"
    );

    let summary = world.dead(&["summary", "--json"]).json();
    assert_eq!((&summary["waiting"], &summary["messages"]), (&json!(4), &json!(4)));
    let causes: Vec<_> = summary["causes"].as_array().unwrap().iter().collect();
    let counts: Vec<_> =
        causes.iter().map(|cause| (&cause["messages"], &cause["group"], &cause["code"])).collect();
    let (bug, full) = (json!("internal_error"), json!("provider_unavailable"));
    assert_eq!(
        counts,
        [(&json!(2), &json!(72), &bug), (&json!(1), &json!(72), &full), (&json!(1), &json!(73), &bug)]
    );
    assert_eq!(causes[0]["firstAt"], "2026-11-01T00:00:00Z");
    let of_one = world.dead(&["summary", "--group", "73"]).ok();
    assert!(
        of_one.contains("a bug (Statement 7)") && of_one.contains("1 that match, of 4 messages"),
        "{of_one}"
    );
    assert_eq!(selected(&world, &[]).len(), 4, "a summary takes nothing out");
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_replay_by_filters_leaves_what_does_not_match_in_its_order() {
    let mut world = World::start().await;
    world.stop_worker();
    set_four_aside(&world).await;
    let plan = world.dead(&["replay", "--group", "72", "--dry-run", "--json"]).json();
    assert_eq!((&plan["replayed"], selected(&world, &[]).len()), (&json!(3), 4));
    let report = world
        .dead(&["replay", "--group", "72", "--code", "internal_error", "--since", "1h", "--json"])
        .json();
    assert_eq!(report["replayed"], 1);
    assert_eq!(world.broker.take("requests").await.message_id().as_deref(), Some("72-bug"));
    assert_eq!(selected(&world, &[]), ["73-bug", "72-full", "72-old"]);

    world.dead(&["drop", "--reason", "full"]).fails(2);
    world.dead(&["drop", "--reason", "full", "--yes"]).ok();
    assert_eq!(selected(&world, &[]), ["73-bug", "72-old"]);
    world.dead(&["replay", "--group", "72", "some", "id"]).fails(2);
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_replay_by_filters_that_is_killed_loses_no_message_of_either_kind() {
    let mut world = World::start().await;
    world.stop_worker();
    let requests = world.broker.queue("requests");
    for number in 0..12 {
        let group = 72 + number % 2;
        let request = Message::json(&world.request_with(json!({"groupid": group})));
        world.dead_request(request.id(&format!("{group}-{number}"))).await;
    }
    let mut replay = program(&world.environment(&[]));
    replay
        .args(["dead", "replay", "--group", "72", "--rate", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut replay = replay.spawn().expect("the program starts");
    let enough = || async { (world.broker.depth(&requests).await? >= 2).then_some(()) };
    until("two are replayed", enough).await;
    replay.kill().expect("the command takes SIGKILL");
    replay.wait().expect("it ends");

    // One message may be in both queues, if the kill came between the confirm and the acknowledgement.
    until("each is in one of the queues", || async {
        (world.count_dead().await + world.broker.depth(&requests).await? >= 12).then_some(())
    })
    .await;
    let others: Vec<_> =
        (0..12).filter(|number| number % 2 == 1).map(|number| format!("73-{number}")).collect();
    assert_eq!(selected(&world, &["--group", "73"]), others, "they stay, in their order");
    world.dead(&["replay", "--group", "72"]).ok();
    assert_eq!(selected(&world, &[]), others);
    world.broker.purge("dead").await;
    world.broker.purge("requests").await;
}

#[tokio::test]
async fn the_worker_writes_the_group_of_requests_replies_and_retry_copies() {
    let world = World::start().await;
    let missing = world.broker.queue("missing");
    // Neither reply has the group in its body.
    let refused = world.request_with(json!({"smsPhone": "12", "groupid": null}));
    let refused =
        Message::json(&refused).text_header("groupid", "72").correlation("refused").reply_to(&missing);
    world.publish(refused).await;
    until("its reply is a dead letter", || async { (world.count_dead().await == 1).then_some(()) }).await;
    let listed = world.list_dead();
    assert_eq!((&listed[0]["kind"], &listed[0]["group"]), (&json!("reply"), &json!(72)));

    world.provider.set(json!({"next": ["throttle"], "retry_after": 30})).await;
    world.broker.request(Message::json(&world.request()).correlation("waits")).await;
    let copy = world.broker.take("retry.30s").await;
    assert_eq!(copy.header("groupid").as_deref(), Some("72"));
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_replay_that_is_stopped_or_killed_loses_no_message() {
    let mut world = World::start().await;
    world.stop_worker();
    for number in 0..30 {
        world.dead_request(Message::json(&world.request()).id(&format!("order-{number}"))).await;
    }
    let requests = world.broker.queue("requests");
    let mut already = 0;
    for (signal, code) in [("INT", Some(1)), ("KILL", None)] {
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
            let report = String::from_utf8(ended.stdout).unwrap();
            already = world.broker.depth(&requests).await.expect("the queue is there");
            assert!(already < 30 && report.starts_with(&format!("{already} messages replayed")), "{report}");
            assert!(String::from_utf8(ended.stderr).unwrap().contains("stopped by a signal"));
        }
    }
    // A message may be in both queues, if the kill came between the confirm and the acknowledgement.
    until("each is in one of the queues", || async {
        (world.count_dead().await + world.broker.depth(&requests).await? >= 30).then_some(())
    })
    .await;
    world.dead(&["drop", "--all", "--yes"]).ok();
    world.broker.purge("requests").await;
}

#[tokio::test]
async fn a_replay_whose_letter_could_not_be_removed_says_that_it_was_published() {
    let mut world = World::start().await;
    world.stop_worker();
    let id = world.dead_request(Message::json(&world.request()).id("order-17")).await;
    let tunnel = Tunnel::opened(&broker_server());
    tunnel.cut_before_confirm();
    let environment = world.environment(&[("AMQP_URL", &tunnel.url)]);
    let replayed = run(&environment, &["dead", "replay", &id]);
    let report = replayed.stdout.clone();
    assert!(replayed.fails(1).contains("the broker is away"), "{report}");
    assert!(report.starts_with("1 message replayed (1 as requests)\n"), "{report}");
    assert!(
        report.contains("stays: it was published") && report.contains("do not replay it again"),
        "{report}"
    );
    let published = world.broker.take("requests").await;
    assert_eq!(published.properties.message_id().as_ref().map(ShortString::as_str), Some("order-17"));
    until("the letter is back", || async { (world.count_dead().await == 1).then_some(()) }).await;
    let audit: Value = world.run(&["audit", "list", "--json"]).json();
    assert!(audit.to_string().contains(&id), "{audit}");
    world.dead(&["drop", &id]).ok();
}

#[tokio::test]
async fn copies_of_one_publish_are_one_dead_letter() {
    let mut world = World::start().await;
    world.stop_worker();
    let requests = world.broker.queue("requests");
    let copy = set_aside(Message::json(&world.request()), "request", &requests, "twice");
    for _ in 0..2 {
        world.put_dead(copy.clone()).await;
    }
    let shown = world.dead(&["show", &id_of("twice"), "--json"]).json();
    assert_eq!(shown["copies"], 2);
    let report = world.dead(&["replay", &id_of("twice")]).ok();
    assert!(report.starts_with("1 message replayed (1 as requests), with a copy of them"), "{report}");
    assert_eq!((world.count_dead().await, world.broker.depth(&requests).await), (0, Some(1)));
    world.broker.purge("requests").await;
}

#[tokio::test]
async fn drop_deletes_only_what_is_named_and_a_wrong_id_is_reported() {
    let world = World::start().await;
    let first = world.dead_request(Message::json(&world.request()).id("a")).await;
    let second = world.dead_request(Message::json(&world.request()).id("b")).await;
    // Two dead letters whose ids have the same start.
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
    assert_eq!(world.count_dead().await, 4);

    let report = world.dead(&["drop", &first.to_uppercase(), &id_of(&one)]).ok();
    assert_eq!(report, format!("2 messages dropped, 2 left in {}\n", world.broker.queue("dead")));
    assert_eq!(world.dead(&["drop", "--all", "--kind", "reply", "--yes", "--json"]).json()["dropped"], 1);
    assert_eq!(world.list_dead()[0]["id"], second.as_str());
    world.dead(&["drop", "--all", "--yes"]).ok();
    assert_eq!(world.count_dead().await, 0);
}

/// RabbitMQ 4 drops a message after 20 deliveries, and each `dead list` is one. An older RabbitMQ does so with this limit.
#[tokio::test]
async fn listing_and_showing_often_loses_no_message() {
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
    let mine = world.list_dead()[1]["id"].clone();
    let reply = world.dead_reply("no.such.queue").await;
    for n in 0..30 {
        let args: &[&str] = match n % 3 {
            0 => &["list", "--json"],
            1 => &["show", &id],
            _ => &["replay", &reply],
        };
        let ran = world.dead(args);
        assert_eq!(ran.code, Some(i32::from(args[0] == "replay")), "{ran:?}");
    }
    let mut ids: Vec<_> = world.list_dead().iter().map(|line| line["id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    let mut expected = vec![json!(id), mine, json!(reply)];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(ids, expected);
    for _ in 0..3 {
        let dead = world.broker.take("dead").await;
        let deliveries: u32 = dead.header("x-delivery-count").unwrap_or_default().parse().unwrap_or_default();
        assert!(deliveries < 20, "{deliveries}");
        if dead.message_id().as_deref() == Some("order-17") {
            assert_eq!(dead.json()["groupid"], 72);
            assert_eq!(dead.header("x-attempts").as_deref(), Some("3"));
        }
    }
}

#[tokio::test]
async fn more_letters_than_are_fetched_together_keep_their_order_and_some_may_be_held_by_others() {
    const MANY: u32 = 98;
    let world = World::start().await;
    world.put_many_dead(0..MANY).await;
    let all: Vec<_> = (0..MANY).map(|n| id_of(&n.to_string())).collect();
    let listed = || {
        let limit = MANY.to_string();
        let rows = world.dead(&["list", "--json", "--limit", &limit]).json();
        let rows = rows.as_array().expect("rows").clone();
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    world.dead(&["summary"]).ok();
    assert_eq!(listed(), all);
    // One that is far back is found and taken out.
    world.dead(&["drop", &all[70], "--yes"]).ok();
    let others: Vec<_> = all.iter().filter(|id| **id != all[70]).cloned().collect();
    let mut found = listed();
    found.sort_unstable();
    let mut left = others.clone();
    left.sort_unstable();
    assert_eq!(found, left);

    // What another client holds is not waited for, and is there again once it leaves.
    let connection = connect_broker().await;
    let channel = connection.create_channel().await.expect("a channel");
    for _ in 0..40 {
        let options = BasicGetOptions::default();
        channel
            .basic_get(world.broker.queue("dead").into(), options)
            .await
            .expect("a get")
            .expect("a letter");
    }
    assert_eq!(listed().len(), others.len() - 40);
    let summary = world.dead(&["summary", "--json"]).json();
    assert_eq!(summary["messages"], MANY - 1 - 40, "{summary}");
    connection.close(200, "done".into()).await.expect("a close");
    until("the letters are back", || async { (world.count_dead().await == MANY - 1).then_some(()) }).await;
    assert_eq!(listed().len(), others.len());
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_missing_dead_letter_queue_is_reported() {
    let world = World::start().await;
    let elsewhere = world.environment(&[("QUEUE_PREFIX", "no.such.prefix")]);
    for args in [&["list"][..], &["show", "0000"], &["replay", "--all"], &["drop", "--all", "--yes"]] {
        let complaint = run(&elsewhere, &[&["dead"], args].concat()).fails(1);
        assert!(complaint.contains("there is no queue no.such.prefix.dead; start a worker"), "{complaint}");
    }
}
