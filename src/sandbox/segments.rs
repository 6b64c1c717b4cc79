//! How many segments a text takes on the air, which is what a provider bills.

/// The characters of GSM 03.38's default alphabet that are not ASCII.
const GSM_BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà";
/// The extension table: each takes an escape and itself, two septets.
const GSM_EXTENSION: &str = "^{}\\[~]|€\u{c}";

/// Segments of `body`: 160 GSM-7 septets or 153 each when split, else 70 UTF-16 units or 67.
///
/// Source: 3GPP TS 23.038 and TS 23.040 (the six octets of header that a split text carries).
pub(super) fn segments(body: &str) -> usize {
    let (length, whole, part) = match body.chars().map(septets).sum::<Option<usize>>() {
        Some(septets) => (septets, 160, 153),
        None => (body.encode_utf16().count(), 70, 67),
    };
    if length <= whole { 1 } else { length.div_ceil(part) }
}

/// The septets that a character takes in GSM-7, if it is in that alphabet.
fn septets(c: char) -> Option<usize> {
    if GSM_EXTENSION.contains(c) {
        return Some(2);
    }
    let plain = matches!(c, ' '..='_' | 'a'..='z' | '\n' | '\r') || GSM_BEYOND_ASCII.contains(c);
    plain.then_some(1)
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn a_text_splits_where_its_alphabet_says() {
        for (body, expected) in [
            (String::new(), 1),
            ("a".repeat(160), 1),
            ("a".repeat(161), 2),
            ("a".repeat(306), 2),
            ("€".repeat(80), 1),
            ("€".repeat(81), 2),
            ("ж".repeat(70), 1),
            ("ж".repeat(71), 2),
            ("😀".repeat(35), 1),
            ("😀".repeat(36), 2),
            ("`".repeat(71), 2),
        ] {
            assert_eq!(segments(&body), expected, "{body}");
        }
    }
}
