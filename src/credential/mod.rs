//! The credential of an invite: from the fields and headers that may carry it to a [`Requester`].
//!
//! Three steps, each pure. [`collect()`] finds the one credential and parses it. The caller reads what it names: a group's
//! keys, an address, or a website session. Then the token's own `verify` or `accept` decides.
//!
//! **An unknown group, address or key and a wrong signature give one refusal**, made in one place (`unproven`), and each
//! costs at least one HMAC. So a sender who proves nothing learns nothing.

mod collect;
mod encoding;
pub mod gjwt;
pub mod gkey;
pub(crate) mod gssnid;
mod names;
mod refusals;
mod requester;
#[cfg(test)]
mod tests;

pub use collect::{CredentialSource, SourceKind, SourceValue, collect};
pub use gjwt::GjwtToken;
pub use gkey::GkeyToken;
pub(crate) use gssnid::GssnidToken;
pub use gssnid::WebsiteSession;
pub(crate) use refusals::unproven;
pub(crate) use requester::CredentialKind;
pub use requester::Requester;

use crate::{group_id::GroupId, refusal::Refusal};

/// A credential of the right shape, which is not verified yet.
#[derive(Debug)]
pub enum Credential {
    /// A login key.
    Gkey(GkeyToken),
    /// A JSON web token.
    Gjwt(GjwtToken),
    /// A website session id.
    Gssnid(GssnidToken),
}

impl Credential {
    /// The group that it names itself, which nothing proves yet. An address names none.
    pub(crate) fn named_group(&self) -> Option<GroupId> {
        match self {
            Self::Gkey(token) => token.group_user(|_| None).map(|user| user.group),
            Self::Gjwt(token) => Some(token.group()),
            Self::Gssnid(token) => token.group(),
        }
    }

    fn parse(kind: CredentialKind, value: &str) -> Result<Self, Refusal> {
        match kind {
            CredentialKind::Gkey => GkeyToken::parse(value).map(Self::Gkey),
            CredentialKind::Gjwt => GjwtToken::parse(value).map(Self::Gjwt),
            CredentialKind::Gssnid => GssnidToken::parse(value).map(Self::Gssnid),
        }
    }
}
