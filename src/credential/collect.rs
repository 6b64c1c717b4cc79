use super::{Credential, refusals::malformed, requester::CredentialKind};
use crate::{
    pasted,
    refusal::{Code, Refusal},
};
use std::fmt;

/// How the credential is written in a field or header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `Bearer TYPE value`, as in HTTP: the body's `authorization`, or the header of that name.
    Authorization,
    /// The website session id alone: the body's `gssnid`, or the header `X-GSSNID`.
    Gssnid,
}

/// The value of a field or header. A JSON null counts as absent, and gives no source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SourceValue<'a> {
    /// A text that may hold a credential.
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

/// A field or header of an invite that may carry a credential.
#[derive(Debug, Clone, Copy)]
pub struct CredentialSource<'a> {
    /// How the value is written.
    pub kind: SourceKind,
    /// Its value.
    pub value: SourceValue<'a>,
}

/// The one credential of the sources, parsed.
///
/// Several sources must agree in type and value. Two that differ are ambiguous, even if one of them is malformed. Spaces and
/// tabs at the ends do not count, and an empty source is left out. Other white space and quotes at the ends, and invisible
/// characters anywhere, are refused, and the refusal names the character.
///
/// # Errors
///
/// `credential_missing`, `credential_ambiguous` or `credential_malformed`.
pub fn collect<'a>(sources: impl IntoIterator<Item = CredentialSource<'a>>) -> Result<Credential, Refusal> {
    let mut presented = sources.into_iter().filter_map(PresentedCredential::read);
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
enum PresentedCredential<'a> {
    Typed(CredentialKind, &'a str),
    /// An Authorization without a known scheme and type.
    Untyped(&'a str),
    NotText,
}

impl<'a> PresentedCredential<'a> {
    fn read(source: CredentialSource<'a>) -> Option<Self> {
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
                Err(malformed(format!("the credential must be sent as it was issued, and has {stray}")))
            }
            Self::Typed(kind, value) => Credential::parse(kind, value),
            Self::Untyped(_) => Err(malformed(
                "the credential must read 'Bearer TYPE value', where TYPE is GKEY, GJWT or GSSNID",
            )),
            Self::NotText => Err(malformed("the credential must be a string in UTF-8")),
        }
    }
}

/// The character that was pasted along with a credential, described. No good credential ends in a quote or white space, or
/// has an invisible character: it would be another credential that looks the same.
fn stray(text: &str) -> Option<String> {
    let is_plain = text.bytes().all(|b| matches!(b, b' '..=b'~')) && !text.ends_with(['"', '\'']);
    if is_plain { None } else { pasted::stray(text) }
}

/// Splits `Bearer TYPE value`. The first two words match in any case, and one or more spaces separate them.
fn bearer(text: &str) -> Option<(CredentialKind, &str)> {
    let (scheme, rest) = text.split_once(' ')?;
    let (kind, value) = rest.trim_start_matches(' ').split_once(' ')?;
    let kind = kind.parse().ok().filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    Some((kind, value.trim_start_matches([' ', '\t'])))
}
