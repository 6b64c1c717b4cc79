//! What a provider answers: a status of two bytes, a line with its Retry-After, and the body: to a create, and as a page of
//! its list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::sms::{Answer, fuzzing};
use std::sync::LazyLock;
use url::Url;

static LIST: LazyLock<Url> = LazyLock::new(|| {
    Url::parse("http://127.0.0.1:8080/2010-04-01/Accounts/AC1/Messages.json").expect("a URL")
});

fuzz_target!(|data: &[u8]| {
    let Some(([high, low], rest)) = data.split_first_chunk() else { return };
    let status = 200 + u16::from_be_bytes([*high, *low]) % 400;
    let (line, body) =
        rest.iter().position(|b| *b == b'\n').map_or((&rest[..0], rest), |at| (&rest[..at], &rest[at + 1..]));
    let retry_after = std::str::from_utf8(line).ok().filter(|line| !line.is_empty());
    match fuzzing::read(status, retry_after, body) {
        Answer::Accepted { sid } => {
            assert!((200..300).contains(&status) && (1..=64).contains(&sid.len()) && sid.is_ascii());
        }
        Answer::Refused(_) | Answer::Later { .. } => assert!((400..500).contains(&status), "{status}"),
        Answer::PerhapsSent { why } => assert!(!why.is_empty()),
        Answer::Withheld => panic!("it was answered"),
    }
    fuzzing::page(&LIST, body);
});
