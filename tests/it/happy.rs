//! The request of the contract's section 1, from the queue to the reply.

use crate::support::{GROUP, Message, World, claims, gjwt};
use serde_json::json;

#[tokio::test]
async fn the_request_of_the_contract_becomes_a_session_a_text_and_a_reply() {
    let world = World::start().await;
    let reply = world.invite(&world.request()).await.sent();

    let key = reply["sessionKey"].as_str().unwrap();
    assert!(key.len() == 6 && key.bytes().all(|b| b.is_ascii_digit()), "{reply}");
    assert_eq!((&reply["groupid"], &reply["smsPhone"]), (&json!(GROUP), &json!("+11110000000")));

    let row = world.database.session().await;
    let token = row["token"].as_str().unwrap();
    assert_eq!(
        reply["invitationText"],
        format!("Join your session: http://127.0.0.1:8080/s/{token} (code {key})")
    );
    for (column, expected) in [
        ("id", &reply["sessionId"]),
        ("group_id", &json!(GROUP)),
        ("session_key", &reply["sessionKey"]),
        ("status", &json!("sent")),
        ("session_type", &json!(1)),
        ("session_params", &json!({"camera": "back", "resolution": "352x288"})),
        ("phone", &json!("+11110000000")),
        ("invitation_text", &reply["invitationText"]),
        ("requested_by", &json!("gkey:12345")),
        ("attempts", &json!(1)),
        ("provider_message_id", &reply["providerMessageId"]),
        ("error_code", &json!(null)),
    ] {
        assert_eq!(&row[column], expected, "{column}");
    }
    assert!(row["sent_at"].is_string() && row["ended_at"].is_null() && row["joined_at"].is_null());
    let ttl: f64 = world
        .database
        .value("select extract(epoch from expires_at - created_at)::float8 from sessions")
        .await;
    assert!((ttl - 600.0).abs() < 1.0, "{ttl}");

    let text = world.provider.text().await;
    assert_eq!((&text["to"], &text["from"]), (&json!("+11110000000"), &json!("+15005550006")));
    assert_eq!((&text["body"], &text["sid"]), (&reply["invitationText"], &reply["providerMessageId"]));
}
