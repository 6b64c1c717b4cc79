//! A website session id: any text is malformed, or has a key for the table. It is valid only with an unexpired, unrevoked row
//! of its group.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::{
    Credential, CredentialSource, GroupId, SourceKind, SourceValue, WebsiteSession, collect,
};

fuzz_target!(|value: &str| {
    let bearer = format!("Bearer GSSNID {value}");
    let sources = [
        CredentialSource { kind: SourceKind::Gssnid, value: SourceValue::Text(value) },
        CredentialSource { kind: SourceKind::Authorization, value: SourceValue::Text(&bearer) },
    ];
    match collect(sources) {
        Ok(Credential::Gssnid(token)) => {
            assert_eq!(format!("{token:?}"), "GssnidToken([REDACTED])");
            let row = |expired, revoked| WebsiteSession {
                group_id: GroupId::new(72).expect("a group's id"),
                person_id: "joe".to_owned(),
                expired,
                revoked,
            };
            for refused in [None, Some(row(false, true)), Some(row(true, false))] {
                assert_eq!(token.accept(refused.as_ref()).expect_err("no good row").status, 401);
            }
            let named = value.trim_matches([' ', '\t']).split('.').nth(3);
            let accepted = token.accept(Some(&row(false, false)));
            assert_eq!(accepted.is_ok(), named.is_none_or(|group| group == "72"));
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => assert_eq!(refusal.status, 401),
    }
});
