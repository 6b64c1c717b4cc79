//! A login key: any text is refused, because of its shape or its signature, and never shown. With the right signature it is
//! valid exactly while its expiry is in the future, by a day at most.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::{
    Credential, CredentialSource, GroupId, HmacKey, Refusal, Requester, SourceKind, SourceValue, collect,
    gkey,
};
use std::sync::LazyLock;

const SECRET: &[u8] = b"a key that signed none of the seeds";
static KEY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::from_secret(SECRET));
/// The user of every address.
static ADDRESSEE: LazyLock<gkey::GroupUser> = LazyLock::new(|| gkey::GroupUser {
    group: GroupId::new(72).expect("a group's id"),
    user: "joe".to_owned(),
});
const NOW: i64 = 1_589_912_000;
/// A part of the signature in the seeds. A message with it shows its input.
const SECRET_PART: &str = "z5H7IXHSBEkx";

fuzz_target!(|value: &str| {
    let token = match read(value) {
        Ok(token) => token,
        Err(refusal) => {
            assert!(refusal.status == 401 && !refusal.message.contains(SECRET_PART), "{refusal:?}");
            return;
        }
    };
    assert_eq!(format!("{token:?}"), "GkeyToken([REDACTED])");
    for addressee in [None, Some(&*ADDRESSEE)] {
        let refusal =
            token.verify(token.group_user(|_| addressee), [&*KEY], NOW).expect_err("another key signed it");
        assert_eq!(refusal.status, 401);
    }
    let user = token.group_user(|_| Some(&*ADDRESSEE)).expect("a user, or an address");
    check_with_right_signature(value.trim_matches([' ', '\t']), user);
});

fn read(value: &str) -> Result<gkey::GkeyToken, Refusal> {
    let text = format!("Bearer GKEY {value}");
    match collect([CredentialSource { kind: SourceKind::Authorization, value: SourceValue::Text(&text) }])? {
        Credential::Gkey(token) => Ok(token),
        other => panic!("{other:?}"),
    }
}

/// Replaces the signature by the right one. The text is a token that ends in ten digits, a dollar sign and 43 characters of
/// signature.
fn check_with_right_signature(value: &str, user: &gkey::GroupUser) {
    let signed = &value[..value.len() - 43];
    let expiry: i64 = signed[signed.len() - 11..signed.len() - 1].parse().expect("ten digits");
    let minted = gkey::mint(user.group, &user.user, SECRET, expiry);
    let token = read(&[signed, &minted[minted.len() - 43..]].concat()).expect("its shape was right before");
    let verdict = token.verify(Some(user), [&*KEY], NOW);
    if expiry <= NOW || expiry > NOW + gkey::MAX_AHEAD {
        assert_eq!(verdict.expect_err("it is not its time").status, 401);
    } else {
        let Requester { group, user: name, .. } = verdict.expect("a good token");
        assert_eq!((group, &name), (user.group, &user.user));
    }
}
