use super::{KEY, NOW, code, group, with_char};
use crate::{
    credential::{GjwtToken, Requester, encoding::BASE64URL, gjwt},
    hmac_key::HmacKey,
    refusal::{Code, Refusal},
};
use base64::Engine as _;
use proptest::prelude::*;

const HEADER: &str = r#"{"alg":"HS256"}"#;

fn verify(token: &str) -> Result<Requester, Refusal> {
    GjwtToken::parse(token)?.verify([(None, &HmacKey::from_secret(KEY))], NOW)
}

/// A token with this header and these claims, and the right signature.
fn signed(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    let text = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let signature = HmacKey::from_secret(KEY).sign(&[text.as_bytes()]);
    format!("{text}.{signature}")
}

fn claims(more: &str) -> String {
    format!(r#"{{"groupid":72,"sub":"joe"{more}}}"#)
}

#[test]
fn a_token_names_its_group_and_user() {
    let requester = verify(&gjwt::mint(group(72), "joe", KEY, None, NOW, NOW + 3600)).unwrap();
    assert_eq!((requester.group, requester.to_string().as_str()), (group(72), "gjwt:joe"));
}

#[test]
fn a_header_must_name_hs256() {
    let claims = claims(&format!(r#","exp":{}"#, NOW + 60));
    for good in [HEADER, r#"{"typ":"at+jwt","alg":"HS256","x":[1]}"#, r#"{"\u0061lg":"HS256"}"#] {
        assert!(verify(&signed(good, &claims)).is_ok(), "{good}");
    }
    for bad in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256"} x"#,
        r#"["HS256"]"#,
        "",
    ] {
        assert_eq!(code(verify(&signed(bad, &claims))).err(), Some(Code::CredentialMalformed), "{bad}");
    }
    assert_eq!(
        code(verify(&signed(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}", &claims))).err(),
        Some(Code::CredentialMalformed)
    );
}

#[test]
fn claims_must_have_their_types() {
    let exp = NOW + 60;
    for bad in [
        r#"{"groupid":72,"sub":"joe"}"#.to_owned(),
        format!(r#"{{"groupid":72,"exp":{exp}}}"#),
        format!(r#"{{"sub":"joe","exp":{exp}}}"#),
        claims(&format!(r#","exp":"{exp}""#)),
        claims(r#","exp":null"#),
        claims(r#","exp":1e400"#),
        claims(&format!(r#","exp":{exp},"nbf":"0""#)),
        claims(&format!(r#","exp":{exp},"iat":null"#)),
        claims(&format!(r#","exp":{exp},"exp":{exp}"#)),
        claims(&format!(r#","exp":{exp},"x":1,"x":1"#)),
        format!(r#"{{"groupid":"72","sub":"joe","exp":{exp}}}"#),
        format!(r#"{{"groupid":72.0,"sub":"joe","exp":{exp}}}"#),
        format!(r#"{{"groupid":0,"sub":"joe","exp":{exp}}}"#),
        format!(r#"{{"groupid":9007199254740992,"sub":"joe","exp":{exp}}}"#),
        format!(r#"{{"groupid":72,"sub":"","exp":{exp}}}"#),
        format!(r#"{{"groupid":72,"sub":7,"exp":{exp}}}"#),
        format!(r#"{{"groupid":72,"sub":"a\u0000","exp":{exp}}}"#),
        format!(r#"{{"groupid":72,"sub":"{}","exp":{exp}}}"#, "a".repeat(256)),
    ] {
        assert_eq!(code(verify(&signed(HEADER, &bad))).err(), Some(Code::CredentialMalformed), "{bad}");
    }
    let unknown = claims(&format!(r#","exp":{exp}.5,"aud":["x"],"jti":null"#));
    assert!(verify(&signed(HEADER, unknown)).is_ok());
}

#[test]
fn times_have_thirty_seconds_of_leeway() {
    for (exp, more, verdict) in [
        (-30, "", Err(Code::CredentialExpired)),
        (-29, "", Ok(())),
        (7_230, "", Ok(())),
        (7_231, "", Err(Code::CredentialInvalid)),
        (60, r#","nbf":1589912030"#, Ok(())),
        (60, r#","nbf":1589912030.5"#, Err(Code::CredentialInvalid)),
        (60, r#","iat":1589912030"#, Ok(())),
        (60, r#","iat":1589912031"#, Err(Code::CredentialInvalid)),
        (-60, r#","nbf":1589999999"#, Err(Code::CredentialExpired)),
    ] {
        let token = signed(HEADER, claims(&format!(r#","exp":{}{more}"#, NOW + exp)));
        assert_eq!(code(verify(&token)).map(drop), verdict, "exp {exp}{more}");
    }
}

#[test]
fn a_kid_selects_its_secret_only() {
    let (a, b) = (HmacKey::from_secret(b"a"), HmacKey::from_secret(b"b"));
    let secrets = [(Some("a"), &a), (Some("b"), &b), (None, &a)];
    for (kid, secret, good) in [
        (Some("a"), b"a", true),
        (Some("b"), b"b", true),
        (Some("b"), b"a", false),
        (Some("c"), b"a", false),
        (None, b"a", true),
        (None, b"b", true),
        (None, b"c", false),
    ] {
        let token = gjwt::mint(group(72), "joe", secret, kid, NOW, NOW + 60);
        let verdict = code(GjwtToken::parse(&token).unwrap().verify(secrets, NOW));
        let expected = if good { Ok(()) } else { Err(Code::CredentialInvalid) };
        assert_eq!(verdict.map(drop), expected, "{kid:?}");
    }
}

#[test]
fn the_encoding_is_canonical_base64url() {
    let token = gjwt::mint(group(72), "joe", KEY, None, NOW, NOW + 60);
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    for bad in [
        format!("{header}.{claims}"),
        format!("{token}."),
        format!("{token}.{signature}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}==.{signature}"),
        format!("{token}="),
        format!("{header}.{claims}.{}+", &signature[1..]),
        "e30.e30.".to_owned() + &"a".repeat(8 * 1024),
    ] {
        assert_eq!(code(verify(&bad)).err(), Some(Code::CredentialMalformed), "{bad}");
    }
    for wrong in [format!("{header}.{claims}."), format!("{token}A"), token[..token.len() - 1].to_owned()] {
        assert_eq!(code(verify(&wrong)).err(), Some(Code::CredentialInvalid), "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_minted_token_is_valid(id in 1..=(1_i64 << 53) - 1, user in "[^\\x00]{1,255}", ahead in 1..=7_200_i64) {
        let token = gjwt::mint(group(id), &user, KEY, Some("k"), NOW, NOW + ahead);
        let requester = GjwtToken::parse(&token).unwrap().verify([(Some("k"), &HmacKey::from_secret(KEY))], NOW);
        prop_assert_eq!(requester.map(|r| (r.group.get(), r.user)), Ok((id, user)));
    }

    #[test]
    fn a_changed_character_is_refused(index in any::<usize>(), c in prop_oneof![any::<char>(), proptest::char::range(' ', '~')]) {
        let token = gjwt::mint(group(72), "joe", KEY, None, NOW, NOW + 60);
        if let Some(changed) = with_char(&token, index, c) {
            prop_assert!(verify(&changed).is_err(), "{}", changed);
        }
    }

    #[test]
    fn no_header_or_claims_panic(header in any::<Vec<u8>>(), claims in any::<Vec<u8>>()) {
        prop_assert!(verify(&signed(header, &claims)).is_err());
        prop_assert!(verify(&signed(HEADER, claims)).is_err());
    }
}
