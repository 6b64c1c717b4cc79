//! The dead letters: looking at them, replaying and dropping them.

use super::{Browser, HOSTILE, TOKEN, assert_escaped, form, form_token, linked};
use crate::{
    operators::dead::{id_of, set_aside},
    support::{Answer, Message, Tunnel, World, nested, publish_raw, send, until},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// The page of the letters, once it is not that of two seconds ago.
async fn list(browser: &Browser<'_>, is_new: impl Fn(&Answer) -> bool) -> Answer {
    until("the list is new", || async {
        let page = browser.open("/console/dead").await;
        is_new(&page).then_some(page)
    })
    .await
}

#[tokio::test]
async fn a_letter_is_shown_masked_replayed_once_and_the_audit_has_it() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Zoë").await;
    let empty = browser.open("/console/dead").await;
    assert!(empty.body.contains("There are none"), "{}", empty.body);
    let request = Message::json(&world.request())
        .id("order-1")
        .correlation("1")
        .reply_to(&world.broker.queue("replies"));
    let id = world.dead_request(request).await;
    let page = list(&browser, |page| page.body.contains(&id)).await;
    for part in
        ["All 1", "a test put it there", "internal_error", "+1111", "/console/groups/72", "order-1", " ago"]
    {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    let letter = linked(&page.body, "dead").remove(0);
    let shown = browser.open(&format!("/console/dead/{letter}")).await;
    for part in [id.as_str(), "publishes it again to the queue", "[masked]", "Its session"] {
        assert!(shown.body.contains(part), "{part}: {}", shown.body);
    }
    for page in [&page, &shown] {
        assert!(!page.body.contains("1110000000") && !page.body.contains("111-000-0000"), "{}", page.body);
    }
    let path = format!("/console/dead/{letter}/replay");
    let confirmation = browser.open(&path).await;
    assert!(confirmation.body.contains("Replay this dead letter"), "{}", confirmation.body);

    // Forms that are forged change nothing.
    let token = form_token(&confirmation, &path);
    let other = Browser::logged_in(&gateway, "Eve").await;
    for forged in [
        form(&gateway, &path, &[("form_token", &token)]),
        browser.request(&path, &[]),
        browser.request(&path, &[("form_token", "x")]),
        other.request(&path, &[("form_token", &token)]),
        browser.request(&path, &[("form_token", &token)]).header("Origin", "https://evil.example"),
        browser.request(&format!("/console/dead/{letter}/drop"), &[("form_token", &token)]),
    ] {
        let answer = send(forged).await;
        assert!([401, 403].contains(&answer.status), "{answer:?}");
    }
    assert_eq!(world.count_dead().await, 1);

    let done = browser.send_form(&confirmation, &path).await;
    assert_eq!((done.status, done.header("location")), (303, Some("/console/dead?done=replay")), "{done:?}");
    assert!(browser.open("/console/dead?done=replay").await.body.contains("The letter was replayed"));
    world.broker.take("replies").await.sent();
    assert_eq!((world.count_dead().await, world.provider.texts().await.len()), (0, 1));
    let rows = world.run(&["audit", "list", "--json", "--action", "dead replay"]).json();
    for row in rows.as_array().expect("rows") {
        assert_eq!(row["command"], format!("console (token) 127.0.0.1: dead replay {id}"));
        assert_eq!((&row["actingAs"], &row["groupid"]), (&json!("Zoë"), &json!(72)));
    }
    assert_eq!((&rows[0]["after"]["replayed"], &rows[1]["after"]["state"]), (&json!([id]), &json!("begun")));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn of_two_operators_who_replay_one_letter_one_does_it_and_the_other_reads_so() {
    let mut world = World::start().await;
    world.stop_worker();
    let mut gateway = world.start_gateway_with_console().await;
    let (ann, bob) = (Browser::logged_in(&gateway, "Ann").await, Browser::logged_in(&gateway, "Bob").await);
    let first = world.dead_request(Message::json(&world.request()).id("order-1")).await;
    let second = world.dead_request(Message::json(&world.request()).id("order-2")).await;
    let page = list(&ann, |page| page.body.contains(&second)).await;
    let letters = linked(&page.body, "dead");
    assert_eq!(letters.len(), 2);
    let path = format!("/console/dead/{}/replay", letters[0]);
    let (form_of_ann, form_of_bob) = (ann.open(&path).await, bob.open(&path).await);
    let (one, other) = tokio::join!(ann.send_form(&form_of_ann, &path), bob.send_form(&form_of_bob, &path));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404], "{one:?} {other:?}");
    let late = if one.status == 404 { &one } else { &other };
    assert!(late.body.contains("It is not there any more"), "{}", late.body);
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, Some(1));
    let left = list(&ann, |page| linked(&page.body, "dead") == letters[1..]).await;
    // Letters of one second have no order.
    let last = if left.body.contains(&second) { second } else { first };

    let path = format!("/console/dead/{}/drop", letters[1]);
    let confirmation = ann.open(&path).await;
    assert!(confirmation.body.contains("cannot be restored"), "{}", confirmation.body);
    assert_eq!(ann.send_form(&confirmation, &path).await.header("location"), Some("/console/dead?done=drop"));
    assert_eq!((world.count_dead().await, ann.open(&path).await.status), (0, 404));
    for wrong in ["x", "..%2f", "AAAA", &format!("{}/remove", letters[1])] {
        assert_eq!(ann.open(&format!("/console/dead/{wrong}")).await.status, 404, "{wrong}");
    }
    let dropped = world.run(&["audit", "list", "--json", "--action", "dead drop"]).json();
    assert_eq!(dropped[0]["after"]["dropped"], json!([last]));
    world.broker.purge("requests").await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn hostile_letters_are_escaped_and_their_pages_are_bounded() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let hostile = HOSTILE.concat();
    let hostile = hostile.as_str();
    let requests = world.broker.queue("requests");
    for n in 0..40 {
        let message = set_aside(
            Message::bytes(vec![0xff; 100]).id(&hostile.repeat(2)),
            "request",
            &requests,
            &format!("{n}"),
        );
        let message = message.text_header("x-reason", &hostile.repeat(50)).text_header("x-code", hostile);
        world
            .put_dead(
                (0..100).fold(message, |message, n| message.text_header(&format!("h{n}{hostile}"), hostile)),
            )
            .await;
    }
    let large = json!({"smsPhone": hostile, "sessionParams": {hostile: "x".repeat(1024 * 1024)}, "message": hostile,
                       "more": vec![hostile; 5_000]});
    world.put_dead(set_aside(Message::json(&large).content_type(hostile), "reply", hostile, "large")).await;
    world.put_dead(Message::bytes("[".repeat(100_000))).await;
    publish_raw(&crate::support::broker_server(), ("", world.broker.queue("dead")), &nested(b'F', 60), b"{}");
    let page = list(&browser, |page| page.body.contains("All 43")).await;
    let mut pages = vec![page.body.clone()];
    let letters = linked(&page.body, "dead");
    assert_eq!(letters.len(), 43);
    for letter in letters.iter().skip(38) {
        for path in [
            format!("/console/dead/{letter}"),
            format!("/console/dead/{letter}/replay"),
            format!("/console/dead/{letter}/drop"),
        ] {
            // The letters of the page before may still be on their way back to the queue.
            let page = until(&format!("{path} is found"), || async {
                let page = browser.open(&path).await;
                (page.status == 200).then_some(page)
            })
            .await;
            pages.push(page.body);
        }
    }
    for body in pages {
        assert_escaped(&body);
    }
    world.broker.purge("dead").await;
    assert!(gateway.process.stop().success());
}

/// The times of docs/GROWTH.md: `CONSOLE_LETTERS=100000 cargo test --test it -- of_many_letters --nocapture`
#[tokio::test]
async fn of_many_letters_the_first_are_shown_in_time_in_their_order_and_none_is_lost() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let measured = std::env::var("CONSOLE_LETTERS").ok();
    let many: u32 = measured.as_deref().map_or(2_000, |many| many.parse().expect("a number"));
    let in_time = |took: Duration, limit: u64| measured.is_none() || took < Duration::from_secs(limit);
    let whole = format!("The first 50 of {},{:03}", many / 1_000, many % 1_000);
    let requests = world.broker.queue("requests");
    world.put_many_dead(0..many).await;
    let first: Vec<_> = (0..many).map(|n| id_of(&n.to_string())).collect();
    let mut known = None;
    for _ in 0..5 {
        let begun = Instant::now();
        let page = list(&browser, |page| page.body.contains(&whole)).await;
        let took = begun.elapsed();
        println!("the list: {took:?}");
        assert!(in_time(took, 2), "{took:?}");
        let shown: BTreeSet<_> = page
            .body
            .split("<th scope=\"row\"><a href=\"/console/dead/")
            .skip(1)
            .map(|part| {
                let id = part.split_once('>').expect("a link").1.split('<').next().expect("an id");
                first.iter().position(|known| known == id).expect("one of them")
            })
            .collect();
        assert_eq!(shown.len(), 50);
        assert_eq!(known.get_or_insert_with(|| shown.clone()), &shown);
        // All operators see one list for two seconds.
        let begun = Instant::now();
        browser.open("/console/dead").await;
        assert!(in_time(begun.elapsed(), 1), "{:?}", begun.elapsed());
        until("the list is read again", || async {
            (begun.elapsed() > Duration::from_secs(2)).then_some(())
        })
        .await;
    }
    let page = list(&browser, |page| page.body.contains(&whole)).await;
    let path = format!("/console/dead/{}/replay", linked(&page.body, "dead")[49]);
    assert_eq!(browser.send_form(&browser.open(&path).await, &path).await.status, 303);
    assert_eq!(world.count_dead().await, many - 1);
    for command in [&["dead", "list"][..], &["dead", "summary"], &["trace", "nobody"]] {
        let begun = Instant::now();
        let ran = world.run(command);
        println!("{command:?}: {:?}", begun.elapsed());
        assert!(!ran.stdout.is_empty(), "{ran:?}");
    }
    assert_eq!(world.count_dead().await, many - 1);
    world.broker.purge("dead").await;
    until("the replayed one is settled", || async {
        (world.broker.depth(&requests).await? == 0).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
    world.broker.purge("replies").await;
    world.broker.purge("dead").await;
}

#[tokio::test]
async fn a_letter_that_is_far_back_is_not_looked_for_long_and_the_page_names_the_command_that_finds_it() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let (ann, bob) = (Browser::logged_in(&gateway, "Ann").await, Browser::logged_in(&gateway, "Bob").await);
    world.put_many_dead(0..1).await;
    let page = list(&ann, |page| page.body.contains(&id_of("0"))).await;
    let path = format!("/console/dead/{}", linked(&page.body, "dead")[0]);
    let replay = format!("{path}/replay");
    let confirmation = ann.open(&replay).await;
    world.broker.purge("dead").await;
    let many: u32 = std::env::var("CONSOLE_LETTERS").map_or(600, |many| many.parse().expect("a number"));
    world.put_many_dead(1..many + 1).await;
    world.put_many_dead(0..1).await;

    let begun = Instant::now();
    let look = async || (ann.open(&path).await, begun.elapsed());
    let other = async || (bob.open("/console/dead").await, begun.elapsed());
    let ((missed, looked), (listed, waited)) = tokio::join!(look(), other());
    println!("looked for {looked:?}, the other waited for {waited:?}");
    // Bob's list may wait too long for Ann's turn on a slow machine.
    assert!(missed.status == 404 && [200, 503].contains(&listed.status), "{missed:?} {listed:?}");
    let waiting = format!("{},{:03}", (many + 1) / 1_000, (many + 1) % 1_000);
    let waiting = waiting.trim_start_matches("0,");
    let command = format!("session-invite dead show {}", id_of("0"));
    // The broker takes back what was looked at.
    let are_back = || async { (world.count_dead().await == many + 1).then_some(()) };
    until("the letters are back", are_back).await;
    let sent = ann.send_form(&confirmation, &replay).await;
    for page in [&missed, &sent] {
        assert_eq!(page.status, 404);
        for part in ["It was not found", "nothing was done", &format!(" of {waiting} dead letters"), &command]
        {
            assert!(page.body.contains(part), "{part}: {}", page.body);
        }
    }
    let typed: Vec<_> = command.split(' ').skip(1).collect();
    if many < 10_000 {
        assert!(world.run(&typed).ok().contains("order-0"));
    }
    // Bob waits for his turn, for a connection and for his own look: for 12 s at most; a slow machine gets 8 s more.
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    until("the letters are back", are_back).await;
    world.broker.purge("dead").await;
    let gone = ann.open(&path).await;
    assert!(gone.status == 404 && gone.body.contains("It is not there any more"), "{}", gone.body);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_body_that_is_larger_than_any_request_is_a_size_and_a_hash_and_takes_little_memory() {
    /// KiB that the values of the large body would take, were they read: 32 bytes each.
    const READ: u64 = 256 * 1024;
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    // RabbitMQ 4 takes 16 MiB.
    let body = format!("{{\"smsPhone\": [{}0]}}", "0,".repeat(8 * 1024 * 1024 - 100));
    let size = body.len();
    let small = format!("{{\"groupid\": 72, \"message\": \"{}\"}}", "x ".repeat(32 * 1024 - 20));
    for (id, body, is_shown) in [("small", small, true), ("large", body, false)] {
        let letter = set_aside(Message::bytes(body), "request", &world.broker.queue("requests"), id);
        world.put_dead(letter).await;
        let page = list(&browser, |page| page.body.contains(&id_of(id))).await;
        let path = format!("/console/dead/{}", linked(&page.body, "dead")[0]);
        let shown = browser.open(&path).await;
        assert_eq!(shown.status, 200, "{}", shown.body);
        assert_eq!(shown.body.contains("with secrets masked</h2>"), is_shown, "{}", shown.body);
        let command = format!("session-invite dead show {}", id_of(id));
        assert_eq!(shown.body.contains(&command), !is_shown, "{}", shown.body);
        assert_eq!(shown.body.contains(&format!("{size} bytes, SHA-256 ")), !is_shown, "{}", shown.body);
        for verb in ["drop", "replay"] {
            assert_eq!(browser.open(&format!("{path}/{verb}")).await.status, 200, "{verb}");
        }
        world.broker.purge("dead").await;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).expect("it runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .expect("a peak");
    println!("the peak is {peak} KiB");
    assert!(peak.parse::<u64>().expect("a number") < READ, "{peak} KiB");
    world.broker.purge("dead").await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_the_broker_is_away_the_page_says_so() {
    let world = World::start().await;
    world.is_secret(TOKEN);
    let tunnel = Tunnel::opened(&crate::support::broker_server());
    let mut gateway = world.start_gateway(&[("AMQP_URL", &tunnel.url), ("CONSOLE_TOKEN", TOKEN)]).await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    tunnel.close();
    let page = browser.open("/console/dead").await;
    assert!(page.status == 503 && page.body.contains("Not read: "), "{}", page.body);
    tunnel.open();
    until("the page is back", || async { (browser.open("/console/dead").await.status == 200).then_some(()) })
        .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_connection_that_falls_silent_in_a_change_ends_it_and_the_next_operator_has_a_turn() {
    let world = World::start().await;
    world.is_secret(TOKEN);
    let tunnel = Tunnel::opened(&crate::support::broker_server());
    let mut gateway = world.start_gateway(&[("AMQP_URL", &tunnel.url), ("CONSOLE_TOKEN", TOKEN)]).await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let id = world.dead_request(Message::json(&world.request()).id("order-1")).await;
    let page = list(&browser, |page| page.body.contains(&id)).await;
    let path = format!("/console/dead/{}/drop", linked(&page.body, "dead")[0]);
    let confirmation = browser.open(&path).await;

    // The change waits for the audit while it holds the letter.
    let mut locking = PgConnection::connect(&world.database.url).await.expect("PostgreSQL is reached");
    let lock = "begin; lock table audit_log in exclusive mode";
    sqlx::raw_sql(lock).execute(&mut locking).await.expect("a lock");
    let silencing = async {
        until("the letter is held", || async { (world.count_dead().await == 0).then_some(()) }).await;
        tunnel.silence();
        sqlx::raw_sql("rollback").execute(&mut locking).await.expect("the lock is released");
    };
    let (answer, ()) = tokio::join!(browser.send_form(&confirmation, &path), silencing);
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("it is not known whether it was done"), "{}", answer.body);
    let next = browser.open("/console/dead").await;
    assert_eq!(next.status, 200, "{}", next.body);
    let rows = world.run(&["audit", "list", "--json", "--action", "dead drop"]).json();
    assert_eq!(
        (&rows[0]["after"]["state"], &rows[1]["after"]["state"]),
        (&json!("unknown"), &json!("begun"))
    );
    assert!(gateway.process.stop().success());
    // The broker takes the letter back once it sees that its reader has gone.
    tunnel.close();
    until("the letter is back", || async { (world.count_dead().await == 1).then_some(()) }).await;
    world.broker.purge("dead").await;
}

/// Sends the form of a page in a browser that goes away once the change waits for the audit, whose table is locked.
async fn change_and_go_away(world: &World, browser: &Browser<'_>, path: &str) {
    let confirmation = browser.open(path).await;
    let fields = [("form_token", form_token(&confirmation, path))];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut locking = world.database.pool.begin().await.expect("a transaction");
    sqlx::raw_sql("lock table audit_log in exclusive mode").execute(&mut *locking).await.expect("a lock");
    let waits = "select exists(select from pg_locks where relation = 'audit_log'::regclass and not granted)";
    let waiting = until("the change waits for the audit", || async {
        world.database.value::<bool>(waits).await.then_some(())
    });
    tokio::select! {
        answer = send(browser.request(path, &fields)) => panic!("the change does not wait: {answer:?}"),
        () = waiting => {}
    }
    locking.rollback().await.expect("the lock is released");
}

#[tokio::test]
async fn a_change_comes_to_its_end_though_its_browser_goes_away_and_the_audit_says_so() {
    let mut world = World::start().await;
    world.stop_worker();
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    for (verb, done) in [("drop", "dropped"), ("replay", "replayed")] {
        let id = world.dead_request(Message::json(&world.request()).id(verb)).await;
        let page = list(&browser, |page| page.body.contains(&id)).await;
        let path = format!("/console/dead/{}/{verb}", linked(&page.body, "dead")[0]);
        change_and_go_away(&world, &browser, &path).await;
        let action = format!("dead {verb}");
        let rows = until("the audit has the end", || async {
            let rows = world.run(&["audit", "list", "--json", "--action", &action]).json();
            (rows.as_array().expect("rows").len() == 2).then_some(rows)
        })
        .await;
        assert_eq!(
            (&rows[1]["after"]["state"], &rows[0]["after"]["state"]),
            (&json!("begun"), &json!("ended"))
        );
        assert_eq!(rows[0]["after"][done], json!([id]));
        assert_eq!(world.count_dead().await, 0);
    }
    assert_eq!(world.broker.depth(&world.broker.queue("requests")).await, Some(1));
    change_and_go_away(&world, &browser, "/console/groups/72/pause").await;
    until("the group is paused", || async {
        world
            .database
            .value::<bool>("select paused_at is not null from groups where id = 72")
            .await
            .then_some(())
    })
    .await;
    let rows = world.run(&["audit", "list", "--json", "--action", "groups pause"]).json();
    assert_eq!(rows[0]["actingAs"], "Ann", "{rows}");
    world.broker.purge("requests").await;
    assert!(gateway.process.stop().success());
}
