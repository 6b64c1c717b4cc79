//! How far an invite may go in one delivery.

use crate::trouble::Trouble;

/// How far an invite may go in this delivery. The queue decides, by the number of deliveries before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// To its outcome.
    Whole,
    /// As far as its row. Such a message is worked alone, and must not make the others wait: a retry copy does the rest.
    RowOnly,
    /// Only if it has a row already: the message was delivered too often without leaving one.
    ExistingRow { deliveries: i64 },
}

impl Extent {
    /// Whether the invite may wait, for its slot or another worker, and hand a text over.
    pub fn is_whole(self) -> bool {
        self == Self::Whole
    }

    /// # Errors
    ///
    /// A defect, for a message that was delivered too often to begin once more.
    pub fn ensure_may_begin(self) -> Result<(), Trouble> {
        match self {
            Self::Whole | Self::RowOnly => Ok(()),
            Self::ExistingRow { deliveries } => {
                Err(Trouble::Defect(format!("it was delivered {deliveries} times before")))
            }
        }
    }
}
