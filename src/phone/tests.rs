use super::*;
use proptest::prelude::*;

fn read(text: &str, region: &str) -> Result<String, Code> {
    parse(text, region, PhoneCheck::Possible, &[])
        .map(|number| number.as_e164().to_owned())
        .map_err(|r| r.code)
}

#[test]
fn numbers_are_read_as_their_country_dials_them() {
    for (region, text, e164) in [
        ("US", "111-000-0000", "+11110000000"),
        ("US", "1110000000", "+11110000000"),
        ("US", "(415) 555-2671", "+14155552671"),
        ("US", "1 415.555.2671", "+14155552671"),
        ("US", "(+1) 415 555 2671", "+14155552671"),
        ("US", "011 44 20 7946 0958", "+442079460958"),
        ("US", "\u{a0}415\u{a0}555\u{2011}2671 ", "+14155552671"),
        ("US", "\u{202a}+1 415-555-2671\u{202c}", "+14155552671"),
        ("US", "tel:+1-415-555-2671", "+14155552671"),
        ("US", "TEL:415-555-2671", "+14155552671"),
        ("GB", "020 7946 0958", "+442079460958"),
        ("GB", "+44 (0)20 7946 0958", "+442079460958"),
        ("GB", "00 1 415 555 2671", "+14155552671"),
        ("DE", "030/123456", "+4930123456"),
        ("DE", "0151 23456789", "+4915123456789"),
        ("FR", "06 12 34 56 78", "+33612345678"),
        ("IT", "06 1234 5678", "+390612345678"),
        ("IT", "+39 06 1234 5678", "+390612345678"),
        ("IN", "098765 43210", "+919876543210"),
        ("AU", "0412 345 678", "+61412345678"),
        ("BR", "(11) 96123-4567", "+5511961234567"),
        ("BR", "0 15 11 96123-4567", "+5511961234567"),
        ("MX", "55 1234 5678", "+525512345678"),
        ("AR", "011 15 2345 6789", "+5491123456789"),
        ("JP", "０９０ー１２３４ー５６７８", "+819012345678"),
        ("JP", "＋８１（９０）１２３４５６７８", "+819012345678"),
        ("EG", "٠١٠٠١٢٣٤٥٦٧", "+201001234567"),
    ] {
        assert_eq!(read(text, region).as_deref(), Ok(e164), "{text} in {region}");
    }
}

#[test]
fn a_number_has_a_country_or_a_calling_code_and_a_prefix_that_hides_it() {
    for (e164, home, prefix) in [
        ("+12015550123", "US", "+120…"),
        ("+11110000000", "+1", "+111…"),
        ("+442079460958", "GB", "+4420…"),
        ("+4915123456789", "DE", "+4915…"),
        ("no number", "", ""),
    ] {
        assert_eq!((country(e164).as_str(), masked_prefix(e164).as_str()), (home, prefix), "{e164}");
    }
}

#[test]
fn what_cannot_take_a_text_or_would_be_guessed_at_is_refused() {
    let (too_long, many_digits) = (" ".repeat(251), "1".repeat(16));
    for (region, text) in [
        ("US", ""),
        ("US", " "),
        ("US", "+"),
        ("US", "tel:"),
        ("US", "1-800-FLOWERS"),
        ("US", "415-555-267l"),
        ("US", "call 415-555-2671"),
        ("US", "415-555-2671 home"),
        ("US", "415-555-2671 x12"),
        ("US", "415-555-2671 ext. 12"),
        ("US", "415-555-2671;ext=12"),
        ("US", "415-555-2671#12"),
        ("US", "415-555-2671~12"),
        ("US", "415-555-2671,12"),
        ("US", "415-555-2671 / 415-555-2672"),
        ("US", "tel:555-2671;phone-context=+1415"),
        ("US", "tel:tel:+14155552671"),
        ("US", "*67 415 555 2671"),
        ("US", "415-555-26*1"),
        ("US", "415+5552671"),
        ("US", "++14155552671"),
        ("US", "415-555-2671\0"),
        ("US", "415\n5552671"),
        ("US", "½155552671"),
        ("US", "555-2671"),
        ("US", "911"),
        ("US", "12345"),
        ("US", "4155552671 4155552671"),
        ("DE", "110"),
        ("DE", "116117"),
        ("DE", "11880"),
        ("FR", "3949"),
        ("GB", "61234"),
        ("AT", "+43 000000000"),
        ("US", "+800 1234 5678"),
        ("US", "+979 123 456 789"),
        ("US", "+999 1234567"),
        ("XX", "4155552671"),
        ("", "4155552671"),
        ("DE", &many_digits),
        ("US", &too_long),
    ] {
        assert_eq!(read(text, region), Err(Code::PhoneInvalid), "{text} in {region}");
    }
}

#[test]
fn few_digits_are_a_number_where_the_country_says_so() {
    for text in ["+2901234", "+6831234", "+597741234", "\t+2901234\r\n"] {
        assert!(parse(text, "US", PhoneCheck::Possible, &[]).is_ok(), "{text}");
    }
}

#[test]
fn a_group_may_ask_for_valid_numbers() {
    let valid = |text| parse(text, "US", PhoneCheck::Valid, &[]).map_err(|r| r.code);
    assert_eq!(valid("111-000-0000"), Err(Code::PhoneInvalid));
    assert!(valid("415-555-2671").is_ok());
}

#[test]
fn a_group_texts_the_countries_that_it_lists() {
    let countries = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (list, text, allowed) in [
        (&["US"][..], "+1 415 555 2671", true),
        (&["CA"], "+1 415 555 2671", false),
        (&["CA"], "+1 416 555 0123", true),
        (&["US"], "+1 416 555 0123", false),
        (&["US", "CA"], "+1 111 000 0000", true),
        (&["CA"], "+1 111 000 0000", true),
        (&["GB"], "+1 111 000 0000", false),
        (&["US", "CA"], "+44 20 7946 0958", false),
        (&["GB", "US"], "+44 20 7946 0958", true),
        (&["US"], "+883 5100 0123 4567", false),
    ] {
        let verdict = parse(text, "US", PhoneCheck::Possible, &countries(list));
        match verdict {
            Ok(_) => assert!(allowed, "{text} for {list:?}"),
            Err(refusal) => {
                assert!(!allowed, "{text} for {list:?}");
                assert_eq!((refusal.code, refusal.status), (Code::PhoneNotAllowed, 403), "{text}");
                assert_eq!(refusal.field.as_deref(), Some("smsPhone"));
            }
        }
    }
}

#[test]
fn every_regions_example_is_read_from_its_national_and_its_international_form() {
    for region in PHONE_NUMBER_UTIL.get_supported_regions() {
        let Ok(example) = PHONE_NUMBER_UTIL.get_example_number(region) else { continue };
        let e164 = example.format_as(PhoneNumberFormat::E164);
        for format in [PhoneNumberFormat::E164, PhoneNumberFormat::International, PhoneNumberFormat::National]
        {
            let text = example.format_as(format);
            assert_eq!(read(&text, &region.to_string()).as_deref(), Ok(&*e164), "{text} in {region}");
        }
    }
}

#[test]
fn debug_masks_the_number() {
    for (e164, masked) in [
        ("+14155552634", "+1415*****34"),
        ("+6834002", "+*****02"),
        ("+123", "+***"),
        ("+442079460958", "+4420******58"),
    ] {
        let number = PhoneNumber::from_e164(e164).unwrap();
        assert_eq!(format!("{number:?}"), masked);
    }
}

#[test]
fn only_e164_is_taken_for_it() {
    for text in ["", "+", "14155552671", "+0123", "+1415555267a", "+1234567890123456", "+１２３"] {
        assert_eq!(PhoneNumber::from_e164(text), None, "{text}");
    }
}

#[test]
fn regions_are_those_with_a_numbering_plan() {
    assert!(["US", "CA", "GB", "DE", "JP"].into_iter().all(is_region));
    assert!(!["us", "USA", "001", "XX", "ZZ", "", "U"].into_iter().any(is_region));
}

#[test]
fn phone_checks_read_as_they_display() {
    for check in [PhoneCheck::Possible, PhoneCheck::Valid] {
        assert_eq!(check.to_string().parse(), Ok(check));
    }
    assert_eq!("Possible".parse::<PhoneCheck>(), Err(UnknownPhoneCheck));
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), region in "[A-Z]{0,3}") {
        let _ = parse(&text, &region, PhoneCheck::Possible, &["US".to_owned()]);
    }

    #[test]
    fn an_e164_number_reads_as_itself(
        digits in "[0-9]{4,15}",
        plus in any::<bool>(),
        region in prop::sample::select(vec!["US", "GB", "DE", "IT", "BR", "MX", "AR", "JP", "AU", "RU"]),
    ) {
        let text = if plus { format!("+{digits}") } else { digits };
        if let Ok(number) = parse(&text, region, PhoneCheck::Possible, &[]) {
            let again = parse(number.as_e164(), "US", PhoneCheck::Possible, &[]);
            prop_assert_eq!(again, Ok(number));
        }
    }

    #[test]
    fn north_american_numbers_are_read_as_libphonenumber_reads_them(
        plus in prop_oneof![Just("+1"), Just("")],
        digits in prop_oneof!["[0-9]{10}", "[01]{10}", "1{1,10}[0-9]{0,9}", "0{1,10}[0-9]{0,9}", "[2-9]11[0-9]{4,7}"],
        region in prop_oneof!["[A-Z]{2}", prop::sample::select(vec!["US", "CA", "BB", "DE", "IT", "BR", ""]).prop_map(str::to_owned)],
    ) {
        let dialled = format!("{plus}{digits}");
        if let Some(number) = north_american(&dialled, &region) {
            prop_assert_eq!(look_up(&dialled, &region, PhoneCheck::Possible, &[]), Ok(number));
        }
    }

    #[test]
    fn refusals_never_hold_the_number(digits in "[0-9]{6,20}") {
        if let Err(refusal) = parse(&digits, "US", PhoneCheck::Possible, &["GB".to_owned()]) {
            prop_assert!(!refusal.message.contains(&digits));
        }
    }
}
