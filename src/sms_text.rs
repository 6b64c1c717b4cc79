//! The text to the visitor.

use crate::masked::debug_shows;

/// A rendered text. It holds the link and the key, so its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SmsText(String);

debug_shows!(SmsText {});

impl SmsText {
    /// Replaces the text of a row that was blanked.
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
