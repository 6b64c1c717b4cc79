//! Sealing: groups' keys and secrets lie in Postgres only as XChaCha20-Poly1305 ciphertexts under `SECRETS_KEY`.
//!
//! A sealed value is a version byte, a random nonce, and the ciphertext with its tag. The group's id and the purpose
//! are associated data, so that a value copied to another row, or from one table to the other, does not open.

use crate::group_id::GroupId;
use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What a sealed value is for; part of its associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    ApiKey,
    JwtSecret,
}

impl Purpose {
    /// Never change a label: what was sealed under it would not open any more.
    const fn label(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key",
            Self::JwtSecret => "jwt-secret",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiKey => "API key",
            Self::JwtSecret => "JWT secret",
        })
    }
}

/// What a sealed value that belongs to no group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// Hashes the numbers of those who opted out.
    OptoutKey,
}

impl Shared {
    /// As for [`Purpose`]; 0 is no group's id.
    fn associated_data(self) -> Vec<u8> {
        let Self::OptoutKey = self;
        [0_i64.to_be_bytes().as_slice(), b"optout-key"].concat()
    }
}

/// Which key of `SECRETS_KEY` opened a sealed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedBy {
    /// The one that seals.
    First,
    /// Another, which may only go once the value is sealed anew.
    Older,
}

/// A sealed value that was opened.
#[derive(Debug)]
pub struct Opened {
    pub secret: SecretString,
    pub by: SealedBy,
}

/// The keys of `SECRETS_KEY`: the first seals, all open.
#[derive(Clone)]
pub struct SecretsKey {
    first: XChaCha20Poly1305,
    older: Vec<XChaCha20Poly1305>,
}

/// What is wrong with a `SECRETS_KEY`. Never quotes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key {position} is empty; make one with `openssl rand -base64 32`")]
    Empty { position: usize },
    #[error("key {position} is not base64; make one with `openssl rand -base64 32`")]
    NotBase64 { position: usize },
    #[error("key {position} has {bytes} bytes and must have 32; make one with `openssl rand -base64 32`")]
    Length { position: usize, bytes: usize },
}

/// A sealed value that no key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "group {group}: its {purpose} does not open: SECRETS_KEY lacks the key that sealed it (add that key after a comma), \
     or the stored value was changed"
)]
pub struct Unopenable {
    pub group: GroupId,
    pub purpose: Purpose,
}

impl SecretsKey {
    /// Reads 32 bytes of base64 (either alphabet, padded or not), or several such with commas between.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = text.split(',').enumerate().map(|(index, key)| cipher(index + 1, key.trim()));
        // `split` yields at least one piece, be it empty.
        let first = keys.next().unwrap_or(Err(KeyError::Empty { position: 1 }))?;
        Ok(Self { first, older: keys.collect::<Result<_, _>>()? })
    }

    /// Seals with the first key, under a random nonce: two seals of one value differ.
    pub fn seal(&self, group: GroupId, purpose: Purpose, secret: &SecretString) -> Vec<u8> {
        self.seal_with(&associated_data(group, purpose), secret)
    }

    /// The same for what belongs to no group.
    pub fn seal_shared(&self, what: Shared, secret: &SecretString) -> Vec<u8> {
        self.seal_with(&what.associated_data(), secret)
    }

    fn seal_with(&self, aad: &[u8], secret: &SecretString) -> Vec<u8> {
        let nonce = rand::random::<[u8; NONCE_BYTES]>();
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad };
        let ciphertext = self
            .first
            .encrypt(&XNonce::from(nonce), payload)
            .expect("XChaCha20-Poly1305 seals anything under 256 GiB");
        [&[VERSION], nonce.as_slice(), &ciphertext].concat()
    }

    /// Opens what any of the keys sealed for this group and purpose.
    pub fn open(&self, group: GroupId, purpose: Purpose, sealed: &[u8]) -> Result<SecretString, Unopenable> {
        self.open_by(group, purpose, sealed).map(|opened| opened.secret)
    }

    /// The same, with the key that opened it.
    pub fn open_by(&self, group: GroupId, purpose: Purpose, sealed: &[u8]) -> Result<Opened, Unopenable> {
        self.open_with(&associated_data(group, purpose), sealed).ok_or(Unopenable { group, purpose })
    }

    /// Whether there are keys besides the one that seals.
    pub fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// The same for what belongs to no group; `None` if no key opens it.
    pub fn open_shared(&self, what: Shared, sealed: &[u8]) -> Option<Opened> {
        self.open_with(&what.associated_data(), sealed)
    }

    fn open_with(&self, aad: &[u8], sealed: &[u8]) -> Option<Opened> {
        let (&VERSION, rest) = sealed.split_first()? else { return None };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let mut keys = std::iter::once(&self.first).chain(&self.older).enumerate();
        let (place, opened) = keys.find_map(|(place, key)| {
            let opened = key.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad }).ok()?;
            Some((place, opened))
        })?;
        let by = if place == 0 { SealedBy::First } else { SealedBy::Older };
        Some(Opened { secret: String::from_utf8(opened).ok()?.into(), by })
    }
}

impl fmt::Debug for SecretsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretsKey([REDACTED])")
    }
}

fn cipher(position: usize, text: &str) -> Result<XChaCha20Poly1305, KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty { position });
    }
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let bytes =
        GeneralPurpose::new(alphabet, LENIENT).decode(text).map_err(|_| KeyError::NotBase64 { position })?;
    let key: [u8; KEY_BYTES] =
        bytes.as_slice().try_into().map_err(|_| KeyError::Length { position, bytes: bytes.len() })?;
    Ok(XChaCha20Poly1305::new(&key.into()))
}

fn associated_data(group: GroupId, purpose: Purpose) -> Vec<u8> {
    [group.get().to_be_bytes().as_slice(), purpose.label().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    fn key(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; 32])
    }

    fn group(id: i64) -> GroupId {
        GroupId::new(id).unwrap()
    }

    #[test]
    fn every_writing_of_base64_is_read() {
        for engine in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD] {
            let sealed = SecretsKey::parse(&key(0xfb)).unwrap().seal(group(1), Purpose::ApiKey, &"k".into());
            let other = SecretsKey::parse(&engine.encode([0xfb; 32])).unwrap();
            assert!(other.open(group(1), Purpose::ApiKey, &sealed).is_ok());
        }
    }

    #[test]
    fn a_wrong_key_is_named_by_its_place_and_never_quoted() {
        let good = key(1);
        for (text, expected) in [
            (String::new(), KeyError::Empty { position: 1 }),
            (format!("{good},"), KeyError::Empty { position: 2 }),
            (format!("{good},no base64!"), KeyError::NotBase64 { position: 2 }),
            ("c2hvcnQ=".into(), KeyError::Length { position: 1, bytes: 5 }),
        ] {
            let error = SecretsKey::parse(&text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(error.to_string().contains("openssl rand -base64 32"));
        }
    }

    #[test]
    fn a_rotated_key_opens_the_old_and_seals_with_the_new() {
        let old = SecretsKey::parse(&key(1)).unwrap();
        let both = SecretsKey::parse(&format!("{}, {}", key(2), key(1))).unwrap();
        let new = SecretsKey::parse(&key(2)).unwrap();
        let by_old = old.seal(group(72), Purpose::ApiKey, &"k".into());
        let by_both = both.seal(group(72), Purpose::ApiKey, &"k".into());
        assert!(both.open(group(72), Purpose::ApiKey, &by_old).is_ok());
        assert!(new.open(group(72), Purpose::ApiKey, &by_both).is_ok());
        let error = new.open(group(72), Purpose::ApiKey, &by_old).unwrap_err().to_string();
        assert!(error.contains("group 72") && error.contains("SECRETS_KEY"), "{error}");
    }

    #[test]
    fn what_belongs_to_no_group_opens_as_no_groups_and_says_when_it_should_be_sealed_again() {
        let old = SecretsKey::parse(&key(1)).unwrap();
        let both = SecretsKey::parse(&format!("{},{}", key(2), key(1))).unwrap();
        let sealed = old.seal_shared(Shared::OptoutKey, &"k".into());
        assert_eq!(old.open_shared(Shared::OptoutKey, &sealed).unwrap().by, SealedBy::First);
        assert_eq!(both.open_shared(Shared::OptoutKey, &sealed).unwrap().by, SealedBy::Older);
        assert!(SecretsKey::parse(&key(2)).unwrap().open_shared(Shared::OptoutKey, &sealed).is_none());
        assert!(old.open(group(1), Purpose::ApiKey, &sealed).is_err());
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_group_and_purpose_only(secret in ".+", id in 1..GroupId::MAX) {
            let secrets = SecretsKey::parse(&key(7)).unwrap();
            let sealed = secrets.seal(group(id), Purpose::ApiKey, &secret.clone().into());
            let opened = secrets.open(group(id), Purpose::ApiKey, &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), secret.as_str());
            prop_assert!(secrets.open(group(id + 1), Purpose::ApiKey, &sealed).is_err());
            prop_assert!(secrets.open(group(id), Purpose::JwtSecret, &sealed).is_err());
        }

        #[test]
        fn a_changed_byte_or_a_cut_end_does_not_open(at in 0..50_usize, flip in 1..=255_u8) {
            let secrets = SecretsKey::parse(&key(7)).unwrap();
            let mut sealed = secrets.seal(group(72), Purpose::ApiKey, &"nine-chars".into());
            prop_assert!(secrets.open(group(72), Purpose::ApiKey, &sealed[..at]).is_err());
            sealed[at] ^= flip;
            prop_assert!(secrets.open(group(72), Purpose::ApiKey, &sealed).is_err());
        }
    }
}
