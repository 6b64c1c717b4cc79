//! The fields of a request, each with its rule (contract, section 2). A fault names its field.

use super::{
    super::envelope::{Envelope, HeaderValue},
    shape::{Params, RawFields},
};
use crate::{
    group::options::GroupOptions,
    group_id::GroupId,
    json, pasted,
    phone::{self, PhoneNumber},
    refusal::{Code, Refusal},
    sessions::RequestRecord,
};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// `sessionParams` may have 4 KiB as compact JSON.
const LARGEST_PARAMS: usize = 4 * 1024;
/// A refusal quotes a field's name up to this many characters.
const LONGEST_NAME: usize = 64;
const GROUP_RULE: &str = "must be an integer from 1 to 9007199254740991";

fn missing(field: &str) -> Refusal {
    Refusal::new(Code::FieldMissing, format!("{field} is missing")).field(field)
}

fn invalid(field: &str, rule: &str) -> Refusal {
    Refusal::new(Code::FieldInvalid, format!("{field} {rule}")).field(field)
}

/// The group that the request names: in its body, in its header, or the same group in both.
pub(super) fn groupid(written: Option<&RawValue>, envelope: &Envelope) -> Result<GroupId, Refusal> {
    let rule = || invalid("groupid", GROUP_RULE);
    let body = match given(written) {
        None => None,
        Some(raw) => Some(match json::string(raw) {
            Some(digits) => digits_of(&digits).ok_or_else(|| not_digits(&digits))?,
            None => json::integer(raw.get()).as_deref().and_then(digits_of).ok_or_else(rule)?,
        }),
    };
    let mut named = body;
    for value in envelope.headers("groupid") {
        let header = match value {
            HeaderValue::Text(digits) => digits_of(digits).ok_or_else(|| not_digits(digits))?,
            HeaderValue::Integer(number) => GroupId::new(*number).ok_or_else(rule)?,
            HeaderValue::Other => return Err(rule()),
        };
        if named.is_some_and(|other| other != header) {
            return Err(invalid(
                "groupid",
                if body.is_some() {
                    "differs between the body and the header or query"
                } else {
                    "differs between two headers"
                },
            ));
        }
        named = Some(header);
    }
    named.ok_or_else(|| missing("groupid"))
}

fn not_digits(text: &str) -> Refusal {
    match pasted::stray(text) {
        Some(stray) => invalid("groupid", &format!("{GROUP_RULE}, in digits alone, and holds {stray}")),
        None => invalid("groupid", GROUP_RULE),
    }
}

fn digits_of(digits: &str) -> Option<GroupId> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok().and_then(GroupId::new)).flatten()
}

impl RawFields<'_> {
    /// Checks all fields but `groupid`, and returns the number to text. Every field that could be read is put into the
    /// record, even if another field is wrong.
    pub(super) fn check(
        &self,
        options: &GroupOptions,
        record: &mut RequestRecord,
    ) -> Result<PhoneNumber, Refusal> {
        let session_type = self.session_type().map(|number| record.session_type = Some(number));
        let written = self.phone_as_written();
        let params = self.params().map(|compact| record.session_params = compact);
        session_type?;
        let written = written?;
        params?;
        let phone = phone::parse(&written, &options.region, options.phone_check, &options.countries)?;
        record.phone = Some(phone.clone());
        Ok(phone)
    }

    fn session_type(&self) -> Result<i32, Refusal> {
        let raw = given(self.sessiontype).ok_or_else(|| missing("sessiontype"))?;
        let number = json::integer(raw.get()).and_then(|digits| digits.parse().ok());
        number
            .filter(|number| *number <= 32_767)
            .ok_or_else(|| invalid("sessiontype", "must be an integer from 0 to 32767"))
    }

    fn phone_as_written(&self) -> Result<Cow<'_, str>, Refusal> {
        let raw = given(self.sms_phone).ok_or_else(|| missing("smsPhone"))?;
        let rule = "must be a phone number, as a string or an integer";
        match json::string(raw) {
            Some(written) if written.contains('\0') => Err(invalid("smsPhone", "must not hold U+0000")),
            Some(written) => Ok(written),
            None => json::integer(raw.get()).ok_or_else(|| invalid("smsPhone", rule)),
        }
    }

    /// `sessionParams` as compact JSON, in its order, without members that are null.
    fn params(&self) -> Result<String, Refusal> {
        let members = match &self.session_params {
            None | Some(Params::Null) => return Ok("{}".to_owned()),
            Some(Params::BrokenName) => {
                return Err(invalid("sessionParams", "has a name with half of a surrogate pair in it"));
            }
            Some(Params::NotAnObject) => return Err(invalid("sessionParams", "must be an object")),
            Some(Params::Object(members)) => members,
        };
        let mut compact = String::with_capacity(64);
        for (name, raw) in members {
            if name.contains('\0') {
                return Err(invalid("sessionParams", "has a name with U+0000 in it"));
            }
            let Some(value) = scalar(raw).map_err(|rule| invalid(&path(name), rule))? else { continue };
            match name.as_ref() {
                "camera" if value != "\"front\"" && value != "\"back\"" => {
                    return Err(invalid("sessionParams.camera", "must be \"front\" or \"back\""));
                }
                "resolution" if !is_resolution(&value) => {
                    let rule = "must be WIDTHxHEIGHT, each from 16 to 7680, such as \"352x288\"";
                    return Err(invalid("sessionParams.resolution", rule));
                }
                _ => {}
            }
            compact.push(if compact.is_empty() { '{' } else { ',' });
            match name {
                // A borrowed name had no escapes, and needs none.
                Cow::Borrowed(plain) => compact.extend(["\"", *plain, "\""]),
                Cow::Owned(text) => compact.push_str(&quoted(text)),
            }
            compact.push(':');
            compact.push_str(&value);
            if compact.len() >= LARGEST_PARAMS {
                return Err(invalid("sessionParams", "must have at most 4096 bytes as compact JSON"));
            }
        }
        compact.push_str(if compact.is_empty() { "{}" } else { "}" });
        Ok(compact)
    }
}

fn given(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

fn path(name: &str) -> String {
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    format!("sessionParams.{shown}")
}

fn quoted(text: &str) -> String {
    // A string always serializes.
    serde_json::to_string(text).unwrap_or_default()
}

/// A scalar as compact JSON; `None` for null.
fn scalar(value: &RawValue) -> Result<Option<Cow<'_, str>>, &'static str> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b't' | b'f') => Ok(Some(Cow::Borrowed(raw))),
        Some(b'"') => match json::string(value).ok_or("must be text that is UTF-8")? {
            Cow::Borrowed(_) => Ok(Some(Cow::Borrowed(raw))),
            Cow::Owned(text) if text.contains('\0') => Err("must not hold U+0000"),
            Cow::Owned(text) => Ok(Some(Cow::Owned(quoted(&text)))),
        },
        Some(b'-' | b'0'..=b'9') => {
            // Every reader of JSON has doubles. PostgreSQL's numeric would refuse 1e999999 and 1e-99999.
            let digits = raw.split(['e', 'E']).next().unwrap_or_default();
            let is_zero = !digits.bytes().any(|b| (b'1'..=b'9').contains(&b));
            let fits =
                raw.parse::<f64>().is_ok_and(|double| double.is_finite() && (double != 0.0 || is_zero));
            if !fits {
                return Err("must be a number that a double can hold");
            }
            // The exponent of a zero means nothing, and may be out of PostgreSQL's range.
            Ok(Some(Cow::Borrowed(if is_zero { digits } else { raw })))
        }
        _ => Err("must be a string, a number, true or false"),
    }
}

/// `"WxH"` with its quotes, both from 16 to 7680.
fn is_resolution(json: &str) -> bool {
    let side = |digits: &str| {
        let plain =
            digits.len() <= 4 && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        plain && digits.parse::<u16>().is_ok_and(|pixels| (16..=7_680).contains(&pixels))
    };
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.and_then(|inner| inner.split_once('x')).is_some_and(|(width, height)| side(width) && side(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_surrogate_in_a_parameter_is_a_fault_of_its_field_in_the_name_as_in_the_value() {
        for (params, field) in
            [(r#"{"\ud800":1}"#, "sessionParams"), (r#"{"x":"\ud800"}"#, "sessionParams.x")]
        {
            let body = format!("{{\"sessionParams\":{params}}}");
            let refusal = super::super::shape::parse(&body).unwrap().params().unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::FieldInvalid, Some(field)));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_string_comes_out_as_serde_json_writes_it(
            inner in proptest::prop_oneof![".{0,20}", r#"(\\["\\/bfnrt]|\\u[0-9a-f]{4}|[a-zé\u{7f}\u{80}]){0,9}"#],
        ) {
            let Ok(raw) = RawValue::from_string(format!("\"{inner}\"")) else { return Ok(()) };
            match serde_json::from_str::<String>(raw.get()) {
                Ok(text) if !text.contains('\0') => {
                    proptest::prop_assert_eq!(scalar(&raw).unwrap().map(Cow::into_owned), Some(quoted(&text)));
                }
                _ => proptest::prop_assert!(scalar(&raw).is_err()),
            }
        }

        #[test]
        fn a_name_comes_out_as_it_was(name in r#"(\\["\\/n]|[a-zé]){0,9}"#) {
            let json = format!("{{\"sessionParams\":{{\"{name}\":1}}}}");
            let request = super::super::shape::parse(&json).unwrap();
            let params: serde_json::Value = serde_json::from_str(&request.params().unwrap()).unwrap();
            let written: serde_json::Value = serde_json::from_str(&json).unwrap();
            proptest::prop_assert_eq!(&params, &written["sessionParams"]);
        }
    }
}
