use super::*;
use proptest::prelude::*;

fn read(text: &str, region: &str) -> Result<String, Code> {
    parse(text, region, PhoneCheck::Possible, &[])
        .map(|number| number.as_e164().to_owned())
        .map_err(|r| r.code)
}

#[test]
fn numbers_are_read_in_the_form_that_their_country_dials() {
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
fn pasted_characters_do_not_count() {
    for text in [
        "\u{202d}+1 (415) 555-2671\u{202c}",
        "\u{2066}(415) 555-2671\u{2069}",
        "\u{feff}415-555-2671",
        "41\u{200b}5-555\u{ad}-26\u{2060}71\u{200d}",
        "+\u{200e}1\u{fe0f}415\u{e0020}5552671",
        "\u{2003}\u{3000}415-555-2671\u{85}\u{2028}",
        "\t415-555-2671\r\n",
        "\"415-555-2671\"",
        "'+1 415 555 2671'",
        "\u{201c}(415) 555-2671\u{201d}",
        "\u{2018}415-555-2671\u{2019}",
        "\u{201e}415-555-2671\u{201c}",
        "\u{ab}\u{a0}415-555-2671\u{a0}\u{bb}",
        "((415) 555-2671)",
        "[(415) 555-2671]",
        "<+1-415-555-2671>",
        "<tel:+1-415-555-2671>",
        "\"tel:+1-415-555-2671\"",
        "\u{202a}\"\u{200b} tel:\u{feff} 415-555-2671 \u{200b}\"\u{202c}",
        " \n<\u{200b} +1 415 555 2671 > ",
        "te\u{ad}l:415-555-2671",
        "415\u{202f}555\u{2009}2671",
    ] {
        assert_eq!(read(text, "US").as_deref(), Ok("+14155552671"), "{text:?}");
    }
    let padded = format!("{0}415-555-2671{0}", "\u{200b} ".repeat(200));
    assert_eq!(read(&padded, "US").as_deref(), Ok("+14155552671"));
}

#[test]
fn a_mobile_that_is_written_in_two_forms_has_a_twin() {
    for (one, other) in [
        ("+5215512345678", "+525512345678"),
        ("+5491123456789", "+541123456789"),
        ("+5511961234567", "+551161234567"),
        ("+5511987654321", "+551187654321"),
        ("+5511912345678", "+551112345678"),
    ] {
        assert_eq!(twin(one).as_deref(), Some(other));
        assert_eq!(twin(other).as_deref(), Some(one));
    }
    // libphonenumber may accept only one of the two.
    for text in ["+5215512345678", "+52 1 55 1234 5678", "\u{202d}+52 55 1234-5678"] {
        assert_eq!(parse_either_form(text, "US").map(String::from).as_deref(), Ok("+525512345678"), "{text}");
    }
    assert!(parse_either_form("+52 1 55 1234 56", "US").is_err() && parse_either_form("x", "US").is_err());
    for alone in [
        "",
        "+",
        "+52",
        "+14155552671",
        "+5255123456789",
        "+521",
        "+54112345678",
        // Landlines of Brazil, and the mobiles with the same digits after a 9.
        "+551134567890",
        "+5511934567890",
        "+55119",
        "no number",
        "ééé",
    ] {
        assert_eq!(twin(alone), None, "{alone}");
    }
}

#[test]
fn a_number_has_a_country_or_a_calling_code_and_a_masked_prefix() {
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
fn a_text_that_is_not_exactly_one_number_for_texts_is_refused() {
    let (too_long, many_digits) = (format!("4{}4155552671", " ".repeat(250)), "1".repeat(16));
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
        ("US", "1.4155552671E+10"),
        ("US", "415555267l"),
        ("US", "41555526７１ａ"),
        ("US", "４１５ー５５５ー２６７ｌ"),
        ("US", "415555267\u{406}"),
        ("US", "415555267\u{661}\u{627}"),
        ("US", "\"\"415-555-2671\"\""),
        ("US", "(\"415-555-2671\")"),
        ("US", "\"415-555-2671"),
        ("US", "415-555-2671'"),
        ("US", "\"415-555-2671'"),
        ("US", "<415-555-2671"),
        ("US", "{415-555-2671}"),
        ("US", "\"Joe\" <415-555-2671>"),
        ("US", "\"\""),
        ("US", "\u{200b}"),
        ("US", "415\t5552671"),
        ("US", "415\u{2028}5552671"),
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
fn a_text_without_digits_is_refused_as_such() {
    for (text, words) in [
        ("", "is empty"),
        ("   ", "is empty"),
        ("\u{200b}", "is empty"),
        ("\"\"", "is empty"),
        ("tel:", "is empty"),
        ("+", "has no digits"),
        (" (+) - ", "has no digits"),
        ("--", "has no digits"),
    ] {
        for region in ["US", "DE"] {
            let refusal = parse(text, region, PhoneCheck::Possible, &[]).unwrap_err();
            assert_eq!(refusal.message, format!("the phone number {words}"), "{text:?}");
        }
    }
}

#[test]
fn few_digits_are_a_number_if_the_countrys_plan_has_them() {
    for text in ["+2901234", "+6831234", "+597741234", "\t+2901234\r\n"] {
        assert!(parse(text, "US", PhoneCheck::Possible, &[]).is_ok(), "{text}");
    }
}

#[test]
fn a_group_may_require_valid_numbers() {
    let valid = |text| parse(text, "US", PhoneCheck::Valid, &[]).map_err(|r| r.code);
    assert_eq!(valid("111-000-0000"), Err(Code::PhoneInvalid));
    assert!(valid("415-555-2671").is_ok());
}

#[test]
fn a_group_texts_only_the_countries_in_its_list() {
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
fn only_e164_is_accepted_as_e164() {
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
    fn a_number_in_e164_is_read_unchanged(
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
    fn pasted_characters_change_no_result(
        text in prop_oneof!["[0-9+() .-]{0,16}", "[0-9a-z+;#]{5,14}", "\\+?[0-9]{7,15}"],
        at in prop::collection::vec((0..20_usize, prop::sample::select(
            vec!['\u{ad}', '\u{61c}', '\u{180e}', '\u{200b}', '\u{200f}', '\u{202d}', '\u{2066}', '\u{3164}', '\u{fe0f}', '\u{feff}', '\u{e0001}'])), 0..9),
        (open, close) in prop::sample::select(vec![("", ""), ("\"", "\""), ("\u{201c}", "\u{201d}"), ("'", "'"), ("<", ">")]),
        space in "[ \t\r\n\u{a0}\u{2003}\u{3000}]{0,3}",
    ) {
        // The text has no quotes of its own: only one pair is removed.
        let mut pasted: Vec<char> = format!("{space}{open}{space}{text}{space}{close}{space}").chars().collect();
        for (index, mark) in at {
            pasted.insert(index.min(pasted.len()), mark);
        }
        let pasted: String = pasted.into_iter().collect();
        prop_assert_eq!(read(&pasted, "US"), read(&text, "US"));
    }

    #[test]
    fn the_twin_of_a_twin_is_the_number(e164 in "\\+(52|54|55|1)[0-9]{9,12}") {
        if let Some(other) = twin(&e164) {
            prop_assert_eq!(twin(&other), Some(e164));
        }
    }

    #[test]
    fn refusals_never_show_the_number(digits in "[0-9]{6,20}") {
        if let Err(refusal) = parse(&digits, "US", PhoneCheck::Possible, &["GB".to_owned()]) {
            prop_assert!(!refusal.message.contains(&digits));
        }
    }
}
