//! Visitors who want no texts stay in peace.

use crate::support::{Message, World};
use serde_json::json;

/// As the provider's test numbers go, this one has opted out.
const OPTED_OUT: &str = "+15005550004";

#[tokio::test]
async fn the_providers_word_is_kept_and_it_is_not_asked_again() {
    let world = World::start().await;
    let request = world.request_with(json!({"smsPhone": OPTED_OUT}));
    let first = world.invite(&request).await.refused("rejected", "opted_out", 403);
    assert_eq!(first["providerCode"], 21610);
    for id in ["one", "two"] {
        let refused = world.ask(Message::json(&request).id(id)).await.refused("rejected", "opted_out", 403);
        assert_eq!(refused["field"], "smsPhone");
        assert_eq!(refused["retryable"], false);
    }
    assert_eq!(world.provider.posts().await, 1);
    let row: String = world.database.value("select o::text from optouts o").await;
    assert!(!row.contains("5005550004") && row.contains("+15005550006") && row.contains("provider"), "{row}");
    // Another sender's texts may be wanted.
    let options = ["--api-key", "the key of 73", "--sms-from", "+15550001111"].map(str::to_owned);
    world.add_group(73, &options);
    let of_73 = crate::support::gkey(73, "x", "the key of 73");
    let other = json!({"groupid": 73, "authorization": of_73, "smsPhone": OPTED_OUT});
    world.invite(&world.request_with(other)).await.refused("rejected", "opted_out", 403);
    assert_eq!(world.provider.posts().await, 2);
}
