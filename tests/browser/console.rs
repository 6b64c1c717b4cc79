//! The operators' console in a real browser: on a phone, a tablet and a desk, in light and dark, by the keyboard alone, and
//! without a script.

use crate::{
    driver::{Browser, ENTER, Scheme, Screen, TAB},
    support::{Gateway, Message, World, send, until},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

const TOKEN: &str = "the token of the tests' console";
const SCREENS: [Screen; 3] = [
    Screen { name: "phone", width: 360, height: 740 },
    Screen { name: "tablet", width: 820, height: 1_180 },
    Screen { name: "desk", width: 1_440, height: 900 },
];
/// What a page says whose statement took longer than a page may take.
const TOO_SLOW: [&str; 2] = ["did not answer within 200 ms", "Not found within 200 ms"];
const SCHEMES: [Scheme; 2] = [Scheme::Light, Scheme::Dark];
/// The most that a page may have, in bytes.
const LARGEST_PAGE: u64 = 100 * 1024;
/// The kinds of pages that links lead to.
const REACHED: [&str; 11] = [
    "/console",
    "/console/sessions",
    "/console/sessions/*",
    "/console/dead",
    "/console/dead/*",
    "/console/dead/*/replay",
    "/console/dead/*/drop",
    "/console/groups",
    "/console/groups/*",
    "/console/groups/*/resume",
    "/console/audit",
];
/// Kinds of pages that the crawl opens at most, and Tabs until an element has to be reached.
const PAGES: usize = 40;
const TABS: usize = 80;

/// The source of axe-core.
fn axe() -> String {
    let path = std::env::var_os("AXE").expect("./dev browser sets AXE, the path of axe-core's script");
    std::fs::read_to_string(path).expect("axe-core's script")
}

/// Names of groups that would be markup, would change how others read, or do not fit. A name has 60 characters at most.
const HOSTILE: [&str; 5] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onclick='alert(1)&lt;b&gt;",
    "\u{202e}gpj.exe العربية",
    "Bundesversicherungsanstaltshauptgeschäftsstellenverwaltungen",
];

/// A worker, and a gateway with a console, with data that a bad day has: sent, refused and waiting invites, a paused group,
/// a dead letter.
async fn busy() -> (World, Gateway) {
    let world = World::start().await;
    world.is_secret(TOKEN);
    let gateway = world.start_gateway(&[("CONSOLE_TOKEN", TOKEN)]).await;
    for number in 0..6 {
        world.invite(&world.request_to_number(number)).await.sent();
    }
    let refused = world.request_with(json!({"smsPhone": "12"}));
    world.invite(&refused).await.refused("rejected", "phone_invalid", 400);
    world
        .broker
        .publish_to(&world.broker.queue("dead"), Message::json(&world.request()).id("order-17"))
        .await;
    world.run(&["groups", "pause", "72"]).ok();
    world.run(&["groups", "resume", "72"]).ok();
    world.add_group(73, &["--name".to_owned(), "Harbour Ferries".to_owned()]);
    world.run(&["groups", "pause", "73"]).ok();
    until("the gateway knows the group and its pause", || async {
        let readiness = send(gateway.request("GET", "/readyz")).await.body;
        readiness.contains("group 73 is paused").then_some(())
    })
    .await;
    (world, gateway)
}

async fn end(world: &World, gateway: &mut Gateway) {
    world.broker.purge("dead").await;
    assert!(gateway.process.stop().success());
}

fn address(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.address)
}

/// Opens a page, again until the database has answered it in time: a slow machine may need more than one try.
async fn open_page(browser: &Browser, gateway: &Gateway, path: &str) {
    until("the page is read in time", || async {
        browser.open(&address(gateway, path)).await;
        let shown = browser.run("return (document.querySelector('main') || {}).innerText || ''").await;
        let is_slow = |shown: &str| TOO_SLOW.iter().any(|words| shown.contains(words));
        (!shown.as_str().is_some_and(is_slow)).then_some(())
    })
    .await;
}

async fn log_in(browser: &Browser, gateway: &Gateway) {
    browser.open(&address(gateway, "/console")).await;
    browser.fill("#name", "Ann").await;
    browser.fill("#token", TOKEN).await;
    browser.click("form.stacked button").await;
    until("the overview comes after the login", || async {
        (browser.run("return document.title").await == "Overview · session-invite").then_some(())
    })
    .await;
}

/// The page's kind: its path, where a part with a digit stands for any.
fn kind(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts =
        path.split('/').map(|part| if part.contains(|c: char| c.is_ascii_digit()) { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// A page of each kind that links lead to.
async fn crawl(browser: &Browser, gateway: &Gateway) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = VecDeque::from(["/console".to_owned()]);
    while let Some(path) = open.pop_front() {
        if found.contains_key(&kind(&path)) {
            continue;
        }
        open_page(browser, gateway, &path).await;
        let links = browser
            .run("return [...document.querySelectorAll('a[href^=\"/\"]')].map(a => a.getAttribute('href'))")
            .await;
        let links = links.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        open.extend(links.filter(|link| link.starts_with("/console")));
        found.insert(kind(&path), path);
        assert!(found.len() < PAGES, "{found:?}");
    }
    found
}

/// Asserts what holds of a page on any screen.
async fn assert_fits(browser: &Browser, what: &str) {
    let fits = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]").await;
    let [content, screen] = [0, 1].map(|at| fits[at].as_u64().expect("a width"));
    assert!(content <= screen, "{what} scrolls sideways: {content} of {screen} pixels");
    let size = browser.run("return performance.getEntriesByType('navigation')[0].decodedBodySize").await;
    assert!(size.as_u64().is_some_and(|size| size < LARGEST_PAGE), "{what} has {size} bytes");
    assert_eq!(browser.errors().await, Vec::<Value>::new(), "{what}");
}

#[tokio::test]
async fn every_page_of_the_console_fits_three_screens_and_axe_reports_nothing() {
    let (world, mut gateway) = busy().await;
    for (group, name) in (1_000..).zip(HOSTILE) {
        let template = format!("{name} {{key}}");
        world.add_group(group, &["--name", name, "--template", &template].map(str::to_owned));
    }
    let axe = axe();
    let mut pages = Vec::new();
    for screen in SCREENS {
        let browser = Browser::start_on(screen).await;
        browser.open(&address(&gateway, "/console")).await;
        assert_fits(&browser, "the login").await;
        assert_eq!(browser.accessibility_faults(&axe).await, json!([]), "the login on a {}", screen.name);
        log_in(&browser, &gateway).await;
        if pages.is_empty() {
            let found = crawl(&browser, &gateway).await;
            for expected in REACHED {
                assert!(found.contains_key(expected), "no link leads to {expected}: {found:?}");
            }
            pages.extend(found);
            pages.push(("an address without a page".to_owned(), "/console/nothing".to_owned()));
        }
        for scheme in SCHEMES {
            browser.prefer(scheme).await;
            for (kind, path) in &pages {
                open_page(&browser, &gateway, path).await;
                let what = format!("{kind} on a {} in {} colours", screen.name, scheme.name());
                assert_fits(&browser, &what).await;
                // It takes a second. Dark colours are the same on each screen.
                if matches!(scheme, Scheme::Light) || screen.name == SCREENS[0].name {
                    assert_eq!(browser.accessibility_faults(&axe).await, json!([]), "{what}");
                }
            }
        }
    }
    end(&world, &mut gateway).await;
}

/// Presses Tab until the focused element has this text, and asserts that the focus is seen all the way.
async fn tab_to(browser: &Browser, text: &str) {
    for _ in 0..TABS {
        browser.press(TAB).await;
        let focused = browser
            .run(
                "const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
                 if (e === document.body) return ['', '', false];
                 return [(e.innerText || e.name || '').trim(), style.outlineStyle, box.width > 0 && box.right > 0]",
            )
            .await;
        if focused[0] == "" {
            continue;
        }
        assert!(focused[1] != "none" && focused[2] == true, "the focus is not seen: {focused}");
        if focused[0] == text {
            return;
        }
    }
    panic!("Tab does not reach {text:?}");
}

/// Waits until the page's content has this text; the page may be loading.
async fn until_shown(browser: &Browser, text: &str) {
    until("the page shows the text", || async {
        let shown = browser.run("return (document.querySelector('main') || {}).innerText || ''").await;
        shown.as_str().is_some_and(|shown| shown.contains(text)).then_some(())
    })
    .await;
}

async fn until_heading(browser: &Browser, text: &str) {
    until("the next page comes", || async {
        let heading = browser.run("return (document.querySelector('h1') || {}).innerText || ''").await;
        heading.as_str().is_some_and(|heading| heading.contains(text)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn axe_notices_a_field_without_a_label() {
    let (world, mut gateway) = busy().await;
    let browser = Browser::start_on(SCREENS[0]).await;
    browser.open(&address(&gateway, "/console")).await;
    browser.run("document.querySelector('main').append(document.createElement('input'))").await;
    let faults = browser.accessibility_faults(&axe()).await;
    assert_eq!(faults[0][0], "label", "{faults}");
    drop(browser);
    end(&world, &mut gateway).await;
}

#[tokio::test]
async fn the_keyboard_alone_logs_in_and_pauses_a_group() {
    let (world, mut gateway) = busy().await;
    let browser = Browser::start_on(SCREENS[2]).await;
    browser.open(&address(&gateway, "/console")).await;
    browser.press(TAB).await;
    assert_eq!(browser.run("return document.activeElement.innerText").await, "Skip to the content");
    tab_to(&browser, "name").await;
    browser.press("Ann").await;
    tab_to(&browser, "token").await;
    browser.press(TOKEN).await;
    browser.press(ENTER).await;
    until_heading(&browser, "Overview").await;
    tab_to(&browser, "Groups").await;
    browser.press(ENTER).await;
    until_heading(&browser, "Groups").await;
    tab_to(&browser, "72").await;
    browser.press(ENTER).await;
    until_heading(&browser, "72").await;
    tab_to(&browser, "Pause…").await;
    browser.press(ENTER).await;
    until_heading(&browser, "Pause").await;
    tab_to(&browser, "Pause group 72").await;
    browser.press(ENTER).await;
    until_shown(&browser, "The group is paused.").await;
    let paused: bool = world.database.value("select paused_at is not null from groups where id = 72").await;
    assert!(paused);
    drop(browser);
    end(&world, &mut gateway).await;
}

#[tokio::test]
async fn everything_works_and_is_painted_without_a_script() {
    let (world, mut gateway) = busy().await;
    let browser = Browser::start_on(SCREENS[0]).await;
    browser.without_scripts().await;
    log_in(&browser, &gateway).await;
    assert!(browser.text("main").await.contains("What is wrong now"));
    let paint = browser.run("return performance.getEntriesByName('first-contentful-paint').length").await;
    assert_eq!(paint, json!(1), "the page was painted");
    assert_eq!(browser.run("return document.querySelectorAll('#refreshing button').length").await, json!(0));
    open_page(&browser, &gateway, "/console/groups/73/resume").await;
    browser.click("main form button").await;
    until_shown(&browser, "The group is resumed").await;
    let paused: bool = world.database.value("select paused_at is not null from groups where id = 73").await;
    assert!(!paused);
    drop(browser);
    end(&world, &mut gateway).await;
}

#[tokio::test]
async fn the_times_of_a_story_stay_on_one_line() {
    let (world, mut gateway) = busy().await;
    for screen in SCREENS {
        let browser = Browser::start_on(screen).await;
        log_in(&browser, &gateway).await;
        open_page(&browser, &gateway, "/console/sessions").await;
        browser.click("tbody th a").await;
        until_heading(&browser, "Session ").await;
        let lines = browser
            .run(
                "return [...document.querySelectorAll('.when')].map(e => {
                    const range = document.createRange();
                    range.selectNodeContents(e);
                    return range.getClientRects().length;
                })",
            )
            .await;
        let lines = lines.as_array().expect("a list");
        assert!(
            !lines.is_empty() && lines.iter().all(|lines| *lines == 1),
            "on a {}: {lines:?}",
            screen.name
        );
    }
    end(&world, &mut gateway).await;
}

#[tokio::test]
async fn a_link_of_another_site_leads_to_the_page_and_a_frame_shows_nothing() {
    let (world, mut gateway) = busy().await;
    let browser = Browser::start_on(SCREENS[2]).await;
    log_in(&browser, &gateway).await;
    // For a browser this is another site.
    let other = address(&gateway, "/healthz").replace("127.0.0.1", "localhost");
    browser.open(&other).await;
    let page = address(&gateway, "/console/groups/72");
    browser
        .run(&format!(
            "const a = document.createElement('a'); a.href = '{page}'; document.body.append(a); a.click()"
        ))
        .await;
    until_heading(&browser, "Group 72").await;
    assert!(browser.text("header").await.contains("Ann"), "the login is known");
    browser.open(&other).await;
    let read = format!(
        "return fetch('{page}', {{mode: 'no-cors', credentials: 'include'}}).then(() => 'read', () => 'refused')"
    );
    assert_eq!(browser.run(&read).await, "refused");
    drop(browser);
    end(&world, &mut gateway).await;
}

#[tokio::test]
async fn the_pictures_of_the_console_show_its_parts() {
    let (world, mut gateway) = busy().await;
    for screen in SCREENS {
        let browser = Browser::start_on(screen).await;
        log_in(&browser, &gateway).await;
        for scheme in SCHEMES {
            browser.prefer(scheme).await;
            open_page(&browser, &gateway, "/console").await;
            assert!(browser.text("main").await.contains("What is wrong now"));
            browser.picture(&format!("console/overview-{}-{}", screen.name, scheme.name())).await;
        }
    }
    let browser = Browser::start_on(SCREENS[2]).await;
    log_in(&browser, &gateway).await;
    let pages = crawl(&browser, &gateway).await;
    for (name, kind) in [
        ("group", "/console/groups/*"),
        ("sessions", "/console/sessions"),
        ("story", "/console/sessions/*"),
        ("dead-letters", "/console/dead"),
    ] {
        let Some(path) = pages.get(kind) else { panic!("no link leads to {kind}: {pages:?}") };
        open_page(&browser, &gateway, path).await;
        assert!(!browser.text("h1").await.is_empty());
        browser.picture(&format!("console/{name}")).await;
    }
    drop(browser);
    end(&world, &mut gateway).await;
}
