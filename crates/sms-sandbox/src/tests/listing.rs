//! Listing messages.

use reqwest::Method;
use serde_json::json;

use super::{MESSAGES, TestSandbox, answer, bodies};
use crate::Settings;

#[tokio::test]
async fn the_list_is_newest_first_and_links_its_pages() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    for body in ["a", "b", "c", "d", "e"] {
        sandbox.accept("+15551234567", body).await;
        sandbox.accept("+15557654321", "other").await;
    }
    let mut path = Some(format!("{MESSAGES}?To=%2B15551234567&PageSize=2"));
    let mut seen = Vec::new();
    while let Some(next) = path {
        let page = sandbox.get(&next).await;
        seen.push(bodies(&page["messages"]).concat());
        // A text that arrives in between does not move the pages.
        sandbox.accept("+15551234567", "late").await;
        path = page["next_page_uri"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, ["ed", "cb", "a"]);

    let second = sandbox.get(&format!("{MESSAGES}?To=%2B15557654321&PageSize=2&Page=2")).await;
    assert_eq!(second["messages"].as_array().unwrap().len(), 1);
    assert_eq!((&second["page"], &second["page_size"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn the_list_is_filtered_by_day_and_sender() {
    let sandbox = TestSandbox::start(Settings::default()).await;
    sandbox.accept("+15551234567", "today").await;
    let messages = sandbox.get("/sandbox/messages").await;
    let today = &messages[0]["received"].as_str().unwrap()[..10];
    let tomorrow = "9999-12-31";
    for (query, expected) in [
        (format!("DateSent%3E={today}"), 1),
        (format!("DateSent%3E={tomorrow}"), 0),
        (format!("DateSent%3C={tomorrow}"), 1),
        (format!("DateSent={today}"), 1),
        (format!("DateSent={tomorrow}"), 0),
        ("From=%2B15005550006".to_owned(), 1),
        ("From=%2B15005550007".to_owned(), 0),
    ] {
        let page = sandbox.get(&format!("{MESSAGES}?{query}")).await;
        assert_eq!(page["messages"].as_array().unwrap().len(), expected, "{query}");
    }
    for query in ["PageSize=0", "PageSize=1001", "DateSent=yesterday", "PageToken=x"] {
        let request = sandbox.request(Method::GET, &format!("{MESSAGES}?{query}"));
        assert_eq!(answer(request).await.0, 400, "{query}");
    }
}
