//! What a visitor's link opens. What a browser makes of it, `tests/browser` looks at.

use crate::support::{Answer, Gateway, Setup, World, at_home, send};
use serde_json::json;

fn get(gateway: &Gateway, path: &str) -> reqwest::RequestBuilder {
    gateway.request("GET", path)
}

/// A page whose headers keep the token in its address to itself.
#[track_caller]
fn assert_page(answer: &Answer, status: u16, says: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.starts_with("<!doctype html>") && answer.body.contains(says), "{}", answer.body);
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
async fn the_link_in_the_text_opens_the_session_and_changes_nothing() {
    let group =
        ["--name", "Joe's <Green> & Co", "--join-url", "https://join.example/{group}?k={key}&t={token}"];
    let (world, mut gateway) = at_home(Setup::default().group(&group)).await;
    world.provider.set(json!({"deliver": "none"})).await;
    let reply = send(gateway.invite(&world)).await.ok();
    assert!(reply["invitationText"].as_str().unwrap().contains(&gateway.address));
    let link = link(&world).await;
    let (token, key) = (&link[3..], reply["sessionKey"].as_str().unwrap());
    crate::support::until("the first receipt is noted", || async {
        (world.database.session().await["sent_at"].is_string()).then_some(())
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
async fn while_all_places_are_taken_a_visitor_gets_a_page_too() {
    let (world, first) = at_home(Setup::default()).await;
    send(first.invite(&world)).await.ok();
    let link = link(&world).await;
    let mut gateway = world.start_gateway(&[("GATEWAY_CONCURRENCY", "1")]).await;
    let posts = world.provider.posts().await;
    world.provider.set(json!({"latency_ms": 1_500})).await;
    let visiting = async {
        crate::support::until("an invite is in hand", || async {
            (world.provider.posts().await > posts).then_some(())
        })
        .await;
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
async fn a_group_without_a_name_is_its_number_and_without_a_join_url_there_is_no_button() {
    let (world, mut gateway) = at_home(Setup::default()).await;
    send(gateway.invite(&world)).await.ok();
    let answer = send(get(&gateway, &link(&world).await)).await;
    assert_page(&answer, 200, "group 72");
    assert!(!answer.body.contains("<a "), "{}", answer.body);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_session_that_is_over_or_was_never_there_is_told_kindly() {
    let (world, mut gateway) = at_home(Setup::default().group(&["--name", "Ann"])).await;
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
async fn whoever_tries_many_links_has_to_wait_and_right_links_do_not() {
    let (world, mut gateway) = at_home(Setup::default().set("TRUSTED_PROXIES", "127.0.0.0/8")).await;
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
    // Others may be behind the same address.
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
async fn behind_a_proxy_that_is_not_named_right_links_open_and_the_operator_is_told() {
    let (world, mut gateway) = at_home(Setup::default()).await;
    send(gateway.invite(&world)).await.ok();
    let link = link(&world).await;
    let from = |address: String, path: &str| send(get(&gateway, path).header("X-Forwarded-For", address));
    crate::support::until("wrong links are stopped", || async {
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
