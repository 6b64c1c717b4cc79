//! A login key: any text is refused, before its signature is looked at or by it, and never shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::credential::{Credential, HmacKey, Source, SourceKind, SourceValue, collect};
use std::sync::LazyLock;

static KEY: LazyLock<HmacKey> = LazyLock::new(|| HmacKey::from_secret(b"a key that signed none of the seeds"));
const NOW: i64 = 1_589_912_000;

fuzz_target!(|value: &str| {
    let text = format!("Bearer GKEY {value}");
    let source = Source { kind: SourceKind::Authorization, value: SourceValue::Text(&text) };
    match collect([source]) {
        Ok(Credential::Gkey(token)) => {
            assert_eq!(format!("{token:?}"), "GkeyToken([REDACTED])");
            let refusal = token.verify(token.account(|_| None), [&*KEY], NOW).expect_err("another key signed it");
            assert_eq!(refusal.status, 401);
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => assert!(refusal.status == 401 && (value.len() < 20 || !refusal.message.contains(value))),
    }
});
