//! The text that a visitor gets.

use crate::masked::debug_shows;

/// A rendered text, from the group's wording to the provider's request. It holds the link and the key, so its `Debug`
/// shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SmsText(String);

debug_shows!(SmsText {});

impl SmsText {
    /// The text of a session whose row was blanked: it is lost.
    pub const LOST: Self = Self(String::new());

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SmsText {
    fn from(text: String) -> Self {
        Self(text)
    }
}
