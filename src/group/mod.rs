//! A group: one tenant, with its settings, its keys and the addresses that stand for its users.

pub mod directory;
pub mod options;
pub mod store;
pub mod template;
#[cfg(test)]
pub(crate) mod tests;

use crate::{group_id::GroupId, hmac_key::HmacKey};
use options::Options;
use template::{JoinUrl, Wording};

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
