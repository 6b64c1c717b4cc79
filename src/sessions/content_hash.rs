//! The hash that a blanked row keeps of its invite's content: a repeat of its message id is compared with that.

use crate::hmac_key::HmacKey;

/// Hashes content under a key, since all phone numbers could be tried without one.
#[derive(Debug, Clone)]
pub(crate) struct ContentHasher(HmacKey);

impl ContentHasher {
    /// Takes the key that the opt-outs hash numbers under. What is hashed here begins with a word, and no number does.
    pub(crate) const fn new(key: HmacKey) -> Self {
        Self(key)
    }

    /// The hash is stored: a further part may be added only where it is present, or old rows would match no repeat.
    ///
    /// `params` is `jsonb` as PostgreSQL writes it, so that the order of names does not count.
    pub(super) fn hash(&self, session_type: Option<i32>, phone: Option<&str>, params: &str) -> [u8; 32] {
        let session_type = session_type.map(|number| number.to_string()).unwrap_or_default();
        let parts = ["content", &session_type, phone.unwrap_or_default(), params];
        // No part holds U+0000, so it marks where each ends.
        let parts = parts.map(|part| [part.as_bytes(), b"\0"].concat());
        self.0.mac(&parts.each_ref().map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_and_the_key_change_the_hash() {
        let hash = |key: &[u8], number, phone, params| {
            ContentHasher::new(HmacKey::from_secret(key)).hash(number, phone, params)
        };
        let first = hash(b"key", Some(1), Some("+11110000000"), "{}");
        assert_eq!(first, hash(b"key", Some(1), Some("+11110000000"), "{}"));
        for other in [
            hash(b"another", Some(1), Some("+11110000000"), "{}"),
            hash(b"key", Some(11), Some("+11110000000"), "{}"),
            hash(b"key", None, Some("+11110000000"), "{}"),
            hash(b"key", Some(1), Some("+11110000001"), "{}"),
            hash(b"key", Some(1), None, "{}"),
            hash(b"key", Some(1), Some("+11110000000"), "{ }"),
        ] {
            assert_ne!(first, other);
        }
    }
}
