//! Who asks: the credential of an invite, from the places that may carry it to a [`Requester`].
//!
//! Three steps, each pure. [`collect`] finds the one credential and parses it; the caller looks up what it names (a
//! group's keys, an address, a website session); the token's own `verify` or `accept` decides.
//!
//! **Unknown group, unknown address, unknown key and wrong signature are one refusal**, made in one place
//! (`unproven`), and each costs at least one HMAC: a sender who proves nothing learns nothing.

mod authenticate;
mod collect;
mod encoding;
pub mod gjwt;
pub mod gkey;
pub mod gssnid;
mod hmac_key;
#[cfg(test)]
mod tests;

pub use authenticate::{Authenticator, Caller, group_disabled};
pub use collect::{Source, SourceKind, SourceValue, collect};
pub use gjwt::GjwtToken;
pub use gkey::GkeyToken;
pub use gssnid::{GssnidToken, WebsiteSession};
pub use hmac_key::HmacKey;

use crate::masked::debug_shows;
use crate::{
    group::GroupId,
    refusal::{Code, Refusal},
};
use std::fmt;

/// A credential of the right shape, of which nothing is proven yet.
#[derive(Debug)]
pub enum Credential {
    Gkey(GkeyToken),
    Gjwt(GjwtToken),
    Gssnid(GssnidToken),
}

impl Credential {
    fn parse(kind: CredentialKind, value: &str) -> Result<Self, Refusal> {
        match kind {
            CredentialKind::Gkey => GkeyToken::parse(value).map(Self::Gkey),
            CredentialKind::Gjwt => GjwtToken::parse(value).map(Self::Gjwt),
            CredentialKind::Gssnid => GssnidToken::parse(value).map(Self::Gssnid),
        }
    }
}

/// The TYPE of `Bearer TYPE value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    Gkey,
    Gjwt,
    Gssnid,
}

impl CredentialKind {
    const ALL: [Self; 3] = [Self::Gkey, Self::Gjwt, Self::Gssnid];

    /// The name in lower case, as `requested_by` begins with it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gkey => "gkey",
            Self::Gjwt => "gjwt",
            Self::Gssnid => "gssnid",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| name.eq_ignore_ascii_case(kind.as_str()))
    }
}

/// Whoever a credential proved to be asking, and the group that it is good for.
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

/// The most characters in a user id, an address or a person id.
const MAX_NAME_CHARS: usize = 255;

/// Why a user id, an address or a person id cannot be one, if so.
fn check_name(name: &str, what: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return Err(malformed(format!("{what} must have 1 to {MAX_NAME_CHARS} characters")));
    }
    if name.contains('\0') {
        return Err(malformed(format!("{what} must not contain U+0000")));
    }
    Ok(())
}

/// A group id as tokens write it: decimal, without leading zeros, 1 … 2^53-1.
///
/// `072` is not `72`: a GKEY signs the digits as they stand.
fn parse_group(digits: &str, what: &str) -> Result<GroupId, Refusal> {
    let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok().and_then(GroupId::new)).flatten().ok_or_else(|| {
        malformed(format!("{what} must be a decimal number from 1 to 2^53-1 without leading zeros"))
    })
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::CredentialMalformed, message)
}

/// The one answer to every credential that proves nothing, whatever the reason.
fn unproven() -> Refusal {
    Refusal::new(
        Code::CredentialInvalid,
        "the credential is not good: its group, user, key or token is unknown or revoked, or its signature is wrong",
    )
}
