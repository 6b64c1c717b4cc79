use super::{KEY, NOW, code, group, with_char};
use crate::{
    credential::{
        Credential, CredentialSource, GkeyToken, Requester, SourceKind, SourceValue, collect,
        gkey::{self, GroupUser},
    },
    hmac_key::HmacKey,
    refusal::{Code, Refusal},
};
use proptest::prelude::*;
use serde_json::Value;

const SIG: &str = "PIIfL5_qu9swCay7iGavgCBRGXqrsW_Jh0Gryn8XWtk";

fn verify(token: &str, keys: &[HmacKey], now: i64) -> Result<Requester, Refusal> {
    let token = GkeyToken::parse(token)?;
    token.verify(token.group_user(|_| None), keys, now)
}

fn keys(secrets: &[&str]) -> Vec<HmacKey> {
    secrets.iter().map(|secret| HmacKey::from_secret(secret.as_bytes())).collect()
}

#[test]
fn the_contracts_vectors_are_valid_until_they_expire() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/login_keys.json")).unwrap();
    for vector in vectors["good"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let number = |name: &str| vector[name].as_i64().unwrap();
        let source = CredentialSource {
            kind: SourceKind::Authorization,
            value: SourceValue::Text(text("authorization")),
        };
        let Ok(Credential::Gkey(token)) = collect([source]) else { panic!("{vector}") };
        let check = |key, now| code(token.verify(token.group_user(|_| None), &keys(&[key]), now));

        let requester = check(text("api_key"), number("now")).unwrap();
        assert_eq!(requester.group, group(number("partnerid")));
        assert_eq!(requester.to_string(), format!("gkey:{}", text("partneruserid")));
        assert_eq!(check("another-key", number("now")), Err(Code::CredentialInvalid));
        assert_eq!(check(text("api_key"), number("exp")), Err(Code::CredentialExpired));
        let minted = gkey::mint(requester.group, &requester.user, text("api_key").as_bytes(), number("exp"));
        assert!(text("authorization").ends_with(&minted));
    }
}

#[test]
fn every_limit_of_the_shape_is_checked() {
    let user = |length| format!("72&{}&$1$1589912963${SIG}", "é".repeat(length));
    let partner = |id: &str| format!("{id}&user&$1$1589912963${SIG}");
    let login_key = |key: &str| format!("72&user&{key}");
    let address = |length| format!("{}~$1$1589912963${SIG}", "a".repeat(length));
    for good in [user(1), user(255), partner("1"), partner("9007199254740991"), address(1), address(255)] {
        assert!(GkeyToken::parse(&good).is_ok(), "{good}");
    }
    for bad in [
        user(0),
        user(256),
        address(0),
        address(256),
        partner(""),
        partner("0"),
        partner("072"),
        partner("+72"),
        partner(" 72"),
        partner("７２"),
        partner("9007199254740992"),
        partner("99999999999999999999"),
        format!("72&a%&$1$1589912963${SIG}"),
        format!("72&a%4&$1$1589912963${SIG}"),
        format!("72&a%+1&$1$1589912963${SIG}"),
        format!("72&a%FF&$1$1589912963${SIG}"),
        format!("72&a%00&$1$1589912963${SIG}"),
        format!("72&a&b&$1$1589912963${SIG}"),
        format!("72$1$1589912963${SIG}"),
        login_key(""),
        login_key(&format!("$2$1589912963${SIG}")),
        login_key(&format!("$01$1589912963${SIG}")),
        login_key(&format!("1$1589912963${SIG}")),
        login_key(&format!("$1$158991296${SIG}")),
        login_key(&format!("$1$11589912963${SIG}")),
        login_key(&format!("$1$-158991296${SIG}")),
        login_key(&format!("$1$1589912963${SIG}=")),
        login_key(&format!("$1$1589912963${SIG}$")),
        login_key(&format!("$1$1589912963${}", &SIG[1..])),
        login_key(&format!("$1$1589912963${}+", &SIG[1..])),
    ] {
        assert_eq!(code(GkeyToken::parse(&bad)).err(), Some(Code::CredentialMalformed), "{bad}");
    }
}

#[test]
fn an_expiry_is_in_the_future_by_a_day_at_most() {
    for (ahead, verdict) in [
        (-1, Err(Code::CredentialExpired)),
        (0, Err(Code::CredentialExpired)),
        (1, Ok(())),
        (86_400, Ok(())),
        (86_401, Err(Code::CredentialInvalid)),
    ] {
        let token = gkey::mint(group(72), "user", KEY, NOW + ahead);
        assert_eq!(
            code(verify(&token, &[HmacKey::from_secret(KEY)], NOW)).map(drop),
            verdict,
            "{ahead} s ahead"
        );
    }
}

#[test]
fn any_key_of_the_group_verifies() {
    let token = gkey::mint(group(72), "user", b"new", NOW + 60);
    for secrets in [&["new", "old"][..], &["old", "new"]] {
        assert!(verify(&token, &keys(secrets), NOW).is_ok());
    }
}

#[test]
fn unknown_group_unknown_address_and_wrong_signature_are_one_refusal() {
    let token = gkey::mint(group(72), "user", KEY, NOW + 60);
    let (_, login_key) = token.rsplit_once('&').unwrap();
    let address = format!("nobody.example~{login_key}");
    let decoy = gkey::mint(group(72), "user", b"decoy", NOW + 60);

    let wrong = verify(&token, &keys(&["other"]), NOW).unwrap_err();
    assert_eq!(wrong.code, Code::CredentialInvalid);
    assert_eq!(verify(&token, &[], NOW).unwrap_err(), wrong);
    assert_eq!(verify(&address, &[HmacKey::from_secret(KEY)], NOW).unwrap_err(), wrong);
    assert_eq!(verify(&decoy, &[], NOW).unwrap_err(), wrong, "the decoy's secret opens nothing");
}

#[test]
fn an_address_names_its_user_in_any_case_and_may_have_a_tilde() {
    let owner = GroupUser { group: group(72), user: "12345".to_owned() };
    let minted = gkey::mint(owner.group, &owner.user, KEY, NOW + 60);
    let (_, login_key) = minted.rsplit_once('&').unwrap();
    let token = GkeyToken::parse(&format!("Joe~Green.Glance.NET~{login_key}")).unwrap();
    let found = token.group_user(|address| (address == "joe~green.glance.net").then_some(&owner));
    let requester = token.verify(found, &[HmacKey::from_secret(KEY)], NOW).unwrap();
    assert_eq!((requester.group, requester.to_string().as_str()), (group(72), "gkey:12345"));
}

#[test]
fn no_digit_can_move_from_the_user_to_the_expiry() {
    let minted = gkey::mint(group(72), "user1", KEY, 1_588_630_716);
    let (_, signature) = minted.rsplit_once('$').unwrap();
    let now = 1_588_630_000;
    assert!(verify(&minted, &[HmacKey::from_secret(KEY)], now).is_ok());
    let shifted = format!("72&user&$1$11588630716${signature}");
    assert_eq!(
        code(verify(&shifted, &[HmacKey::from_secret(KEY)], now)).err(),
        Some(Code::CredentialMalformed)
    );
}

#[test]
fn a_plus_is_a_plus() {
    let token = gkey::mint(group(72), "a+b", KEY, NOW + 60);
    let raw = token.replace("%2B", "+");
    assert_ne!(raw, token);
    assert_eq!(verify(&raw, &[HmacKey::from_secret(KEY)], NOW).unwrap().user, "a+b");
}

proptest! {
    #[test]
    fn a_minted_token_is_valid(id in 1..=(1_i64 << 53) - 1, user in "[^\\x00]{1,255}", ahead in 1..=86_400_i64) {
        let token = gkey::mint(group(id), &user, KEY, NOW + ahead);
        let requester = verify(&token, &[HmacKey::from_secret(KEY)], NOW);
        prop_assert_eq!(requester.map(|r| (r.group.get(), r.user)), Ok((id, user)));
    }

    // The user has no escapes here: `%c3` and `%C3` are one user, so that such a change would not count.
    #[test]
    fn a_changed_character_is_refused(index in any::<usize>(), c in prop_oneof![any::<char>(), proptest::char::range(' ', '~')]) {
        let token = gkey::mint(group(72), "user12345", KEY, NOW + 60);
        if let Some(changed) = with_char(&token, index, c) {
            prop_assert!(verify(&changed, &[HmacKey::from_secret(KEY)], NOW).is_err(), "{}", changed);
        }
    }
}
