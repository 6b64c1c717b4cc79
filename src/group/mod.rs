//! A group: one tenant, with its settings, its keys and the addresses that stand for its users.

pub mod directory;
pub mod options;
pub mod seal;
pub mod store;
pub mod template;
#[cfg(test)]
pub(crate) mod tests;

use crate::{credential::HmacKey, phone::PhoneCheck};
use options::RateLimit;
use std::{fmt, time::Duration};
use template::Wording;

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
    /// The region that a number without a country code is read in, as CLDR writes it (`US`).
    pub region: String,
    pub phone_check: PhoneCheck,
    /// The regions that the group texts; empty for any.
    pub countries: Vec<String>,
    /// Digits in a session key, 4 … 9.
    pub key_length: u8,
    /// The text's template and its link's, parsed.
    pub wording: Wording,
    /// The sender's number, when it is not `SMS_FROM`.
    pub sms_from: Option<String>,
    /// After it a session expires that nobody has joined.
    pub session_ttl: Duration,
    /// After it a joined session ends.
    pub session_max: Duration,
    /// For so long the key of an ended session is not given out again.
    pub key_rest: Duration,
    /// Texts to one number; `None` for no limit.
    pub per_number: Option<RateLimit>,
    /// Invites in a minute; `None` for no limit.
    pub per_minute: Option<u32>,
    /// Where the visitor's page leads.
    pub join_url: Option<String>,
    pub api_keys: Vec<HmacKey>,
    pub jwt_secrets: Vec<JwtSecret>,
    /// Whether some of its keys and secrets did not open: what they would have proven, nobody here can say.
    pub keys_missing: bool,
}
