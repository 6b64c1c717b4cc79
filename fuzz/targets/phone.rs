//! A phone number: the first byte selects a region, the rest is any text. A number in E.164 is read unchanged, pasted characters
//! change nothing, and a number is never shown.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::{
    PhoneCheck,
    phone::{country, masked_prefix, parse, parse_either_form, twin},
};

const REGIONS: [&str; 12] = ["US", "GB", "DE", "IT", "BR", "MX", "AR", "JP", "AU", "RU", "EG", "XX"];

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let region = REGIONS[usize::from(*first) % REGIONS.len()];
    let read = |text: &str, region: &str| parse(text, region, PhoneCheck::Possible, &[]);
    let number = read(text, region);
    let pasted = format!("\u{202a} {text}\u{200b}\t\u{202c}");
    assert_eq!(read(&pasted, region), number);
    let valid = parse(text, region, PhoneCheck::Valid, &[]);
    let listed = parse(text, region, PhoneCheck::Possible, &["DE".to_owned(), "US".to_owned()]);
    match number {
        Ok(number) => {
            let e164 = number.as_e164();
            assert_eq!(read(e164, "US"), Ok(number.clone()));
            if let Some(other) = twin(e164) {
                assert_eq!(twin(&other).as_deref(), Some(e164));
            }
            assert_eq!(parse_either_form(text, region), Ok(number.clone()));
            for stricter in [valid, listed] {
                assert!(stricter.is_err() || stricter.as_ref() == Ok(&number), "{stricter:?}");
            }
            assert!(
                !country(e164).is_empty() && masked_prefix(e164).trim_end_matches('…').len() < e164.len()
            );
            assert!(!format!("{number:?}").contains(&e164[1..]));
        }
        Err(refusal) => {
            assert_eq!(refusal.field.as_deref(), Some("smsPhone"));
            assert!(valid.is_err() && listed.is_err());
        }
    }
});
