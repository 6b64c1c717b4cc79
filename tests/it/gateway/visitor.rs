//! The page that a visitor's link opens. `tests/browser` tests it in a browser.

use crate::support::{Answer, Gateway, Setup, World, send, until, with_gateway_and_callbacks};
use serde_json::json;

fn get(gateway: &Gateway, path: &str) -> reqwest::RequestBuilder {
    gateway.request("GET", path)
}

/// A page whose headers keep the token in its address from other sites.
#[track_caller]
fn assert_page(answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.starts_with("<!doctype html>") && answer.body.contains(text), "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    assert!(!answer.body.contains("<script") && !answer.body.contains("{{"), "{}", answer.body);
}

async fn link(world: &World) -> String {
    let body = world.provider.text().await["body"].as_str().expect("a text").to_owned();
    let at = body.find("/s/").expect("a link");
    body[at..at + 19].to_owned()
}

#[tokio::test]
async fn the_link_in_the_text_shows_the_session_and_changes_nothing() {
    let group =
        ["--name", "Joe's <Green> & Co", "--join-url", "https://join.example/{group}?k={key}&t={token}"];
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default().group(&group)).await;
    world.provider.set(json!({"deliver": "none"})).await;
    let reply = send(gateway.invite(&world)).await.sent();
    assert!(reply.invitation_text.contains(&gateway.address));
    let link = link(&world).await;
    let (token, key) = (&link[3..], &reply.session_key);
    until("the first receipt is stored", || async {
        world.database.session().await.sent_at.is_some().then_some(())
    })
    .await;
    let before = world.database.session().await;
    for _ in 0..3 {
        let answer = send(get(&gateway, &link)).await;
        assert_page(&answer, 200, &format!(">{key}<"));
        assert!(answer.body.contains("Joe&#39;s &lt;Green&gt; &amp; Co"), "{}", answer.body);
        let button = format!("href=\"https://join.example/72?k={key}&amp;t={token}\"");
        assert!(answer.body.contains(&button), "{}", answer.body);
    }
    let head = send(gateway.request("HEAD", &format!("/S/{token}/"))).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    send(gateway.request("POST", &link)).await.problem(405, "method_not_allowed");
    assert_eq!(world.database.session().await, before);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_visitor_gets_a_page_while_the_gateway_is_at_its_concurrency() {
    let (world, first) = with_gateway_and_callbacks(Setup::default().set("SMS_TIMEOUT", "20s")).await;
    send(first.invite(&world)).await.ok();
    let link = link(&world).await;
    let mut gateway = world.start_gateway(&[("GATEWAY_CONCURRENCY", "1")]).await;
    let posts = world.provider.posts().await;
    world.provider.set(json!({"latency_ms": 6_000})).await;
    let visiting = async {
        world.provider.until_posts(posts + 1).await;
        let page = send(get(&gateway, &link)).await;
        assert_page(&page, 503, "We will be right back");
        assert_eq!(page.header("retry-after"), Some("5"));
        send(gateway.request("GET", "/docs")).await.problem(503, "unavailable");
    };
    let (answer, ()) = tokio::join!(send(gateway.invite(&world)), visiting);
    answer.ok();
    assert_eq!(send(get(&gateway, &link)).await.status, 200);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_page_names_the_group_or_its_number_and_has_a_button_only_with_a_join_url() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    send(gateway.invite(&world)).await.ok();
    let answer = send(get(&gateway, &link(&world).await)).await;
    assert_page(&answer, 200, "group 72");
    assert!(!answer.body.contains("<a "), "{}", answer.body);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_link_to_a_session_that_is_over_or_never_was_opens_a_page() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default().group(&["--name", "Ann"])).await;
    send(gateway.invite(&world)).await.ok();
    let link = link(&world).await;
    world.database.execute("update sessions set expires_at = now()").await;
    let over = send(get(&gateway, &link)).await;
    assert_page(&over, 410, "This session is over");
    assert!(over.body.contains("ask Ann for a new link"), "{}", over.body);
    world.database.execute("update sessions set status = 'ended', key_held = false, due_at = null").await;
    assert_page(&send(get(&gateway, &link)).await, 404, "No session here");
    for other in ["/s/aB3aB3aB3aB3aB3a", "/s/x", "/s/%00", "/s/%ff", "/s/aB3aB3aB3aB3aB3%27"] {
        assert_page(&send(get(&gateway, other)).await, 404, "No session here");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn while_a_group_is_disabled_its_pages_are_closed_and_agents_can_end_what_runs() {
    let (world, mut gateway) =
        with_gateway_and_callbacks(Setup::default().group(&["--name", "Ann & Bob"])).await;
    let key = gateway.invited(&world).await;
    let link = link(&world).await;
    send(gateway.join(&world, &key)).await.ok();
    world.run(&["groups", "disable", "72"]).ok();
    let closed = until("the page is closed", || async {
        let page = send(get(&gateway, &link)).await;
        (page.status != 200).then_some(page)
    })
    .await;
    assert_page(&closed, 410, "This session is closed");
    assert!(
        closed.body.contains("Ann &amp; Bob does not hold sessions") && !closed.body.contains(&key),
        "{closed:?}"
    );
    send(gateway.look_up(&world, &key)).await.problem(403, "group_disabled");
    send(gateway.join(&world, &key)).await.problem(403, "group_disabled");
    send(gateway.end(&world, "0000")).await.problem(404, "session_not_found");
    assert_eq!(send(gateway.end(&world, &key)).await.ok()["status"], "ended");
    send(gateway.end(&world, &key)).await.problem(404, "session_not_found");
    assert_page(&send(get(&gateway, &link)).await, 410, "This session is over");
    world.run(&["groups", "enable", "72"]).ok();
    until("the group is enabled", || async {
        (send(gateway.look_up(&world, &key)).await.status == 404).then_some(())
    })
    .await;
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn many_wrong_links_from_one_address_are_limited_and_right_links_are_not() {
    let (world, mut gateway) =
        with_gateway_and_callbacks(Setup::default().set("TRUSTED_PROXIES", "127.0.0.0/8")).await;
    send(gateway.invite(&world)).await.ok();
    let link = link(&world).await;
    let from =
        |address: &'static str, path: &str| send(get(&gateway, path).header("X-Forwarded-For", address));
    let wrong = "/s/aB3aB3aB3aB3aB3a";
    for _ in 0..30 {
        assert_page(&from("203.0.113.7", wrong).await, 404, "No session here");
    }
    for also_wrong in [wrong, "/s/x", "/s/%ff"] {
        let slower = from("203.0.113.7", also_wrong).await;
        assert_page(&slower, 429, "One moment, please");
        assert!(slower.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()));
    }
    assert_page(&from("203.0.113.8", wrong).await, 404, "No session here");
    // Other visitors may use the same address.
    for address in ["203.0.113.7", "203.0.113.8"] {
        assert_page(&from(address, &link).await, 200, "Your session");
    }
    world.database.execute("update sessions set expires_at = now()").await;
    assert_page(&from("203.0.113.7", &link).await, 410, "This session is over");
    let readiness = send(get(&gateway, "/readyz")).await.json();
    assert_eq!((&readiness["ready"], &readiness["problems"]), (&json!(true), &json!([])));
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn behind_an_unconfigured_proxy_right_links_open_and_readiness_warns() {
    let (world, mut gateway) = with_gateway_and_callbacks(Setup::default()).await;
    send(gateway.invite(&world)).await.ok();
    let link = link(&world).await;
    let from = |address: String, path: &str| send(get(&gateway, path).header("X-Forwarded-For", address));
    until("wrong links are limited", || async {
        (from("203.0.113.7".to_owned(), "/s/aB3aB3aB3aB3aB3a").await.status == 429).then_some(())
    })
    .await;
    for n in 1..20 {
        assert_page(&from(format!("203.0.113.{n}"), &link).await, 200, "Your session");
    }
    let readiness = send(get(&gateway, "/readyz")).await;
    assert_eq!((readiness.status, &readiness.json()["ready"]), (200, &json!(true)));
    let problems = readiness.json()["problems"].to_string();
    assert!(problems.contains("TRUSTED_PROXIES") && problems.contains("127.0.0.1"), "{problems}");
    let log = gateway.process.log();
    assert_eq!(log.matches("TRUSTED_PROXIES seems to be missing").count(), 1, "{log}");
    assert!(gateway.process.stop().success());
}
