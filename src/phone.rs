//! Phone numbers, read as libphonenumber reads them, to E.164.
//!
//! libphonenumber is made to find a number in a text: it drops what stands before it, cuts at a second number, reads
//! letters as keys and takes the rest for an extension. Here a mistyped digit must not text a stranger, so
//! [`parse`] hands it nothing but a plus and digits, and refuses whatever it would have had to guess at.

#[cfg(test)]
mod tests;

use crate::{
    pasted,
    refusal::{Code, Refusal},
};
use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber as Parsed, PhoneNumberFormat, Region,
};
use std::{fmt, str::FromStr};

/// The longest text that is looked at, in characters; libphonenumber's own limit.
const MAX_INPUT_CHARS: usize = 250;

/// The most digits in an E.164 number (ITU-T E.164 §6); libphonenumber allows 17 national ones.
const MAX_DIGITS: usize = 15;

/// Numbers dialled without their country's code, of up to so many digits, look like short codes (`116117`), and are
/// texted only if they are valid.
const SHORT_CODE_DIGITS: usize = 6;

/// Global services that take calls only: freephone, shared cost and premium rate (ITU-T E.164.1).
const CALL_ONLY_CODES: [i32; 3] = [800, 808, 979];

/// How much of a number is checked before it is texted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PhoneCheck {
    /// libphonenumber's *possible*: the length fits the country's plan.
    #[default]
    Possible,
    /// libphonenumber's *valid*: the number lies in an assigned range.
    Valid,
}

impl PhoneCheck {
    /// The name, as `--phone-check` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Valid => "valid",
        }
    }
}

impl fmt::Display for PhoneCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PhoneCheck {
    type Err = UnknownPhoneCheck;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Possible, Self::Valid]
            .into_iter()
            .find(|check| check.as_str() == name)
            .ok_or(UnknownPhoneCheck)
    }
}

/// The name is no [`PhoneCheck`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phone check is 'possible' or 'valid'")]
pub struct UnknownPhoneCheck;

/// A number that can be texted, in E.164. It shows itself only to those who ask for it by name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// A number that is in E.164 already, as our tables and the provider write it: a plus and up to 15 digits. Its
    /// country's plan is not looked at.
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

/// The other way in which its country writes a mobile number (E.164), if there is one: Mexico with and without the 1 after
/// +52, Argentina with and without the 9 after +54, Brazil with and without the ninth digit. Providers and networks use
/// either for the same telephone.
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

/// Two digits of the area, a 9 and eight digits; the 9 was put before the eight digits that mobiles had. Eight that begin
/// with 2 to 5 are a landline, which is another subscriber than the mobile with a 9 before them.
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
pub fn is_region(code: &str) -> bool {
    code.bytes().all(|b| b.is_ascii_uppercase()) && region(code).is_some()
}

/// The region that a number (E.164) belongs to, as CLDR writes it; `+` and the calling code for one that is of none, such as
/// `+1 111 000 0000`.
pub fn country(e164: &str) -> String {
    let Ok(number) = PHONE_NUMBER_UTIL.parse(e164, None) else { return String::new() };
    match number.get_region_code() {
        Some(region) => region.to_string(),
        None => format!("+{}", number.country_code),
    }
}

/// The calling code of a number (E.164) and two digits more: enough to tell a range by, and no number.
pub fn masked_prefix(e164: &str) -> String {
    let Ok(number) = PHONE_NUMBER_UTIL.parse(e164, None) else { return String::new() };
    let shown = "+".len() + number.country_code.to_string().len() + 2;
    format!("{}…", e164.get(..shown).unwrap_or_default())
}

/// Reads a number as someone in `region` would dial it, or in international form.
///
/// `countries` are the regions that may be texted; empty for any. A number that is only possible often belongs to no
/// one region (`+1 111 000 0000` is neither Canada's nor the United States'): it is allowed if any of the countries
/// has its calling code. One that libphonenumber can place is held to that place.
///
/// # Errors
///
/// `phone_invalid` or `phone_not_allowed`, of the field `smsPhone`. No message holds the number.
pub fn parse(
    text: &str,
    region: &str,
    check: PhoneCheck,
    countries: &[String],
) -> Result<PhoneNumber, Refusal> {
    let dialled = dialled(text)?;
    if check == PhoneCheck::Possible
        && countries.is_empty()
        && let Some(number) = north_american(&dialled, region)
    {
        return Ok(number);
    }
    look_up(&dialled, region, check, countries)
}

/// Reads a possible number that somebody else may have written: also in that form of a mobile which libphonenumber does not
/// take (`+52 1 55 …`), as its [`twin`].
pub fn parse_either_form(text: &str, region: &str) -> Result<PhoneNumber, Refusal> {
    let read = |text: &str| parse(text, region, PhoneCheck::Possible, &[]);
    read(text).or_else(|refusal| {
        let other = dialled(text).ok().and_then(|dialled| twin(&dialled)).ok_or(refusal)?;
        read(&other)
    })
}

/// What libphonenumber says of a plus and digits, and what we hold against it.
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
    // Dialled as they stand, so few digits are a short code rather than a subscriber, unless the plan knows them.
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
    // Some digits in unassigned ranges read as a trunk prefix each time: +43 00… gives +43 0…, and that gives +43 ….
    // What the provider would read from our own E.164 might then be a stranger's number.
    if dialled != e164 && PHONE_NUMBER_UTIL.parse(&e164, None).as_ref() != Ok(&number) {
        return Err(invalid("the phone number can be read in two ways"));
    }
    PhoneNumber::from_e164(&e164).ok_or_else(|| invalid("the phone number has more than 15 digits"))
}

/// The plus and the digits of the text, if nothing else but punctuation and what people paste along stands there.
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
    Ok(dialled)
}

/// A possible number of the North American plan: `+1` and ten digits, or ten digits dialled in the US or Canada, the
/// first of which begins no prefix for abroad. Any ten digits are possible there, so that libphonenumber, which takes a
/// microsecond or two, would say the same: a property test holds it to that.
fn north_american(dialled: &str, region: &str) -> Option<PhoneNumber> {
    let digits = match dialled.strip_prefix("+1") {
        Some(digits) => digits,
        None if matches!(region, "US" | "CA") && !dialled.starts_with(['+', '0']) => dialled,
        None => return None,
    };
    (digits.len() == 10).then(|| PhoneNumber(["+1", digits].concat()))
}

/// The ASCII digit for a decimal digit of any script, as libphonenumber knows them.
fn digit(c: char) -> Option<char> {
    PHONE_NUMBER_UTIL.normalize_digits_only(c.encode_utf8(&mut [0; 4])).chars().next()
}

/// What merely groups digits: libphonenumber's own list, without the `x` and the tildes, since those also begin an
/// extension, and with every space of Unicode (Space_Separator), since word processors and French typography put narrow
/// ones there. Not here either, and so refused: letters, `#`, `*`, `;`, `,`, line breaks and other controls.
fn is_punctuation(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '/' | '(' | ')' | '[' | ']')
        || matches!(
            c,
            '\u{00A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}'
        )
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{30FC}' | '\u{FF0D}'..='\u{FF0F}')
        || matches!(c, '\u{FF08}' | '\u{FF09}' | '\u{FF3B}' | '\u{FF3D}')
}

fn check_textable(number: &Parsed, check: PhoneCheck) -> Result<(), Refusal> {
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

fn is_in(number: &Parsed, countries: &[String]) -> bool {
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
