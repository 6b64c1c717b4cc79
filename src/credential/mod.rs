//! Who asks: the credential of an invite, from the places that may carry it to a [`Requester`].
//!
//! Three steps, each pure. [`collect`] finds the one credential and parses it; the caller looks up what it names (a
//! group's keys, an address, a website session); the token's own `verify` or `accept` decides.
//!
//! **Unknown group, unknown address, unknown key and wrong signature are one refusal**, made in one place
//! (`unproven`), and each costs at least one HMAC: a sender who proves nothing learns nothing.

mod collect;
mod encoding;
pub mod gjwt;
pub mod gkey;
pub mod gssnid;
mod refused;
mod requester;
mod subject;
#[cfg(test)]
mod tests;

pub use collect::{Source, SourceKind, SourceValue, collect};
pub use gjwt::GjwtToken;
pub use gkey::GkeyToken;
pub use gssnid::{GssnidToken, WebsiteSession};
pub(crate) use refused::unproven;
pub use requester::{CredentialKind, Requester};

use crate::refusal::Refusal;

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
