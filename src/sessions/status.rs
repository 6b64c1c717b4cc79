//! The two columns for the progress of a session and of its text. The schema's checks have the same words.

use crate::refusal::{Code, Refusal};
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
pub(crate) enum Status {
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
    /// Surely no text: the same request can never succeed.
    Rejected,
    /// Surely no text: the same request may succeed later.
    Failed,
}

/// `sessions.text_state`: what is known of a session's text (docs/DELIVERY.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum TextState {
    /// A try is under way, or its worker died.
    Begun,
    /// The provider surely did not take the last try; there will be another.
    Waiting,
    /// The provider may have taken a try: the text is being looked for, or that was never settled.
    Unknown,
    Accepted,
    Refused,
}

impl Status {
    /// Of a request that surely brought no text.
    pub(crate) fn of_refusal(refusal: &Refusal) -> Self {
        Self::of_code(refusal.code)
    }

    /// The same, by the refusal's code.
    pub(crate) fn of_code(code: Code) -> Self {
        if code.is_failure() { Self::Failed } else { Self::Rejected }
    }

    /// The word in the table, in replies and in events.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

impl TextState {
    /// The word in the table.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantNames;

    #[test]
    fn each_status_is_a_word_that_the_table_allows() {
        let migration = include_str!("../../migrations/20261124000002_sessions.sql");
        for word in Status::VARIANTS {
            assert!(migration.contains(&format!("'{word}'")), "{word}");
            assert_eq!(word.parse::<Status>().map(Status::as_str), Ok(*word));
        }
        assert!("SENT".parse::<Status>().is_err() && "".parse::<TextState>().is_err());
    }
}
