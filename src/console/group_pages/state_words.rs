//! What the pages of groups have in common.

use crate::{
    console::words::{moment, number},
    sessions::recent,
};
use maud::{Markup, html};
use time::OffsetDateTime;

/// What decides whether the group's invites are texted.
pub(super) fn state(enabled: bool, paused_at: Option<OffsetDateTime>) -> Markup {
    html! {
        @match (enabled, paused_at) {
            (false, None) => span.bad-word { "disabled" },
            (false, Some(at)) => { span.bad-word { "disabled, and paused" } " since " (moment(at)) },
            (true, Some(at)) => { span.bad-word { "paused" } " since " (moment(at)) },
            (true, None) => span.good-word { "enabled" },
        }
    }
}

pub(super) fn invites_are_counted() -> String {
    format!("Invites are counted among the newest {} of all groups.", number(recent::ROWS))
}
