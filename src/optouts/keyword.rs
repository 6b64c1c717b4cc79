//! What a visitor who answers a text wants
//! (<https://help.twilio.com/articles/223134027-Twilio-support-for-opt-out-keywords-SMS-STOP-filtering->).

/// A word that a text is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    /// No more texts.
    Stop,
    /// Texts again.
    Start,
    Help,
}

/// The keyword that an inbound message is, if it is one: one word, in any case, with white space around it or none. What
/// the provider made of it (`OptOutType`, with advanced opt-out) comes first, as it knows the service's own words.
pub fn keyword(body: &str, opt_out_type: Option<&str>) -> Option<Keyword> {
    let by_provider = opt_out_type.and_then(|word| match word.trim().to_ascii_uppercase().as_str() {
        "STOP" => Some(Keyword::Stop),
        "START" => Some(Keyword::Start),
        "HELP" => Some(Keyword::Help),
        _ => None,
    });
    by_provider.or_else(|| match body.trim().to_ascii_uppercase().as_str() {
        "STOP" | "STOPALL" | "UNSUBSCRIBE" | "CANCEL" | "END" | "QUIT" | "REVOKE" | "OPTOUT" => {
            Some(Keyword::Stop)
        }
        "START" | "YES" | "UNSTOP" => Some(Keyword::Start),
        "HELP" | "INFO" => Some(Keyword::Help),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_in_any_case_is_a_keyword_and_a_sentence_is_none() {
        for (body, expected) in [
            ("STOP", Some(Keyword::Stop)),
            (" stop\r\n", Some(Keyword::Stop)),
            ("StopAll", Some(Keyword::Stop)),
            ("unsubscribe", Some(Keyword::Stop)),
            ("CANCEL", Some(Keyword::Stop)),
            ("end", Some(Keyword::Stop)),
            ("Quit", Some(Keyword::Stop)),
            ("REVOKE", Some(Keyword::Stop)),
            ("optout", Some(Keyword::Stop)),
            ("start", Some(Keyword::Start)),
            ("Yes", Some(Keyword::Start)),
            ("UNSTOP", Some(Keyword::Start)),
            ("help", Some(Keyword::Help)),
            ("Info", Some(Keyword::Help)),
            ("", None),
            ("please stop", None),
            ("STOP IT", None),
            ("stopp", None),
        ] {
            assert_eq!(keyword(body, None), expected, "{body:?}");
            assert_eq!(keyword(body, Some("")), expected, "{body:?}");
        }
    }

    #[test]
    fn what_the_provider_made_of_it_comes_first() {
        assert_eq!(keyword("ARRET", Some("STOP")), Some(Keyword::Stop));
        assert_eq!(keyword("STOP", Some("start")), Some(Keyword::Start));
        assert_eq!(keyword("help", Some("HELP")), Some(Keyword::Help));
        assert_eq!(keyword("stop", Some("OTHER")), Some(Keyword::Stop));
    }
}
