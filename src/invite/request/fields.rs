//! The fields of a request, each with its rule (contract, section 2). A fault names its field.

use super::{Params, Request, text};
use crate::{
    group::{Group, GroupId},
    invite::envelope::{Envelope, HeaderValue},
    phone::{self, PhoneNumber},
    refusal::{Code, Refusal},
    sessions::Asked,
};
use serde_json::value::RawValue;

/// `sessionParams` as compact JSON has at most 4 KiB.
const LARGEST_PARAMS: usize = 4 * 1024;
/// A field's name is repeated to its sender up to this many characters.
const LONGEST_NAME: usize = 64;

/// A request whose every field is right.
#[derive(Debug)]
pub struct Wanted {
    pub session_type: i32,
    pub phone: PhoneNumber,
    /// Compact JSON, without nulls.
    pub params: String,
}

impl Wanted {
    pub fn asked(&self) -> Asked {
        Asked {
            session_type: Some(self.session_type),
            phone: Some(self.phone.as_e164().to_owned()),
            session_params: self.params.clone(),
        }
    }
}

fn missing(field: &str) -> Refusal {
    Refusal::new(Code::FieldMissing, format!("{field} is missing")).field(field)
}

fn invalid(field: &str, rule: &str) -> Refusal {
    Refusal::new(Code::FieldInvalid, format!("{field} {rule}")).field(field)
}

/// The group that the request names, in its body, its header, or both alike.
pub fn groupid(request: &Request<'_>, envelope: &Envelope) -> Result<GroupId, Refusal> {
    let rule = || invalid("groupid", "must be an integer from 1 to 9007199254740991");
    let body = match given(request.groupid) {
        None => None,
        Some(raw) => Some(match text(raw) {
            Some(digits) => digits_of(&digits).ok_or_else(rule)?,
            None => raw.parse().ok().and_then(GroupId::new).ok_or_else(rule)?,
        }),
    };
    let mut named = body;
    for value in envelope.headers("groupid") {
        let header = match value {
            HeaderValue::Text(digits) => digits_of(digits),
            HeaderValue::Integer(number) => GroupId::new(*number),
            HeaderValue::Other => None,
        };
        let header = header.ok_or_else(rule)?;
        if named.is_some_and(|other| other != header) {
            return Err(invalid("groupid", "differs between the body and the header"));
        }
        named = Some(header);
    }
    named.ok_or_else(|| missing("groupid"))
}

fn digits_of(digits: &str) -> Option<GroupId> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok().and_then(GroupId::new)).flatten()
}

impl Request<'_> {
    /// All fields but `groupid`. What could be read stays in `asked` for the row, whatever is wrong with the rest.
    pub fn fields(&self, group: &Group, asked: &mut Asked) -> Result<Wanted, Refusal> {
        let session_type = self.session_type();
        asked.session_type = session_type.as_ref().ok().copied();
        let written = self.phone_as_written();
        let params = self.params();
        if let Ok(params) = &params {
            asked.session_params.clone_from(params);
        }
        let (session_type, written, params) = (session_type?, written?, params?);
        let phone = phone::parse(&written, &group.region, group.phone_check, &group.countries)?;
        Ok(Wanted { session_type, phone, params })
    }

    fn session_type(&self) -> Result<i32, Refusal> {
        let raw = given(self.sessiontype).ok_or_else(|| missing("sessiontype"))?;
        match raw.parse::<i32>() {
            Ok(number) if (0..=32_767).contains(&number) && !raw.starts_with('-') => Ok(number),
            _ => Err(invalid("sessiontype", "must be an integer from 0 to 32767")),
        }
    }

    fn phone_as_written(&self) -> Result<String, Refusal> {
        let raw = given(self.sms_phone).ok_or_else(|| missing("smsPhone"))?;
        let rule = "must be a phone number, as a string or an integer";
        match text(raw) {
            Some(written) if written.contains('\0') => Err(invalid("smsPhone", "must not hold U+0000")),
            Some(written) => Ok(written.into_owned()),
            None if raw.bytes().all(|b| b.is_ascii_digit()) => Ok(raw.to_owned()),
            None => Err(invalid("smsPhone", rule)),
        }
    }

    /// Compact JSON, its names as they came, nulls dropped.
    fn params(&self) -> Result<String, Refusal> {
        let names = match &self.session_params {
            None | Some(Params::Null) => return Ok("{}".to_owned()),
            Some(Params::Other) => return Err(invalid("sessionParams", "must be an object")),
            Some(Params::Object(names)) => names,
        };
        let mut compact = String::with_capacity(64);
        for (name, raw) in names {
            let raw = raw.get();
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
            compact.push_str(&quoted(name));
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

fn given(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get).filter(|raw| *raw != "null")
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
fn scalar(raw: &str) -> Result<Option<String>, &'static str> {
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b't' | b'f') => Ok(Some(raw.to_owned())),
        Some(b'"') => {
            let value = text(raw).ok_or("must be text that is UTF-8")?;
            if value.contains('\0') { Err("must not hold U+0000") } else { Ok(Some(quoted(&value))) }
        }
        Some(b'-' | b'0'..=b'9') => {
            // A double is what every reader of JSON has; PostgreSQL's numeric would refuse 1e999999 and 1e-99999.
            let digits = raw.split(['e', 'E']).next().unwrap_or_default();
            let is_zero = !digits.bytes().any(|b| (b'1'..=b'9').contains(&b));
            let held =
                raw.parse::<f64>().is_ok_and(|double| double.is_finite() && (double != 0.0 || is_zero));
            if !held {
                return Err("must be a number that a double can hold");
            }
            // A zero needs no exponent, which could be any.
            Ok(Some(if is_zero { digits.to_owned() } else { raw.to_owned() }))
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
