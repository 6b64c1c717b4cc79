//! Whom a credential proves.

use crate::group_id::GroupId;
use crate::masked::debug_shows;
use std::fmt;

/// The TYPE of `Bearer TYPE value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    Gkey,
    Gjwt,
    Gssnid,
}

impl CredentialKind {
    pub(super) const ALL: [Self; 3] = [Self::Gkey, Self::Gjwt, Self::Gssnid];

    /// The name in lower case, as `requested_by` begins with it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gkey => "gkey",
            Self::Gjwt => "gjwt",
            Self::Gssnid => "gssnid",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| name.eq_ignore_ascii_case(kind.as_str()))
    }
}

/// The sender that a credential proves, and the group that it is good for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Requester {
    pub group: GroupId,
    pub kind: CredentialKind,
    /// The partner's user id, the token's `sub` or the website's person id.
    pub user: String,
}

debug_shows!(Requester { group, kind });

impl Requester {
    /// What `sessions.requested_by` stores: `gkey:12345`.
    pub fn requested_by(&self) -> String {
        [self.kind.as_str(), ":", &self.user].concat()
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.requested_by())
    }
}
