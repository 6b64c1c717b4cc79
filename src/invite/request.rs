//! Bytes → request. First the shape, whose faults are all `request_malformed`; then, once the sender is authenticated,
//! each field.

mod fields;
mod shape;

pub(crate) use shape::object;

use super::envelope::{Envelope, HeaderValue};
use crate::{
    credential::{self, Credential, CredentialSource, SourceKind, SourceValue},
    group::Group,
    group_id::GroupId,
    json,
    masked::debug_shows,
    phone::PhoneNumber,
    refusal::{Code, Refusal},
    sessions::RequestRecord,
};
use shape::RawFields;
use std::borrow::Cow;

/// A body may have 64 KiB (contract, section 2).
pub(crate) const LARGEST_BODY: usize = 64 * 1024;

/// A refusal quotes a content coding up to this many characters.
const LONGEST_CODING: usize = 32;

/// A request of the right shape. Its sender is not authenticated yet.
pub struct Request<'a> {
    fields: RawFields<'a>,
    /// The group that the request names, or the refusal, which only an authenticated sender gets.
    pub groupid: Result<GroupId, Refusal>,
}

debug_shows!(Request<'_> { groupid });

impl<'a> Request<'a> {
    /// Checks the shape: size, content type, UTF-8, JSON, an object, no field repeated.
    ///
    /// # Errors
    ///
    /// `request_malformed`.
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
        let fields =
            shape::parse(text).map_err(|what| malformed(format!("the body is not a request: {what}")))?;
        Ok(Self::of(fields, envelope))
    }

    /// A request without a body: its headers alone name the group and the credential.
    pub fn without_body(envelope: &'a Envelope) -> Self {
        Self::of(RawFields::default(), envelope)
    }

    fn of(fields: RawFields<'a>, envelope: &Envelope) -> Self {
        Self { groupid: fields::groupid(fields.groupid, envelope), fields }
    }

    /// The one credential, from the body or the headers.
    ///
    /// # Errors
    ///
    /// `credential_missing`, `credential_ambiguous` or `credential_malformed`.
    pub fn credential(&self, envelope: &Envelope) -> Result<Credential, Refusal> {
        let RawFields { authorization, gssnid, .. } = self.fields;
        let body = [(SourceKind::Authorization, authorization), (SourceKind::Gssnid, gssnid)];
        let body = body.map(|(kind, raw)| (kind, raw.filter(|raw| raw.get() != "null").map(json::string)));
        let body = body.iter().filter_map(|(kind, text)| {
            let value = text.as_ref()?.as_deref().map_or(SourceValue::NotText, SourceValue::Text);
            Some(CredentialSource { kind: *kind, value })
        });
        let named = [(SourceKind::Authorization, "authorization"), (SourceKind::Gssnid, "x-gssnid")];
        let headers = named.into_iter().flat_map(|(kind, name)| {
            envelope.headers(name).map(move |value| match value {
                HeaderValue::Text(text) => CredentialSource { kind, value: SourceValue::Text(text) },
                _ => CredentialSource { kind, value: SourceValue::NotText },
            })
        });
        credential::collect(body.chain(headers))
    }

    /// The group that the sender claims to belong to: by its credential, else by the request. Nothing proves it.
    pub(crate) fn named_group(&self, envelope: &Envelope) -> Option<GroupId> {
        let credential = self.credential(envelope).ok();
        credential
            .and_then(|credential| credential.named_group())
            .or_else(|| self.groupid.as_ref().ok().copied())
    }

    /// The first credential's value, whatever its form, without its scheme and its type.
    pub(crate) fn credential_value(&self, envelope: &Envelope) -> Option<String> {
        let RawFields { authorization, gssnid, .. } = self.fields;
        let body = [authorization, gssnid]
            .into_iter()
            .flatten()
            .find_map(|raw| json::string(raw).map(Cow::into_owned));
        let headers = ["authorization", "x-gssnid"].into_iter().flat_map(|name| envelope.headers(name));
        let text = body.or_else(|| {
            headers.into_iter().find_map(|value| match value {
                HeaderValue::Text(text) => Some(text.clone()),
                _ => None,
            })
        })?;
        text.split_whitespace().next_back().map(str::to_owned)
    }

    /// Checks all fields but `groupid`, and returns the number to text. Every field that could be read is put into the
    /// record, even if another field is wrong.
    ///
    /// # Errors
    ///
    /// `field_missing`, `field_invalid`, `phone_invalid` or `phone_not_allowed`, with the field's name.
    pub fn fields(&self, group: &Group, record: &mut RequestRecord) -> Result<PhoneNumber, Refusal> {
        self.fields.check(&group.options, record)
    }
}

/// Refuses a body that is compressed, or encoded in another way. An empty value and `identity`, in any case, are no
/// encoding. `name` is the property's name in the sender's protocol.
pub(crate) fn check_encoding(name: &str, value: &str) -> Result<(), Refusal> {
    let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    // HTTP allows a list (RFC 9110, section 8.4).
    let Some(coding) = value.split(',').map(str::trim).find(|coding| !is_none(coding)) else { return Ok(()) };
    let shown: String =
        coding.chars().take(LONGEST_CODING).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    let message = format!("the {name} must be identity, or unset, and is {shown}: send the body as it is");
    Err(Refusal::new(Code::RequestMalformed, message).status(415))
}

/// Whether this is `application/json` or a type with the suffix `+json` (RFC 6839), with any parameters. An empty one counts
/// as missing, and is accepted.
pub(crate) fn is_json(content_type: &str) -> bool {
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

    #[test]
    fn a_body_with_a_content_coding_is_refused() {
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
    fn only_json_content_types_are_accepted() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "", " "]
        {
            assert!(is_json(good), "{good}");
        }
        for bad in ["text/plain", "application/jsonp", "json", "application/x-www-form-urlencoded"] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
