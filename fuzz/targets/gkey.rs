//! A login key: any text is refused, before its signature is looked at or by it, and never shown. Signed again as it should
//! be, it is good exactly while its expiry lies ahead, by a day at most.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::{
    credential::{Credential, Requester, Source, SourceKind, SourceValue, collect, gkey},
    group_id::GroupId,
    hmac_key::HmacKey,
    refusal::Refusal,
};
use std::sync::LazyLock;

const SECRET: &[u8] = b"a key that signed none of the seeds";
static KEY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::from_secret(SECRET));
/// Whom every address stands for.
static ADDRESSEE: LazyLock<gkey::Account> = LazyLock::new(|| gkey::Account {
    group: GroupId::new(72).expect("a group's id"),
    user: "joe".to_owned(),
});
const NOW: i64 = 1_589_912_000;
/// Of the signature in the seeds. A message that holds it shows what it was given.
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
            token.verify(token.account(|_| addressee), [&*KEY], NOW).expect_err("another key signed it");
        assert_eq!(refusal.status, 401);
    }
    let account = token.account(|_| Some(&*ADDRESSEE)).expect("a user, or an address");
    signed_again(value.trim_matches([' ', '\t']), account);
});

fn read(value: &str) -> Result<gkey::GkeyToken, Refusal> {
    let text = format!("Bearer GKEY {value}");
    match collect([Source { kind: SourceKind::Authorization, value: SourceValue::Text(&text) }])? {
        Credential::Gkey(token) => Ok(token),
        other => panic!("{other:?}"),
    }
}

/// The text is a token whose last 43 characters are its signature, after ten digits and a dollar sign.
fn signed_again(value: &str, account: &gkey::Account) {
    let signed = &value[..value.len() - 43];
    let expiry: i64 = signed[signed.len() - 11..signed.len() - 1].parse().expect("ten digits");
    let minted = gkey::mint(account.group, &account.user, SECRET, expiry);
    let token = read(&[signed, &minted[minted.len() - 43..]].concat()).expect("its shape was right before");
    let verdict = token.verify(Some(account), [&*KEY], NOW);
    if expiry <= NOW || expiry > NOW + gkey::MAX_AHEAD {
        assert_eq!(verdict.expect_err("it is not its time").status, 401);
    } else {
        let Requester { group, user, .. } = verdict.expect("a good token");
        assert_eq!((group, &user), (account.group, &account.user));
    }
}
