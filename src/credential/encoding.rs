//! The encodings of tokens, read strictly: a second spelling of a token must not verify too.

use base64::engine::{GeneralPurpose, general_purpose::URL_SAFE_NO_PAD};
use std::fmt::Write as _;

/// Base64url without padding (RFC 4648 §5); its decoder refuses padding and stray trailing bits.
pub(super) const BASE64URL: GeneralPurpose = URL_SAFE_NO_PAD;

/// Whether the text has only characters of the base64url alphabet.
pub(super) fn is_base64url(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Decodes `%XX` (RFC 3986 §2.1); a plus is a plus. `None` for an incomplete escape, or if the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(bytes.next()?)? << 4 | hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Escapes everything but RFC 3986's unreserved characters.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes every write");
        }
    }
    encoded
}
