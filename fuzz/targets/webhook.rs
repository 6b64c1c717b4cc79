//! A webhook's form: any bytes are fields that a database can hold, or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::{gateway::fuzzing, optouts::keyword};
use sms_provider::signature::is_signed;

fuzz_target!(|body: &[u8]| {
    let _ = is_signed(
        &"token".into(),
        "https://x.example/webhooks/twilio/inbound",
        &fuzzing::decoded(body),
        "c2lnbmVk",
    );
    match fuzzing::form(body) {
        Ok(fields) => {
            let expected: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
            assert_eq!(fields, expected);
            for (name, value) in &fields {
                assert!(!name.contains('\0') && !value.contains('\0'));
                let _ = keyword(value, Some(name));
            }
        }
        Err(refusal) => assert!(refusal.status == 400 && refusal.field.is_some()),
    }
});
