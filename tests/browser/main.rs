//! The gateway's pages in a real browser: headless Chromium, by WebDriver, at the size of a phone. `./dev browser` runs
//! these tests, as they need `chromedriver`. `./dev browser --pictures` also takes the pictures in docs/.

#![allow(unreachable_pub, reason = "a test has no users")]

mod console;
mod driver;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of the worker need more of it")]
mod support;

use driver::{Browser, Phone};
use serde_json::{Value, json};
use support::{Gateway, Setup, World, send, with_gateway_and_callbacks};

/// The least contrast of text of normal size (WCAG 2.2, success criterion 1.4.3).
const READABLE: f64 = 4.5;
/// The least size of a button, in CSS pixels (WCAG 2.2, success criterion 2.5.5).
const TOUCHABLE: f64 = 44.0;

async fn invited() -> (World, Gateway, String, String) {
    let options = ["--name", "Green Energy Support", "--session-ttl", "1h"];
    let (world, gateway) = with_gateway_and_callbacks(Setup::default().group(&options)).await;
    // The button leads to a page that answers: the sandbox's inbox.
    let join = format!("{}/?code={{key}}", world.provider.url);
    world.run(&["groups", "set", "72", "--join-url", &join]).ok();
    let reply = send(gateway.invite(&world)).await.sent();
    let link = reply.invitation_text.split(' ').find(|word| word.contains("/s/")).expect("a link").to_owned();
    let page = async || send(gateway.request("GET", &link[link.find("/s/").expect("a path")..])).await;
    support::until("the page has its button", || async {
        page().await.body.contains("class=\"go\"").then_some(())
    })
    .await;
    (world, gateway, link, reply.session_key)
}

/// Asserts that the page fits the screen's width, has enough contrast, and loaded without errors.
async fn assert_readable(browser: &Browser) {
    let fits = browser.run("return document.documentElement.scrollWidth <= window.innerWidth").await;
    assert_eq!(fits, json!(true), "nothing is wider than the screen");
    let colours = browser
        .run(
            "return [...document.querySelectorAll('main *')].filter(e => e.innerText).map(e => {
                let ground = e;
                while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
                return [e.innerText, getComputedStyle(e).color, getComputedStyle(ground).backgroundColor];
            })",
        )
        .await;
    let colours = colours.as_array().expect("a list");
    assert!(!colours.is_empty(), "the page has text");
    for entry in colours {
        let [text, ink, ground] = [0, 1, 2].map(|at| entry[at].as_str().expect("text"));
        let contrast = driver::contrast(ink, ground);
        assert!(contrast >= READABLE, "{text:?} has a contrast of {contrast:.1}: {ink} on {ground}");
    }
    assert_eq!(browser.errors().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_visitor_reads_the_groups_name_and_the_key_and_opens_the_session_with_one_touch() {
    let (world, mut gateway, link, key) = invited().await;
    let browser = Browser::start(Phone::Light).await;
    browser.open(&link).await;
    assert_eq!(browser.run("return document.title").await, "Your session");
    assert_eq!(browser.run("return document.documentElement.lang").await, "en");
    assert_eq!(browser.text("h1").await, "Your session");
    assert!(browser.text("main").await.contains("Green Energy Support"));
    assert_eq!(browser.text(".key").await, key);
    let spoken = key.chars().map(String::from).collect::<Vec<_>>().join(" ");
    assert_eq!(browser.label(".key").await, format!("Session code {spoken}"));
    let size =
        browser.run("return parseFloat(getComputedStyle(document.querySelector('.key')).fontSize)").await;
    assert!(size.as_f64().is_some_and(|size| size >= 40.0), "the key is large: {size}");
    assert_readable(&browser).await;
    browser.picture("visitor-page").await;

    let button = browser.run("const r = document.querySelector('.go').getBoundingClientRect(); return [r.height, r.bottom, window.innerHeight]").await;
    let [height, bottom, screen] = [0, 1, 2].map(|at| button[at].as_f64().expect("a number"));
    assert!(
        height >= TOUCHABLE && bottom <= screen,
        "the button is on the screen and large enough: {button}"
    );
    browser.click(".go").await;
    let expected = format!("{}/?code={key}", world.provider.url);
    support::until("the button opens the next page", || async {
        (browser.address().await == expected).then_some(())
    })
    .await;
    assert_eq!(browser.run("return document.referrer").await, "", "the next page does not learn the link");
    drop(browser);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_page_is_readable_in_dark_mode_and_without_a_session() {
    let (world, mut gateway, link, _) = invited().await;
    let browser = Browser::start(Phone::Dark).await;
    browser.open(&link).await;
    assert_readable(&browser).await;
    world.database.execute("update sessions set expires_at = now()").await;
    browser.open(&link).await;
    assert_eq!(browser.text("h1").await, "This session is over");
    assert_readable(&browser).await;
    browser.open(&format!("http://{}/s/nosuchlink", gateway.address)).await;
    assert_eq!(browser.text("h1").await, "No session here");
    assert_readable(&browser).await;
    drop(browser);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_long_key_and_a_long_name_fit_a_small_screen() {
    let (world, mut gateway, link, _) = invited().await;
    let name = "Bundesversicherungsanstaltshauptgeschäftsstelle für alle Anliegen aller Besucher";
    world.run(&["groups", "set", "72", "--name", name]).ok();
    world.database.execute("update sessions set session_key = '123456789012'").await;
    let browser = Browser::start(Phone::Small).await;
    support::until("the name is shown", || async {
        browser.open(&link).await;
        browser.text("main").await.contains("Anliegen").then_some(())
    })
    .await;
    assert_readable(&browser).await;
    let lines = browser.run("const e = document.querySelector('.key'); return e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight)").await;
    assert!(lines.as_f64().is_some_and(|lines| lines < 1.5), "the key is on one line: {lines}");
    drop(browser);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_documents_are_readable_on_a_phone_and_load_nothing_from_other_sites() {
    let (_world, mut gateway, ..) = invited().await;
    let browser = Browser::start(Phone::Light).await;
    browser.open(&format!("http://{}/docs", gateway.address)).await;
    assert_readable(&browser).await;
    let text = browser.text("body").await;
    for part in ["/api/SessionInvitation/smsInvite", "credential_expired", "session_not_found"] {
        assert!(text.contains(part), "{part}");
    }
    // Table headings for screen readers only are one pixel wide.
    let sideways = browser.run(
        "return [...document.querySelectorAll('*')].filter(e => e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1)
             .map(e => [e.tagName, e.innerText])",
    );
    assert_eq!(sideways.await, json!([]), "nothing scrolls sideways");
    let outside = browser.run("return performance.getEntriesByType('resource').map(e => e.name)").await;
    assert_eq!(outside, json!([]));
    drop(browser);
    assert!(gateway.process.stop().success());
}
