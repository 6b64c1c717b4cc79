//! Phone numbers: read by libphonenumber, kept in E.164.
//!
//! libphonenumber is made to find a number in a text: it drops the text before it, cuts at a second number, reads letters as
//! keys and takes the rest for an extension. Here a mistyped number must not text a stranger. So [`parse`] gives it only a
//! plus and digits, and refuses every text in which it would have to guess.

mod mention;
#[cfg(test)]
mod tests;

pub(crate) use mention::NumberSearch;

use crate::{
    pasted,
    refusal::{Code, Refusal},
};
use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber as LibPhoneNumber, PhoneNumberFormat, Region,
};
use std::fmt;
use strum::{EnumString, IntoStaticStr};

/// The longest text that is read, in characters. It is libphonenumber's own limit.
const MAX_INPUT_CHARS: usize = 250;

/// The most digits of an E.164 number (ITU-T E.164 §6). libphonenumber allows 17 national ones.
const MAX_DIGITS: usize = 15;

/// A number without its country's code and with at most so many digits looks like a short code (`116117`). It is texted only
/// if it is valid.
const SHORT_CODE_DIGITS: usize = 6;

/// The codes of global services for calls only: freephone, shared cost and premium rate (ITU-T E.164.1).
const CALL_ONLY_CODES: [i32; 3] = [800, 808, 979];

/// How much of a number is checked before it is texted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, strum::Display)]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownPhoneCheck, parse_err_fn = unknown_phone_check)]
pub enum PhoneCheck {
    /// libphonenumber's *possible*: the length fits the country's plan.
    #[default]
    Possible,
    /// libphonenumber's *valid*: the number lies in an assigned range.
    Valid,
}

impl PhoneCheck {
    /// The name, as `--phone-check` takes it.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The name of no [`PhoneCheck`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phone check is 'possible' or 'valid'")]
pub struct UnknownPhoneCheck;

fn unknown_phone_check(_: &str) -> UnknownPhoneCheck {
    UnknownPhoneCheck
}

/// A number that can be texted, in E.164. Only [`as_e164`](Self::as_e164) and `From` show it; `Debug` masks it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Takes a number that is in E.164 already, from our tables or the provider: a plus and up to 15 digits. It is not checked
    /// against its country's plan.
    pub fn from_e164(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        let well_formed = (1..=MAX_DIGITS).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        well_formed.then(|| Self(text.to_owned()))
    }

    /// `+11110000000`.
    pub fn as_e164(&self) -> &str {
        &self.0
    }
}

impl From<PhoneNumber> for String {
    fn from(number: PhoneNumber) -> Self {
        number.0
    }
}

/// Masked, for logs: `+1415*****34`. At least five digits stay hidden.
impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = &self.0[1..];
        let tail = digits.len().saturating_sub(5).min(2);
        let head = digits.len().saturating_sub(5 + tail).min(4);
        let hidden = "*".repeat(digits.len() - head - tail);
        write!(f, "+{}{hidden}{}", &digits[..head], &digits[digits.len() - tail..])
    }
}

/// The second form of a mobile number (E.164) in countries that use two: Mexico with and without the 1 after +52, Argentina
/// with and without the 9 after +54, Brazil with and without the ninth digit. Providers and networks use both forms for the
/// same telephone.
pub fn twin(e164: &str) -> Option<String> {
    let with_and_without = |code: &str, mark: char, digits: usize| {
        let national = e164.strip_prefix(code)?;
        match national.strip_prefix(mark) {
            Some(rest) if rest.len() == digits => Some([code, rest].concat()),
            _ if national.len() == digits => Some(format!("{code}{mark}{national}")),
            _ => None,
        }
    };
    match e164.get(..3)? {
        "+52" => with_and_without("+52", '1', 10),
        "+54" => with_and_without("+54", '9', 10),
        "+55" => brazilian_twin(e164),
        _ => None,
    }
}

/// A Brazilian mobile has two digits for the area, a 9, and the eight digits that it had before the 9 was introduced. Eight
/// digits that begin with 2 to 5 are a landline: another subscriber than the mobile with a 9 before the same digits.
fn brazilian_twin(e164: &str) -> Option<String> {
    let (area, subscriber) = e164.split_at_checked("+5511".len())?;
    let mobile = match subscriber.strip_prefix('9') {
        Some(rest) if rest.len() == 8 => rest,
        _ if subscriber.len() == 8 => subscriber,
        _ => return None,
    };
    let is_landline = mobile.starts_with(['2', '3', '4', '5']);
    let other = if subscriber.len() == 8 { "9" } else { "" };
    (!is_landline).then(|| [area, other, mobile].concat())
}

/// Whether the code names a region with a numbering plan, as CLDR writes it (`US`, in capitals).
pub(crate) fn is_region(code: &str) -> bool {
    code.bytes().all(|b| b.is_ascii_uppercase()) && region(code).is_some()
}

/// The region of a number (E.164), as CLDR writes it. For a number without a region, such as `+1 111 000 0000`, `+` and the
/// calling code.
pub fn country(e164: &str) -> String {
    let Ok(number) = PHONE_NUMBER_UTIL.parse(e164, None) else { return String::new() };
    match number.get_region_code() {
        Some(region) => region.to_string(),
        None => format!("+{}", number.country_code),
    }
}

/// The calling code of a number (E.164) and two more digits: enough to identify a range, but not a number.
pub fn masked_prefix(e164: &str) -> String {
    let Ok(number) = PHONE_NUMBER_UTIL.parse(e164, None) else { return String::new() };
    let shown = "+".len() + number.country_code.to_string().len() + 2;
    format!("{}…", e164.get(..shown).unwrap_or_default())
}

/// Reads a number in the form that is dialled in `region`, or in international form.
///
/// `countries` are the regions that may be texted; empty for any. A number that is only possible often has no region
/// (`+1 111 000 0000` is neither Canadian nor American). Such a number is allowed if any of the countries has its calling
/// code. A number with a region is allowed if that is one of the countries.
///
/// # Errors
///
/// `phone_invalid` or `phone_not_allowed`, for the field `smsPhone`. No message shows the number.
pub fn parse(
    text: &str,
    region: &str,
    check: PhoneCheck,
    countries: &[String],
) -> Result<PhoneNumber, Refusal> {
    let dialled = dialled(text)?;
    // Every rule of `look_up` that can refuse a North American number must be a condition of this shortcut.
    if check == PhoneCheck::Possible
        && countries.is_empty()
        && let Some(number) = north_american(&dialled, region)
    {
        return Ok(number);
    }
    look_up(&dialled, region, check, countries)
}

/// Reads a possible number from another system, which may use the form of a mobile that libphonenumber refuses
/// (`+52 1 55 …`): then its [`twin`] is read.
pub fn parse_either_form(text: &str, region: &str) -> Result<PhoneNumber, Refusal> {
    let read = |text: &str| parse(text, region, PhoneCheck::Possible, &[]);
    read(text).or_else(|refusal| {
        let other = dialled(text).ok().and_then(|dialled| twin(&dialled)).ok_or(refusal)?;
        read(&other)
    })
}

/// Reads a plus and digits with libphonenumber, and applies our own rules.
fn look_up(
    dialled: &str,
    region: &str,
    check: PhoneCheck,
    countries: &[String],
) -> Result<PhoneNumber, Refusal> {
    let number = PHONE_NUMBER_UTIL
        .parse(dialled, self::region(region))
        .map_err(|_| invalid("the phone number does not fit its country's numbering plan"))?;
    check_textable(&number, check)?;
    // So few digits are rather a short code than a subscriber, unless the country's plan has them.
    let is_short = number.get_national_significant_number().len() <= SHORT_CODE_DIGITS;
    if is_short && !dialled.starts_with('+') && !number.is_valid() {
        return Err(invalid("the phone number is a short code, or lacks its area code"));
    }
    if !countries.is_empty() && !is_in(&number, countries) {
        return Err(
            Refusal::new(Code::PhoneNotAllowed, "the group does not text this country").field("smsPhone")
        );
    }
    let e164 = number.format_as(PhoneNumberFormat::E164);
    // In unassigned ranges a leading digit may be read as a trunk prefix again and again: +43 00… gives +43 0…, and that gives
    // +43 …. The provider might then read a stranger's number from our E.164.
    if dialled != e164 && PHONE_NUMBER_UTIL.parse(&e164, None).as_ref() != Ok(&number) {
        return Err(invalid("the phone number can be read in two ways"));
    }
    PhoneNumber::from_e164(&e164).ok_or_else(|| invalid("the phone number has more than 15 digits"))
}

/// The plus and the digits of the text. Punctuation and pasted characters are dropped; any other character is refused.
fn dialled(text: &str) -> Result<String, Refusal> {
    let visible = pasted::visible(text);
    let text = pasted::unwrapped(&visible);
    if text.len() > MAX_INPUT_CHARS && text.chars().nth(MAX_INPUT_CHARS).is_some() {
        return Err(invalid("the phone number is longer than 250 characters"));
    }
    let text = match text.split_at_checked("tel:".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tel:") => rest,
        _ => text,
    };

    if text.is_empty() {
        return Err(invalid("the phone number is empty"));
    }
    let mut dialled = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '0'..='9' => dialled.push(c),
            '+' | '\u{FF0B}' if dialled.is_empty() => dialled.push('+'),
            _ if is_punctuation(c) => {}
            _ => dialled.push(digit(c).ok_or_else(|| {
                invalid("the phone number may hold only digits, a leading plus, spaces, dashes, dots, slashes and brackets")
            })?),
        }
    }
    if dialled.trim_start_matches('+').is_empty() {
        return Err(invalid("the phone number has no digits"));
    }
    Ok(dialled)
}

/// A possible number of the North American plan: `+1` and ten digits; or, in the US or Canada, ten digits that do not begin
/// with 0, as the prefix for other countries does. There any ten digits are possible, so that libphonenumber would return the
/// same, in one or two microseconds. A property test compares the two.
fn north_american(dialled: &str, region: &str) -> Option<PhoneNumber> {
    let digits = match dialled.strip_prefix("+1") {
        Some(digits) => digits,
        None if matches!(region, "US" | "CA") && !dialled.starts_with(['+', '0']) => dialled,
        None => return None,
    };
    (digits.len() == 10).then(|| PhoneNumber(["+1", digits].concat()))
}

/// The ASCII digit for a decimal digit of any script, by libphonenumber's table.
fn digit(c: char) -> Option<char> {
    PHONE_NUMBER_UTIL.normalize_digits_only(c.encode_utf8(&mut [0; 4])).chars().next()
}

/// Whether the character only groups digits. This is libphonenumber's own list, without `x` and the tildes, which also begin an
/// extension, and with every space of Unicode (Space_Separator), as word processors and French typography use narrow ones.
/// Letters, `#`, `*`, `;`, `,`, line breaks and other controls are not in the list, and so refused.
fn is_punctuation(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '/' | '(' | ')' | '[' | ']')
        || matches!(
            c,
            '\u{00A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}'
        )
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{30FC}' | '\u{FF0D}'..='\u{FF0F}')
        || matches!(c, '\u{FF08}' | '\u{FF09}' | '\u{FF3B}' | '\u{FF3D}')
}

fn check_textable(number: &LibPhoneNumber, check: PhoneCheck) -> Result<(), Refusal> {
    match number.is_possible_with_reason() {
        Ok(NumberLengthType::IsPossible) => {}
        Ok(NumberLengthType::IsPossibleLocalOnly) => {
            return Err(invalid("the phone number lacks its area code"));
        }
        Err(_) => return Err(invalid("the phone number's length does not fit its country")),
    }
    if CALL_ONLY_CODES.contains(&number.country_code) {
        return Err(invalid("the phone number is of a service that takes calls only"));
    }
    if check == PhoneCheck::Valid && !number.is_valid() {
        return Err(invalid("the phone number is not one in use in its country"));
    }
    Ok(())
}

fn is_in(number: &LibPhoneNumber, countries: &[String]) -> bool {
    let mut listed = countries.iter().filter_map(|code| region(code));
    match number.get_region_code() {
        Some(home) => listed.any(|region| region == home),
        None => listed.any(|region| calling_code(region) == Some(number.country_code)),
    }
}

fn region(code: &str) -> Option<Region> {
    Region::from_code(code).ok().filter(|region| calling_code(*region).is_some())
}

fn calling_code(region: Region) -> Option<i32> {
    PHONE_NUMBER_UTIL.get_country_code_for_region(region)
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(Code::PhoneInvalid, message).field("smsPhone")
}
