//! A web token: any text, or any header and claims (a line break between them), which are encoded as a token has them. It is
//! refused as long as another key signed it; signed by the right one, its claims are what another reader of JSON finds.

#![no_main]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use session_invite::{
    credential::{
        Credential, GjwtToken, Source, SourceKind, SourceValue, collect,
        gjwt::{LEEWAY, MAX_AHEAD},
    },
    hmac_key::HmacKey,
    refusal::Refusal,
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
    signed_again(&value);
});

fn read(value: &str) -> Result<GjwtToken, Refusal> {
    let text = format!("Bearer GJWT {value}");
    match collect([Source { kind: SourceKind::Authorization, value: SourceValue::Text(&text) }])? {
        Credential::Gjwt(token) => Ok(token),
        other => panic!("{other:?}"),
    }
}

/// The text is a token.
fn signed_again(value: &str) {
    let (signed, _) = value.trim_matches([' ', '\t']).rsplit_once('.').expect("three parts");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key of any length");
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    let Ok(token) = read(&format!("{signed}.{signature}")) else {
        // The signature has more characters than the one before.
        assert!(value.len() + signature.len() > 8 * 1024);
        return;
    };
    let [header, claims] = [0, 1].map(|at| {
        let part = signed.split('.').nth(at).expect("two parts");
        serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64"))
    });
    // The other reader looks at members that are none of ours, and refuses a number or a depth in them.
    let (Ok(header), Ok(claims)) = (header, claims) else { return };
    assert!(header["alg"] == "HS256" && header.get("crit").is_none(), "{header}");
    let is_known = header.get("kid").is_none_or(|kid| kid == "one");
    #[expect(clippy::cast_precision_loss)]
    let [now, leeway, max_ahead] = [NOW, LEEWAY, MAX_AHEAD].map(|seconds| seconds as f64);
    let exp = claims["exp"].as_f64().expect("a number");
    let is_over_at =
        |name: &str| claims.get(name).is_none_or(|date| date.as_f64().expect("a number") <= now + leeway);
    let is_in_time =
        exp + leeway > now && exp <= now + max_ahead + leeway && is_over_at("nbf") && is_over_at("iat");
    match token.verify([(None, &*KEY), (Some("one"), &*KEY)], NOW) {
        Ok(requester) => {
            assert!(is_known && is_in_time, "{header} {claims}");
            assert_eq!(claims["groupid"].as_i64(), Some(requester.group.get()));
            assert_eq!(claims["sub"].as_str(), Some(requester.user.as_str()));
        }
        Err(refusal) => assert!(refusal.status == 401 && !(is_known && is_in_time), "{header} {claims}"),
    }
}
