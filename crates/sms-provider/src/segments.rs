//! How many segments a text takes on the air, which is what a provider bills.
//!
//! Source: 3GPP TS 23.038 (the alphabets) and TS 23.040 (the six octets of header that each part of a split text has).

use std::fmt;

/// The characters of GSM 03.38's default alphabet that are not ASCII.
const GSM_BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà";
/// The extension table: each takes an escape and itself.
const GSM_EXTENSION: &str = "^{}\\[~]|€\u{c}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Gsm7,
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

/// What a text costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    pub encoding: Encoding,
    /// Septets of GSM-7, or UTF-16 units.
    pub units: usize,
    pub segments: usize,
}

/// Counts 160 septets or 153 each when split, else 70 UTF-16 units or 67. No escape and no surrogate pair is split.
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

/// The septets that a character takes in GSM-7, if it is in that alphabet.
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
    fn a_text_splits_where_its_alphabet_says() {
        for (text, encoding, units, segments) in [
            (String::new(), Gsm7, 0, 1),
            ("a".repeat(160), Gsm7, 160, 1),
            ("a".repeat(161), Gsm7, 161, 2),
            ("a".repeat(306), Gsm7, 306, 2),
            ("a".repeat(307), Gsm7, 307, 3),
            ("€".repeat(80), Gsm7, 160, 1),
            // 153 is odd: the escape of the 77th does not part from it.
            ("€".repeat(153), Gsm7, 306, 3),
            ("`".into(), Ucs2, 1, 1),
            ("ж".repeat(70), Ucs2, 70, 1),
            ("ж".repeat(71), Ucs2, 71, 2),
            ("😀".repeat(35), Ucs2, 70, 1),
            // 67 is odd: no pair is split, so 33 fit into a part.
            ("😀".repeat(67), Ucs2, 134, 3),
        ] {
            assert_eq!(super::segments(&text), Segments { encoding, units, segments }, "{text}");
        }
    }
}
