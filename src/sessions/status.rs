//! The two columns that say how far a session and its text have come. SQL has the same words in its checks.

use crate::refusal::Refusal;
use serde::Serialize;
use strum::{EnumString, IntoStaticStr, VariantNames};

/// `sessions.status` (contract, section 5).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Its text is being handed over, or will be.
    Sending,
    Sent,
    Delivered,
    Undelivered,
    /// A text may have gone out.
    Unknown,
    Joined,
    Expired,
    Ended,
    /// Surely no text: the request can never succeed as it stands.
    Rejected,
    /// Surely no text: it might have succeeded.
    Failed,
}

/// `sessions.text_state`: what is known of a session's text (docs/DELIVERY.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TextState {
    /// A try is under way, or its worker died.
    Begun,
    /// Surely not taken; to be tried again.
    Waiting,
    /// A try may have been taken: it is being looked for, or was never settled.
    Unknown,
    Accepted,
    Refused,
}

impl Status {
    /// Of a request that surely brought no text.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        if refusal.code.is_failure() { Self::Failed } else { Self::Rejected }
    }

    /// The word in the table, in replies and in events.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl TextState {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantNames;

    #[test]
    fn each_status_is_the_word_that_the_table_takes() {
        let migration = include_str!("../../migrations/20261124000002_sessions.sql");
        for word in Status::VARIANTS {
            assert!(migration.contains(&format!("'{word}'")), "{word}");
            assert_eq!(word.parse::<Status>().map(Status::as_str), Ok(*word));
        }
        assert!("SENT".parse::<Status>().is_err() && "".parse::<TextState>().is_err());
    }
}
