//! A website session id: any text has a key in the table, or is malformed; and it is good only by a row that is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::{
    credential::{Credential, Source, SourceKind, SourceValue, WebsiteSession, collect},
    group_id::GroupId,
};

fuzz_target!(|value: &str| {
    let bearer = format!("Bearer GSSNID {value}");
    let sources = [
        Source { kind: SourceKind::Gssnid, value: SourceValue::Text(value) },
        Source { kind: SourceKind::Authorization, value: SourceValue::Text(&bearer) },
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
