//! HMAC-SHA256 keys.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{fmt, hint::black_box, sync::LazyLock};
use subtle::{Choice, ConstantTimeEq};

/// The length of an HMAC-SHA256 in unpadded base64url.
pub(crate) const SIGNATURE_CHARS: usize = 43;

/// An HMAC-SHA256 key. The state after its two padding blocks is computed once, so that each signature costs two compressions
/// less. The snapshot of the groups keeps it.
#[derive(Clone)]
pub struct HmacKey(Hmac<Sha256>);

impl HmacKey {
    /// A key of any length; one over 64 bytes is hashed first (RFC 2104).
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// The signature of the parts, joined without separators, in unpadded base64url.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(parts))
    }

    /// Compares the encoded signatures, so that one whose last character is not canonical is wrong too.
    fn signed(&self, parts: &[&[u8]], signature: &[u8]) -> Choice {
        let mut encoded = [0; SIGNATURE_CHARS];
        URL_SAFE_NO_PAD
            .encode_slice(self.mac(parts), &mut encoded)
            .expect("32 bytes are 43 characters of unpadded base64url");
        encoded.as_slice().ct_eq(signature)
    }

    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey([REDACTED])")
    }
}

/// Whether any of the keys made the signature. All keys are tried, and a decoy if there is no key, so that the time shows
/// neither which key it was nor whether there was one.
pub(crate) fn any_signed<'k>(
    keys: impl IntoIterator<Item = &'k HmacKey>,
    parts: &[&[u8]],
    signature: &[u8],
) -> bool {
    static DECOY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::from_secret(b"decoy"));

    let mut matched = Choice::from(0);
    let mut tried = false;
    for key in keys {
        matched |= key.signed(parts, signature);
        tried = true;
    }
    if !tried {
        // The decoy's result never counts: its secret is public.
        black_box(DECOY.signed(parts, signature).unwrap_u8());
    }
    matched.into()
}
