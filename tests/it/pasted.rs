//! What people and programs paste along with a value: ignored where the contract says so, else refused by name.

use crate::support::{
    Answer, Gateway, Message, SMS_INVITE, Setup, World, at_home_quietly, http_invite, program, send, webhook,
    webhook_signed,
};
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use sms_provider::signature::sign;
use std::{io::Write, process::Stdio};

const INBOUND: &str = "/webhooks/twilio/inbound";
const SENDER: &str = "+15005550006";

#[tokio::test]
async fn a_phone_number_is_read_however_it_was_pasted() {
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
        assert_eq!(reply["smsPhone"], "+14155552671", "{pasted:?}");
    }
    let integer = world.invite(&world.request_with(json!({"smsPhone": 14_155_552_671_u64}))).await.sent();
    assert_eq!(integer["smsPhone"], "+14155552671");
    let texted = world.provider.posts().await;
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
        assert_eq!(reply.refused("rejected", "phone_invalid", 400)["field"], "smsPhone", "{refused:?}");
    }
    assert_eq!(world.provider.posts().await, texted);
}

#[tokio::test]
async fn a_credential_or_a_groupid_is_refused_by_the_name_of_what_was_pasted_along() {
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
        assert!(error["message"].as_str().unwrap().contains(named), "{pasted:?}: {error}");
        let without = world.request_with(json!({"authorization": null}));
        let in_header = world.ask(Message::json(&without).text_header("Authorization", &pasted)).await;
        in_header.refused("rejected", "credential_malformed", 401);
        if let Ok(header) = reqwest::header::HeaderValue::from_bytes(pasted.as_bytes()) {
            let request = gateway.request("POST", SMS_INVITE).header("Authorization", header);
            let answer = send(request.body(http_invite().to_string())).await;
            let problem = answer.problem(401, "credential_malformed");
            assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
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
        assert_eq!(error["field"], "groupid");
        assert!(error["message"].as_str().unwrap().contains(named), "{pasted:?}: {error}");
    }
}

#[tokio::test]
async fn a_session_key_is_refused_by_the_name_of_what_was_pasted_along() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let key = send(gateway.invite(&world)).await.ok()["sessionKey"].as_str().unwrap().to_owned();
    let digits: Vec<u32> = key.chars().map(|c| c.to_digit(10).unwrap()).collect();
    let wide: String = digits.iter().map(|d| char::from_u32(0xFF10 + d).unwrap()).collect();
    for (pasted, named) in [
        (format!("{key}\u{200b}"), "U+200B"),
        (format!("\u{2067}{key}"), "U+2067"),
        (format!("\u{201c}{key}\u{201d}"), "quotation mark"),
        (format!(" {key}"), "white space"),
        (wide, "0 to 9"),
    ] {
        for what in ["join", "end"] {
            let path = format!("/api/SessionInvitation/session/{what}/?groupid=72");
            let request = gateway.request("POST", &path).header("Authorization", world.credential());
            let answer = send(request.body(json!({"sessionKey": pasted}).to_string())).await;
            assert_key_named(&answer, named);
        }
        let query: String = url::form_urlencoded::byte_serialize(pasted.as_bytes()).collect();
        let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={query}");
        let request = gateway.request("GET", &path).header("Authorization", world.credential());
        assert_key_named(&send(request).await, named);
    }
}

#[track_caller]
fn assert_key_named(answer: &Answer, named: &str) {
    let problem = answer.problem(400, "field_invalid");
    assert_eq!(problem["field"], "sessionKey");
    assert!(problem["detail"].as_str().expect("a detail").contains(named), "{named}: {problem}");
}

#[tokio::test]
async fn json_may_have_a_byte_order_mark_and_no_encoding() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let marked = |body: &Value| format!("\u{feff}{body}");
    world.ask(Message::bytes(marked(&world.request()))).await.sent();
    let post = |path: &str, body: String| {
        gateway.request("POST", path).header("Authorization", world.credential()).body(body)
    };
    let reply = send(post(SMS_INVITE, marked(&http_invite()))).await.ok();
    let join = "/api/SessionInvitation/session/join/?groupid=72";
    send(post(join, marked(&json!({"sessionKey": reply["sessionKey"]})))).await.ok();

    for none in ["", "identity", "IDENTITY"] {
        world.ask(Message::json(&world.request()).content_encoding(none)).await.sent();
        send(post(SMS_INVITE, http_invite().to_string()).header("Content-Encoding", none)).await.ok();
    }
    for some in ["gzip", "br", "identity, deflate"] {
        let named = some.rsplit(' ').next().unwrap();
        let reply = world.ask(Message::json(&world.request()).content_encoding(some)).await;
        let error = reply.refused("rejected", "request_malformed", 415);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("content_encoding") && message.contains(named), "{message}");
        for (path, body) in [(SMS_INVITE, http_invite()), (join, json!({"sessionKey": "123456"}))] {
            let answer = send(post(path, body.to_string()).header("Content-Encoding", some)).await;
            let problem = answer.problem(415, "request_malformed");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("Content-Encoding") && detail.contains(named), "{detail}");
        }
    }
}

#[tokio::test]
async fn an_idempotency_key_in_quotes_is_the_one_without() {
    let world = World::start().await;
    let gateway = world.start_gateway(&[]).await;
    let mut replies = Vec::new();
    for key in ["order-17", "\"order-17\""] {
        let answer = send(gateway.invite(&world).header("Idempotency-Key", key)).await;
        assert_eq!(answer.header("idempotency-key"), Some("order-17"));
        replies.push(answer.ok());
    }
    assert_eq!(replies[0], replies[1]);
    assert_eq!(world.database.session().await["message_id"], "order-17");
    let escaped = send(gateway.invite(&world).header("Idempotency-Key", r#""a\"b\\c""#)).await;
    assert_eq!((escaped.status, escaped.header("idempotency-key")), (200, Some(r#"a"b\c"#)));
    let tab = send(gateway.invite(&world).header("Idempotency-Key", "\"a\tb\"")).await;
    assert_eq!(tab.problem(400, "field_invalid")["field"], "Idempotency-Key");
}

#[tokio::test]
async fn punctuation_and_white_space_at_the_end_of_a_link_are_cut_off() {
    let (world, gateway) = at_home_quietly(Setup::default()).await;
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

struct Visitor<'a> {
    world: &'a World,
    gateway: &'a Gateway,
}

impl Visitor<'_> {
    async fn texts(&self, from: &str, body: &str, sid: &str) {
        let form = [("From", from), ("To", SENDER), ("Body", body), ("MessageSid", sid)];
        let answer = webhook(self.world, self.gateway, INBOUND, &form).await;
        assert_eq!(answer.status, 200, "{body:?}: {answer:?}");
    }

    async fn is_opted_out(&self, phone: &str) -> bool {
        self.of_one_that_can_be_texted(phone).await.unwrap_or_else(|| panic!("{phone} can be texted"))
    }

    /// `None` for a form that libphonenumber does not take.
    async fn of_one_that_can_be_texted(&self, phone: &str) -> Option<bool> {
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
            known.extend(self.of_one_that_can_be_texted(phone).await);
        }
        assert!(!known.is_empty() && known.iter().all(|is| *is == expected), "{phones:?}: {known:?}");
    }
}

#[tokio::test]
async fn stop_and_start_are_read_as_people_write_them() {
    let (world, gateway) = at_home_quietly(Setup::default()).await;
    let visitor = Visitor { world: &world, gateway: &gateway };
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
        visitor.texts(phone, "please stop", &format!("SM{n}x")).await;
        visitor.texts(phone, stop, &format!("SM{n}a")).await;
        assert!(visitor.is_opted_out(phone).await, "{stop:?}");
        visitor.texts(phone, "yes please", &format!("SM{n}y")).await;
        assert!(visitor.is_opted_out(phone).await, "{stop:?}");
        visitor.texts(phone, start, &format!("SM{n}b")).await;
        assert!(!visitor.is_opted_out(phone).await, "{start:?}");
    }
    let rest: i64 = world.database.value("select count(*) from inbound_texts").await;
    assert_eq!(rest, 16, "no more is kept than has to be");
}

#[tokio::test]
async fn a_stop_that_is_sent_again_after_a_start_changes_nothing() {
    let (world, gateway) = at_home_quietly(Setup::default()).await;
    let visitor = Visitor { world: &world, gateway: &gateway };
    let phone = "+14155552671";
    visitor.texts(phone, "STOP", "SMstop").await;
    assert!(visitor.is_opted_out(phone).await);
    visitor.texts(phone, "START", "SMstart").await;
    visitor.texts(phone, "STOP", "SMstop").await;
    assert!(!visitor.is_opted_out(phone).await);
    // The same id by its older name.
    let again = [("From", phone), ("To", SENDER), ("Body", "STOP"), ("SmsSid", "SMstop")];
    assert_eq!(webhook(&world, &gateway, INBOUND, &again).await.status, 200);
    assert!(!visitor.is_opted_out(phone).await);
    let other = [("From", phone), ("To", SENDER), ("Body", "STOP"), ("SmsSid", "SMother")];
    assert_eq!(webhook(&world, &gateway, INBOUND, &other).await.status, 200);
    assert!(visitor.is_opted_out(phone).await);
    visitor.texts(phone, "START", "SMstart").await;
    assert!(visitor.is_opted_out(phone).await, "a START that is sent again neither");
    world.database.execute("update inbound_texts set received_at = now() - interval '31 days'").await;
    visitor.texts(phone, "START", "SMstart").await;
    assert!(!visitor.is_opted_out(phone).await);
}

#[tokio::test]
async fn where_a_country_writes_mobiles_in_two_ways_either_holds_for_both() {
    let (world, gateway) = at_home_quietly(Setup::default()).await;
    let visitor = Visitor { world: &world, gateway: &gateway };
    for (n, (one, other)) in [
        ("+5215512345678", "+525512345678"),
        ("+5491123456789", "+541123456789"),
        ("+5511987654321", "+551187654321"),
    ]
    .into_iter()
    .enumerate()
    {
        for (stop, start) in [(one, other), (other, one)] {
            visitor.texts(stop, "STOP", &format!("SM{n}a{}", stop.len())).await;
            visitor.assert_opted_out([one, other], true).await;
            visitor.texts(start, "START", &format!("SM{n}b{}", stop.len())).await;
            visitor.assert_opted_out([one, other], false).await;
            world.run(&["optouts", "add", stop]).ok();
            assert!(world.run(&["optouts", "add", start]).ok().contains("already"));
            visitor.assert_opted_out([one, other], true).await;
            world.run(&["optouts", "remove", start]).ok();
            visitor.assert_opted_out([one, other], false).await;
        }
    }
    visitor.texts("+551134567890", "STOP", "SMland").await;
    assert!(!visitor.is_opted_out("+5511934567890").await, "a landline is nobody's mobile");
}

#[tokio::test]
async fn a_signed_form_that_no_database_can_hold_is_refused_by_its_field() {
    let (world, gateway) = at_home_quietly(Setup::default()).await;
    world.invite(&world.request()).await.sent();
    let session = world.database.session().await;
    let status = crate::support::status_path(&session);
    let token = world.provider.auth_token.clone().into();
    let good = [
        ("From", SENDER),
        ("To", SENDER),
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
                assert_eq!(problem["field"], *field, "{path} {bad:?}");
            }
        }
    }
    let long = "1".repeat(60_000);
    for field in ["From", "To", "MessageSid"] {
        let form: Vec<_> =
            good.iter().map(|(name, value)| (*name, if *name == field { &long } else { *value })).collect();
        let problem = webhook(&world, &gateway, INBOUND, &form).await.problem(400, "field_invalid");
        assert_eq!(problem["field"], field);
    }
    webhook_signed(&gateway, INBOUND, &[("Body", "\0")], "x").await.problem(403, "signature_invalid");
    let older = [("SmsSid", session["provider_message_id"].as_str().unwrap()), ("SmsStatus", "delivered")];
    assert_eq!(webhook(&world, &gateway, &status, &older).await.status, 204);
    assert_eq!(world.database.session().await["status"], "delivered");
}

#[tokio::test]
async fn a_spreadsheets_file_of_opt_outs_is_imported() {
    let world = World::start().await;
    let import = |text: &str| {
        let mut command = program(&world.environment(&[]));
        command.args(["optouts", "import", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("standard input").write_all(text.as_bytes()).expect("it is read");
        child.wait_with_output().expect("it ends")
    };
    let file = "\u{feff}\"Phone\",\"Sender\"\r\n\"+1 (415) 555-2671\",\r\n\"\u{202d}201-555-0123\u{202c}\",\"*\"\r\n";
    let done = import(file);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for phone in ["415-555-2671", "201-555-0123"] {
        let reply = world.invite(&world.request_with(json!({"smsPhone": phone}))).await;
        reply.refused("rejected", "opted_out", 403);
    }
    let wrong = import("\"+1 (415) 555-2672\"\r\n\"415-555-267l\",\r\n");
    let complaint = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        wrong.status.code() == Some(1) && complaint.contains("line 2: ") && complaint.contains("(…67)"),
        "{complaint}"
    );
    assert!(!complaint.contains("555"), "{complaint}");
}

#[tokio::test]
async fn an_integer_may_stand_in_a_header_and_u0000_is_named() {
    let world = World::start().await;
    let without = world.request_with(json!({"groupid": null}));
    world.ask(Message::json(&without).header("groupid", AMQPValue::LongInt(72))).await.sent();
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
