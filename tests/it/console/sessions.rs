//! Searching sessions, and the story of one.

use super::{Browser, HOSTILE, TOKEN, assert_escaped, linked};
use crate::support::{Message, World};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::collections::HashSet;

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn a_session_is_found_by_any_id_of_it_and_its_page_has_the_story() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    world.provider.next(&["throttle"]).await;
    world.broker.request(Message::json(&world.request()).id("order-17").correlation("c-17")).await;
    let sent = world.broker.reply("c-17").await.sent();
    let id = sent.session_id.to_string();
    for given in [
        &id,
        "order-17",
        "c-17",
        &sent.provider_message_id,
        &sent.session_key,
        "(111) 000-0000",
        "+11110000000",
    ] {
        let page = browser.open(&format!("/console/sessions?id={}", encoded(given))).await;
        assert_eq!(linked(&page.body, "sessions"), [&id], "{given}: {}", page.body);
    }
    for filter in ["group=72", "group=72&status=sent&since=1h", "status=sent&until=2100-01-01T00:00:00Z", ""]
    {
        let page = browser.open(&format!("/console/sessions?{filter}")).await;
        assert_eq!(linked(&page.body, "sessions"), [&id], "{filter}");
    }
    for filter in [
        "group=73",
        "status=failed",
        "code=opted_out",
        "code=%00",
        "until=1h",
        "id=nothing",
        "id=a%00b",
        "id=%2B12015550199",
    ] {
        let page = browser.open(&format!("/console/sessions?{filter}")).await;
        assert!(
            linked(&page.body, "sessions").is_empty() && page.body.contains("No session was found."),
            "{filter}: {}",
            page.body
        );
    }
    for (wrong, why) in [("since=x", "since: "), ("group=0", "group: "), ("status=x", "status: ")] {
        let page = browser.open(&format!("/console/sessions?{wrong}")).await;
        assert!(page.status == 200 && page.body.contains(why), "{wrong}: {}", page.body);
    }
    let page = browser.open(&format!("/console/sessions/{id}")).await;
    for part in [
        "Try 1 of 5: the provider wants fewer requests",
        "after 2 tries",
        "order-17",
        "gkey:12345",
        "Next:",
        "None was found.",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    for wrong in ["00000000-0000-7000-8000-000000000000", "x", "%00"] {
        assert_eq!(browser.open(&format!("/console/sessions/{wrong}")).await.status, 404, "{wrong}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn an_operator_comes_from_the_problem_to_the_story_and_its_button_in_three_clicks() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    world.invite(&world.request_with(json!({"smsPhone": "12"}))).await.refused(
        "rejected",
        "phone_invalid",
        400,
    );
    let missing = world.broker.queue("missing");
    world.publish(Message::json(&world.request()).id("order-4").correlation("lost").reply_to(&missing)).await;
    crate::support::until("its reply is a dead letter", || async {
        (world.count_dead().await == 1).then_some(())
    })
    .await;
    let overview = crate::support::until("the overview has both", || async {
        let page = browser.open("/console").await;
        let has_both =
            page.body.contains("href=\"/console/dead\"") && page.body.contains("code=phone_invalid");
        has_both.then_some(page)
    })
    .await;
    let (_, link) = overview.body.split_once("href=\"/console/sessions?").expect("a link to the sessions");
    let query = link.split('"').next().expect("a query").replace("&amp;", "&");
    let list = browser.open(&format!("/console/sessions?{query}")).await;
    let session = linked(&list.body, "sessions");
    assert_eq!(session.len(), 1, "{}", list.body);
    let story = browser.open(&format!("/console/sessions/{}", session[0])).await;
    assert!(story.body.contains("refused at once"), "{}", story.body);
    // The other way: to the invite whose reply was lost.
    let found = browser.open("/console/sessions?id=order-4").await;
    let story = browser.open(&format!("/console/sessions/{}", linked(&found.body, "sessions")[0])).await;
    assert!(
        story.body.contains("was set aside as the dead letter") && story.body.contains("/replay\""),
        "{}",
        story.body
    );
    world.broker.purge("dead").await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn pages_of_sessions_have_each_once_and_hostile_values_are_never_markup() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let insert = "insert into sessions (id, group_id, status, requested_by, message_id, correlation_id, error_code, error,
                                        session_params, invitation_text, provider_message_id)
                  select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - n), 12, '0') || '7'
                          || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 1, 15))::uuid,
                         72, 'rejected', left($1, 60) || n, left($1, 200) || n, left($1, 200), left($1, 50), jsonb_build_object('message', $1),
                         jsonb_build_object($1, repeat($1, 100)), repeat($1, 10), $1
                    from generate_series(1, 120) n";
    let hostile = HOSTILE.concat();
    sqlx::query(insert).bind(&hostile).execute(&world.database.pool).await.expect("rows are inserted");
    let (mut path, mut seen) = ("/console/sessions?group=72".to_owned(), Vec::new());
    loop {
        let page = browser.open(&path).await;
        assert_escaped(&page.body);
        seen.extend(linked(&page.body, "sessions").into_iter().map(str::to_owned));
        let Some((_, next)) = page.body.split_once("href=\"/console/sessions?group=72&amp;before=") else {
            break;
        };
        path = format!("/console/sessions?group=72&before={}", next.split('"').next().expect("an id"));
    }
    assert_eq!((seen.len(), seen.iter().collect::<HashSet<_>>().len()), (120, 120));
    let steps = "insert into steps (session_id, kind, detail)
                 select $1::uuid, 'receipt', jsonb_build_object('status', repeat($2, 20), 'sid', $2, 'by', 'receipt', 'changed', true, 'ours', true)
                   from generate_series(1, 200)";
    let insert = sqlx::query(steps).bind(&seen[0]).bind(&hostile);
    insert.execute(&world.database.pool).await.expect("steps are inserted");
    let page = browser.open(&format!("/console/sessions/{}", seen[0])).await;
    assert!(
        page.status == 200 && page.body.contains("more; <code>session-invite trace</code> has all"),
        "{}",
        page.body
    );
    assert_escaped(&page.body);
    let page = browser
        .open(&format!("/console/sessions?id={0}&group={0}&code={0}&since={0}", encoded(&hostile)))
        .await;
    assert_escaped(&page.body);
    world.database.execute("delete from sessions").await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_search_that_takes_too_long_says_so_and_how_to_narrow_it() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    world.is_secret(TOKEN);
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let mut locking = PgConnection::connect(&world.database.url).await.expect("PostgreSQL is reached");
    sqlx::raw_sql("begin; lock table sessions in access exclusive mode")
        .execute(&mut locking)
        .await
        .expect("a lock");
    for path in ["sessions?group=72&code=x", "sessions?id=order-1"] {
        let page = browser.open_once(&format!("/console/{path}")).await;
        assert!(page.status == 200 && page.body.contains("Not found within 200 ms"), "{path}: {}", page.body);
        assert!(page.body.contains("since=1h"), "{}", page.body);
    }
    let page = browser.open_once("/console/sessions/00000000-0000-7000-8000-000000000000").await;
    assert!(page.status == 200 && page.body.contains("did not answer within 200 ms"), "{}", page.body);
    sqlx::raw_sql("rollback").execute(&mut locking).await.expect("the lock is released");
    assert!(gateway.process.stop().success());
}
