//! Finding one phone number in texts, however it is written there.

use super::{PhoneNumber, digit, parse_either_form, twin};
use crate::{
    masked::debug_shows,
    pasted::{narrow, visible},
};
use rlibphonenumber::PHONE_NUMBER_UTIL;

/// Separators between two digits of one number, at most, such as `) ` or ` - `.
const GAP: usize = 3;
/// National digits that identify a number without its calling code. Fewer may be any count or code.
const ENOUGH_DIGITS: usize = 7;

/// A number to search for, with its other form if it has one ([`twin`]).
pub(crate) struct NumberSearch {
    forms: Vec<PhoneNumber>,
    digits: Vec<NumberDigits>,
}

debug_shows!(NumberSearch {});

/// The digits of a number in E.164.
struct NumberDigits {
    calling_code: String,
    national: String,
}

impl NumberSearch {
    pub(crate) fn new(number: &PhoneNumber) -> Self {
        let twin = twin(number.as_e164()).and_then(|twin| PhoneNumber::from_e164(&twin));
        let forms: Vec<_> = std::iter::once(number.clone()).chain(twin).collect();
        let digits = forms.iter().map(NumberDigits::new).collect();
        Self { forms, digits }
    }

    /// The number in E.164, and its other form.
    pub(crate) fn forms(&self) -> Vec<String> {
        self.forms.iter().map(|form| form.as_e164().to_owned()).collect()
    }

    /// Whether a text that is one phone number is this number; `None` if it is not read as a number.
    pub(crate) fn is(&self, text: &str, region: &str) -> Option<bool> {
        parse_either_form(text, region).ok().map(|number| self.forms.contains(&number))
    }

    /// Whether the number is written anywhere in the text: with its calling code or without, and with any separators.
    /// In a URL, separators may be percent-encoded.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        self.is_in_plain(text) || (decoded != text && self.is_in_plain(&decoded))
    }

    fn is_in_plain(&self, text: &str) -> bool {
        let chars: Vec<char> = visible(text).chars().map(plain).collect();
        self.digits.iter().any(|digits| digits.are_in(&chars))
    }
}

impl NumberDigits {
    fn new(number: &PhoneNumber) -> Self {
        let e164 = number.as_e164();
        let code = PHONE_NUMBER_UTIL.parse(e164, None).map(|number| number.country_code.to_string());
        let calling_code = code.unwrap_or_default();
        let digits = e164.strip_prefix('+').unwrap_or(e164);
        let national = digits.strip_prefix(calling_code.as_str()).unwrap_or(digits).to_owned();
        Self { calling_code, national }
    }

    fn are_in(&self, chars: &[char]) -> bool {
        (0..chars.len()).any(|start| {
            let Some(end) = self.end_of_match(chars, start) else { return false };
            let is_whole = chars.get(end).is_none_or(|c| !c.is_ascii_digit());
            is_whole && self.fits_after(&chars[..start])
        })
    }

    /// Where the national digits end, if they begin at `start`.
    fn end_of_match(&self, chars: &[char], start: usize) -> Option<usize> {
        let mut at = start;
        for (nth, digit) in self.national.chars().enumerate() {
            // No further: any sender can write a text of separators alone.
            let gap = chars[at..].iter().take(GAP + 1).take_while(|c| is_separator(**c)).count();
            if gap > if nth == 0 { 0 } else { GAP } || chars.get(at + gap) != Some(&digit) {
                return None;
            }
            at += gap + 1;
        }
        Some(at)
    }

    /// Whether the national digits are this number after such a text, and not the end of another number.
    fn fits_after(&self, before: &[char]) -> bool {
        let (rest, adjacent) = split_digits(before);
        if !adjacent.is_empty() {
            return self.is_prefix(&adjacent);
        }
        let mut rest = rest;
        if rest.last() == Some(&'+') {
            return false;
        }
        loop {
            let gap = rest.iter().rev().take_while(|c| is_separator(**c)).count();
            let (above, group) = split_digits(&rest[..rest.len() - gap]);
            // A national prefix in parentheses, as in +49 (0) 151 …, says nothing of the country.
            if group == "0" && gap <= GAP {
                rest = above;
                continue;
            }
            let is_international = above.last() == Some(&'+') || group.starts_with("00");
            if gap <= GAP && !group.is_empty() && is_international {
                return self.is_calling_code(&group);
            }
            return self.national.len() >= ENOUGH_DIGITS;
        }
    }

    /// Whether digits right before the national ones belong to the same number.
    fn is_prefix(&self, digits: &str) -> bool {
        let is_trunk = digits == "0" || (digits == "8" && self.calling_code == "7");
        self.is_calling_code(digits) || (is_trunk && self.national.len() >= ENOUGH_DIGITS)
    }

    fn is_calling_code(&self, digits: &str) -> bool {
        ["", "00", "011"]
            .iter()
            .any(|dialled| digits.strip_prefix(dialled) == Some(self.calling_code.as_str()))
    }
}

/// The ASCII character of a full-width one, and the ASCII digit of one of any script; other characters unchanged.
fn plain(c: char) -> char {
    if c.is_ascii() { c } else { digit(c).unwrap_or_else(|| narrow(c)) }
}

/// The text without the digits at its end, and those.
fn split_digits(chars: &[char]) -> (&[char], String) {
    let digits = chars.iter().rev().take_while(|c| c.is_ascii_digit()).count();
    let (rest, digits) = chars.split_at(chars.len() - digits);
    (rest, digits.iter().collect())
}

/// Whether people write it between the digits of a number.
fn is_separator(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '-' | '_' | '.' | '·' | '•' | '(' | ')' | '/' | '\u{a0}' | '\u{2000}'
            ..='\u{2015}' | '\u{202f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(e164: &str) -> NumberSearch {
        NumberSearch::new(&PhoneNumber::from_e164(e164).unwrap())
    }

    #[test]
    fn a_long_run_of_separators_or_digits_costs_little() {
        let search = search("+12015550123");
        for part in ["-", " ", "1", "0 ", "2015550123 ", "+1", "20-"] {
            let text = part.repeat((1 << 20) / part.len());
            assert_eq!(search.is_in(&text), part.starts_with("2015"), "{part}");
        }
    }

    #[test]
    fn a_number_is_found_however_it_is_written() {
        let american = search("+12015550123");
        for text in [
            "+12015550123",
            "2015550123",
            "12015550123",
            "0012015550123",
            "01112015550123",
            "tel:+1-201-555-0123",
            "call (201) 555 - 0123, please",
            "+1 (201) 555-0123.",
            "\"201.555.0123\"",
            "order 17 2015550123",
            "201\u{a0}555\u{2011}0123",
            "201_555_0123",
            "201·555·0123",
            "phone=%28201%29%20555-0123&x=1",
            "%2B12015550123",
            "call \u{ff0b}1 \u{662}\u{660}\u{661} \u{665}\u{665}\u{665} \u{660}\u{661}\u{662}\u{663}",
            "\u{968}\u{966}\u{967}-\u{96b}\u{96b}\u{96b}-\u{966}\u{967}\u{968}\u{969}",
        ] {
            assert!(american.is_in(text), "{text}");
        }
        let german = search("+4915123456789");
        for text in ["0151 23456789", "+49 (0) 151 23456789", "0049 151/23456789", "015123456789"] {
            assert!(german.is_in(text), "{text}");
        }
        assert!(search("+5215512345678").is_in("+52 55 1234 5678"), "the other form of a Mexican mobile");
        assert!(search("+5215512345678").is_in("+52 1 55 1234 5678"));
    }

    #[test]
    fn another_number_with_the_same_digits_is_not_taken_for_it() {
        let american = search("+12015550123");
        for text in [
            "",
            "2015550124",
            "20155501234",
            "32015550123",
            "+632015550123",
            "+63 201 555 0123",
            "+63 (0) 201 555 0123",
            "0063 2015550123",
            "+2015550123",
            "201555 order 0123",
            "2015550, 123",
        ] {
            assert!(!american.is_in(text), "{text}");
        }
        let short = search("+29048123");
        assert!(short.is_in("+290 48123") && short.is_in("29048123"));
        assert!(!short.is_in("48123") && !short.is_in("invoice 48123"), "few digits may be anything");
    }

    #[test]
    fn a_field_is_read_by_the_region_of_its_group() {
        let american = search("+12015550123");
        assert_eq!(american.is("201-555-0123", "US"), Some(true));
        assert_eq!(american.is("201-555-0124", "US"), Some(false));
        assert_eq!(american.is("+1 201 555 0123", "DE"), Some(true));
        assert_eq!(american.is("not a number", "US"), None);
        assert_eq!(search("+4915123456789").is("0151 23456789", "DE"), Some(true));
    }

    #[test]
    fn it_does_not_show_the_number() {
        assert!(!format!("{:?}", search("+12015550123")).contains("555"));
    }
}
