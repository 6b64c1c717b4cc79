//! Sealing: Postgres has the groups' keys and secrets only as XChaCha20-Poly1305 ciphertexts under `SECRETS_KEY`.
//!
//! A sealed value is a version byte, a random nonce, and the ciphertext with its tag. The group's id and the purpose are
//! associated data, so that a value that was copied to another group's row or to another table does not open.

use crate::{group_id::GroupId, hmac_key::HmacKey};
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
/// What the key of the log's hashes is made for.
const LOG_DOMAIN: &[u8] = b"session-invite: credentials in the log, 1";
/// What the key is made for that keys of other purposes are derived from.
const DERIVED_DOMAIN: &[u8] = b"session-invite: derived keys, 1";
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What a group's sealed value is. It is part of the associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Purpose {
    #[strum(to_string = "API key")]
    ApiKey,
    #[strum(to_string = "JWT secret")]
    JwtSecret,
}

impl Purpose {
    /// In the associated data. Never change a label: the values that were sealed with it would not open any more.
    const fn label(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key",
            Self::JwtSecret => "jwt-secret",
        }
    }
}

/// What a sealed value without a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedPurpose {
    /// The key that hashes the numbers of opt-outs.
    OptoutKey,
}

impl SharedPurpose {
    /// As for [`Purpose`]. No group has the id 0.
    fn associated_data(self) -> Vec<u8> {
        let Self::OptoutKey = self;
        [0_i64.to_be_bytes().as_slice(), b"optout-key"].concat()
    }
}

/// Which key of `SECRETS_KEY` opened a sealed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedBy {
    /// The first, which seals.
    First,
    /// Another key. It may be removed only after the value is sealed again.
    Older,
}

/// The secret in a sealed value, and the key that opened it.
#[derive(Debug)]
pub struct OpenedSecret {
    pub secret: SecretString,
    pub by: SealedBy,
}

/// The keys of `SECRETS_KEY`: the first seals, all open.
#[derive(Clone)]
pub struct SecretsKey {
    first: XChaCha20Poly1305,
    older: Vec<XChaCha20Poly1305>,
    /// Made of the first key, for hashes that show a secret to nobody.
    log_key: HmacKey,
    /// Made of the first key, for keys of other purposes.
    deriving_key: HmacKey,
}

/// The fault of a `SECRETS_KEY`, without its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsKeyError {
    #[error("key {position} is empty; make one with `openssl rand -base64 32`")]
    Empty { position: usize },
    #[error("key {position} is not base64; make one with `openssl rand -base64 32`")]
    NotBase64 { position: usize },
    #[error("key {position} has {bytes} bytes, and must have 32; make one with `openssl rand -base64 32`")]
    Length { position: usize, bytes: usize },
}

/// A sealed value that no key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "group {group}: its {purpose} does not open: SECRETS_KEY lacks the key that sealed it (add that key after a comma), \
     or the stored value was changed"
)]
pub struct UnsealError {
    pub group: GroupId,
    pub purpose: Purpose,
}

impl SecretsKey {
    /// Reads 32 bytes in base64 (either alphabet, padded or not), or several such keys separated by commas.
    pub fn parse(text: &str) -> Result<Self, SecretsKeyError> {
        let mut keys = text.split(',').enumerate().map(|(index, key)| bytes(index + 1, key.trim()));
        // `split` yields at least one piece, be it empty.
        let first = keys.next().unwrap_or(Err(SecretsKeyError::Empty { position: 1 }))?;
        let key_for = |domain| HmacKey::from_secret(&HmacKey::from_secret(&first).mac(&[domain]));
        let (log_key, deriving_key) = (key_for(LOG_DOMAIN), key_for(DERIVED_DOMAIN));
        let older = keys.map(|key| key.map(|key| cipher(&key))).collect::<Result<_, _>>()?;
        Ok(Self { first: cipher(&first), older, log_key, deriving_key })
    }

    /// Eight hex digits by which the log shows a credential: equal for equal ones, and useless without this key.
    pub fn credential_hash(&self, credential: &str) -> String {
        let [a, b, c, d, ..] = self.log_key.mac(&[credential.as_bytes()]);
        format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
    }

    /// A key for one purpose, which also depends on `secret`: all processes with the same two derive the same key.
    pub fn derived_key(&self, purpose: &str, secret: &[u8]) -> HmacKey {
        HmacKey::from_secret(&self.deriving_key.mac(&[purpose.as_bytes(), b"\0", secret]))
    }

    /// Eight hex digits by which processes with the same `SECRETS_KEY` compare a secret without showing it. `name` is what
    /// the secret is.
    pub fn fingerprint(&self, name: &str, secret: &[u8]) -> String {
        let [a, b, c, d, ..] = self.log_key.mac(&[b"fingerprint ", name.as_bytes(), b" ", secret]);
        format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
    }

    /// Seals with the first key, under a random nonce: two seals of one value differ.
    pub fn seal(&self, group: GroupId, purpose: Purpose, secret: &SecretString) -> Vec<u8> {
        self.seal_with(&associated_data(group, purpose), secret)
    }

    /// The same for a value without a group.
    pub fn seal_shared(&self, what: SharedPurpose, secret: &SecretString) -> Vec<u8> {
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

    /// Opens a value that any of the keys sealed for this group and purpose.
    pub fn open(&self, group: GroupId, purpose: Purpose, sealed: &[u8]) -> Result<SecretString, UnsealError> {
        self.open_by(group, purpose, sealed).map(|opened| opened.secret)
    }

    /// The same; and which key opened it.
    pub fn open_by(
        &self,
        group: GroupId,
        purpose: Purpose,
        sealed: &[u8],
    ) -> Result<OpenedSecret, UnsealError> {
        self.open_with(&associated_data(group, purpose), sealed).ok_or(UnsealError { group, purpose })
    }

    /// Whether there are keys besides the one that seals.
    pub fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// Opens a value without a group; `None` if no key opens it.
    pub fn open_shared(&self, what: SharedPurpose, sealed: &[u8]) -> Option<OpenedSecret> {
        self.open_with(&what.associated_data(), sealed)
    }

    fn open_with(&self, aad: &[u8], sealed: &[u8]) -> Option<OpenedSecret> {
        let (&VERSION, rest) = sealed.split_first()? else { return None };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let mut keys = std::iter::once(&self.first).chain(&self.older).enumerate();
        let (index, bytes) = keys.find_map(|(index, key)| {
            let bytes = key.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad }).ok()?;
            Some((index, bytes))
        })?;
        let by = if index == 0 { SealedBy::First } else { SealedBy::Older };
        Some(OpenedSecret { secret: String::from_utf8(bytes).ok()?.into(), by })
    }
}

impl fmt::Debug for SecretsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretsKey([REDACTED])")
    }
}

fn cipher(key: &[u8; KEY_BYTES]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key).into())
}

fn bytes(position: usize, text: &str) -> Result<[u8; KEY_BYTES], SecretsKeyError> {
    if text.is_empty() {
        return Err(SecretsKeyError::Empty { position });
    }
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let bytes = GeneralPurpose::new(alphabet, LENIENT)
        .decode(text)
        .map_err(|_| SecretsKeyError::NotBase64 { position })?;
    bytes.as_slice().try_into().map_err(|_| SecretsKeyError::Length { position, bytes: bytes.len() })
}

fn associated_data(group: GroupId, purpose: Purpose) -> Vec<u8> {
    [group.get().to_be_bytes().as_slice(), purpose.label().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    #[test]
    fn the_hash_of_a_credential_depends_on_it_and_on_the_first_key_alone() {
        let (one, two) = (BASE64_STANDARD.encode([1; KEY_BYTES]), BASE64_STANDARD.encode([2; KEY_BYTES]));
        let hash = |keys: &str, credential| SecretsKey::parse(keys).unwrap().credential_hash(credential);
        assert_eq!(hash(&one, "72&1&a"), hash(&format!("{one},{two}"), "72&1&a"));
        assert_ne!(hash(&one, "72&1&a"), hash(&two, "72&1&a"));
        assert_ne!(hash(&one, "72&1&a"), hash(&one, "72&1&b"));
        assert_eq!(hash(&one, "").len(), 8);
    }

    fn key(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; 32])
    }

    fn group(id: i64) -> GroupId {
        GroupId::new(id).unwrap()
    }

    #[test]
    fn a_fingerprint_depends_on_the_first_key_the_name_and_the_secret() {
        let print = |keys: &str, name, secret| SecretsKey::parse(keys).unwrap().fingerprint(name, secret);
        let first = print(&key(1), "A", b"secret");
        assert!(first.len() == 8 && first.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
        assert_eq!(print(&format!("{},{}", key(1), key(2)), "A", b"secret"), first);
        for other in
            [print(&key(2), "A", b"secret"), print(&key(1), "B", b"secret"), print(&key(1), "A", b"")]
        {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn every_form_of_base64_is_read() {
        for engine in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD] {
            let sealed = SecretsKey::parse(&key(0xfb)).unwrap().seal(group(1), Purpose::ApiKey, &"k".into());
            let other = SecretsKey::parse(&engine.encode([0xfb; 32])).unwrap();
            assert!(other.open(group(1), Purpose::ApiKey, &sealed).is_ok());
        }
    }

    #[test]
    fn a_wrong_key_is_named_by_its_position_and_never_shown() {
        let good = key(1);
        for (text, expected) in [
            (String::new(), SecretsKeyError::Empty { position: 1 }),
            (format!("{good},"), SecretsKeyError::Empty { position: 2 }),
            (format!("{good},no base64!"), SecretsKeyError::NotBase64 { position: 2 }),
            ("c2hvcnQ=".into(), SecretsKeyError::Length { position: 1, bytes: 5 }),
        ] {
            let error = SecretsKey::parse(&text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(error.to_string().contains("openssl rand -base64 32"));
        }
    }

    #[test]
    fn with_two_keys_old_values_open_and_new_ones_are_sealed_with_the_first() {
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
    fn a_value_without_a_group_opens_as_such_only_and_shows_which_key_sealed_it() {
        let old = SecretsKey::parse(&key(1)).unwrap();
        let both = SecretsKey::parse(&format!("{},{}", key(2), key(1))).unwrap();
        let sealed = old.seal_shared(SharedPurpose::OptoutKey, &"k".into());
        assert_eq!(old.open_shared(SharedPurpose::OptoutKey, &sealed).unwrap().by, SealedBy::First);
        assert_eq!(both.open_shared(SharedPurpose::OptoutKey, &sealed).unwrap().by, SealedBy::Older);
        assert!(SecretsKey::parse(&key(2)).unwrap().open_shared(SharedPurpose::OptoutKey, &sealed).is_none());
        assert!(old.open(group(1), Purpose::ApiKey, &sealed).is_err());
    }

    proptest! {
        #[test]
        fn a_sealed_value_opens_for_its_group_and_purpose_only(secret in ".+", id in 1..GroupId::MAX) {
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
