//! A phone number: a region by the first byte, then any text. What is read reads as itself, and what people paste along
//! changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::phone::{PhoneCheck, parse, parse_either_form, twin};

const REGIONS: [&str; 12] = ["US", "GB", "DE", "IT", "BR", "MX", "AR", "JP", "AU", "RU", "EG", "XX"];

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let region = REGIONS[usize::from(*first) % REGIONS.len()];
    let read = |text: &str, region: &str| parse(text, region, PhoneCheck::Possible, &[]);
    let number = read(text, region);
    let pasted = format!("\u{202a} {text}\u{200b}\t\u{202c}");
    assert_eq!(read(&pasted, region), number);
    match number {
        Ok(number) => {
            assert_eq!(read(number.as_e164(), "US"), Ok(number.clone()));
            if let Some(other) = twin(number.as_e164()) {
                assert_eq!(twin(&other).as_deref(), Some(number.as_e164()));
            }
            assert_eq!(parse_either_form(text, region), Ok(number));
        }
        Err(refusal) => assert_eq!(refusal.field.as_deref(), Some("smsPhone")),
    }
});
