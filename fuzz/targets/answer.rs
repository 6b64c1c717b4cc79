//! What a provider answers: a status of two bytes, then the body, to a create and as a page of its list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::sms::{Answer, fuzzing};

fuzz_target!(|data: &[u8]| {
    let Some(([high, low], body)) = data.split_first_chunk() else { return };
    let status = 200 + u16::from_be_bytes([*high, *low]) % 400;
    let retry_after = body.split(|b| *b == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    match fuzzing::read(status, retry_after, body) {
        Answer::Accepted { sid } => {
            assert!((200..300).contains(&status) && (1..=64).contains(&sid.len()) && sid.is_ascii());
        }
        Answer::Refused(_) | Answer::Later { .. } => assert!((400..500).contains(&status), "{status}"),
        Answer::PerhapsSent { why } => assert!(!why.is_empty()),
        Answer::Withheld => panic!("it was answered"),
    }
    fuzzing::page(body);
});
