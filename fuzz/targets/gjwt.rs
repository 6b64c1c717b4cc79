//! A web token: any text, or any header and claims (a line break between them), which are encoded as a token has them.

#![no_main]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use session_invite::credential::{Credential, HmacKey, Source, SourceKind, SourceValue, collect};
use std::sync::LazyLock;

static KEY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::from_secret(b"a key that signed none of the seeds"));
const NOW: i64 = 1_589_912_000;

fuzz_target!(|data: &[u8]| {
    let value = match data.iter().position(|b| *b == b'\n') {
        Some(at) => {
            let [header, claims] = [&data[..at], &data[at + 1..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            format!("{header}.{claims}.c2lnbmF0dXJl")
        }
        None => match std::str::from_utf8(data) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
    };
    let text = format!("Bearer GJWT {value}");
    let source = Source { kind: SourceKind::Authorization, value: SourceValue::Text(&text) };
    match collect([source]) {
        Ok(Credential::Gjwt(token)) => {
            assert_eq!(format!("{token:?}"), "GjwtToken([REDACTED])");
            let refusal = token.verify([(None, &*KEY)], NOW).expect_err("another key signed it");
            assert_eq!(refusal.status, 401);
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => assert_eq!(refusal.status, 401),
    }
});
