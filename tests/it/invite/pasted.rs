//! Invisible characters, quotes and white space that were pasted with a value: ignored where the contract says so, else
//! refused with a message that names them.

use crate::support::{
    Answer, Gateway, INBOUND, Message, SMS_INVITE, SessionStatus, Setup, World, http_invite, send,
    status_path, text_from, webhook, webhook_signed, with_gateway,
};
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use sms_provider::signature::sign;

const FROM_NUMBER: &str = "+15005550006";

#[tokio::test]
async fn a_phone_number_is_read_with_what_was_pasted_around_it() {
    let world = World::start().await;
    for pasted in [
        "\u{202d}+1 (415) 555-2671\u{202c}",
        "\u{2068}(415) 555-2671\u{2069}",
        "\u{feff}41\u{200b}5-555-\u{ad}2671\u{200f}",
        "\u{3000}\t415-555-2671\u{2029}\r\n",
        "\"415-555-2671\"",
        "\u{200e}\u{201c} (415) 555-2671 \u{201d}\u{200e}",
        "'+14155552671'",
        "<tel:+1-415-555-2671>",
        "[415.555.2671]",
    ] {
        let reply = world.invite(&world.request_with(json!({"smsPhone": pasted}))).await.sent();
        assert_eq!(reply.sms_phone, "+14155552671", "{pasted:?}");
    }
    let integer = world.invite(&world.request_with(json!({"smsPhone": 14_155_552_671_u64}))).await.sent();
    assert_eq!(integer.sms_phone, "+14155552671");
    let posts = world.provider.posts().await;
    for refused in [
        "1.4155552671E+10",
        "415555267l",
        "４１５５５５２６７ｌ",
        "415-555-267\u{406}",
        "415-555-2671 ext. 5",
        "tel:+1-415-555-2671;ext=5",
        "12345",
        "\"\"415-555-2671\"\"",
        "\"415-555-2671",
        "Joe <415-555-2671>",
        "\u{200b}",
        "\"\"",
    ] {
        let reply = world.invite(&world.request_with(json!({"smsPhone": refused}))).await;
        assert_eq!(reply.refused("rejected", "phone_invalid", 400).field, "smsPhone", "{refused:?}");
    }
    assert_eq!(world.provider.posts().await, posts);
}

#[tokio::test]
async fn a_credential_or_groupid_with_pasted_characters_is_refused_with_their_name() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let good = world.credential();
    for (pasted, named) in [
        (format!("\u{feff}{good}"), "U+FEFF"),
        (format!("{good}\u{200b}"), "U+200B"),
        (format!("\u{2066}{good}\u{2069}"), "U+2066"),
        (format!("\"{good}\""), "quotation mark"),
        (format!("\u{201c}{good}\u{201d}"), "quotation mark"),
        (format!("{good}\n"), "white space"),
    ] {
        let in_body = world.invite(&world.request_with(json!({"authorization": pasted}))).await;
        let error = in_body.refused("rejected", "credential_malformed", 401);
        assert!(error.message.contains(named), "{pasted:?}: {error:?}");
        let without = world.request_with(json!({"authorization": null}));
        let in_header = world.call(Message::json(&without).text_header("Authorization", &pasted)).await;
        in_header.refused("rejected", "credential_malformed", 401);
        if let Ok(header) = reqwest::header::HeaderValue::from_bytes(pasted.as_bytes()) {
            let request = gateway.request("POST", SMS_INVITE).header("Authorization", header);
            let answer = send(request.body(http_invite().to_string())).await;
            let problem = answer.problem(401, "credential_malformed");
            assert!(problem.detail.contains(named), "{problem:?}");
        }
    }
    let spaced = world.request_with(json!({"authorization": format!(" \t{good}\t ")}));
    world.invite(&spaced).await.sent();
    for (pasted, named) in [
        ("72\u{200b}", "U+200B"),
        ("\u{202d}72", "U+202D"),
        ("\"72\"", "quotation mark"),
        ("72\n", "white space"),
        ("７２", "integer"),
    ] {
        let error = world.invite(&world.request_with(json!({"groupid": pasted}))).await;
        let error = error.refused("rejected", "field_invalid", 400);
        assert_eq!(error.field, "groupid");
        assert!(error.message.contains(named), "{pasted:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_session_key_with_pasted_characters_is_refused_with_their_name() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let key = gateway.invited(&world).await;
    let digits: Vec<u32> = key.chars().map(|c| c.to_digit(10).unwrap()).collect();
    let wide: String = digits.iter().map(|d| char::from_u32(0xFF10 + d).unwrap()).collect();
    for (pasted, named) in [
        (format!("{key}\u{200b}"), "U+200B"),
        (format!("\u{2067}{key}"), "U+2067"),
        (format!("\u{201c}{key}\u{201d}"), "quotation mark"),
        (format!(" {key}"), "white space"),
        (wide, "0 to 9"),
    ] {
        assert_key_named(&send(gateway.join(&world, &pasted)).await, named);
        assert_key_named(&send(gateway.end(&world, &pasted)).await, named);
        let encoded: String = url::form_urlencoded::byte_serialize(pasted.as_bytes()).collect();
        assert_key_named(&send(gateway.look_up(&world, &encoded)).await, named);
    }
}

#[track_caller]
fn assert_key_named(answer: &Answer, named: &str) {
    let problem = answer.problem(400, "field_invalid");
    assert_eq!(problem.field, "sessionKey");
    assert!(problem.detail.contains(named), "{named}: {problem:?}");
}

#[tokio::test]
async fn json_may_have_a_byte_order_mark_and_no_content_encoding() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let marked = |body: &Value| format!("\u{feff}{body}");
    world.call(Message::bytes(marked(&world.request()))).await.sent();
    let post = |path: &str, body: String| {
        gateway.request("POST", path).header("Authorization", world.credential()).body(body)
    };
    let reply = send(post(SMS_INVITE, marked(&http_invite()))).await.sent();
    let join = "/api/SessionInvitation/session/join/?groupid=72";
    send(post(join, marked(&json!({"sessionKey": reply.session_key})))).await.ok();

    for none in ["", "identity", "IDENTITY"] {
        world.call(Message::json(&world.request()).content_encoding(none)).await.sent();
        send(post(SMS_INVITE, http_invite().to_string()).header("Content-Encoding", none)).await.ok();
    }
    for some in ["gzip", "br", "identity, deflate"] {
        let named = some.rsplit(' ').next().unwrap();
        let reply = world.call(Message::json(&world.request()).content_encoding(some)).await;
        let error = reply.refused("rejected", "request_malformed", 415);
        let message = &error.message;
        assert!(message.contains("content_encoding") && message.contains(named), "{message}");
        for (path, body) in [(SMS_INVITE, http_invite()), (join, json!({"sessionKey": "123456"}))] {
            let answer = send(post(path, body.to_string()).header("Content-Encoding", some)).await;
            let problem = answer.problem(415, "request_malformed");
            let detail = &problem.detail;
            assert!(detail.contains("Content-Encoding") && detail.contains(named), "{detail}");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_in_quotes_equals_the_one_without() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let mut replies = Vec::new();
    for key in ["order-17", "\"order-17\""] {
        let answer = send(gateway.invite(&world).header("Idempotency-Key", key)).await;
        assert_eq!(answer.header("idempotency-key"), Some("order-17"));
        replies.push(answer.sent());
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!(world.database.session().await.message_id.as_deref(), Some("order-17"));
    let escaped = send(gateway.invite(&world).header("Idempotency-Key", r#""a\"b\\c""#)).await;
    assert_eq!((escaped.status, escaped.header("idempotency-key")), (200, Some(r#"a"b\c"#)));
    let tab = send(gateway.invite(&world).header("Idempotency-Key", "\"a\tb\"")).await;
    assert_eq!(tab.problem(400, "field_invalid").field, "Idempotency-Key");
}

#[tokio::test]
async fn punctuation_and_white_space_after_a_link_are_ignored() {
    let (world, gateway) = with_gateway(Setup::default()).await;
    send(gateway.invite(&world)).await.ok();
    let text = world.provider.text().await["body"].as_str().unwrap().to_owned();
    let at = text.find("/s/").expect("a link");
    let link = &text[at..at + 19];
    for tail in [
        "",
        ".",
        ",",
        ")",
        "%3E",
        "%22",
        "'",
        "!",
        "%20",
        "%0A",
        "%09",
        "%C2%A0",
        "%E2%80%8B",
        "%E2%80%9D",
        "%EF%BB%BF",
        "%E3%80%82",
        "%E2%80%A6",
        ").",
        ".%22",
        "/.",
        "/)",
        "/%20",
        "%2F",
        "*",
        "_",
        "%60",
    ] {
        let answer = send(gateway.request("GET", &format!("{link}{tail}"))).await;
        assert_eq!(answer.status, 200, "{tail}");
        assert!(answer.body.contains("Your session"), "{tail}");
    }
    for tail in ["x", "1", ".html", "%20x", "/x", "%00", "%C3%A9"] {
        assert_eq!(send(gateway.request("GET", &format!("{link}{tail}"))).await.status, 404, "{tail}");
    }
}

/// Texts to the gateway as visitors, and invites to find out who has opted out.
struct Visitors<'a> {
    world: &'a World,
    gateway: &'a Gateway,
}

impl Visitors<'_> {
    async fn texts(&self, from: &str, body: &str, sid: &str) {
        let answer = text_from(self.world, self.gateway, from, body, sid).await;
        assert_eq!(answer.status, 200, "{body:?}: {answer:?}");
    }

    async fn is_opted_out(&self, phone: &str) -> bool {
        self.opt_out_of_valid(phone).await.unwrap_or_else(|| panic!("{phone} can be texted"))
    }

    /// Whether a number has opted out; `None` for one that libphonenumber does not accept.
    async fn opt_out_of_valid(&self, phone: &str) -> Option<bool> {
        let reply = self.world.invite(&self.world.request_with(json!({"smsPhone": phone}))).await.json();
        match reply["error"]["code"].as_str() {
            None => Some(false),
            Some("opted_out") => Some(true),
            Some("phone_invalid") => None,
            Some(other) => panic!("{phone}: {other}"),
        }
    }

    async fn assert_opted_out(&self, phones: [&str; 2], expected: bool) {
        let mut known = Vec::new();
        for phone in phones {
            known.extend(self.opt_out_of_valid(phone).await);
        }
        assert!(!known.is_empty() && known.iter().all(|is| *is == expected), "{phones:?}: {known:?}");
    }
}

#[tokio::test]
async fn stop_and_start_are_recognized_in_the_forms_that_people_write() {
    let (world, gateway) = with_gateway(Setup::default()).await;
    let visitors = Visitors { world: &world, gateway: &gateway };
    let phone = "+14155552671";
    let stops = [
        "Stop.",
        "OPT OUT",
        "opt-out",
        "\u{201c}STOP\u{201d}",
        "ＳＴＯＰ",
        "STOP!!",
        "stop \u{200d}",
        "stop all",
    ];
    let starts = ["YES!", "unstop", "\"Start\"", "ｙｅｓ", "start\u{feff}", "Yes.", "START", "UNSTOP ..."];
    for (n, (stop, start)) in stops.into_iter().zip(starts).enumerate() {
        visitors.texts(phone, "please stop", &format!("SM{n}x")).await;
        visitors.texts(phone, stop, &format!("SM{n}a")).await;
        assert!(visitors.is_opted_out(phone).await, "{stop:?}");
        visitors.texts(phone, "yes please", &format!("SM{n}y")).await;
        assert!(visitors.is_opted_out(phone).await, "{stop:?}");
        visitors.texts(phone, start, &format!("SM{n}b")).await;
        assert!(!visitors.is_opted_out(phone).await, "{start:?}");
    }
    let rest: i64 = world.database.value("select count(*) from inbound_texts").await;
    assert_eq!(rest, 16, "only the ids of STOP and START are stored");
}

#[tokio::test]
async fn a_webhook_of_a_stop_that_is_repeated_after_a_start_changes_nothing() {
    let (world, gateway) = with_gateway(Setup::default()).await;
    let visitors = Visitors { world: &world, gateway: &gateway };
    let phone = "+14155552671";
    visitors.texts(phone, "STOP", "SMstop").await;
    assert!(visitors.is_opted_out(phone).await);
    visitors.texts(phone, "START", "SMstart").await;
    visitors.texts(phone, "STOP", "SMstop").await;
    assert!(!visitors.is_opted_out(phone).await);
    // The same id in the field's older name.
    let again = [("From", phone), ("To", FROM_NUMBER), ("Body", "STOP"), ("SmsSid", "SMstop")];
    assert_eq!(webhook(&world, &gateway, INBOUND, &again).await.status, 200);
    assert!(!visitors.is_opted_out(phone).await);
    let other = [("From", phone), ("To", FROM_NUMBER), ("Body", "STOP"), ("SmsSid", "SMother")];
    assert_eq!(webhook(&world, &gateway, INBOUND, &other).await.status, 200);
    assert!(visitors.is_opted_out(phone).await);
    visitors.texts(phone, "START", "SMstart").await;
    assert!(visitors.is_opted_out(phone).await, "a repeated START changes nothing either");
    world.database.execute("update inbound_texts set received_at = now() - interval '31 days'").await;
    visitors.texts(phone, "START", "SMstart").await;
    assert!(!visitors.is_opted_out(phone).await);
}

#[tokio::test]
async fn where_a_country_has_two_forms_of_a_mobile_number_an_opt_out_holds_for_both() {
    let (world, gateway) = with_gateway(Setup::default()).await;
    let visitors = Visitors { world: &world, gateway: &gateway };
    for (n, (one, other)) in [
        ("+5215512345678", "+525512345678"),
        ("+5491123456789", "+541123456789"),
        ("+5511987654321", "+551187654321"),
    ]
    .into_iter()
    .enumerate()
    {
        for (stop, start) in [(one, other), (other, one)] {
            visitors.texts(stop, "STOP", &format!("SM{n}a{}", stop.len())).await;
            visitors.assert_opted_out([one, other], true).await;
            visitors.texts(start, "START", &format!("SM{n}b{}", stop.len())).await;
            visitors.assert_opted_out([one, other], false).await;
            world.run(&["optouts", "add", stop]).ok();
            assert!(world.run(&["optouts", "add", start]).ok().contains("already"));
            visitors.assert_opted_out([one, other], true).await;
            world.run(&["optouts", "remove", start]).ok();
            visitors.assert_opted_out([one, other], false).await;
        }
    }
    visitors.texts("+551134567890", "STOP", "SMland").await;
    assert!(
        !visitors.is_opted_out("+5511934567890").await,
        "a landline number is no other form of a mobile one"
    );
}

#[tokio::test]
async fn a_signed_webhook_with_text_that_postgres_cannot_store_is_refused_by_its_field() {
    let (world, gateway) = with_gateway(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let status = status_path(&session);
    let token = world.provider.auth_token.clone().into();
    let good = [
        ("From", FROM_NUMBER),
        ("To", FROM_NUMBER),
        ("Body", "STOP"),
        ("MessageSid", "SM1"),
        ("MessageStatus", "sent"),
    ];
    for (path, fields) in
        [(INBOUND, &["From", "To", "Body", "MessageSid"][..]), (&status, &["MessageSid", "MessageStatus"])]
    {
        for field in fields {
            for bad in ["a\0b".as_bytes(), b"\xff", b"\xed\xa0\x80", b"\xc3"] {
                let form: Vec<(&str, &[u8])> = good
                    .iter()
                    .map(|(name, value)| (*name, if name == field { bad } else { value.as_bytes() }))
                    .collect();
                let url = format!("http://{}{path}", gateway.address);
                let body: Vec<String> = form
                    .iter()
                    .map(|(name, value)| {
                        let encoded: String = url::form_urlencoded::byte_serialize(value).collect();
                        format!("{name}={encoded}")
                    })
                    .collect();
                let request = gateway
                    .request("POST", path)
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .header("X-Twilio-Signature", sign(&token, &url, &form))
                    .body(body.join("&"));
                let problem = send(request).await.problem(400, "field_invalid");
                assert_eq!(problem.field, *field, "{path} {bad:?}");
            }
        }
    }
    let long = "1".repeat(60_000);
    for field in ["From", "To", "MessageSid"] {
        let form: Vec<_> =
            good.iter().map(|(name, value)| (*name, if *name == field { &long } else { *value })).collect();
        let problem = webhook(&world, &gateway, INBOUND, &form).await.problem(400, "field_invalid");
        assert_eq!(problem.field, field);
    }
    webhook_signed(&gateway, INBOUND, &[("Body", "\0")], "x").await.problem(403, "signature_invalid");
    let older = [("SmsSid", session.sid()), ("SmsStatus", "delivered")];
    assert_eq!(webhook(&world, &gateway, &status, &older).await.status, 204);
    assert_eq!(world.database.session().await.status, SessionStatus::Delivered);
}

#[tokio::test]
async fn a_spreadsheet_of_opt_outs_is_imported() {
    let world = World::start().await;
    let file = "\u{feff}\"Phone\",\"Sender\"\r\n\"+1 (415) 555-2671\",\r\n\"\u{202d}201-555-0123\u{202c}\",\"*\"\r\n";
    world.import_optouts(file, &[]).ok();
    for phone in ["415-555-2671", "201-555-0123"] {
        let reply = world.invite(&world.request_with(json!({"smsPhone": phone}))).await;
        reply.refused("rejected", "opted_out", 403);
    }
    let wrong = "\"+1 (415) 555-2672\"\r\n\"415-555-267l\",\r\n";
    let complaint = world.import_optouts(wrong, &[]).fails(1);
    assert!(complaint.contains("line 2: ") && complaint.contains("(…67)"), "{complaint}");
    assert!(!complaint.contains("555"), "{complaint}");
}

#[tokio::test]
async fn an_integer_in_a_header_is_accepted_and_u0000_is_refused() {
    let world = World::start().await;
    let without = world.request_with(json!({"groupid": null}));
    world.call(Message::json(&without).header("groupid", AMQPValue::LongInt(72))).await.sent();
    for (field, code) in [
        ("groupid", "field_invalid"),
        ("smsPhone", "field_invalid"),
        ("authorization", "credential_malformed"),
    ] {
        let request = world.request_with(json!({ field: "7\u{0}2" }));
        let status = if field == "authorization" { 401 } else { 400 };
        world.invite(&request).await.refused("rejected", code, status);
    }
    for missing in [json!(null), json!(""), json!(" \t")] {
        let mut request = world.request();
        request["authorization"] = missing;
        world.invite(&request).await.refused("rejected", "credential_missing", 401);
    }
}
