//! The body of an invite: any bytes give a request whose fields fit the contract, or a refusal.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use session_invite::internals::{
    Envelope, Group, GroupId, GroupOptions, PhoneNumber, Request, RequestRecord, Wording,
};
use std::sync::LazyLock;

static GROUP: LazyLock<Group> = LazyLock::new(|| Group {
    id: GroupId::new(72).expect("a group's id"),
    enabled: true,
    paused_at: None,
    options: GroupOptions::default(),
    wording: Wording::check("{key}", None, "http://127.0.0.1:8080").expect("a template"),
    join: None,
    api_keys: Vec::new(),
    jwt_secrets: Vec::new(),
    keys_missing: false,
});

fuzz_target!(|body: &[u8]| {
    let envelope = Envelope { body: body.to_vec(), ..Envelope::default() };
    let request = match Request::parse(&envelope) {
        Ok(request) => request,
        Err(refusal) => {
            assert!(matches!(refusal.status, 400 | 413), "{refusal:?}");
            return;
        }
    };
    if let Err(refusal) = request.credential(&envelope) {
        assert_eq!(refusal.status, 401, "{refusal:?}");
    }
    if let Err(refusal) = &request.groupid {
        assert_eq!(refusal.field.as_deref(), Some("groupid"), "{refusal:?}");
    }
    let mut record = RequestRecord::new(GROUP.id, String::new());
    match request.fields(&GROUP, &mut record) {
        Ok(phone) => {
            assert_eq!(PhoneNumber::from_e164(phone.as_e164()), Some(phone));
            assert!(record.session_params.len() <= 4096);
            let params: Map<String, Value> =
                serde_json::from_str(&record.session_params).expect("what is stored is a JSON object");
            for (name, value) in &params {
                assert!(
                    !name.contains('\0') && !value.as_str().is_some_and(|text| text.contains('\0')),
                    "{params:?}"
                );
                assert!(!value.is_object() && !value.is_array() && !value.is_null(), "{params:?}");
            }
        }
        Err(refusal) => assert!(refusal.status == 400 && refusal.field.is_some(), "{refusal:?}"),
    }
});
