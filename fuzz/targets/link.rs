//! A request's path: any text matches one route or none, and any visitor's link gives a token or none.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::{fuzzing::gateway::written_token, routes};

fuzz_target!(|path: &str| {
    for prefix in ["", "/invite"] {
        let Some((route, known)) = routes::find(path, prefix) else { continue };
        let again = routes::find(&known, "").expect("what was matched matches");
        assert_eq!(again.0, route, "{path:?}");
    }
    if let Some(token) = written_token(path) {
        let text = token.as_str();
        assert!(text.len() == 16 && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(written_token(text), Some(token));
    }
});
