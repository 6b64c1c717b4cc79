//! A provider's answer: two bytes for the status, a line with Retry-After, and the body, which is read as the answer to a create
//! and as a page of the list.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::{TryResult, fuzzing::sms};
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
    match sms::read(status, retry_after, body) {
        TryResult::Accepted { sid } => {
            assert!((200..300).contains(&status) && (1..=64).contains(&sid.len()) && sid.is_ascii());
        }
        TryResult::Refused(_) | TryResult::Later { .. } => assert!((400..500).contains(&status), "{status}"),
        TryResult::PerhapsSent { why } => assert!(!why.is_empty()),
        TryResult::Withheld => panic!("it was answered"),
    }
    sms::page(&LIST, body);
});
