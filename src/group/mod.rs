//! A group: one tenant, with its settings, its keys and the addresses that stand for its users.

pub mod directory;
pub mod options;
pub mod seal;
pub mod store;
pub mod template;
#[cfg(test)]
pub(crate) mod tests;

use crate::credential::HmacKey;
use options::Options;
use std::fmt;
use template::{JoinUrl, Wording};

/// A group's id: 1 … 2^53-1, so that every JSON reader holds it exactly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(i64);

impl GroupId {
    pub const MAX: i64 = (1 << 53) - 1;

    /// `None` outside 1 … 2^53-1.
    pub const fn new(id: i64) -> Option<Self> {
        if id >= 1 && id <= Self::MAX { Some(Self(id)) } else { None }
    }

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

/// One of a group's JWT secrets. A token with a `kid` is checked against the one of that name only.
#[derive(Clone, Debug)]
pub struct JwtSecret {
    pub kid: Option<String>,
    pub key: HmacKey,
}

/// What the worker knows of a group: a snapshot, opened and checked when it was read.
#[derive(Clone, Debug)]
pub struct Group {
    pub id: GroupId,
    pub enabled: bool,
    pub options: Options,
    /// The options' template and link, parsed.
    pub wording: Wording,
    /// The options' join URL, parsed.
    pub join: Option<JoinUrl>,
    pub api_keys: Vec<HmacKey>,
    pub jwt_secrets: Vec<JwtSecret>,
    /// Whether some of its keys and secrets did not open: what they would have proven, nobody here can say.
    pub keys_missing: bool,
}
