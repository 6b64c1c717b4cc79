//! A website session id: any text has a key in the table, or is malformed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::{
    credential::{Credential, Source, SourceKind, SourceValue, WebsiteSession, collect},
    group::GroupId,
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
            let mut row = WebsiteSession {
                group_id: GroupId::new(72).expect("a group's id"),
                person_id: "joe".to_owned(),
                expired: false,
                revoked: true,
            };
            assert!(token.accept(None).is_err() && token.accept(Some(&row)).is_err());
            row.revoked = false;
            let _ = token.accept(Some(&row));
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => assert_eq!(refusal.status, 401),
    }
});
