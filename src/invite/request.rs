//! Bytes → request. First the shape, of which nothing is answered but `request_malformed`; then, once the
//! sender is authenticated, each field.

mod fields;
mod shape;

pub use shape::object;

use super::envelope::{Envelope, HeaderValue};
use crate::masked::debug_shows;
use crate::{
    credential::{self, Credential, Source, SourceKind, SourceValue},
    group_id::GroupId,
    refusal::{Code, Refusal},
};
use serde_json::value::RawValue;
use shape::RawFields;
use std::borrow::Cow;

/// A body may have 64 KiB (contract, section 2).
pub const LARGEST_BODY: usize = 64 * 1024;

/// A content coding is repeated to its sender up to this many characters.
const LONGEST_CODING: usize = 32;

/// A request of the right shape, of which nothing is proven yet.
pub struct Request<'a> {
    raw: RawFields<'a>,
    /// The group that it names, or the refusal, which only an authenticated sender gets.
    pub groupid: Result<GroupId, Refusal>,
}

debug_shows!(Request<'_> { groupid });

impl<'a> Request<'a> {
    /// The shape: size, content type, UTF-8, JSON, an object, no field repeated.
    pub fn parse(envelope: &'a Envelope) -> Result<Self, Refusal> {
        let malformed = |message: String| Refusal::new(Code::RequestMalformed, message);
        if envelope.body.len() > LARGEST_BODY {
            let size = envelope.body.len();
            return Err(
                malformed(format!("the body has {size} bytes, of at most {LARGEST_BODY}")).status(413)
            );
        }
        if envelope.content_type.as_deref().is_some_and(|given| !is_json(given)) {
            return Err(
                malformed("the content type must be application/json, or unset".to_owned()).status(415)
            );
        }
        if let Some(encoding) = &envelope.content_encoding {
            check_encoding("content_encoding", encoding)?;
        }
        let text = std::str::from_utf8(&envelope.body).map_err(|error| {
            malformed(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
        })?;
        let raw =
            shape::parse(text).map_err(|what| malformed(format!("the body is not a request: {what}")))?;
        Ok(Self::of(raw, envelope))
    }

    /// A request that says nothing but what its headers say.
    pub fn without_body(envelope: &'a Envelope) -> Self {
        Self::of(RawFields::default(), envelope)
    }

    fn of(raw: RawFields<'a>, envelope: &Envelope) -> Self {
        Self { groupid: fields::groupid(raw.groupid, envelope), raw }
    }

    /// The one credential, from the body or the headers.
    pub fn credential(&self, envelope: &Envelope) -> Result<Credential, Refusal> {
        let body =
            [(SourceKind::Authorization, self.raw.authorization), (SourceKind::Gssnid, self.raw.gssnid)];
        let body = body.map(|(kind, raw)| (kind, raw.filter(|raw| raw.get() != "null").map(text)));
        let body = body.iter().filter_map(|(kind, text)| {
            let value = text.as_ref()?.as_deref().map_or(SourceValue::NotText, SourceValue::Text);
            Some(Source { kind: *kind, value })
        });
        let named = [(SourceKind::Authorization, "authorization"), (SourceKind::Gssnid, "x-gssnid")];
        let headers = named.into_iter().flat_map(|(kind, name)| {
            envelope.headers(name).map(move |value| match value {
                HeaderValue::Text(text) => Source { kind, value: SourceValue::Text(text) },
                _ => Source { kind, value: SourceValue::NotText },
            })
        });
        credential::collect(body.chain(headers))
    }
}

/// A JSON string, borrowed where it has no escapes. `None` for another value, or for a lone surrogate.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Refuses a body that its sender says to be compressed, or encoded in another way: `identity` is none, in any case, and
/// neither is an empty value. `name` is what the sender knows the property by.
pub fn check_encoding(name: &str, value: &str) -> Result<(), Refusal> {
    let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    // HTTP allows a list (RFC 9110, section 8.4).
    let Some(coding) = value.split(',').map(str::trim).find(|coding| !is_none(coding)) else { return Ok(()) };
    let shown: String =
        coding.chars().take(LONGEST_CODING).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    let message = format!("the {name} must be identity, or unset, and is {shown}: send the body as it is");
    Err(Refusal::new(Code::RequestMalformed, message).status(415))
}

/// `application/json`, or another type whose suffix says JSON (RFC 6839), with any parameters.
pub fn is_json(content_type: &str) -> bool {
    if content_type == "application/json" {
        return true;
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty()
        || essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_string_is_read_as_serde_json_reads_it(
            inner in proptest::prop_oneof![".{0,20}", r#"(\\["\\/bfnrtu]|\\u[0-9a-fD]{4}|[a-zé"\u{7f}\u{80}]){0,9}"#],
        ) {
            if let Ok(raw) = RawValue::from_string(format!("\"{inner}\"")) {
                proptest::prop_assert_eq!(text(&raw).map(Cow::into_owned), serde_json::from_str::<String>(raw.get()).ok());
            }
        }
    }

    #[test]
    fn only_a_body_without_an_encoding_is_taken() {
        for good in ["", " ", "identity", "IDENTITY", "Identity, identity", ","] {
            assert_eq!(check_encoding("content_encoding", good), Ok(()), "{good}");
        }
        for (bad, named) in [
            ("gzip", "gzip"),
            ("GZIP", "GZIP"),
            ("identity, br", "br"),
            ("utf-8", "utf-8"),
            ("base64", "base64"),
            ("\u{200b}identity", "?identity"),
            ("a\nb", "a?b"),
        ] {
            let refusal = check_encoding("content_encoding", bad).unwrap_err();
            assert_eq!((refusal.code, refusal.status), (Code::RequestMalformed, 415));
            let words = format!("content_encoding must be identity, or unset, and is {named}:");
            assert!(refusal.message.contains(&words), "{}", refusal.message);
        }
    }

    #[test]
    fn content_types() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "", " "]
        {
            assert!(is_json(good), "{good}");
        }
        for bad in ["text/plain", "application/jsonp", "json", "application/x-www-form-urlencoded"] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
