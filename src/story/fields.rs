//! A session's columns, with names for people.

use super::words::shown;
use crate::{
    invite::reply::to_the_second,
    output::plain,
    sessions::{TextState, lookup::SessionDetails},
};
use time::OffsetDateTime;

pub(crate) fn fields(row: &SessionDetails) -> Vec<(&'static str, String)> {
    let time = |at: Option<OffsetDateTime>| at.map_or_else(|| "-".to_owned(), to_the_second);
    vec![
        ("id", row.id.to_string()),
        ("group", row.group_id.to_string()),
        ("session key", shown(row.session_key.as_ref())),
        ("status", row.status.as_str().to_owned()),
        ("error", shown(row.error_code.as_ref())),
        ("what happened", shown(row.error.as_ref().and_then(|error| error["message"].as_str()))),
        ("phone", shown(row.phone.as_ref())),
        ("text", shown(row.invitation_text.as_ref())),
        ("state of the text", shown(row.text_state.map(TextState::as_str))),
        ("session type", shown(row.session_type.map(|kind| kind.to_string()))),
        ("session params", row.session_params.to_string()),
        ("requested by", plain(&row.requested_by)),
        ("message id", shown(row.message_id.as_ref())),
        ("correlation id", shown(row.correlation_id.as_ref())),
        ("attempts", row.attempts.to_string()),
        ("looks that missed", row.looks.to_string()),
        ("rests until", time(row.lease_until)),
        ("provider's id", shown(row.provider_message_id.as_ref())),
        ("created", to_the_second(row.created_at)),
        ("sent", time(row.sent_at)),
        ("delivered", time(row.delivered_at)),
        ("undelivered", time(row.undelivered_at)),
        ("joined", time(row.joined_at)),
        ("ended", time(row.ended_at)),
        ("expires", time(row.expires_at)),
        ("updated", to_the_second(row.updated_at)),
    ]
}
