use super::{KEY, NOW, code, group};
use crate::{
    credential::{Credential, CredentialSource, SourceKind, SourceValue, collect, gkey, gssnid},
    refusal::Code,
};
use proptest::prelude::*;

fn authorization(text: &str) -> CredentialSource<'_> {
    CredentialSource { kind: SourceKind::Authorization, value: SourceValue::Text(text) }
}

fn gssnid(text: &str) -> CredentialSource<'_> {
    CredentialSource { kind: SourceKind::Gssnid, value: SourceValue::Text(text) }
}

#[test]
fn scheme_and_type_match_in_any_case_and_spaces_around_do_not_count() {
    let token = gkey::mint(group(72), "12345", KEY, NOW + 60);
    for form in ["Bearer GKEY {}", "bearer gkey {}", "BEARER   GKey   {}", " \tBearer GKEY {}\t "] {
        let text = form.replace("{}", &token);
        assert!(matches!(collect([authorization(&text)]), Ok(Credential::Gkey(_))), "{form}");
    }
}

#[test]
fn a_request_without_a_credential_is_credential_missing() {
    for sources in [vec![], vec![authorization("")], vec![authorization(" \t"), gssnid("")]] {
        assert_eq!(code(collect(sources)).err(), Some(Code::CredentialMissing));
    }
}

#[test]
fn equal_credentials_in_several_sources_are_one() {
    let token = gssnid::mint("joe", NOW, None);
    let bearer = format!("Bearer GSSNID {token}");
    let lower = format!("bearer  gssnid {token} ");
    let sources = [authorization(&bearer), gssnid(&token), authorization(&lower), gssnid("")];
    assert!(matches!(collect(sources), Ok(Credential::Gssnid(_))));
}

#[test]
fn credentials_that_differ_are_ambiguous_even_if_one_is_malformed() {
    let (one, other) = (gssnid::mint("joe", NOW, None), gssnid::mint("joe", NOW, None));
    let as_gkey = format!("Bearer GKEY {one}");
    let not_text = CredentialSource { kind: SourceKind::Gssnid, value: SourceValue::NotText };
    for second in [gssnid(&other), authorization("Basic abc"), authorization(&as_gkey), not_text] {
        assert_eq!(code(collect([gssnid(&one), second])).err(), Some(Code::CredentialAmbiguous));
    }
}

#[test]
fn a_text_without_scheme_and_type_is_malformed() {
    for text in [
        "GKEY 72&12345&x",
        "Basic abc def",
        "Bearer",
        "Bearer GKEY",
        "Bearer OTHER abc",
        "BearerGKEY abc",
        "Bearer\tGKEY abc",
        "Bearer GKEY\tabc",
        "Bearer GSSNID joe.1.0123456789abcdef\0",
    ] {
        assert_eq!(code(collect([authorization(text)])).err(), Some(Code::CredentialMalformed), "{text:?}");
    }
    let not_text = CredentialSource { kind: SourceKind::Authorization, value: SourceValue::NotText };
    assert_eq!(code(collect([not_text])).err(), Some(Code::CredentialMalformed));
}

#[test]
fn a_pasted_character_is_refused_and_named() {
    let token = gkey::mint(group(72), "12345", KEY, NOW + 60);
    let web = gssnid::mint("joe", NOW, None);
    for (text, named) in [
        (format!("\u{feff}Bearer GKEY {token}"), "U+FEFF"),
        (format!("Bearer GKEY {token}\u{200b}"), "U+200B"),
        (format!("Bearer GKEY \u{202a}{token}"), "U+202A"),
        (format!("Bearer\u{2060} GKEY {token}"), "U+2060"),
        (format!("Bearer GKEY {}", token.replacen("12345", "12\u{ad}345", 1)), "U+00AD"),
        (format!("Bearer GKEY jo\u{200d}e~{}", token.rsplit('&').next().unwrap()), "U+200D"),
        (format!("\"Bearer GKEY {token}\""), "U+0022"),
        (format!("'Bearer GKEY {token}'"), "U+0027"),
        (format!("Bearer GKEY \"{token}\""), "U+0022"),
        (format!("\u{201c}Bearer GKEY {token}\u{201d}"), "U+201C"),
        (format!("Bearer GKEY {token}\n"), "U+000A"),
        (format!("\u{a0}Bearer GKEY {token}"), "U+00A0"),
        ("\u{200b}".to_owned(), "U+200B"),
    ] {
        let refusal = collect([authorization(&text)]).unwrap_err();
        assert_eq!(refusal.code, Code::CredentialMalformed, "{text:?}");
        assert!(refusal.message.contains(named), "{text:?}: {}", refusal.message);
    }
    for text in [format!("\"{web}\""), format!("jo\u{200b}{web}"), format!("{web}\r\n")] {
        let refusal = collect([gssnid(&text)]).unwrap_err();
        assert_eq!(refusal.code, Code::CredentialMalformed, "{text:?}");
        assert!(refusal.message.contains("U+"), "{text:?}: {}", refusal.message);
    }
    // A name may have letters of any script, and an encoded one any characters.
    for user in ["é/& \u{200b}", "\u{a0}"] {
        let text = format!("Bearer GKEY {}", gkey::mint(group(72), user, KEY, NOW + 60));
        assert!(matches!(collect([authorization(&text)]), Ok(Credential::Gkey(_))), "{text:?}");
    }
}

#[test]
fn debug_shows_no_credential() {
    let token = gkey::mint(group(72), "12345", KEY, NOW + 60);
    let bearer = format!("Bearer GKEY {token}");
    let source = authorization(&bearer);
    let shown = format!("{source:?} {:?}", collect([source]));
    assert!(!shown.contains("12345") && !shown.contains("$1$"), "{shown}");
}

proptest! {
    #[test]
    fn no_input_panics_or_is_echoed(
        text in prop_oneof![
            any::<String>(),
            "(?i)bearer (gkey|gjwt|gssnid) [a-zA-Z0-9&~$.%_=+-]{0,90}",
            "Bearer GKEY 72&[a-z%]{1,9}&\\$1\\$[0-9]{9,11}\\$[a-zA-Z0-9_-]{42,44}",
        ],
    ) {
        for source in [authorization(&text), gssnid(&text)] {
            if let Err(refusal) = collect([source]) {
                prop_assert!(text.len() < 20 || !refusal.message.contains(&text));
            }
        }
    }
}
