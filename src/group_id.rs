//! The id of a group.

use std::fmt;

/// A group's id: 1 … 2^53-1, so that every JSON reader can represent it exactly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(i64);

impl GroupId {
    /// The largest integer that every JSON reader keeps exact.
    pub const MAX: i64 = (1 << 53) - 1;

    /// `None` outside 1 … 2^53-1.
    pub const fn new(id: i64) -> Option<Self> {
        if id >= 1 && id <= Self::MAX { Some(Self(id)) } else { None }
    }

    /// The number, 1 … [`Self::MAX`].
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
