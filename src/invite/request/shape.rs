//! The shape of a body: one JSON object without repeated names, here and in `sessionParams`. Values stay raw, so
//! that a number out of range or a wrong type is a fault of its field and not of the whole.

use crate::{json::Name, masked::debug_shows};
use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};
use std::{borrow::Cow, collections::HashSet, fmt};

/// Some programs put it before all that they write in UTF-8. RFC 8259, section 8.1, lets a reader ignore it.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// A request's JSON object: its known fields found, and not yet looked at.
#[derive(Default)]
pub struct RawFields<'a> {
    pub groupid: Option<&'a RawValue>,
    pub sessiontype: Option<&'a RawValue>,
    pub sms_phone: Option<&'a RawValue>,
    pub session_params: Option<Params<'a>>,
    pub authorization: Option<&'a RawValue>,
    pub gssnid: Option<&'a RawValue>,
}

debug_shows!(RawFields<'_> {});

/// `sessionParams`, its names known to differ.
pub enum Params<'a> {
    Object(Vec<(Cow<'a, str>, &'a RawValue)>),
    Null,
    /// No object.
    Other,
}

debug_shows!(Params<'_> {});

fn reader(text: &str) -> serde_json::Deserializer<serde_json::de::StrRead<'_>> {
    serde_json::Deserializer::from_str(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
}

/// Says what is wrong in words that hold nothing of the body but a position.
pub fn parse(text: &str) -> Result<RawFields<'_>, String> {
    let mut reader = reader(text);
    let request = Object.deserialize(&mut reader).map_err(|error| describe(&error))?;
    reader.end().map_err(|error| describe(&error))?;
    Ok(request)
}

/// The fields of any JSON object, each there once; in the same words.
pub fn object(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, String> {
    let mut reader = reader(text);
    let fields =
        de::Deserializer::deserialize_map(&mut reader, ParamsObject).map_err(|error| describe(&error))?;
    reader.end().map_err(|error| describe(&error))?;
    Ok(fields)
}

fn describe(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let what = match error.classify() {
        // Its own words would repeat the value.
        Category::Data if said.starts_with("invalid type") => "it is not a JSON object",
        Category::Data => return said,
        Category::Eof => "it ends too early",
        Category::Syntax | Category::Io => "it is not JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// So many names are compared one by one, which costs less than hashing them.
const FEW: usize = 8;

/// Names seen in one object.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    /// Whether it is new.
    fn add(&mut self, name: Cow<'a, str>) -> bool {
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

struct Object;

impl<'de> DeserializeSeed<'de> for Object {
    type Value = RawFields<'de>;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = RawFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut names, mut request) = (Names::default(), RawFields::default());
        while let Some(Name(name)) = map.next_key()? {
            let repeated = match name.as_ref() {
                "groupid" => request.groupid.replace(map.next_value()?).is_some(),
                "sessiontype" => request.sessiontype.replace(map.next_value()?).is_some(),
                "smsPhone" => request.sms_phone.replace(map.next_value()?).is_some(),
                "authorization" => request.authorization.replace(map.next_value()?).is_some(),
                "gssnid" => request.gssnid.replace(map.next_value()?).is_some(),
                "sessionParams" => request.session_params.replace(map.next_value_seed(ParamsSeed)?).is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    !names.add(name)
                }
            };
            if repeated {
                return Err(de::Error::custom("a field is repeated"));
            }
        }
        Ok(request)
    }
}

struct ParamsSeed;

impl<'de> DeserializeSeed<'de> for ParamsSeed {
    type Value = Params<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                let mut reader = serde_json::Deserializer::from_str(raw.get());
                let names =
                    de::Deserializer::deserialize_map(&mut reader, ParamsObject).map_err(|error| {
                        let repeated = error.to_string().contains("repeated");
                        de::Error::custom(if repeated {
                            "a field of sessionParams is repeated"
                        } else {
                            "a name in sessionParams is no text"
                        })
                    })?;
                Ok(Params::Object(names))
            }
            Some(b'n') => Ok(Params::Null),
            _ => Ok(Params::Other),
        }
    }
}

struct ParamsObject;

impl<'de> Visitor<'de> for ParamsObject {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut names, mut values) = (Names::default(), Vec::new());
        while let Some(Name(name)) = map.next_key()? {
            if !names.add(name.clone()) {
                return Err(de::Error::custom("a field is repeated"));
            }
            values.push((name, map.next_value()?));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_taken_and_unknown_fields_are_passed_over() {
        let request = parse(r#" {"groupid": 72, "sms\u0050hone": "1", "x": {"deep": [1e999]}, "sessionParams": {"a": 1e999}} "#).unwrap();
        assert_eq!(request.groupid.unwrap().get(), "72");
        assert_eq!(request.sms_phone.unwrap().get(), "\"1\"");
        assert!(matches!(request.session_params, Some(Params::Object(names)) if names.len() == 1));
    }

    #[test]
    fn what_is_no_object_or_repeats_a_field_is_malformed() {
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
            r#"{"\ud800":1}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
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
