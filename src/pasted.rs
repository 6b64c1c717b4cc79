//! Characters that people and programs paste along with a value: invisible ones, white space, quotes and brackets.
//! docs/INTEGRATION.md ("Pasted values") lists for each value whether they are ignored or refused.

use icu_properties::{CodePointSetData, CodePointSetDataBorrowed, props::DefaultIgnorableCodePoint};
use std::borrow::Cow;

/// Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), as ICU4X has it.
const INVISIBLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();

/// Double quotes, straight and curly, and those of other scripts. Any two of them are a pair: the closing quote of a German
/// pair opens an English one.
const DOUBLE_QUOTES: [char; 9] =
    ['"', '\u{201C}', '\u{201D}', '\u{201E}', '\u{201F}', '\u{00AB}', '\u{00BB}', '\u{FF02}', '\u{301D}'];
const SINGLE_QUOTES: [char; 8] =
    ['\'', '\u{2018}', '\u{2019}', '\u{201A}', '\u{201B}', '\u{2039}', '\u{203A}', '\u{FF07}'];
/// Round, square and angle brackets, narrow and wide.
const BRACKETS: [(char, char); 9] = [
    ('(', ')'),
    ('[', ']'),
    ('<', '>'),
    ('\u{FF08}', '\u{FF09}'),
    ('\u{FF3B}', '\u{FF3D}'),
    ('\u{FF1C}', '\u{FF1E}'),
    ('\u{2329}', '\u{232A}'),
    ('\u{27E8}', '\u{27E9}'),
    ('\u{3008}', '\u{3009}'),
];

/// Whether the character is invisible: a direction mark, an isolate, a zero-width character, a byte order mark, a soft hyphen,
/// a variation selector.
pub(crate) fn is_invisible(c: char) -> bool {
    !c.is_ascii() && INVISIBLE.contains(c)
}

/// The text without its invisible characters; borrowed if it has none.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| !is_invisible(*c)).collect())
}

/// The text without white space at its ends, and without one pair of quotes or brackets around the whole. Apply [`visible`]
/// first.
pub(crate) fn unwrapped(text: &str) -> &str {
    let text = text.trim();
    let mut inner = text.chars();
    match (inner.next(), inner.next_back()) {
        (Some(first), Some(last)) if is_pair(first, last) => inner.as_str().trim(),
        _ => text,
    }
}

fn is_pair(first: char, last: char) -> bool {
    let both = |quotes: &[char]| quotes.contains(&first) && quotes.contains(&last);
    both(&DOUBLE_QUOTES) || both(&SINGLE_QUOTES) || BRACKETS.contains(&(first, last))
}

/// Whether the character is a double quote, of any script.
pub(crate) fn is_double_quote(c: char) -> bool {
    DOUBLE_QUOTES.contains(&c)
}

fn is_quote(c: char) -> bool {
    DOUBLE_QUOTES.contains(&c) || SINGLE_QUOTES.contains(&c)
}

/// The ASCII character of a full-width one (Halfwidth and Fullwidth Forms, U+FF01 to U+FF5E); other characters unchanged.
pub(crate) fn narrow(c: char) -> char {
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        _ => c,
    }
}

/// Describes a pasted character for which a value is refused: an invisible one anywhere, or white space or a quote at the
/// ends. It names the character by its number, and shows nothing of the value.
pub(crate) fn stray(text: &str) -> Option<String> {
    unseen(text).or_else(|| at_its_ends(text, "a quotation mark", is_quote))
}

/// The same, but quotes are allowed: they can be part of a key.
pub(crate) fn unseen(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| is_invisible(*c)) {
        return Some(format!("an invisible character (U+{:04X})", u32::from(c)));
    }
    at_its_ends(text, "white space", char::is_whitespace)
}

fn at_its_ends(text: &str, what: &str, is_one: impl Fn(char) -> bool) -> Option<String> {
    let ends = [text.chars().next(), text.chars().next_back()];
    let c = ends.into_iter().flatten().find(|c| is_one(*c))?;
    Some(format!("{what} (U+{:04X}) at its ends", u32::from(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_invisible_characters_are_those_of_unicode() {
        // DerivedCoreProperties.txt of Unicode 16.0, Default_Ignorable_Code_Point.
        let listed = [
            (0x00AD, 0x00AD),
            (0x034F, 0x034F),
            (0x061C, 0x061C),
            (0x115F, 0x1160),
            (0x17B4, 0x17B5),
            (0x180B, 0x180F),
            (0x200B, 0x200F),
            (0x202A, 0x202E),
            (0x2060, 0x206F),
            (0x3164, 0x3164),
            (0xFE00, 0xFE0F),
            (0xFEFF, 0xFEFF),
            (0xFFA0, 0xFFA0),
            (0xFFF0, 0xFFF8),
            (0x1_BCA0, 0x1_BCA3),
            (0x1_D173, 0x1_D17A),
            (0xE_0000, 0xE_0FFF),
        ];
        for c in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let expected = listed.iter().any(|(from, to)| (*from..=*to).contains(&u32::from(c)));
            assert_eq!(is_invisible(c), expected, "U+{:04X}", u32::from(c));
        }
    }

    #[test]
    fn one_pair_around_the_whole_is_removed_with_the_white_space_on_both_sides() {
        for (text, inner) in [
            ("a", "a"),
            ("\u{2003}a\u{a0}\r\n", "a"),
            ("\"a\"", "a"),
            (" ' a\t' ", "a"),
            ("\u{201C}a\u{201D}", "a"),
            ("\u{201E}a\u{201C}", "a"),
            ("\u{2018}a\u{2019}", "a"),
            ("\"a\u{201D}", "a"),
            ("(a)", "a"),
            ("[a]", "a"),
            ("< a >", "a"),
            ("\u{FF08}a\u{FF09}", "a"),
            ("\"\"a\"\"", "\"a\""),
            ("(a) b", "(a) b"),
            ("\"a", "\"a"),
            ("a\"", "a\""),
            ("\"a'", "\"a'"),
            ("(a]", "(a]"),
            ("{a}", "{a}"),
            ("\"", "\""),
            ("\"\"", ""),
            ("", ""),
        ] {
            assert_eq!(unwrapped(text), inner, "{text:?}");
        }
    }

    #[test]
    fn a_pasted_character_is_described() {
        for (text, named) in [
            ("72\u{200B}", Some("an invisible character (U+200B)")),
            ("7\u{FEFF}2", Some("an invisible character (U+FEFF)")),
            ("72\n", Some("white space (U+000A) at its ends")),
            (" 72", Some("white space (U+0020) at its ends")),
            ("\"72\"", Some("a quotation mark (U+0022) at its ends")),
            ("72\u{201D}", Some("a quotation mark (U+201D) at its ends")),
            ("7 2", None),
            ("72", None),
            ("", None),
        ] {
            assert_eq!(stray(text).as_deref(), named, "{text:?}");
        }
    }

    #[test]
    fn wide_characters_have_a_narrow_form() {
        assert_eq!("ＳＴＯＰ！１".chars().map(narrow).collect::<String>(), "STOP!1");
        assert_eq!(narrow('\u{FF5F}'), '\u{FF5F}');
    }

    proptest::proptest! {
        #[test]
        fn only_invisible_characters_are_removed(text in "[ -~\u{ad}\u{200b}-\u{200f}\u{feff}é]{0,20}") {
            let expected: String = text.chars().filter(|c| !is_invisible(*c)).collect();
            proptest::prop_assert_eq!(visible(&text), expected);
        }
    }
}
