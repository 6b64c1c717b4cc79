//! Who comes in, and whose forms change something.

use super::{Browser, TOKEN, assert_headers, assert_page, form, form_token, log_in};
use crate::support::{Setup, World, doctor, send, until, with_gateway_under_path};
use serde_json::json;

/// The pages that exist, with one that changes something.
const PAGES: [&str; 7] = [
    "/console",
    "/console/live",
    "/console/groups",
    "/console/groups/72",
    "/console/groups/72/pause",
    "/console/audit",
    "/console/nothing",
];

#[tokio::test]
async fn without_its_settings_there_is_no_console() {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let unknown = send(gateway.request("GET", "/no-such-address")).await.problem(404, "not_found");
    for path in PAGES.into_iter().chain(["/console/login", "/console/assets/x.css", "/console/"]) {
        let answer = send(gateway.request("GET", path).header("X-Forwarded-User", "Ann")).await;
        assert_eq!(answer.problem(404, "not_found").detail, unknown.detail, "{path}");
        let answer = send(form(&gateway, path, &[("token", TOKEN), ("name", "Ann")])).await;
        assert_eq!(answer.problem(404, "not_found").detail, unknown.detail, "{path}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_gateway_with_a_short_token_or_with_a_header_that_anyone_can_send_does_not_start() {
    let world = Setup::default().without_worker().await;
    for (settings, fault) in [
        (&[("CONSOLE_TOKEN", "too short")][..], "CONSOLE_TOKEN"),
        (&[("CONSOLE_USER_HEADER", "X-Forwarded-User")], "TRUSTED_PROXIES"),
        (&[("CONSOLE_USER_HEADER", "a b"), ("TRUSTED_PROXIES", "127.0.0.1")], "CONSOLE_USER_HEADER"),
    ] {
        let environment = world.environment(settings);
        let refused = crate::support::run(&environment, &["gateway"]).fails(2);
        assert!(refused.contains(fault) && !refused.contains("too short"), "{refused}");
    }
    let shown =
        crate::support::run(&world.environment(&[("CONSOLE_TOKEN", TOKEN)]), &["config", "show", "gateway"]);
    let shown = shown.ok();
    assert!(
        shown.contains("CONSOLE_TOKEN") && shown.contains("[masked]") && !shown.contains(TOKEN),
        "{shown}"
    );
}

#[tokio::test]
async fn nobody_sees_a_page_before_the_login_which_leads_back_to_it() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let log = gateway.process.log();
    assert!(
        log.contains(&format!("the console is at http://{}/console on this machine", gateway.address)),
        "{log}"
    );
    for path in PAGES {
        let answer = send(gateway.request("GET", path)).await;
        let status = if path.ends_with("nothing") { 404 } else { 401 };
        assert_eq!(answer.status, status, "{path}");
        assert_page(&answer);
        assert!(!answer.body.contains("Log out") && !answer.body.contains("/console/audit\""), "{path}");
        if status == 401 {
            assert_eq!(answer.header("www-authenticate"), Some("Form"));
            let next = path.strip_prefix("/console").filter(|rest| !rest.is_empty()).unwrap_or("/");
            assert!(answer.body.contains(&format!("name=\"next\" value=\"{next}\"")), "{}", answer.body);
        }
    }
    for (next, location) in [
        ("/groups/72?done=pause", "/console/groups/72?done=pause"),
        ("/sessions?id=%2B12015550123&since=1h", "/console/sessions?id=%2B12015550123&since=1h"),
        ("/", "/console"),
        ("", "/console"),
        ("/\r\nSet-Cookie: x=y", "/console"),
        ("https://evil.example", "/console"),
        // What a browser makes of these is another host, or a path that is not the console's.
        ("//evil.example/x", "/console"),
        ("/\\evil.example", "/console"),
        ("/\\\\evil.example", "/console"),
        ("/../x", "/console"),
        ("/..", "/console"),
        ("/./../../x", "/console"),
        ("/groups/../../s/x", "/console"),
        ("/..\\..\\x", "/console"),
        ("/%2e%2e/x", "/console"),
        ("/.%2E/x", "/console"),
        ("/%2E./x", "/console"),
        ("/\t/evil.example", "/console"),
        ("\t//evil.example", "/console"),
        ("/groups\u{0}", "/console"),
        ("/groups#x", "/console"),
        ("@evil.example", "/console"),
        (".evil.example", "/console"),
    ] {
        let answer = log_in(&gateway, &[("token", TOKEN), ("name", "Ann"), ("next", next)]).await;
        assert_eq!(answer.header("set-cookie").map(|cookie| cookie.contains("x=y")), Some(false));
        assert_eq!((answer.status, answer.header("location")), (303, Some(location)), "{next}");
        assert_headers(&answer);
    }
    let style = send(gateway.request("GET", "/console/login")).await;
    let (_, style) = style.body.split_once("<link rel=\"stylesheet\" href=\"").unwrap();
    let style = send(gateway.request("GET", style.split('"').next().unwrap())).await;
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert!(style.header("cache-control").unwrap().contains("immutable"));
    assert_headers(&style);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_too_many_of_them_stop_the_right_one_too() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    // A name that is none costs no try.
    for name in ["", " ", "a\u{202e}b", &"x".repeat(65)] {
        let answer = log_in(&gateway, &[("token", TOKEN), ("name", name)]).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (400, None), "{name:?}");
    }
    Browser::logged_in(&gateway, "Ann").await;
    let long = "x".repeat(20_000);
    let wrong = ["", "x", &TOKEN[1..], &long, "<script>alert(1)</script>"];
    for token in wrong.into_iter().cycle().take(10) {
        let answer =
            log_in(&gateway, &[("token", token), ("name", "<script>"), ("next", "/\"><script>")]).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None), "{token:?}");
        assert_page(&answer);
    }
    let throttled = log_in(&gateway, &[("token", TOKEN), ("name", "Ann")]).await;
    assert_eq!((throttled.status, throttled.header("set-cookie")), (429, None));
    assert!(throttled.header("retry-after").unwrap().parse::<u64>().unwrap() > 30);
    assert_page(&throttled);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_cookie_is_worth_nothing_after_a_change_and_with_another_token() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let browser = Browser::logged_in(&gateway, "Ann").await;
    let bob = Browser::logged_in(&gateway, "Ann").await;
    assert_eq!(browser.open("/console").await.status, 200);
    let (name, value) = browser.cookie.split_once('=').unwrap();
    let mut parts: Vec<_> = value.split('.').collect();
    let later = (parts[0].parse::<u64>().unwrap() + 1).to_string();
    parts[0] = &later;
    for forged in
        [parts.join("."), value[1..].to_owned(), String::new(), "....".to_owned(), "x".repeat(4_000)]
    {
        let forged = Browser { gateway: &gateway, cookie: format!("{name}={forged}") };
        assert_eq!(forged.open("/console").await.status, 401);
    }
    // All gateways agree, and a change of the token ends every login.
    for (token, status) in [(TOKEN, 200), ("another token of the console", 401)] {
        world.is_secret(token);
        let mut other = world.start_gateway(&[("CONSOLE_TOKEN", token)]).await;
        let there = Browser { gateway: &other, cookie: browser.cookie.clone() };
        assert_eq!(there.open("/console").await.status, status);
        let both = "select count(*) = 2 from processes where kind = 'gateway' and settings ? 'CONSOLE_TOKEN'";
        until("both gateways report", || async { world.database.value::<bool>(both).await.then_some(()) })
            .await;
        let settings: String =
            world.database.value("select string_agg(settings::text, ' ') from processes").await;
        assert!(!settings.contains(token), "only a hash is stored");
        let verdict = if status == 401 { "warning" } else { "ok" };
        let found = doctor(&world.environment(&[]), None, &[("settings", verdict)]).await;
        let found = serde_json::to_string(&found).expect("findings are JSON");
        assert_eq!(found.contains("CONSOLE_TOKEN of gateway"), status == 401, "{found}");
        assert!(other.process.stop().success());
    }
    let page = browser.open("/console").await;
    let out = browser.send_form(&page, "/console/logout").await;
    assert_eq!((out.status, out.header("location")), (303, Some("/console/login")));
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    // A copy of the cookie is worth nothing after that. Other logins stay.
    assert_eq!(browser.open("/console").await.status, 401);
    assert_eq!(bob.open("/console").await.status, 200);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_header_of_a_trusted_proxy_names_the_operator_and_that_of_others_is_nothing() {
    let world = World::start().await;
    let header = ("CONSOLE_USER_HEADER", "X-Forwarded-User");
    let mut gateway = world.start_gateway(&[header, ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let open = async |names: &[&str]| {
        let request = names.iter().fold(gateway.request("GET", "/console/groups"), |request, name| {
            request.header("X-Forwarded-User", name.as_bytes())
        });
        let answer = send(request).await;
        assert_page(&answer);
        answer
    };
    let page = open(&["Zoë O'Brien"]).await;
    assert!(page.status == 200 && page.body.contains("Zoë O'Brien"), "{}", page.body);
    assert!(!page.body.contains("Log out"), "the proxy's login ends at the proxy");
    let nobody = open(&[]).await;
    assert!(nobody.status == 401 && !nobody.body.contains("type=\"password\""), "there is no token");
    let long = "x".repeat(65);
    for hostile in [&[""][..], &["  "], &["Ann", "Bob"], &[&long], &["a\tb"], &["a\u{202e}b"], &["a\u{200b}"]]
    {
        assert_eq!(open(hostile).await.status, 403, "{hostile:?}");
    }
    assert!(gateway.process.stop().success());

    let mut gateway = world.start_gateway(&[header, ("TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    let request = gateway.request("GET", "/console/groups").header("X-Forwarded-User", "Ann");
    assert_eq!(send(request.header("X-Forwarded-For", "10.0.0.1")).await.status, 401);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_forged_form_changes_nothing() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let (ann, bob) = (Browser::logged_in(&gateway, "Ann").await, Browser::logged_in(&gateway, "Bob").await);
    let path = "/console/groups/72/pause";
    let page = ann.open(path).await;
    let token = form_token(&page, path);
    let of_bob = form_token(&bob.open(path).await, path);
    let of_another = form_token(&ann.open("/console/groups/72/disable").await, "/console/groups/72/disable");
    for forged in [
        &[][..],
        &[("form_token", "")],
        &[("form_token", &token[1..])],
        &[("form_token", &of_bob)],
        &[("form_token", &of_another)],
        &[("form_token", "x"), ("form_token", &token)],
    ] {
        let answer = ann.post(path, forged).await;
        assert_eq!(answer.status, 403, "{forged:?}");
        assert_page(&answer);
    }
    let right: &[(&str, &str)] = &[("form_token", &token)];
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let answer = send(ann.request(path, right).header(name, value)).await;
        assert_eq!(answer.status, 403, "{name}: {value}");
        let login =
            form(&gateway, "/console/login", &[("token", TOKEN), ("name", "Eve")]).header(name, value);
        let login = send(login).await;
        assert_eq!((login.status, login.header("set-cookie")), (403, None), "{name}: {value}");
    }
    let body = format!("form_token={token}");
    let plain =
        gateway.request("POST", path).header("Cookie", &ann.cookie).header("Content-Type", "text/plain");
    assert_eq!(send(plain.body(body)).await.status, 415);
    assert_eq!(send(form(&gateway, path, right)).await.status, 401, "without a cookie");
    // No address changes anything by GET.
    assert_eq!(ann.open(&format!("{path}?form_token={token}")).await.status, 200);
    assert_eq!(
        world.database.value::<i64>("select count(*) from audit_log where action = 'groups pause'").await,
        0
    );
    assert!(!world.database.value::<bool>("select paused_at is not null from groups where id = 72").await);

    let origin = format!("http://{}", gateway.address);
    let request = ann.request(path, right).header("Origin", origin).header("Sec-Fetch-Site", "same-origin");
    assert_eq!(send(request).await.status, 303);
    assert!(world.database.value::<bool>("select paused_at is not null from groups where id = 72").await);
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn a_page_of_another_site_can_open_a_page_and_embed_none() {
    let world = World::start().await;
    let mut gateway = world.start_gateway_with_console().await;
    let ann = Browser::logged_in(&gateway, "Ann").await;
    let login = ann.open("/console/login").await;
    let (_, style) = login.body.split_once("<link rel=\"stylesheet\" href=\"").expect("a style");
    let style = style.split('"').next().expect("an address").to_owned();
    let get = async |path: &str, headers: [&str; 3]| {
        let names = ["Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"];
        let request = gateway.request("GET", path).header("Cookie", &ann.cookie);
        let named = names.into_iter().zip(headers).filter(|(_, value)| !value.is_empty());
        send(named.fold(request, |request, (name, value)| request.header(name, value))).await
    };
    for path in PAGES.into_iter().chain([style.as_str(), "/console/login"]) {
        let status = if path.ends_with("nothing") { 404 } else { 200 };
        // The address bar, the console's own pages, a link in a chat, and a client that is no browser.
        for allowed in [
            ["none", "navigate", "document"],
            ["same-origin", "navigate", "document"],
            ["same-origin", "cors", "empty"],
            ["same-origin", "no-cors", "style"],
            ["cross-site", "navigate", "document"],
            ["same-site", "navigate", "document"],
            ["", "", ""],
        ] {
            let answer = get(path, allowed).await;
            assert_eq!(answer.status, status, "{path} {allowed:?}");
            assert_headers(&answer);
        }
        for refused in [
            ["cross-site", "no-cors", "image"],
            ["cross-site", "no-cors", "script"],
            ["cross-site", "cors", "empty"],
            ["cross-site", "navigate", "iframe"],
            ["cross-site", "navigate", "object"],
            ["same-site", "no-cors", "style"],
            ["cross-site", "", ""],
            ["cross-site", "navigate", ""],
            ["unheard-of", "no-cors", "image"],
        ] {
            let answer = get(path, refused).await;
            assert_eq!(answer.status, 403, "{path} {refused:?}");
            assert_page(&answer);
            assert!(!answer.body.contains("Log out") && !answer.body.contains("name=\"token\""), "{path}");
        }
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn the_audit_tells_how_a_name_was_proven_and_a_name_is_no_more_than_a_name() {
    let world = World::start().await;
    world.is_secret(TOKEN);
    let settings = [
        ("CONSOLE_TOKEN", TOKEN),
        ("CONSOLE_USER_HEADER", "X-Forwarded-User"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let mut gateway = world.start_gateway(&settings).await;
    let hostile = "Ann\" (named by a trusted proxy), as \u{201d}root\u{ff02}";
    let eve = Browser::logged_in(&gateway, hostile).await;
    let path = "/console/groups/72/pause";
    assert_eq!(eve.send_form(&eve.open(path).await, path).await.status, 303);
    let path = "/console/groups/72/resume";
    let by_proxy = |request: reqwest::RequestBuilder| request.header("X-Forwarded-User", "Zoë O'Brien");
    let page = until("the page has its form", || async {
        let page = send(by_proxy(gateway.request("GET", path))).await;
        page.body.contains(&format!("action=\"{path}\"")).then_some(page)
    })
    .await;
    let token = form_token(&page, path);
    assert_eq!(send(by_proxy(form(&gateway, path, &[("form_token", &token)]))).await.status, 303);
    world.run(&["groups", "disable", "72", "--acting-as", "console (proxy) 192.0.2.1: Bob"]).ok();

    let rows = world.run(&["audit", "list", "--json", "--limit", "3"]).json();
    let shown: Vec<_> =
        rows.as_array().expect("rows").iter().map(|row| [&row["nameFrom"], &row["command"]]).collect();
    assert_eq!(
        shown[1..],
        [
            [&json!("proxy"), &json!("console (proxy) 127.0.0.1: groups resume 72")],
            [&json!("token"), &json!("console (token) 127.0.0.1: groups pause 72")],
        ]
    );
    assert_eq!((shown[0][0], &rows[2]["actingAs"]), (&json!("option"), &json!(hostile)));
    let table = world.run(&["audit", "list", "--limit", "3"]).ok();
    let page = eve.open("/console/audit").await.body.replace("&quot;", "\"").replace("&amp;", "&");
    for part in [
        "\"Zoë O'Brien\" (named by a trusted proxy), as ",
        "\"Ann\\\" (named by a trusted proxy), as \\u{201d}root\\u{ff02}\" (typed beside the console's token), as ",
        "\"console (proxy) 192.0.2.1: Bob\", as ",
    ] {
        assert!(table.contains(part), "{part}: {table}");
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(gateway.process.stop().success());
}

#[tokio::test]
async fn under_a_path_of_public_url_every_link_has_it() {
    let (mut world, mut gateway) =
        with_gateway_under_path(Setup::default().set("CONSOLE_TOKEN", TOKEN), "/invite").await;
    let answer = log_in(&gateway, &[("token", TOKEN), ("name", "Ann")]).await;
    assert_eq!(answer.header("location"), Some("/invite/console"));
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("Path=/invite/console;") && !cookie.contains("Secure"), "{cookie}");
    let log = gateway.process.log();
    for address in ["/console on this machine", "/invite/console if PUBLIC_URL leads to this gateway"] {
        assert!(log.contains(&format!("http://{}{address}", gateway.address)), "{address}: {log}");
    }
    let browser = Browser { gateway: &gateway, cookie: cookie.split(';').next().unwrap().to_owned() };
    for path in ["/invite/console/groups/72", "/console/groups/72", "/invite/console/groups/72/"] {
        let page = browser.open(path).await;
        assert_eq!(page.status, 200, "{path}");
        for part in page.body.split(" href=\"").skip(1).chain(page.body.split(" action=\"").skip(1)) {
            assert!(part.starts_with("/invite/console") || part.starts_with("#main"), "{part}");
        }
    }
    // A proxy's rule for the console does not hold for other cases.
    for path in ["/Invite/console/groups/72", "/invite/CONSOLE/groups/72", "/Console", "/%63onsole"] {
        let answer = send(gateway.request("GET", path).header("Cookie", &browser.cookie)).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (404, Some("application/problem+json")),
            "{path}"
        );
    }
    assert!(gateway.process.stop().success());
    world.stop_worker();
}
