//! `sessions export` and `sessions forget`: what is stored about a phone number, and its end.

use crate::support::{CommandResult, Message, SentReply, Setup, World, connect_broker, run, until};
use lapin::{
    options::BasicGetOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::collections::BTreeMap;

const PHONE: &str = "201-555-0123";
const NEIGHBOUR: &str = "201-555-0124";
/// The queues in which messages stay until somebody takes them.
const LASTING: [&str; 3] = ["dead", "replies", "unreadable"];
const FORGET: [&str; 6] = ["sessions", "forget", "--phone", PHONE, "--rest", "0s"];

impl World {
    fn request_to(&self, phone: &str) -> Value {
        self.request_with(json!({"smsPhone": phone}))
    }

    fn forget(&self, more: &[&str]) -> CommandResult {
        self.run(&[&FORGET, more].concat())
    }

    /// All rows of all tables but the processes, as text.
    async fn rows(&self) -> BTreeMap<String, Vec<String>> {
        let tables = "select table_name::text from information_schema.tables
                       where table_schema = 'public' and table_type = 'BASE TABLE'
                         and table_name not in ('processes', 'database_marker', 'key_uses', 'rate_buckets')";
        let tables: Vec<String> =
            sqlx::query_scalar(tables).fetch_all(&self.database.pool).await.expect("the tables can be read");
        assert!(tables.len() > 10, "{tables:?}");
        let mut rows = BTreeMap::new();
        for table in tables {
            let all = format!("select t::text from \"{table}\" t order by 1");
            let all = sqlx::query_scalar(AssertSqlSafe(all))
                .fetch_all(&self.database.pool)
                .await
                .expect("the tables can be read");
            rows.insert(table, all);
        }
        rows
    }

    /// All messages of all queues, in their order, as text. They return to their queues.
    async fn messages(&self) -> BTreeMap<String, Vec<String>> {
        let mut messages = BTreeMap::new();
        let connection = connect_broker().await;
        for suffix in ["requests", "retry.1s", "retry.5s", "retry.30s", "retry.120s", "dropped", "marker"]
            .iter()
            .chain(&LASTING)
        {
            let channel = connection.create_channel().await.expect("a channel");
            let queue = self.broker.queue(suffix);
            let mut read = Vec::new();
            while let Some(got) = channel
                .basic_get(queue.as_str().into(), BasicGetOptions::default())
                .await
                .expect("the queue exists")
            {
                let headers = got.properties.headers().clone().unwrap_or_default();
                let headers = headers.inner().iter().filter(|(name, _)| !name.as_str().ends_with("-count"));
                let headers: Vec<_> = headers
                    .map(|(name, value)| match value {
                        AMQPValue::LongString(text) => format!("{name}: {text}"),
                        other => format!("{name}: {other:?}"),
                    })
                    .collect();
                let properties = got.properties.clone().with_headers(FieldTable::default());
                read.push(format!("{} {properties:?} {headers:?}", String::from_utf8_lossy(&got.data)));
            }
            if *suffix != "marker" {
                messages.insert((*suffix).to_owned(), read);
            }
            channel.close(200, "done".into()).await.expect("it closes");
        }
        connection.close(200, "done".into()).await.expect("it closes");
        for (suffix, read) in &messages {
            let queue = self.broker.queue(suffix);
            until("the messages are back", || async {
                (self.broker.depth(&queue).await == Some(u32::try_from(read.len()).expect("few messages")))
                    .then_some(())
            })
            .await;
        }
        messages
    }

    /// Messages to both numbers in the queues that keep them, in turn. Some of them no worker wrote.
    async fn fill_queues(&self) {
        let missing = self.broker.queue("missing");
        for phone in [NEIGHBOUR, PHONE, NEIGHBOUR] {
            // Its reply goes to `.replies`, and that of the next one to `.dead`.
            self.publish(Message::json(&self.request_to(phone))).await;
            self.publish(Message::json(&self.request_to(phone)).reply_to(&missing)).await;
        }
        for digits in ["123", "124"] {
            for (queue, message) in [
                ("dead", Message::bytes(format!("{{\"smsPhone\": \"\\u002b1201555{digits:0>4}\"}}"))),
                (
                    "dead",
                    Message::json(&json!({"sessionParams": {"note": format!("call (201) 555-0{digits}")}})),
                ),
                ("dead", Message::bytes("{}").text_header("x-note", &format!("+1 201 555 0{digits}"))),
                ("replies", Message::bytes("{}").correlation(&format!("crm-2015550{digits}"))),
                (
                    "replies",
                    Message::bytes("{}").header(
                        "n",
                        AMQPValue::LongLongInt(format!("12015550{digits}").parse().expect("digits")),
                    ),
                ),
                ("unreadable", Message::bytes(format!("no JSON, but 1.201.555.0{digits}"))),
            ] {
                self.broker.publish_to(&self.broker.queue(queue), message).await;
            }
        }
    }

    async fn empty_queues(&self) {
        for suffix in LASTING {
            self.broker.purge(suffix).await;
        }
    }

    /// The number is forgotten already: another run changes nothing, and no message texts the visitor twice.
    async fn stays_as_it_is(&self, order: Message, sent: &SentReply) {
        let audit = self.rows().await.remove("audit_log").expect("a table");
        // Once more, it finds nothing, and leaves no row in the audit.
        let again = self.forget(&["--yes", "--json"]).json();
        assert_eq!((&again["sessions"], &again["stays"]["optOuts"]), (&json!(0), &json!(1)), "{again}");
        assert_eq!(self.rows().await["audit_log"], audit);

        // The same message again texts nobody, and gets its outcome. A new invite is kept back by the opt-out.
        let posts = self.provider.posts().await;
        let repeated = self.call(order).await.sent();
        assert_eq!((repeated.session_id, repeated.invitation_text.as_str()), (sent.session_id, ""));
        self.invite(&self.request_to(PHONE)).await.refused("rejected", "opted_out", 403);
        assert_eq!(self.provider.posts().await, posts);
        self.run(&["optouts", "remove", PHONE, "--sender", "*"]).ok();
        self.invite(&self.request_to(PHONE)).await.sent();
    }
}

fn has_number(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| !" -.()+".contains(*c)).collect();
    // As PostgreSQL shows bytes.
    let hex = "32303135353530313233";
    [text, &digits].iter().any(|text| text.contains("2015550123") || text.contains(hex))
        || text.contains("u002b12015550123")
}

#[tokio::test]
async fn a_forgotten_number_is_nowhere_and_all_else_stays() {
    let world = Setup::default().short_waits().never_sends_again().start().await;
    // No worker publishes events while this connection holds the lock for it.
    let mut held = PgConnection::connect(&world.database.url).await.unwrap();
    sqlx::raw_sql("select pg_advisory_lock(x'6576656e7473'::bigint)").execute(&mut held).await.unwrap();
    let order = Message::json(&world.request_to(PHONE)).id("order-1");
    let sent = world.call(order.clone()).await.sent();
    world.call(Message::json(&world.request_to(NEIGHBOUR)).id("order-2")).await.sent();
    world.provider.next(&["cut_before"]).await;
    world.invite(&world.request_to(PHONE)).await.refused("failed", "outcome_unknown", 504);
    world.fill_queues().await;
    until("the replies are there", || async {
        let depth = async |suffix| world.broker.depth(&world.broker.queue(suffix)).await;
        (depth("replies").await == Some(7) && depth("dead").await == Some(9)).then_some(())
    })
    .await;
    world.run(&["optouts", "add", PHONE, "--sender", "*"]).ok();
    world.invite(&world.request_to(PHONE)).await.refused("rejected", "opted_out", 403);
    world.broker.until_queues_are_empty_but(&LASTING).await;
    world.database.execute("insert into steps (session_id, kind) select id, 'looked' from sessions").await;
    world.database.until_true("all is acknowledged", "select bool_and(acknowledged) from sessions").await;
    let secrets = [sent.invitation_text.clone(), sent.invitation_text.rsplit('/').next().unwrap().to_owned()];
    let (rows, messages) = (world.rows().await, world.messages().await);
    assert!(rows["sessions"].iter().any(|row| has_number(row)));

    // Live sessions are an error, and without --yes nothing changes.
    let refused = world.forget(&["--yes"]).fails(1);
    assert!(refused.contains(&sent.session_id.to_string()) && refused.contains("--end"), "{refused}");
    let counted = world.forget(&["--json"]).json();
    assert_eq!((&counted["forgotten"], &counted["sessions"]), (&json!(false), &json!(5)), "{counted}");
    assert!(world.forget(&[]).ok().contains("--yes"));
    assert_eq!((world.rows().await, world.messages().await), (rows.clone(), messages.clone()));

    let kept =
        "select count(*) from steps join sessions s on s.id = session_id where s.phone like '%5550123'";
    let steps: i64 = world.database.value(kept).await;
    let done = world.forget(&["--end", "--yes", "--json"]).json();
    let found = |at: usize| done["queues"][at]["found"].clone();
    assert_eq!((found(0), found(1), found(2)), (json!(4), json!(3), json!(1)), "{done}");
    assert_eq!(
        (&done["sessions"], &done["steps"], &done["left"], &done["stays"]["optOuts"]),
        (&json!(5), &json!(steps), &json!(0), &json!(1)),
        "{done}"
    );
    assert!(
        done["stays"]["providerMessageIds"].as_array().unwrap().contains(&json!(sent.provider_message_id))
    );
    assert!(!done.to_string().contains("0123"), "{done}");

    let (rows_after, messages_after) = (world.rows().await, world.messages().await);
    let all = rows_after.values().chain(messages_after.values()).flatten();
    for text in all {
        assert!(!has_number(text), "{text}");
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{text}");
    }
    for (what, before, after) in [("rows", &rows, &rows_after), ("messages", &messages, &messages_after)] {
        for (place, before) in before {
            // The audit grows, and the visitor's sessions and events change.
            let of_others: Vec<_> = before.iter().filter(|text| !is_of_number(text, &rows)).collect();
            let left: Vec<_> = after[place].iter().filter(|text| before.contains(text)).collect();
            assert_eq!(of_others, left, "{what} of others in {place}");
        }
    }
    let audit = world.run(&["audit", "list", "--action", "sessions forget", "--json"]).json();
    assert_eq!(
        (&audit[0]["after"]["state"], &audit[0]["before"]["sessions"], &audit[0]["after"]["sessions"]),
        (&json!("ended"), &json!(5), &json!(0)),
        "{audit}"
    );
    assert!(
        audit[0]["before"]["phone_hash"].as_str().unwrap().len() == 43 && !has_number(&audit.to_string())
    );

    world.stays_as_it_is(order, &sent).await;
    held.close().await.unwrap();
    world.empty_queues().await;
}

/// Whether a row or message is the visitor's, by the number or by the id of a session of theirs.
fn is_of_number(text: &str, rows: &BTreeMap<String, Vec<String>>) -> bool {
    let ids = rows["sessions"].iter().filter(|row| has_number(row)).map(|row| &row[1..37]);
    has_number(text) || ids.into_iter().any(|id| text.contains(id))
}

#[tokio::test]
async fn an_invite_that_is_not_over_is_not_forgotten() {
    let world = World::start().await;
    world.pause().await;
    world.publish(Message::json(&world.request_to(PHONE)).id("order-1")).await;
    world.database.until_true("its row is there", "select count(*) = 1 from sessions").await;
    let refused = world.forget(&["--end", "--yes", "--wait", "1s"]).fails(1);
    assert!(refused.contains("groups resume") && refused.contains("nothing was erased"), "{refused}");
    world.run(&["groups", "resume", "72"]).ok();
    world.database.until_true("it is sent", "select status = 'sent' from sessions").await;

    // A request without a message id that may be delivered again would be a new invite without its row.
    world.database.execute("update sessions set acknowledged = false").await;
    let refused = world.forget(&["--end", "--yes", "--wait", "1s"]).fails(1);
    assert!(refused.contains("may deliver its message again"), "{refused}");
    world.database.execute("update sessions set acknowledged = true").await;

    // A session that changed just now may be needed for a reply.
    let args = ["sessions", "forget", "--phone", PHONE, "--yes", "--wait", "1s"];
    assert!(world.run(&args).fails(1).contains("--rest"));
    assert_eq!(world.forget(&["--yes", "--json"]).json()["sessions"], 1);
    world.empty_queues().await;
    // The copy that waited for the end of the pause.
    world.broker.purge("retry.120s").await;
}

#[tokio::test]
async fn nothing_is_erased_while_the_broker_is_away_unless_only_the_database_is_meant() {
    let world = World::start().await;
    world.invite(&world.request_to(PHONE)).await.sent();
    world.broker.publish_to(&world.broker.queue("dead"), Message::json(&json!({"smsPhone": PHONE}))).await;
    let away = world.environment(&[("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")]);
    let forget = |more: &[&str]| run(&away, &[&FORGET, more].concat());
    let refused = forget(&["--end", "--yes"]).fails(1);
    assert!(refused.contains("is it running where AMQP_URL points?"), "{refused}");
    assert!(
        world
            .database
            .value::<bool>("select status in ('sent', 'delivered') and phone is not null from sessions")
            .await
    );

    let done = forget(&["--end", "--yes", "--database-only"]).ok();
    assert!(done.contains("not searched (--database-only)"), "{done}");
    assert!(world.database.value::<bool>("select phone is null and blanked from sessions").await);
    assert_eq!(world.broker.depth(&world.broker.queue("dead")).await, Some(1));
    world.forget(&["--yes"]).ok();
    assert_eq!(world.broker.depth(&world.broker.queue("dead")).await, Some(0));
}

#[tokio::test]
async fn a_number_in_digits_of_another_script_or_in_utf_16_is_found() {
    let world = World::start().await;
    let arabic = |digits: &str| -> String {
        let digit = |c: char| c.to_digit(10).and_then(|digit| char::from_u32(0x660 + digit)).unwrap_or(c);
        digits.chars().map(digit).collect()
    };
    let utf16 = |text: &str, unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(unit).collect()
    };
    for phone in [PHONE, NEIGHBOUR] {
        let text = format!("{{\"smsPhone\": \"{phone}\"}}");
        for body in [
            json!({"smsPhone": arabic(phone)}).to_string().into_bytes(),
            format!("call {}", arabic(phone)).into_bytes(),
            utf16(&text, u16::to_le_bytes),
            utf16(&text, u16::to_be_bytes),
        ] {
            world.broker.publish_to(&world.broker.queue("dead"), Message::bytes(body)).await;
        }
    }
    let done = world.forget(&["--yes", "--json"]).json();
    assert_eq!((&done["queues"][0]["read"], &done["queues"][0]["found"]), (&json!(8), &json!(4)), "{done}");
    assert_eq!(world.broker.depth(&world.broker.queue("dead")).await, Some(4), "the neighbour's stay");
    world.empty_queues().await;
}

#[tokio::test]
async fn a_number_as_an_integer_of_any_form_or_under_a_name_that_is_not_unicode_is_found() {
    let world = World::start().await;
    let dead = world.broker.queue("dead");
    // Its last digit is zero, so with an exponent it has fewer digits than the number.
    for body in [
        r#"{"smsPhone": 1.201555012e10}"#,
        r#"{"smsPhone": 12015550120.0}"#,
        r#"{"smsPhone": 120155501200E-1}"#,
        r#"{"smsPhone": "call later", "x": {"n": 1.201555012e10}}"#,
        r#"{"groupid": 72, "\ud800": "\u002b12015550120"}"#,
        r#"{"\ud800 +12015550120": 1}"#,
        r#"{"\ud800 \u0032015550120": 1}"#,
        r#"{"note": "201\u00a0555\u00a00120 \ud83d"}"#,
        r#"{"a": 1, "a": 2, "n": "201\/555\/0120"}"#,
        r#"{"cut": "201\u002d555\u002d0120"#,
        r#"{"x": [{"\udc00": ["(201)\t555\t0120"]}]}"#,
        r#"["\uff12\uff10\uff11 555 0120 \ud800"]"#,
        r#"{"a": {"b": 1, "b": "201\u00b7555\u00b70120"}}"#,
        r#"{"smsPhone": 1.201555013e10}"#,
        r#"{"\ud800": "\u002b12015550130"}"#,
    ] {
        world.broker.publish_to(&dead, Message::bytes(body)).await;
    }
    let args = ["sessions", "forget", "--phone", "201-555-0120", "--rest", "0s", "--yes", "--json"];
    let done = world.run(&args).json();
    assert_eq!((&done["queues"][0]["read"], &done["queues"][0]["found"]), (&json!(15), &json!(13)), "{done}");
    assert_eq!(world.broker.depth(&dead).await, Some(2), "those of another number stay");
    world.empty_queues().await;
}

#[tokio::test]
async fn more_rows_than_one_statement_takes_and_a_kill_between_queue_and_database_leave_nothing() {
    let world = World::start().await;
    world.invite(&world.request_to(PHONE)).await.sent();
    let copies = "insert into sessions
         select r.* from (select * from sessions limit 1) s, generate_series(1, 1200) n,
                jsonb_populate_record(null::sessions, to_jsonb(s) || jsonb_build_object('id', gen_random_uuid(),
                    'session_key', null, 'key_held', false, 'status', 'ended', 'ended_at', now(), 'due_at', null,
                    'token', lpad(n::text, 16, 'x'), 'acknowledged', true,
                    'provider_message_id', 'SM' || lpad(n::text, 32, '0'))) r";
    world.database.execute(copies).await;
    world.database.execute("insert into steps (session_id, kind) select id, 'looked' from sessions").await;
    world.database.until_true("all is acknowledged", "select bool_and(acknowledged) from sessions").await;
    world.broker.publish_to(&world.broker.queue("dead"), Message::json(&json!({"smsPhone": PHONE}))).await;

    let dies = world.environment(&[("SESSION_INVITE_FAILPOINT", "messages_dropped:die")]);
    let killed = run(&dies, &[&FORGET[..], &["--end", "--yes"]].concat());
    assert_eq!(killed.code, None, "{killed:?}");
    assert_eq!(world.broker.depth(&world.broker.queue("dead")).await, Some(0));
    let left = "select count(*) from sessions where phone is not null";
    assert_eq!(world.database.value::<i64>(left).await, 1201);

    let done = world.forget(&["--yes", "--json"]).json();
    assert_eq!((&done["sessions"], &done["steps"], &done["left"]), (&json!(1201), &json!(1201), &json!(0)));
    assert_eq!(world.database.value::<i64>(left).await, 0);
    assert_eq!(world.database.value::<i64>("select count(*) from steps").await, 0);
    world.empty_queues().await;
}

#[tokio::test]
async fn a_number_that_is_none_is_wrong_usage() {
    let world = World::start().await;
    for command in ["list", "count", "export", "forget"] {
        let said = world.run(&["sessions", command, "--phone", "nonsense"]).fails(2);
        assert!(said.contains("--phone: ") && !said.contains("nonsense"), "{said}");
    }
    assert!(world.run(&["optouts", "check", "nonsense"]).fails(2).contains("PHONE: "));
}

#[tokio::test]
async fn an_export_has_all_that_is_stored_about_a_number_and_changes_nothing() {
    let world = World::start().await;
    let sent = world.call(Message::json(&world.request_to(PHONE)).id("order-1")).await.sent();
    world.invite(&world.request_to(NEIGHBOUR)).await.sent();
    world.fill_queues().await;
    until("the replies are there", || async {
        (world.broker.depth(&world.broker.queue("dead")).await == Some(9)).then_some(())
    })
    .await;
    world.run(&["optouts", "add", PHONE]).ok();
    world.database.until_outbox_is_empty().await;
    world.database.until_true("all is acknowledged", "select bool_and(acknowledged) from sessions").await;
    let before = (world.rows().await, world.messages().await);
    let export = world.run(&["sessions", "export", "--phone", "+1 201 555 0123", "--json"]).json();
    assert_eq!(export["numbers"], json!(["+12015550123"]));
    let sessions = export["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3, "{export}");
    let first = sessions.iter().find(|row| row["message_id"] == "order-1").unwrap();
    assert_eq!(
        (&first["id"], &first["invitation_text"], &first["ticket"]),
        (&json!(sent.session_id), &json!(sent.invitation_text), &Value::Null)
    );
    assert_eq!(export["optOuts"][0]["sender"], "+15005550006");
    assert_eq!(export["messages"].as_array().unwrap().len(), 8, "{export}");
    assert!(!export.to_string().contains(NEIGHBOUR) && !export.to_string().contains("GKEY"), "{export}");
    let shown = world.run(&["sessions", "export", "--phone", PHONE]).ok();
    assert!(shown.contains(&sent.session_id.to_string()) && shown.contains("--json"), "{shown}");
    assert_eq!((world.rows().await, world.messages().await), before);
    world.empty_queues().await;
}
