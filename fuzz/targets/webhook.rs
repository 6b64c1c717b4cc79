//! A webhook's form: any bytes give fields that the database can store, or a refusal.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::{fuzzing::gateway, keyword};
use sms_provider::signature::is_signed;

fuzz_target!(|body: &[u8]| {
    let _ = is_signed(
        &"token".into(),
        "https://x.example/webhooks/twilio/inbound",
        &gateway::decoded(body),
        "c2lnbmVk",
    );
    match gateway::form(body) {
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
