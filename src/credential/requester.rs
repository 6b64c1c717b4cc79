//! The sender that a credential proves.

use crate::group_id::GroupId;
use crate::masked::debug_shows;
use std::fmt;
use strum::{EnumString, IntoStaticStr};

/// The TYPE of `Bearer TYPE value`; in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum CredentialKind {
    Gkey,
    Gjwt,
    Gssnid,
}

impl CredentialKind {
    /// The name in lower case, as `requested_by` begins with it.
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The sender that a credential proves, and its group.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Requester {
    /// The group that the credential belongs to.
    pub group: GroupId,
    /// The type of the credential.
    pub kind: CredentialKind,
    /// The partner's user id, the token's `sub` or the website's person id.
    pub user: String,
}

debug_shows!(Requester { group, kind });

impl Requester {
    /// The value of `sessions.requested_by`: `gkey:12345`.
    pub fn requested_by(&self) -> String {
        [self.kind.as_str(), ":", &self.user].concat()
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.requested_by())
    }
}
