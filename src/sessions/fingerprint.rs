//! What stands for the content of an invite once its row is blanked: a repeat of its message id is compared with that.

use crate::hmac_key::HmacKey;

/// Content is hashed under a key, as a number has few enough digits to try them all.
#[derive(Debug, Clone)]
pub struct Fingerprints(HmacKey);

impl Fingerprints {
    /// Under the key that stands for numbers elsewhere: what is hashed here begins as no number does.
    pub const fn new(key: HmacKey) -> Self {
        Self(key)
    }

    /// `params` as PostgreSQL writes `jsonb`, so that names in another order are the same.
    pub fn of(&self, session_type: Option<i32>, phone: Option<&str>, params: &str) -> [u8; 32] {
        let session_type = session_type.map(|number| number.to_string()).unwrap_or_default();
        let parts = ["content", &session_type, phone.unwrap_or_default(), params];
        // No part holds U+0000, so each ends where that stands.
        let parts = parts.map(|part| [part.as_bytes(), b"\0"].concat());
        self.0.mac(&parts.each_ref().map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_counts_and_so_does_the_key() {
        let of = |key: &[u8], number, phone, params| {
            Fingerprints::new(HmacKey::from_secret(key)).of(number, phone, params)
        };
        let first = of(b"key", Some(1), Some("+11110000000"), "{}");
        assert_eq!(first, of(b"key", Some(1), Some("+11110000000"), "{}"));
        for other in [
            of(b"another", Some(1), Some("+11110000000"), "{}"),
            of(b"key", Some(11), Some("+11110000000"), "{}"),
            of(b"key", None, Some("+11110000000"), "{}"),
            of(b"key", Some(1), Some("+11110000001"), "{}"),
            of(b"key", Some(1), None, "{}"),
            of(b"key", Some(1), Some("+11110000000"), "{ }"),
        ] {
            assert_ne!(first, other);
        }
    }
}
