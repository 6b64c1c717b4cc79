//! JSON objects whose member names all differ, so that no two readers can see different values in one object.

use serde::{
    Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashSet, fmt, marker::PhantomData};

/// What a reader makes of the members of an object.
pub(crate) trait Members<'de>: Default {
    /// Takes one member: its name, and its value from `map`. Returns whether the name is new.
    fn add<A: MapAccess<'de>>(&mut self, name: Cow<'de, str>, map: &mut A) -> Result<bool, A::Error>;

    /// Takes the value of a member whose name has a lone surrogate, which no known name has. It is ignored unless this is
    /// overridden.
    fn add_broken<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(drop)
    }
}

/// A JSON number with more digits is not read as an integer.
const LONGEST_INTEGER: usize = 32;

/// Reads `json` as one object. Only those values are decoded that `M` decodes.
///
/// # Errors
///
/// Of the category `Data` for a value that is not an object, and for a repeated name: "a field is repeated". Of another
/// category for text that is not JSON.
pub(crate) fn read_object<'de, M: Members<'de>>(json: &'de str) -> Result<M, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let members = Deserializer::deserialize_map(&mut reader, ObjectVisitor(PhantomData))?;
    reader.end()?;
    Ok(members)
}

/// The text of a JSON string, borrowed where it has no escapes. `None` for another value, or for a lone surrogate.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The digits of a JSON number that is an integer from 0 on; `None` for any other value. In JSON Schema (section 6.1.1) 72.0
/// and 7.2e1 are the integer 72, and some programs write it so. An exponent that makes more than [`LONGEST_INTEGER`] digits
/// is refused.
pub(crate) fn integer(json: &str) -> Option<Cow<'_, str>> {
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let exponent = exponent.parse::<i64>();
    if exponent == Ok(0) && fraction.is_empty() {
        return Some(Cow::Borrowed(whole));
    }
    let written = [whole, fraction].concat();
    let digits = written.trim_matches('0');
    if digits.is_empty() {
        return Some(Cow::Borrowed("0"));
    }
    // So many zeros follow the last digit that is not 0.
    let zeros_written = written.len() - written.trim_end_matches('0').len();
    let shift = i64::try_from(zeros_written).ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let zeros = usize::try_from(exponent.ok()?.checked_add(shift)?).ok()?;
    let fits = digits.len().saturating_add(zeros) <= LONGEST_INTEGER;
    fits.then(|| Cow::Owned(digits.to_owned() + &"0".repeat(zeros)))
}

/// The text with the characters in the place of the escapes of a JSON string, for a search: in a text that is not JSON as a
/// whole, or a string that is not Unicode, too. Half of a surrogate pair is U+FFFD.
pub(crate) fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let (mut units, mut left) = (Vec::new(), after);
        while let Some(unit) = left.strip_prefix('u').and_then(|hex| hex.get(..4)).and_then(hex_unit) {
            units.push(unit);
            left = &left[5..];
            match left.strip_prefix("\\u") {
                Some(_) => left = &left[1..],
                None => break,
            }
        }
        if units.is_empty() {
            let mut chars = after.chars();
            plain.extend(chars.next().map(|c| match c {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }));
            left = chars.as_str();
        }
        plain.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
        rest = left;
    }
    plain.push_str(rest);
    plain
}

fn hex_unit(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

struct ObjectVisitor<M>(PhantomData<M>);

impl<'de, M: Members<'de>> Visitor<'de> for ObjectVisitor<M> {
    type Value = M;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<M, A::Error> {
        let (mut members, mut broken_names) = (M::default(), HashSet::new());
        while let Some(name) = map.next_key::<&RawValue>()? {
            let is_new = match member_name(name).map_err(A::Error::custom)? {
                MemberName::Text(name) => members.add(name, &mut map)?,
                MemberName::Broken(name) => {
                    members.add_broken(&mut map)?;
                    broken_names.insert(name)
                }
            };
            if !is_new {
                return Err(A::Error::custom("a field is repeated"));
            }
        }
        Ok(members)
    }
}

/// Every member in the object's order, with its value as it was written.
#[derive(Default)]
pub(crate) struct RawMembers<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The names of the members after the first [`FEW`].
    more_names: HashSet<Cow<'a, str>>,
    /// The values of the members whose names have a lone surrogate.
    broken: Vec<&'a RawValue>,
}

impl<'a> RawMembers<'a> {
    /// The values of the members whose names have a lone surrogate.
    pub(crate) fn broken(&self) -> &[&'a RawValue] {
        &self.broken
    }

    /// All other members.
    pub(crate) fn into_vec(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.members
    }
}

impl<'de> Members<'de> for RawMembers<'de> {
    fn add<A: MapAccess<'de>>(&mut self, name: Cow<'de, str>, map: &mut A) -> Result<bool, A::Error> {
        let is_new = self.members.iter().take(FEW).all(|(other, _)| *other != name);
        let is_new = is_new && (self.members.len() < FEW || self.more_names.insert(name.clone()));
        if is_new {
            self.members.push((name, map.next_value()?));
        }
        Ok(is_new)
    }

    fn add_broken<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        self.broken.push(map.next_value()?);
        Ok(())
    }
}

/// So many names are compared one by one, which costs less than hashing them.
const FEW: usize = 8;

/// Names seen in one object.
#[derive(Default)]
pub(crate) struct DistinctNames<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> DistinctNames<'a> {
    /// Returns whether the name is new.
    pub(crate) fn add(&mut self, name: Cow<'a, str>) -> bool {
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() == FEW {
            return self.many.insert(name);
        }
        self.few.push(name);
        true
    }
}

enum MemberName<'a> {
    /// Borrowed where it has no escapes.
    Text(Cow<'a, str>),
    /// With a lone surrogate, which JSON allows (RFC 8259, section 8.2), in WTF-8.
    Broken(Vec<u8>),
}

fn member_name(raw: &RawValue) -> Result<MemberName<'_>, serde_json::Error> {
    struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name")
        }

        fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Vec<u8>, E> {
            Ok(name.to_owned())
        }
    }

    if let Some(name) = string(raw) {
        return Ok(MemberName::Text(name));
    }
    serde_json::Deserializer::from_str(raw.get()).deserialize_bytes(BytesVisitor).map(MemberName::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_a_repeated_name_is_refused() {
        let json = r#"{"b":1e999,"\u0061":[2],"c":null}"#;
        let members = read_object::<RawMembers<'_>>(json).unwrap().into_vec();
        let shown: Vec<_> = members.iter().map(|(name, raw)| (name.as_ref(), raw.get())).collect();
        assert_eq!(shown, [("b", "1e999"), ("a", "[2]"), ("c", "null")]);
        for last in [0, 7, 8, 98] {
            let names: Vec<_> = (0..99).chain([last]).map(|n| format!("\"{n}\":1")).collect();
            let json = format!("{{{}}}", names.join(","));
            let error = read_object::<RawMembers<'_>>(&json).err().unwrap();
            assert!(error.is_data() && error.to_string().starts_with("a field is repeated"), "{error}");
        }
    }

    #[test]
    fn text_that_is_not_one_object_is_refused() {
        for bad in [
            "",
            "null",
            "[]",
            "{} {}",
            "{}x",
            "{\"a\"}",
            r#"{"\ud8":1}"#,
            "{\"a\nb\":1}",
            "{1:2}",
            "{\"a\":1,}",
            "\u{feff}{}",
        ] {
            assert!(read_object::<RawMembers<'_>>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_whose_name_has_a_lone_surrogate_is_apart_and_may_not_be_repeated() {
        let members =
            read_object::<RawMembers<'_>>(r#"{"\ud800":[1],"a":2,"\udc00":1,"\ud800\udc00":3}"#).unwrap();
        let broken: Vec<_> = members.broken().iter().map(|raw| raw.get()).collect();
        assert_eq!(broken, ["[1]", "1"]);
        let shown: Vec<_> = members.into_vec().into_iter().map(|(name, raw)| (name, raw.get())).collect();
        assert_eq!(shown, [("a".into(), "2"), ("\u{10000}".into(), "3")]);
        let error = read_object::<RawMembers<'_>>(r#"{"\ud800":1,"\uD800":2}"#).err().unwrap();
        assert!(error.is_data() && error.to_string().starts_with("a field is repeated"), "{error}");
    }

    #[test]
    fn an_integer_may_have_a_fraction_of_zeros_or_an_exponent() {
        for (json, digits) in [
            ("72", Some("72")),
            ("0", Some("0")),
            ("72.000", Some("72")),
            ("72.000e0", Some("72")),
            ("7.2e1", Some("72")),
            ("7.2E+01", Some("72")),
            ("0.072e3", Some("72")),
            ("7200e-2", Some("72")),
            ("0e999999999999999999999", Some("0")),
            ("0.00e-9", Some("0")),
            ("1e31", Some("10000000000000000000000000000000")),
            ("72.5", None),
            ("7.25e1", None),
            ("1e-1", None),
            ("1e32", None),
            ("1e999999999", None),
            ("1e-999999999", None),
            ("1e9223372036854775807", None),
            ("0.1e-9223372036854775808", None),
            ("1e99999999999999999999", None),
            ("-0", None),
            ("-7.2e1", None),
            ("true", None),
            ("[]", None),
            ("\"\\ud800\"", None),
        ] {
            assert_eq!(integer(json).as_deref(), digits, "{json}");
        }
    }

    #[test]
    fn escapes_are_read_in_a_text_that_is_not_json_too() {
        for (text, plain) in [
            (r"a\/b\u0032\u00a05\n", "a/b2\u{a0}5\n"),
            (r"\ud83d\ude00 \ud83d \ude00x", "\u{1f600} \u{fffd} \u{fffd}x"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
            (r"\u12 \uéééé \u+123 \", "u12 uéééé u+123 "),
            (r"\\u0032\x", r"\u0032x"),
        ] {
            assert_eq!(without_escapes(text), plain, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_string_without_its_escapes_is_what_serde_json_reads(
            inner in proptest::prop_oneof![".{0,20}", r#"(\\["\\/bfnrtu]|\\u[0-9a-fD]{4}|[a-zé\u{7f}\u{80}]){0,9}"#],
        ) {
            let plain = without_escapes(&inner);
            if let Ok(text) = serde_json::from_str::<String>(&format!("\"{inner}\"")) {
                proptest::prop_assert_eq!(plain, text);
            }
        }

        #[test]
        fn every_form_of_an_integer_is_read(number in 1..10_u64.pow(15), zeros in 0_usize..9, point in 1_usize..15) {
            let digits = number.to_string();
            let (whole, fraction) = digits.split_at(point.min(digits.len()));
            let many = "0".repeat(zeros);
            for json in [
                format!("{digits}{many}e-{zeros}"),
                format!("{digits}.{many}"),
                format!("{whole}.{fraction}{many}e{}", fraction.len()),
                format!("0.{many}{digits}E+{}", zeros + digits.len()),
            ] {
                let read = integer(&json);
                proptest::prop_assert_eq!(read.as_deref(), Some(digits.as_str()), "{}", json);
            }
            let with_fraction = format!("{digits}1e-{}", zeros + 1);
            proptest::prop_assert_eq!(integer(&with_fraction), None);
        }

        #[test]
        fn an_integer_has_the_value_of_its_number(json in r"(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?") {
            if let Some(digits) = integer(&json) {
                proptest::prop_assert_eq!(digits.parse::<f64>(), json.parse::<f64>());
            }
        }

        #[test]
        fn a_string_is_read_as_serde_json_reads_it(
            inner in proptest::prop_oneof![".{0,20}", r#"(\\["\\/bfnrtu]|\\u[0-9a-fD]{4}|[a-zé"\u{7f}\u{80}]){0,9}"#],
        ) {
            if let Ok(raw) = RawValue::from_string(format!("\"{inner}\"")) {
                proptest::prop_assert_eq!(string(&raw).map(Cow::into_owned), serde_json::from_str::<String>(raw.get()).ok());
            }
        }
    }
}
