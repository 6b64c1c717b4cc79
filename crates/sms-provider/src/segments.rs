//! How many segments a text takes. The provider bills by segment.
//!
//! Source: 3GPP TS 23.038 (the alphabets) and TS 23.040 (each part of a split text has a header of six octets).

use std::fmt;

/// The characters of GSM 03.38's default alphabet that are not ASCII.
const GSM_BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà";
/// The extension table. Each of these characters takes two septets: an escape, and its own.
const GSM_EXTENSION: &str = "^{}\\[~]|€\u{c}";

/// How the characters of a text are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 7 bits each, if all characters are in the GSM alphabet.
    Gsm7,
    /// 16-bit units, for all other texts.
    Ucs2,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gsm7 => "GSM-7",
            Self::Ucs2 => "UCS-2",
        })
    }
}

/// The size of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// The encoding that the whole text needs.
    pub encoding: Encoding,
    /// The size in septets of GSM-7, or in UTF-16 units.
    pub units: usize,
    /// How many segments the provider bills.
    pub segments: usize,
}

/// A text in GSM-7 fits in one segment up to 160 septets, and in parts of 153. Any other text fits in one segment up to
/// 70 UTF-16 units, and in parts of 67. No escape and no surrogate pair is split.
pub fn segments(text: &str) -> Segments {
    let septets = text.chars().map(septets).collect::<Option<Vec<_>>>();
    let (encoding, widths, whole, part) = match septets {
        Some(widths) => (Encoding::Gsm7, widths, 160, 153),
        None => (Encoding::Ucs2, text.chars().map(char::len_utf16).collect(), 70, 67),
    };
    let units = widths.iter().sum();
    let segments = if units <= whole { 1 } else { parts(&widths, part) };
    Segments { encoding, units, segments }
}

fn parts(widths: &[usize], part: usize) -> usize {
    let (full, _) = widths.iter().fold((1, 0), |(full, used), width| {
        if used + width > part { (full + 1, *width) } else { (full, used + width) }
    });
    full
}

/// How many septets a character takes in GSM-7. `None` for a character outside of that alphabet.
fn septets(c: char) -> Option<usize> {
    if GSM_EXTENSION.contains(c) {
        return Some(2);
    }
    let plain = matches!(c, ' '..='Z' | '_' | 'a'..='z' | '\n' | '\r') || GSM_BEYOND_ASCII.contains(c);
    plain.then_some(1)
}

#[cfg(test)]
mod tests {
    use super::{Encoding::*, *};

    #[test]
    fn a_text_splits_by_the_limits_of_its_alphabet() {
        for (text, encoding, units, segments) in [
            (String::new(), Gsm7, 0, 1),
            ("a".repeat(160), Gsm7, 160, 1),
            ("a".repeat(161), Gsm7, 161, 2),
            ("a".repeat(306), Gsm7, 306, 2),
            ("a".repeat(307), Gsm7, 307, 3),
            ("€".repeat(80), Gsm7, 160, 1),
            // 153 is odd, and the 77th character stays with its escape.
            ("€".repeat(153), Gsm7, 306, 3),
            ("`".into(), Ucs2, 1, 1),
            ("ж".repeat(70), Ucs2, 70, 1),
            ("ж".repeat(71), Ucs2, 71, 2),
            ("😀".repeat(35), Ucs2, 70, 1),
            // 67 is odd, and no pair is split, so 33 characters fit in a part.
            ("😀".repeat(67), Ucs2, 134, 3),
        ] {
            assert_eq!(super::segments(&text), Segments { encoding, units, segments }, "{text}");
        }
    }
}
