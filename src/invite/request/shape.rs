//! The shape of a body: one JSON object without repeated names, here and in `sessionParams`. Values stay raw, so that a
//! number out of range or a wrong type is a fault of its field and not of the whole request.

use crate::{
    json::{DistinctNames, Members, RawMembers, read_object},
    masked::debug_shows,
};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess};
use serde_json::{error::Category, value::RawValue};
use std::borrow::Cow;

/// Some programs put it before all that they write in UTF-8. RFC 8259, section 8.1, lets a reader ignore it.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// The known fields of a request, each as it was written.
#[derive(Default)]
pub(super) struct RawFields<'a> {
    pub groupid: Option<&'a RawValue>,
    pub sessiontype: Option<&'a RawValue>,
    pub sms_phone: Option<&'a RawValue>,
    pub session_params: Option<Params<'a>>,
    pub authorization: Option<&'a RawValue>,
    pub gssnid: Option<&'a RawValue>,
}

debug_shows!(RawFields<'_> {});

/// `sessionParams`, whose names are known to differ.
pub(super) enum Params<'a> {
    Object(Vec<(Cow<'a, str>, &'a RawValue)>),
    /// With a name that has a lone surrogate.
    BrokenName,
    Null,
    NotAnObject,
}

debug_shows!(Params<'_> {});

/// Reads a request.
///
/// # Errors
///
/// What is wrong, in words that show nothing of the body but a position.
pub(super) fn parse(text: &str) -> Result<RawFields<'_>, String> {
    let members: RequestMembers<'_> = read(text)?;
    Ok(members.fields)
}

/// The fields of any JSON object, each there once.
///
/// # Errors
///
/// What is wrong, in words that show nothing of the body but a position.
pub(crate) fn object(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, String> {
    read(text).map(RawMembers::into_vec)
}

fn read<'a, M: Members<'a>>(text: &'a str) -> Result<M, String> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    read_object(text).map_err(|error| describe(&error))
}

fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = match error.classify() {
        // serde_json's own words would repeat the value.
        Category::Data if text.starts_with("invalid type") => "it is not a JSON object",
        Category::Data => return text,
        Category::Eof => "it ends too early",
        Category::Syntax | Category::Io => "it is not JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// A request's fields while they are read.
#[derive(Default)]
struct RequestMembers<'a> {
    fields: RawFields<'a>,
    unknown: DistinctNames<'a>,
}

impl<'de> Members<'de> for RequestMembers<'de> {
    fn add<A: MapAccess<'de>>(&mut self, name: Cow<'de, str>, map: &mut A) -> Result<bool, A::Error> {
        let fields = &mut self.fields;
        Ok(match name.as_ref() {
            "groupid" => fields.groupid.replace(map.next_value()?).is_none(),
            "sessiontype" => fields.sessiontype.replace(map.next_value()?).is_none(),
            "smsPhone" => fields.sms_phone.replace(map.next_value()?).is_none(),
            "authorization" => fields.authorization.replace(map.next_value()?).is_none(),
            "gssnid" => fields.gssnid.replace(map.next_value()?).is_none(),
            "sessionParams" => fields.session_params.replace(map.next_value_seed(ParamsSeed)?).is_none(),
            _ => {
                map.next_value::<IgnoredAny>()?;
                self.unknown.add(name)
            }
        })
    }
}

struct ParamsSeed;

impl<'de> DeserializeSeed<'de> for ParamsSeed {
    type Value = Params<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                // It was read as JSON already.
                let members: RawMembers<'_> = read_object(raw.get())
                    .map_err(|_| D::Error::custom("a field of sessionParams is repeated"))?;
                Ok(if members.broken().is_empty() {
                    Params::Object(members.into_vec())
                } else {
                    Params::BrokenName
                })
            }
            Some(b'n') => Ok(Params::Null),
            _ => Ok(Params::NotAnObject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_and_unknown_fields_are_ignored() {
        let request = parse(r#" {"groupid": 72, "sms\u0050hone": "1", "x": {"deep": [1e999]}, "sessionParams": {"a": 1e999}} "#).unwrap();
        assert_eq!(request.groupid.unwrap().get(), "72");
        assert_eq!(request.sms_phone.unwrap().get(), "\"1\"");
        assert!(matches!(request.session_params, Some(Params::Object(names)) if names.len() == 1));
    }

    #[test]
    fn a_body_that_is_no_object_or_repeats_a_field_is_malformed() {
        for known in ["groupid", "sessiontype", "smsPhone", "authorization", "gssnid", "sessionParams"] {
            let fault = parse(&format!(r#"{{"{known}":null,"x":1,"{known}":null}}"#)).unwrap_err();
            assert!(fault.starts_with("a field is repeated"), "{known}: {fault}");
        }
        let many = |last: usize| {
            let names: Vec<_> = (0..99).chain([last]).map(|n| format!("\"{n}\":1")).collect();
            format!("{{{}}}", names.join(","))
        };
        assert!(parse(&many(99)).is_ok() && parse(&format!("{{\"sessionParams\":{}}}", many(99))).is_ok());
        for repeated in [0, 7, 8, 98] {
            assert!(parse(&many(repeated)).unwrap_err().starts_with("a field is repeated"), "{repeated}");
            let params = format!("{{\"sessionParams\":{}}}", many(repeated));
            assert!(parse(&params).unwrap_err().starts_with("a field of sessionParams is repeated"));
        }
        for bad in [
            "",
            " ",
            "null",
            "[]",
            "\"x\"",
            "1",
            "{",
            "{}{}",
            "{} x",
            "{'a':1}",
            "{\"a\":}",
            "{\"a\":1,}",
            "\u{feff}",
            "\u{feff}\u{feff}{}",
            " \u{feff}{}",
            "{}\u{feff}",
            r#"{"groupid":1,"groupid":1}"#,
            r#"{"groupid":1,"group\u0069d":2}"#,
            r#"{"x":1,"x":2}"#,
            r#"{"sessionParams":{"camera":"back","camera":"front"}}"#,
            r#"{"\ud800":1,"\uD800":1}"#,
            r#"{"\ud8":1}"#,
            "{\"a\nb\":1}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_field_with_a_lone_surrogate_is_ignored_in_its_name_as_in_its_value() {
        for body in [r#"{"groupid":72,"\ud800":1}"#, r#"{"groupid":72,"x":"\ud800"}"#] {
            assert_eq!(parse(body).unwrap().groupid.unwrap().get(), "72");
        }
    }

    #[test]
    fn a_byte_order_mark_before_the_object_is_ignored() {
        assert!(parse("\u{feff} {\"groupid\": 72}").unwrap().groupid.is_some());
        assert_eq!(object("\u{feff}{\"a\":1}").unwrap().len(), 1);
    }

    #[test]
    fn deep_nesting_costs_nothing() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(30_000);
            assert!(parse(&deep).is_err());
            assert!(parse(&format!("{{\"x\":{deep}")).is_err());
        }
        let closed = format!("{{\"x\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(parse(&closed).is_ok());
    }

    #[test]
    fn the_fault_shows_nothing_of_the_body() {
        let fault = parse(r#"{"authorization": "Bearer secret", oops}"#).unwrap_err();
        assert!(!fault.contains("secret") && fault.contains("line 1"), "{fault}");
        let fault = parse("\"secret\"").unwrap_err();
        assert!(!fault.contains("secret"), "{fault}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_object_makes_it_panic(text in r#"\{("(groupid|smsPhone|sessionParams|x)": ?(\{"a":[0-9e.-]{1,9}\}|null|-?[0-9]{1,30}|"[a-z\\u0-9]{0,9}"),?){0,4}\}"#) {
            let _ = parse(&text);
        }
    }
}
