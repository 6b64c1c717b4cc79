//! The keyword in a visitor's answer to a text
//! (<https://help.twilio.com/articles/223134027-Twilio-support-for-opt-out-keywords-SMS-STOP-filtering->).

use crate::pasted;

/// What the visitor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    /// No more texts.
    Stop,
    /// Texts again.
    Start,
    Help,
}

/// The longest keyword has two words. A text with more words is not a keyword.
const MOST_WORDS: usize = 2;

/// The keyword of an inbound message, if the message has no other words. Case, width, punctuation, quotes, symbols and
/// invisible characters do not count. The provider's own reading (`OptOutType`, with advanced opt-out) comes first, because it
/// knows the keywords that the service defines.
pub fn keyword(body: &str, opt_out_type: Option<&str>) -> Option<Keyword> {
    let by_provider = opt_out_type.and_then(|word| match word.trim().to_ascii_uppercase().as_str() {
        "STOP" => Some(Keyword::Stop),
        "START" => Some(Keyword::Start),
        "HELP" => Some(Keyword::Help),
        _ => None,
    });
    by_provider.or_else(|| match words(body).as_str() {
        "STOP" | "STOPALL" | "STOP ALL" | "UNSUBSCRIBE" | "CANCEL" | "END" | "QUIT" | "REVOKE" | "OPTOUT"
        | "OPT OUT" => Some(Keyword::Stop),
        "START" | "YES" | "UNSTOP" => Some(Keyword::Start),
        "HELP" | "INFO" => Some(Keyword::Help),
        _ => None,
    })
}

/// The first words of the text in capitals, without punctuation, separated by one space; at most one word more than a keyword
/// has.
fn words(text: &str) -> String {
    let plain = |word: &str| -> String {
        let visible = word.chars().filter(|c| !pasted::is_invisible(*c)).map(pasted::narrow);
        visible.filter(|c| !is_punctuation(*c)).flat_map(char::to_uppercase).collect()
    };
    let words = text.split_whitespace().map(plain).filter(|word| !word.is_empty());
    words.take(MOST_WORDS + 1).collect::<Vec<_>>().join(" ")
}

/// Whether the character is neither alphanumeric nor a combining accent, which is part of a letter.
fn is_punctuation(c: char) -> bool {
    !c.is_alphanumeric() && !('\u{0300}'..='\u{036F}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_alone_counts_and_one_in_a_sentence_does_not() {
        for (body, expected) in [
            ("STOP", Some(Keyword::Stop)),
            (" stop\r\n", Some(Keyword::Stop)),
            ("StopAll", Some(Keyword::Stop)),
            ("stop all", Some(Keyword::Stop)),
            ("Stop\u{a0} \nALL.", Some(Keyword::Stop)),
            ("unsubscribe", Some(Keyword::Stop)),
            ("CANCEL", Some(Keyword::Stop)),
            ("end", Some(Keyword::Stop)),
            ("Quit", Some(Keyword::Stop)),
            ("REVOKE", Some(Keyword::Stop)),
            ("optout", Some(Keyword::Stop)),
            ("OPT OUT", Some(Keyword::Stop)),
            ("opt-out", Some(Keyword::Stop)),
            ("Opt \u{2013} Out", Some(Keyword::Stop)),
            ("Stop.", Some(Keyword::Stop)),
            ("STOP!!", Some(Keyword::Stop)),
            ("\u{201c}STOP\u{201d}", Some(Keyword::Stop)),
            ("'stop'", Some(Keyword::Stop)),
            ("\"Stop.\"", Some(Keyword::Stop)),
            ("\u{a1}STOP!", Some(Keyword::Stop)),
            ("(stop)", Some(Keyword::Stop)),
            ("S.T.O.P.", Some(Keyword::Stop)),
            ("... stop ...", Some(Keyword::Stop)),
            ("ＳＴＯＰ", Some(Keyword::Stop)),
            ("ｓｔｏｐ　ａｌｌ！", Some(Keyword::Stop)),
            ("stop \u{200d}", Some(Keyword::Stop)),
            ("\u{feff}S\u{200b}TO\u{ad}P\u{fe0f}", Some(Keyword::Stop)),
            ("STOP \u{1f6d1}", Some(Keyword::Stop)),
            ("start", Some(Keyword::Start)),
            ("Yes", Some(Keyword::Start)),
            ("Yes!", Some(Keyword::Start)),
            ("UNSTOP", Some(Keyword::Start)),
            ("\u{ab} START \u{bb}", Some(Keyword::Start)),
            ("help", Some(Keyword::Help)),
            ("Info?", Some(Keyword::Help)),
            ("", None),
            (".", None),
            ("\u{200b}", None),
            ("please stop", None),
            ("STOP IT", None),
            ("stopp", None),
            ("STOP 2", None),
            ("STOP2END", None),
            ("yes please", None),
            ("do not stop", None),
            ("stop all of it", None),
            ("opt out now", None),
            ("stop\u{301}", None),
            ("стоп", None),
            ("n\u{f3}stop", None),
        ] {
            assert_eq!(keyword(body, None), expected, "{body:?}");
            assert_eq!(keyword(body, Some("")), expected, "{body:?}");
        }
    }

    #[test]
    fn the_providers_reading_comes_first() {
        assert_eq!(keyword("ARRET", Some("STOP")), Some(Keyword::Stop));
        assert_eq!(keyword("STOP", Some("start")), Some(Keyword::Start));
        assert_eq!(keyword("help", Some("HELP")), Some(Keyword::Help));
        assert_eq!(keyword("stop", Some("OTHER")), Some(Keyword::Stop));
    }

    proptest::proptest! {
        #[test]
        fn decorations_change_nothing(
            word in proptest::sample::select(vec!["STOP", "UNSUBSCRIBE", "OptOut", "start", "Yes", "maybe", "please stop"]),
            before in "[ .!?\"'\\-_*\u{201c}\u{ab}\u{200b}\u{feff}\t]{0,5}",
            after in "[ .!?\"'\\-_*\u{201d}\u{bb}\u{200d}\u{3002}\n]{0,5}",
        ) {
            proptest::prop_assert_eq!(keyword(&format!("{before}{word}{after}"), None), keyword(word, None));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = keyword(&text, None);
        }
    }
}
