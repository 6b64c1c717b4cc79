//! A web token: any text, or any header and claims, separated by a line break, which are then encoded. It is refused if another
//! key signed it. With the right signature, another JSON reader finds the same claims.

#![cfg_attr(fuzzing, no_main)]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use session_invite::internals::{
    Credential, CredentialSource, GjwtToken, HmacKey, Refusal, SourceKind, SourceValue, collect,
    gjwt::{LEEWAY, MAX_AHEAD},
};
use sha2::Sha256;
use std::sync::LazyLock;

const SECRET: &[u8] = b"a key that signed none of the seeds";
static KEY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::from_secret(SECRET));
const NOW: i64 = 1_589_912_000;

fuzz_target!(|data: &[u8]| {
    let value = match data.iter().position(|b| *b == b'\n') {
        Some(at) => {
            let [header, claims] =
                [&data[..at], &data[at + 1..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            format!("{header}.{claims}.c2lnbmF0dXJl")
        }
        None => match std::str::from_utf8(data) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
    };
    let token = match read(&value) {
        Ok(token) => token,
        Err(refusal) => {
            assert_eq!(refusal.status, 401);
            return;
        }
    };
    assert_eq!(format!("{token:?}"), "GjwtToken([REDACTED])");
    let refusal =
        token.verify([(None, &*KEY), (Some("one"), &*KEY)], NOW).expect_err("another key signed it");
    assert_eq!(refusal.status, 401);
    check_with_right_signature(&value);
});

fn read(value: &str) -> Result<GjwtToken, Refusal> {
    let text = format!("Bearer GJWT {value}");
    match collect([CredentialSource { kind: SourceKind::Authorization, value: SourceValue::Text(&text) }])? {
        Credential::Gjwt(token) => Ok(token),
        other => panic!("{other:?}"),
    }
}

/// Signs the token's header and claims with the right key, and compares the result with what another JSON reader finds.
fn check_with_right_signature(value: &str) {
    let (signed, _) = value.trim_matches([' ', '\t']).rsplit_once('.').expect("three parts");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key of any length");
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    let Ok(token) = read(&format!("{signed}.{signature}")) else {
        // The right signature has more characters than the one before.
        assert!(value.len() + signature.len() > 8 * 1024);
        return;
    };
    let [header, claims] = [0, 1].map(|at| {
        let part = signed.split('.').nth(at).expect("two parts");
        serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64"))
    });
    // The other reader also parses unknown members, and may refuse a number or the depth of one.
    let (Ok(header), Ok(claims)) = (header, claims) else { return };
    assert!(header["alg"] == "HS256" && header.get("crit").is_none(), "{header}");
    let is_known = header.get("kid").is_none_or(|kid| kid == "one");
    #[expect(clippy::cast_precision_loss)]
    let [now, leeway, max_ahead] = [NOW, LEEWAY, MAX_AHEAD].map(|seconds| seconds as f64);
    let exp = claims["exp"].as_f64().expect("a number");
    let is_past =
        |name: &str| claims.get(name).is_none_or(|date| date.as_f64().expect("a number") <= now + leeway);
    let is_in_time =
        exp + leeway > now && exp <= now + max_ahead + leeway && is_past("nbf") && is_past("iat");
    match token.verify([(None, &*KEY), (Some("one"), &*KEY)], NOW) {
        Ok(requester) => {
            assert!(is_known && is_in_time, "{header} {claims}");
            assert_eq!(claims["groupid"].as_i64(), Some(requester.group.get()));
            assert_eq!(claims["sub"].as_str(), Some(requester.user.as_str()));
        }
        Err(refusal) => assert!(refusal.status == 401 && !(is_known && is_in_time), "{header} {claims}"),
    }
}
