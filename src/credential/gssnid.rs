//! GSSNID, a website session id: opaque, and valid if the Authorization Service's table has its SHA-256.

use super::{
    encoding::{BASE64URL, is_base64url},
    names::{check_name, parse_group},
    refusals::{malformed, unproven},
    requester::{CredentialKind, Requester},
};
use crate::masked::debug_shows;
use crate::{
    group_id::GroupId,
    refusal::{Code, Refusal},
};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use std::fmt;

/// Bytes of randomness in a minted token: 32 characters of base64url.
const RANDOM_BYTES: usize = 24;

/// A website session id of the right shape. Only its hash is kept.
pub struct GssnidToken {
    sha256: [u8; 32],
    group: Option<GroupId>,
}

/// A row of `website_sessions`. Postgres's clock decides whether it is expired or revoked.
#[derive(Clone, PartialEq, Eq)]
pub struct WebsiteSession {
    /// The group that the session belongs to.
    pub group_id: GroupId,
    /// The user.
    pub person_id: String,
    /// Its `expires_at` has passed.
    pub expired: bool,
    /// Its `revoked_at` has passed.
    pub revoked: bool,
}

debug_shows!(WebsiteSession { group_id, expired, revoked });

impl GssnidToken {
    /// Reads `person.unixtime.random` or `person.unixtime.random.group`.
    ///
    /// # Errors
    ///
    /// `credential_malformed`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        let mut parts = value.split('.');
        let (Some(person), Some(time), Some(random), group, None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed(
                "a GSSNID must read 'person.unixtime.random' or 'person.unixtime.random.group'",
            ));
        };
        check_name(person, "the GSSNID's person")?;
        if person.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(malformed("the GSSNID's person must not contain spaces or control characters"));
        }
        if !(1..=12).contains(&time.len()) || !time.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed("the GSSNID's time must be 1 to 12 digits"));
        }
        if !(16..=64).contains(&random.len()) || !is_base64url(random) {
            return Err(malformed("the GSSNID's random part must be 16 to 64 characters of base64url"));
        }
        let group = group.map(|group| parse_group(group, "the GSSNID's group")).transpose()?;
        Ok(Self { sha256: Sha256::digest(value).into(), group })
    }

    /// The group that it names.
    pub(crate) fn group(&self) -> Option<GroupId> {
        self.group
    }

    /// The SHA-256 of the whole token, which is the key of its row in `website_sessions`.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Verifies the token by its row, if there is one for [`sha256`](Self::sha256).
    ///
    /// # Errors
    ///
    /// `credential_invalid` without a row, for a revoked one, and when the token names another group than the row;
    /// `credential_expired` for an expired row.
    pub fn accept(&self, row: Option<&WebsiteSession>) -> Result<Requester, Refusal> {
        let row = row.filter(|row| !row.revoked).ok_or_else(unproven)?;
        if self.group.is_some_and(|group| group != row.group_id) {
            return Err(unproven());
        }
        if row.expired {
            return Err(Refusal::new(Code::CredentialExpired, "the website session has expired"));
        }
        Ok(Requester { group: row.group_id, kind: CredentialKind::Gssnid, user: row.person_id.clone() })
    }
}

impl fmt::Debug for GssnidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GssnidToken([REDACTED])")
    }
}

/// Makes a website session id at `now` (Unix seconds), from a CSPRNG. It is valid once its row is in the table.
///
/// [`GssnidToken::parse`] accepts it only if the person has 1 … 255 characters, without dots and spaces.
pub(crate) fn mint(person: &str, now: i64, group: Option<GroupId>) -> String {
    let random = BASE64URL.encode(rand::random::<[u8; RANDOM_BYTES]>());
    match group {
        Some(group) => format!("{person}.{now}.{random}.{group}"),
        None => format!("{person}.{now}.{random}"),
    }
}
