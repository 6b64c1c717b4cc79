//! How far an invite may go.

use crate::trouble::Trouble;

/// How far an invite may go in this delivery. The queue decides, by what became of the deliveries before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// To its outcome.
    Whole,
    /// As far as its row: the message is worked alone, and must not make the others wait. A copy of it goes on among them.
    RowOnly,
    /// As far as a row that is there already: it was delivered so often without leaving one.
    ExistingRow { deliveries: i64 },
}

impl Extent {
    /// Whether it may wait for a slot, a place, or another worker, and hand a text over.
    pub fn is_whole(self) -> bool {
        self == Self::Whole
    }

    /// # Errors
    ///
    /// A defect, for a message that was delivered too often to be begun once more.
    pub fn ensure_new_row(self) -> Result<(), Trouble> {
        match self {
            Self::Whole | Self::RowOnly => Ok(()),
            Self::ExistingRow { deliveries } => {
                Err(Trouble::Defect(format!("it was delivered {deliveries} times before")))
            }
        }
    }
}
