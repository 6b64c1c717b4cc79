//! `groups pause` and `groups resume`: no text goes out meanwhile, and nothing is lost.

use crate::support::{
    GROUP, Message,
    SessionStatus::{Failed, Sending, Sent},
    Setup,
    TextState::{Accepted, Unknown, Waiting},
    World, gkey, keeps_promise, now, send, until, until_within,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// From `groups resume` to the first text at the latest.
const RESUMES_WITHIN: Duration = Duration::from_secs(5);
/// How long a test waits for that on a slow machine. An invite that is not resumed goes on with its copy, after two minutes.
const GOES_ON_WITHIN: Duration = Duration::from_mins(1);

impl World {
    /// Pauses the world's group, and waits until the worker follows.
    pub(super) async fn pause(&self) {
        self.run(&["groups", "pause", "72"]).ok();
        until("the worker knows of the pause", || async {
            let (_, ready) = self.running().readiness().await;
            ready["problems"].to_string().contains("group 72 is paused").then_some(())
        })
        .await;
    }

    /// Resumes the world's group; returns how many invites go on.
    fn resume(&self) -> u64 {
        self.run(&["groups", "resume", "72", "--json"]).json()["invites"].as_u64().expect("a count")
    }

    /// How long one invite, with this number, takes to go on after a pause.
    async fn resumption(&self, number: usize) -> Duration {
        self.pause().await;
        self.publish_numbered(number..number + 1).await;
        self.database.until_texts_are(1, Waiting).await;
        let resumed = Instant::now();
        assert_eq!(self.resume(), 1);
        self.broker.reply_within(GOES_ON_WITHIN, &number.to_string()).await.sent();
        let took = resumed.elapsed();
        self.until_no_pause_is_listed().await;
        self.forget_copies().await;
        took
    }

    async fn until_no_pause_is_listed(&self) {
        until("the pause is no problem any more", || async {
            let (_, ready) = self.running().readiness().await;
            (!ready["problems"].to_string().contains("paused")).then_some(())
        })
        .await;
    }

    /// Publishes invites, with their numbers as message_id and correlation id.
    async fn publish_numbered(&self, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let name = n.to_string();
            let message = Message::json(&self.request_to_number(n)).id(&name).correlation(&name);
            self.broker.request(message).await;
        }
    }

    /// Waits until no invite waits for a worker.
    async fn until_requests_are_taken(&self) {
        until_within(Duration::from_mins(1), "the requests are taken", || async {
            (self.broker.depth(&self.broker.queue("requests")).await == Some(0)).then_some(())
        })
        .await;
    }

    /// Waits until a copy waits for the end of the pause.
    async fn until_a_copy_waits(&self) {
        until_within(Duration::from_mins(1), "a copy waits for the end of the pause", || async {
            (self.broker.depth(&self.broker.queue("retry.120s")).await == Some(1)).then_some(())
        })
        .await;
    }

    /// Removes the copies that would be answered once more, from their rows, when their time in the retry queue is over.
    async fn forget_copies(&self) {
        for queue in ["retry.1s", "retry.5s", "retry.30s", "retry.120s"] {
            self.broker.purge(queue).await;
        }
    }
}

#[tokio::test]
async fn a_paused_groups_invites_wait_without_a_try_and_go_on_within_five_seconds() {
    let world = World::start().await;
    world.pause().await;
    world.publish_numbered(0..3).await;
    for row in world.database.until_texts_are(3, Waiting).await {
        assert_eq!((row.status, row.attempts), (Sending, 0), "{row:?}");
    }
    // A repeat waits as well; a request with a fault is answered; another group's invite is sent.
    world.broker.request(Message::json(&world.request_to_number(0)).id("0").correlation("repeat")).await;
    world.invite(&world.request_with(json!({"smsPhone": "12"}))).await.refused(
        "rejected",
        "phone_invalid",
        400,
    );
    world.add_group(73, &["--api-key".to_owned(), "the key of another group".to_owned()]);
    let other = json!({"groupid": 73, "authorization": gkey(73, "x", "the key of another group")});
    world.invite(&world.request_with(other)).await.sent();
    assert_eq!(world.provider.posts().await, 1);

    let shown = world.run(&["groups", "show", "72", "--json"]).json();
    assert_eq!(shown["waiting"], 3, "{shown}");
    let since = shown["pausedAt"].as_str().unwrap();
    let listed = world.run(&["groups", "list"]).ok();
    assert!(listed.contains("enabled, paused since") && listed.contains("invites that wait: 3"), "{listed}");
    let problems = until("the waiting invites are counted", || async {
        let (status, ready) = world.running().readiness().await;
        let problems = ready["problems"].to_string();
        (status == 200 && problems.contains("invites that wait: 3")).then_some(problems)
    })
    .await;
    for part in ["group 72 is paused since", since, "session-invite groups resume 72"] {
        assert!(problems.contains(part), "{problems}");
    }
    // To pause it once more changes nothing.
    let again = world.run(&["groups", "pause", "72", "--json"]).json();
    assert_eq!(again["pausedAt"], since);

    assert_eq!(world.resume(), 3);
    for correlation in ["0", "1", "2"] {
        world.broker.reply_within(GOES_ON_WITHIN, correlation).await.sent();
    }
    assert_eq!(world.provider.texts().await.len(), 4);
    for row in
        world.database.sessions().await.iter().filter(|row| row.group_id == GROUP && row.phone.is_some())
    {
        assert_eq!((row.status, row.attempts, row.abandoned), (Sent, 1, 0), "{row:?}");
    }
    world.forget_copies().await;
    world.until_no_pause_is_listed().await;
    world.invite(&world.request()).await.sent();

    let mut numbers = 3..;
    keeps_promise(RESUMES_WITHIN, async || world.resumption(numbers.next().expect("a number")).await).await;
    world.forget_copies().await;
}

#[tokio::test]
async fn an_invite_that_waits_for_a_further_try_waits_for_the_end_of_the_pause_and_keeps_its_tries() {
    let world = World::start().await;
    world.provider.set(json!({"next": ["throttle"], "retry_after": 10})).await;
    world.publish_numbered(0..1).await;
    world.database.until_texts_are(1, Waiting).await;
    world.pause().await;
    // Its time passes, and its copy goes on waiting.
    world.until_a_copy_waits().await;
    let row = world.database.session().await;
    assert_eq!((row.attempts, row.text_state), (1, Some(Waiting)));
    assert_eq!(world.provider.posts().await, 1);
    assert_eq!(world.resume(), 1);
    world.broker.reply("0").await.sent();
    let row = world.database.session().await;
    assert_eq!((row.status, row.attempts, row.abandoned), (Sent, 2, 0));
    world.forget_copies().await;
}

#[tokio::test]
async fn an_invite_that_gets_too_old_in_a_pause_is_answered_at_its_time() {
    let world = Setup::default().set("INVITE_MAX_AGE", "6s").group(&["--session-ttl", "8s"]).start().await;
    world.pause().await;
    // Before the timestamp, so that a slow machine cannot make the times shorter.
    let begun = Instant::now();
    let invites = [Message::json(&world.request()).timestamp(now()), Message::json(&world.request())];
    let [aged, expired] = invites.map(|message| async {
        world.call(message).await.refused("failed", "invite_expired", 504);
        begun.elapsed()
    });
    let (aged, expired) = tokio::join!(aged, expired);
    // Not before it. Timestamps have whole seconds.
    assert!(aged > Duration::from_secs(4) && expired > Duration::from_secs(6), "{aged:?}, {expired:?}");
    for row in world.database.sessions().await {
        assert_eq!((row.status, row.attempts), (Failed, 0), "{row:?}");
    }
    assert_eq!(world.provider.posts().await, 0);
    assert_eq!(world.resume(), 0);
}

#[tokio::test]
async fn what_was_perhaps_sent_is_looked_for_in_a_pause_and_not_sent_again() {
    let world = Setup::default().short_waits().start().await;
    // The provider has the first text, and not the second. Its list cannot be read before the pause.
    world.provider.set(json!({"next": ["cut", "cut_before"], "list_status": 503})).await;
    world.publish_numbered(0..1).await;
    world.database.until_texts_are(1, Unknown).await;
    world.publish_numbered(1..2).await;
    world.database.until_texts_are(2, Unknown).await;
    world.pause().await;
    world.provider.set(json!({"list_status": null})).await;
    world.broker.reply_within(Duration::from_secs(40), "0").await.sent();
    world.until_a_copy_waits().await;
    assert_eq!(world.provider.posts().await, 2);
    let states: Vec<_> =
        world.database.sessions().await.iter().map(|row| (row.text_state, row.attempts)).collect();
    assert_eq!(states, [(Some(Accepted), 1), (Some(Unknown), 1)]);
    assert_eq!(world.resume(), 1);
    world.broker.reply("1").await.sent();
    assert_eq!((world.provider.posts().await, world.provider.texts().await.len()), (3, 2));
    world.forget_copies().await;
}

#[tokio::test]
async fn invites_that_wait_for_their_first_turn_wait_for_the_end_of_a_pause_too() {
    let world = Setup::default().set("SMS_PER_SECOND", "0.5").start().await;
    world.publish_numbered(0..5).await;
    world.provider.until_posts(1).await;
    world.pause().await;
    let posts = until("each invite was posted, or waits", || async {
        let posts = world.provider.posts().await;
        let rows = world.database.sessions().await;
        let held = rows.iter().filter(|row| row.text_state == Some(Waiting)).count();
        (posts + held as u64 == 5).then_some(posts)
    })
    .await;
    assert_eq!(world.provider.posts().await, posts);
    world.resume();
    for n in 0..5 {
        world.broker.reply(&n.to_string()).await.sent();
    }
    assert_eq!(world.provider.texts().await.len(), 5);
    world.forget_copies().await;
}

#[tokio::test]
async fn many_waiting_invites_survive_dead_workers_and_hold_no_other_group_up() {
    let count = std::env::var("PAUSED_INVITES").map_or(600, |count| count.parse().unwrap());
    let patience = Duration::from_secs(60 + count as u64 / 10);
    let mut world = Setup::default().group(&["--session-ttl", "30m"]).start().await;
    world.add_group(73, &["--api-key".to_owned(), "the key of another group".to_owned()]);
    let other = json!({"groupid": 73, "authorization": gkey(73, "x", "the key of another group")});
    world.pause().await;
    world.publish_numbered(0..count / 2).await;
    // A worker dies while it takes them; two others go on.
    world.take_worker().kill();
    let workers = [world.start_worker().await, world.start_worker().await];
    world.publish_numbered(count / 2..count).await;
    let sent_to_other = Instant::now();
    world.invite(&world.request_with(other.clone())).await.sent();
    eprintln!("the other group's invite behind {count}: {:?}", sent_to_other.elapsed());
    let held = || async {
        let open = "select count(*) from sessions where status = 'sending' and text_state = 'waiting' and attempts = 0";
        (world.database.value::<i64>(open).await == i64::try_from(count).unwrap()).then_some(())
    };
    until_within(patience, "all invites wait", held).await;
    world.until_requests_are_taken().await;
    // Nothing circulates: an invite that waits costs a message in two minutes.
    let copies = |metrics: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with("session_invite_retry_queue_messages_total"));
        line.and_then(|line| line.split(' ').next_back()?.parse().ok()).unwrap_or_default()
    };
    let all_copies = || async { copies(&workers[0].metrics().await) + copies(&workers[1].metrics().await) };
    let copied = until("no more copies are made", || async {
        let before = all_copies().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = all_copies().await;
        (after - before < 1.0).then_some(after)
    });
    let before = copied.await;
    world.invite(&world.request_with(other.clone())).await.sent();
    let after = all_copies().await;
    assert!(10.0 * (after - before) <= f64::from(u32::try_from(count).unwrap()), "{before} {after}");
    assert_eq!(world.provider.texts().await.len(), 2);

    let [mut first, second] = workers;
    let resumed = Instant::now();
    assert_eq!(world.resume(), count as u64);
    world.provider.until_posts(3).await;
    eprintln!("the first text after the pause: {:?}", resumed.elapsed());
    first.kill();
    let third = world.start_worker().await;
    let begun = Instant::now();
    world.invite(&world.request_with(other)).await.sent();
    eprintln!("the other group's invite after the pause: {:?}", begun.elapsed());
    let sent = "select count(*) from sessions where status = 'sent' and group_id = 72";
    until_within(patience + Duration::from_mins(1), "all invites are sent", || async {
        (world.database.value::<i64>(sent).await == i64::try_from(count).unwrap()).then_some(())
    })
    .await;
    eprintln!("all {count} are sent: {:?}", resumed.elapsed());
    // The sandbox keeps 10,000 texts at most, and counts all.
    assert_eq!(world.provider.posts().await, count as u64 + 3);
    for n in 0..count {
        world.broker.reply(&n.to_string()).await.sent();
    }
    world.until_requests_are_taken().await;
    world.forget_copies().await;
    drop(second);
    world.keep_worker(third);
}

#[tokio::test]
async fn a_row_that_the_resumption_missed_goes_on_with_its_own_copy() {
    let world = World::start().await;
    world.pause().await;
    world.publish_numbered(0..1).await;
    world.database.until_texts_are(1, Waiting).await;
    // As if the command had died half-way.
    world.database.execute("update groups set paused_at = null, resumed_at = now() where id = 72").await;
    let copy = world.broker.take("retry.120s").await;
    world
        .broker
        .publish_to(
            &world.broker.queue("requests"),
            Message { body: copy.bytes, properties: copy.properties },
        )
        .await;
    world.broker.reply("0").await.sent();
    assert_eq!(world.provider.texts().await.len(), 1);
}

#[tokio::test]
async fn an_http_caller_of_a_paused_group_waits_and_gets_its_answer_by_a_repeat() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[("GATEWAY_TIMEOUT", "30s")]).await;
    let mut impatient = world.start_gateway(&[("GATEWAY_TIMEOUT", "1s")]).await;
    world.pause().await;
    for gateway in [&gateway, &impatient] {
        until("the gateway knows of the pause", || async {
            let (status, ready) = gateway.process.readiness().await;
            let is_named = ready["problems"].to_string().contains("group 72 is paused");
            (status == 200 && is_named).then_some(())
        })
        .await;
    }
    let late = send(impatient.invite(&world).header("Idempotency-Key", "late")).await;
    let problem = late.problem(504, "reply_timeout");
    assert!(problem.detail.contains("the group is paused"), "{problem:?}");
    let waiting = async {
        let answer = send(gateway.invite(&world).header("Idempotency-Key", "waits")).await;
        answer.sent()
    };
    let resuming = async {
        world.database.until_texts_are(2, Waiting).await;
        world.resume();
    };
    tokio::join!(waiting, resuming);
    let answer: Value = send(gateway.invite(&world).header("Idempotency-Key", "late")).await.ok();
    assert_eq!(answer["status"], "sent");
    assert_eq!(world.provider.texts().await.len(), 2);
    world.forget_copies().await;
    assert!(gateway.process.stop().success() && impatient.process.stop().success());
}
