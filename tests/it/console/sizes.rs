//! Large tables: no page reads a whole one, and each says how far it has read.

use super::{Browser, TOKEN, linked};
use crate::support::{Answer, Gateway, Setup, World};
use std::time::{Duration, Instant};

/// A migrated database without a worker, which would publish the events and delete old rows.
async fn console() -> (World, Gateway) {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.is_secret(TOKEN);
    world.run(&["topology", "declare"]).ok();
    let gateway = world.start_gateway(&[("CONSOLE_TOKEN", TOKEN)]).await;
    (world, gateway)
}

/// So many sessions, a millisecond apart. The oldest one has the code `rare` and the correlation id `c-rare`.
async fn fill(world: &World, sessions: u32) {
    let insert = format!(
        "insert into sessions (id, group_id, status, requested_by, correlation_id, error_code, created_at)
         select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
                 || '8' || substr(md5(n::text), 1, 15))::uuid,
                72, 'rejected', 'gkey:1', case when n = {sessions} then 'c-rare' end, case when n = {sessions} then 'rare' end, at
           from (select n, now() - interval '1 ms' * n as at from generate_series(1, {sessions}) n) rows"
    );
    world.database.execute(&insert).await;
    world.database.execute("analyze sessions").await;
}

/// Some rows take a while to read, as on a server that is slow: so the test needs no millions of rows. They are few, as each
/// sleep may be longer on a slow machine.
const SLOW: &str = "
    create function is_read_slowly(id uuid) returns boolean language plpgsql as $$
    begin
        if get_byte(uuid_send(id), 15) < 4 then perform pg_sleep(0.004); end if;
        return true;
    end $$;
    alter table sessions rename to all_sessions;
    create view sessions as select * from all_sessions where is_read_slowly(id)";

/// The way on from a page that has not read everything.
fn further_back(page: &Answer) -> Option<String> {
    let (before, _) = page.body.split_once(">Look further back<")?;
    let (_, link) = before.rsplit_once("href=\"/console")?;
    Some(format!("/console{}", link.trim_end_matches('"').replace("&amp;", "&")))
}

/// Follows the way on from page to page; returns the last page, and how many there were.
async fn to_the_end(browser: &Browser<'_>, path: &str) -> (Answer, u32) {
    let mut page = browser.open(path).await;
    for pages in 1..200 {
        assert!(page.status == 200 && !page.body.contains("Not found within"), "{}", page.body);
        let Some(next) = further_back(&page) else { return (page, pages) };
        page = browser.open(&next).await;
    }
    panic!("the search has no end: {}", page.body);
}

#[tokio::test]
async fn a_search_that_finds_little_shows_how_far_it_has_read_and_goes_on_from_there() {
    let (world, mut gateway) = console().await;
    fill(&world, 6_000).await;
    world.database.execute(SLOW).await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    for (search, is_found) in [
        ("code=rare", true),
        ("id=c-rare", true),
        ("code=nothing&group=72", false),
        ("id=nobody", false),
        ("group=73&since=1h", false),
    ] {
        let first = browser.open(&format!("/console/sessions?{search}")).await;
        assert!(first.body.contains("No session was found among those since"), "{search}: {}", first.body);
        let (last, pages) = to_the_end(&browser, &format!("/console/sessions?{search}")).await;
        assert!(pages > 1, "{search}");
        assert_eq!(linked(&last.body, "sessions").len(), usize::from(is_found), "{search}: {}", last.body);
        assert_eq!(last.body.contains("No session was found."), !is_found, "{search}: {}", last.body);
    }
    // What is found before the time is over is shown.
    world.database.execute("update all_sessions set error_code = 'seldom' where id = (select id from all_sessions order by id desc offset 50 limit 1)").await;
    let page = browser.open("/console/sessions?code=seldom").await;
    assert_eq!(linked(&page.body, "sessions").len(), 1, "{}", page.body);
    assert!(page.body.contains("No more were found among those since"), "{}", page.body);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_audit_is_looked_at_in_parts() {
    let (world, mut gateway) = console().await;
    let insert = "insert into audit_log (os_user, host, action, command, group_id)
                  select 'root', 'host', case when n = 1 then 'secrets reseal' else 'groups set' end, 'groups set ' || n, 72
                    from generate_series(1, 120000) n";
    world.database.execute(insert).await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let (found, pages) = to_the_end(&browser, "/console/audit?action=secrets").await;
    assert!(pages == 3 && found.body.contains("<code>groups set 1</code>"), "{pages}: {}", found.body);
    let (nothing, pages) = to_the_end(&browser, "/console/audit?action=dead&group=72").await;
    assert!(pages == 3 && nothing.body.contains("No change was found."), "{pages}: {}", nothing.body);
    // The migration has the first row.
    let page = browser.open("/console/audit?before=30").await;
    assert!(page.body.contains("<code>groups set 28</code>"), "{}", page.body);
    assert_eq!(further_back(&page), None);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_story_says_when_the_outbox_is_too_long_to_be_looked_at() {
    let (world, mut gateway) = console().await;
    fill(&world, 1).await;
    let add = |events: u32| {
        format!(
            "insert into events (session_id, group_id, event) select gen_random_uuid(), 72, 'sent' from generate_series(1, {events})"
        )
    };
    world.database.execute(&add(1_000)).await;
    world
        .database
        .execute("insert into events (session_id, group_id, event) select id, 72, 'sent' from sessions")
        .await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let id = world.database.value::<String>("select id::text from sessions").await;
    let story = format!("/console/sessions/{id}");
    let page = browser.open(&story).await;
    assert!(page.body.contains("session.sent waits in the outbox"), "{}", page.body);
    assert!(!page.body.contains("events wait to be published"), "{}", page.body);
    world.database.execute(&add(25_000)).await;
    let page = browser.open(&story).await;
    assert!(page.body.contains("More than 20000 events wait to be published."), "{}", page.body);
    assert!(gateway.process.stop().success());
}

/// What docs/GROWTH.md measures: sessions of 90 days, of 50 groups of which one has 80%; one number has a thousandth of them,
/// and one in a thousand was rejected. Audit rows and steps are fewer.
async fn fill_as_in_production(world: &World, sessions: u32) {
    let insert = format!(
        "insert into sessions (id, group_id, token, status, phone, requested_by, error_code, created_at)
         select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
                 || '8' || substr(md5(n::text), 1, 15))::uuid,
                case when n % 5 > 0 then 72 else 100 + n / 5 % 49 end,
                case when n % 1000 > 0 then 't' || n end,
                case when n % 1000 > 0 then 'expired' else 'rejected' end,
                case when n % 1000 = 1 then '+14155550100' else '+1415' || 2000000 + n end,
                'gkey:1', case when n % 1000 = 0 then 'provider_rejected' end, at
           from (select n, now() - interval '90 days' * (n - 1) / {sessions} as at from generate_series(1, {sessions}) n) rows"
    );
    let (audit, steps) = (sessions / 17, sessions / 23);
    for fill in [
        insert.as_str(),
        &format!(
            "insert into audit_log (os_user, host, action, command, group_id)
             select 'root', 'host', case when n % 1000 = 1 then 'secrets reseal' else 'groups set' end, 'groups set ' || n, 72
               from generate_series(1, {audit}) n"
        ),
        &format!("insert into steps (session_id, kind) select id, 'looked' from sessions limit {steps}"),
        "analyze",
    ] {
        world.database.execute(fill).await;
    }
}

/// The table of docs/GROWTH.md, each page three times, or more often on a slow machine:
/// `CONSOLE_SESSIONS=5000000 cargo test --test it -- pages_are_answered_in_time --nocapture`
#[tokio::test]
async fn pages_are_answered_in_time_however_many_sessions_there_are() {
    let sessions = std::env::var("CONSOLE_SESSIONS").map_or(20_000, |many| many.parse().expect("a number"));
    let (world, mut gateway) = console().await;
    fill_as_in_production(&world, sessions).await;
    world.run(&["groups", "add", "72", "--api-key", &world.api_key]).ok();
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let id = world.database.value::<String>("select id::text from sessions order by id desc limit 1").await;
    let story = format!("/console/sessions/{id}");
    for (page, path) in [
        ("overview", "/console"),
        ("groups", "/console/groups"),
        ("one group", "/console/groups/72"),
        ("sessions", "/console/sessions"),
        ("sessions of a small group", "/console/sessions?group=101"),
        ("a rare status", "/console/sessions?status=rejected"),
        ("nothing is found", "/console/sessions?code=nothing"),
        ("a number with many sessions", "/console/sessions?phone=%2B14155550100"),
        ("a story", &story),
        ("audit", "/console/audit"),
        ("audit's last page", "/console/audit?before=40"),
        ("a rare command", "/console/audit?action=secrets"),
    ] {
        let (mut times, mut is_in_time) = (Vec::new(), false);
        // Some answers may be slow for another reason.
        while times.len() < 3 || (times.len() < 10 && !is_in_time) {
            let begun = Instant::now();
            let answer = browser.open_once(path).await;
            let took = begun.elapsed();
            times.push(took);
            assert_eq!(answer.status, 200, "{page}: {}", answer.body);
            is_in_time |= took < Duration::from_secs(1) && !answer.body.contains("Not read: ");
        }
        println!("{page}: {times:?}");
        assert!(is_in_time, "{page}: {times:?}");
    }
    assert!(gateway.process.stop().success());
}
