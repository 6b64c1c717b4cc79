//! GSSNID, a website session id: opaque, and good if the Authorization Service's table holds its SHA-256.

use super::{
    encoding::{BASE64URL, is_base64url},
    refused::{malformed, unproven},
    requester::{CredentialKind, Requester},
    subject::{check_name, parse_group},
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

/// A website session id of the right shape. The raw value is not kept.
pub struct GssnidToken {
    sha256: [u8; 32],
    group: Option<GroupId>,
}

/// A row of `website_sessions`, judged by Postgres's clock.
#[derive(Clone, PartialEq, Eq)]
pub struct WebsiteSession {
    pub group_id: GroupId,
    pub person_id: String,
    pub expired: bool,
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

    /// The key of the token's row in `website_sessions`: the SHA-256 of the whole token.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Decides by the row that [`sha256`](Self::sha256) finds, if any.
    ///
    /// # Errors
    ///
    /// `credential_invalid` without a row, when it is revoked, and when the token names another group than the row;
    /// else `credential_expired`.
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

/// A new website session id, made at `now` (Unix seconds), from a CSPRNG. It is good once its row is in the table.
///
/// It is what [`GssnidToken::parse`] takes only if the person has 1 … 255 characters, without dots and spaces.
pub fn mint(person: &str, now: i64, group: Option<GroupId>) -> String {
    let random = BASE64URL.encode(rand::random::<[u8; RANDOM_BYTES]>());
    match group {
        Some(group) => format!("{person}.{now}.{random}.{group}"),
        None => format!("{person}.{now}.{random}"),
    }
}
