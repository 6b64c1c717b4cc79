use super::{Credential, refused::malformed, requester::CredentialKind};
use crate::{
    pasted,
    refusal::{Code, Refusal},
};
use std::fmt;

/// The form that a place writes its credential in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `Bearer TYPE value`, as the HTTP header: the body's `authorization`, a header named so.
    Authorization,
    /// The raw value of a website session: the body's `gssnid`, a header `X-GSSNID`.
    Gssnid,
}

/// What stands in the place. A null is absent: it is no source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SourceValue<'a> {
    Text(&'a str),
    /// Not a string, or not UTF-8.
    NotText,
}

impl fmt::Debug for SourceValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text([REDACTED])",
            Self::NotText => "NotText",
        })
    }
}

/// One place of an invite that may carry a credential.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub kind: SourceKind,
    pub value: SourceValue<'a>,
}

/// The one credential that the sources hold, parsed.
///
/// Sources are equal when type and value are, wherever they stand; two that differ are ambiguous even if one of them
/// is malformed. Surrounding spaces and tabs do not count, and an empty source is none. Other white space there, quotes, and
/// invisible characters anywhere are refused by name.
///
/// # Errors
///
/// `credential_missing`, `credential_ambiguous` or `credential_malformed`.
pub fn collect<'a>(sources: impl IntoIterator<Item = Source<'a>>) -> Result<Credential, Refusal> {
    let mut presented = sources.into_iter().filter_map(Presented::read);
    let Some(first) = presented.next() else {
        return Err(Refusal::new(
            Code::CredentialMissing,
            "a credential is needed: 'authorization' or 'gssnid' in the body, or the header Authorization or X-GSSNID",
        ));
    };
    if presented.any(|other| other != first) {
        return Err(Refusal::new(
            Code::CredentialAmbiguous,
            "the request carries credentials that differ; send exactly one",
        ));
    }
    first.parse()
}

#[derive(PartialEq, Eq)]
enum Presented<'a> {
    Typed(CredentialKind, &'a str),
    /// An Authorization without a known scheme and type.
    Untyped(&'a str),
    NotText,
}

impl<'a> Presented<'a> {
    fn read(source: Source<'a>) -> Option<Self> {
        let SourceValue::Text(text) = source.value else { return Some(Self::NotText) };
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return None;
        }
        Some(match source.kind {
            SourceKind::Gssnid => Self::Typed(CredentialKind::Gssnid, text),
            SourceKind::Authorization => {
                bearer(text).map_or(Self::Untyped(text), |(kind, value)| Self::Typed(kind, value))
            }
        })
    }

    fn parse(self) -> Result<Credential, Refusal> {
        match self {
            Self::Typed(_, text) | Self::Untyped(text) if text.contains('\0') => {
                Err(malformed("the credential must not contain U+0000"))
            }
            Self::Typed(_, text) | Self::Untyped(text) if let Some(stray) = stray(text) => {
                Err(malformed(format!("the credential must stand as it was issued, and holds {stray}")))
            }
            Self::Typed(kind, value) => Credential::parse(kind, value),
            Self::Untyped(_) => Err(malformed(
                "the credential must read 'Bearer TYPE value', where TYPE is GKEY, GJWT or GSSNID",
            )),
            Self::NotText => Err(malformed("the credential must be a string in UTF-8")),
        }
    }
}

/// What was pasted along with a credential. None that is good ends in a quote or white space, or holds a character that
/// nobody sees: such a one would be another credential that looks the same.
fn stray(text: &str) -> Option<String> {
    let is_plain = text.bytes().all(|b| matches!(b, b' '..=b'~')) && !text.ends_with(['"', '\'']);
    if is_plain { None } else { pasted::stray(text) }
}

/// Parts `Bearer TYPE value`; the names match in any case, and one or more spaces part them.
fn bearer(text: &str) -> Option<(CredentialKind, &str)> {
    let (scheme, rest) = text.split_once(' ')?;
    let (kind, value) = rest.trim_start_matches(' ').split_once(' ')?;
    let kind = CredentialKind::named(kind).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    Some((kind, value.trim_start_matches([' ', '\t'])))
}
