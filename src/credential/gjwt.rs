//! GJWT, a JSON web token (RFC 7519). Only HS256 is accepted.

use super::{
    encoding::{BASE64URL, is_base64url},
    names::check_name,
    refusals::{malformed, unproven},
    requester::{CredentialKind, Requester},
};
use crate::{
    group_id::GroupId,
    hmac_key::{HmacKey, any_signed},
    json::{RawMembers, read_object},
    refusal::{Code, Refusal},
};
use base64::Engine as _;
use serde::de::DeserializeOwned;
use serde_json::{json, value::RawValue};
use std::{borrow::Cow, fmt};

/// The most seconds that the clocks of signer and worker may differ.
pub const LEEWAY: i64 = 30;

/// The most seconds that `exp` may be in the future; [`LEEWAY`] is added.
pub const MAX_AHEAD: i64 = 7_200;

/// The longest token that is accepted, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// A JSON web token of the right shape.
pub struct GjwtToken {
    token: String,
    /// The index of the dot before the signature. The header and the claims before it are what was signed.
    last_dot: usize,
    kid: Option<String>,
    claims: Claims,
}

struct Claims {
    group: GroupId,
    user: String,
    exp: NumericDate,
    not_before: Option<NumericDate>,
    issued_at: Option<NumericDate>,
}

/// Unix seconds, which may have a fraction (RFC 7519 §2). Exact to the second until the year 285,000,000.
type NumericDate = f64;

impl GjwtToken {
    /// Reads `header.claims.signature`. Unknown members are ignored; a header with `crit`, which forbids that, is refused.
    ///
    /// # Errors
    ///
    /// `credential_malformed`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        if value.len() > MAX_BYTES {
            return Err(malformed("the GJWT is longer than 8 KiB"));
        }
        let last_dot = value.rfind('.').ok_or_else(wrong_shape)?;
        let (signed, signature) = (&value[..last_dot], &value[last_dot + 1..]);
        let (header, claims) = signed.split_once('.').ok_or_else(wrong_shape)?;
        if claims.contains('.') {
            return Err(wrong_shape());
        }
        let kid = read_header(&TokenPart::read(&decode(header, "header")?, "header")?)?;
        let claims = Claims::read(&TokenPart::read(&decode(claims, "claims")?, "claims")?)?;
        if !is_base64url(signature) {
            return Err(malformed("the GJWT's signature must be unpadded base64url"));
        }
        Ok(Self { token: value.to_owned(), last_dot, kid, claims })
    }

    /// The group whose secrets must verify the token. It is not proven yet.
    pub fn group(&self) -> GroupId {
        self.claims.group
    }

    /// Verifies the token at the Unix time `now`, in seconds, with the group's secrets, each with its kid. A token with a `kid`
    /// is checked against the secrets of that kid only. Pass no secrets for an unknown group: it costs as much as a wrong
    /// signature, and gives the same refusal.
    ///
    /// # Errors
    ///
    /// `credential_invalid`; or `credential_expired`, if the signature is right.
    pub fn verify<'k>(
        &self,
        secrets: impl IntoIterator<Item = (Option<&'k str>, &'k HmacKey)>,
        now: i64,
    ) -> Result<Requester, Refusal> {
        let wanted = self.kid.as_deref();
        let keys =
            secrets.into_iter().filter(|(kid, _)| wanted.is_none() || *kid == wanted).map(|(_, key)| key);
        let token = self.token.as_bytes();
        if !any_signed(keys, &[&token[..self.last_dot]], &token[self.last_dot + 1..]) {
            return Err(unproven());
        }
        self.claims.check_times(now)?;
        Ok(Requester { group: self.claims.group, kind: CredentialKind::Gjwt, user: self.claims.user.clone() })
    }
}

impl fmt::Debug for GjwtToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GjwtToken([REDACTED])")
    }
}

/// Makes a token for the user, signed with one of the group's secrets; `iat` and `exp` are Unix seconds.
pub fn mint(group: GroupId, user: &str, secret: &[u8], kid: Option<&str>, iat: i64, exp: i64) -> String {
    let mut header = json!({"alg": "HS256", "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = json!(kid);
    }
    let claims = json!({"groupid": group.get(), "sub": user, "iat": iat, "exp": exp});
    let signed = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
    let signature = HmacKey::from_secret(secret).sign(&[signed.as_bytes()]);
    format!("{signed}.{signature}")
}

/// Checks the header, and returns its `kid`.
fn read_header(header: &TokenPart<'_>) -> Result<Option<String>, Refusal> {
    if header.get("crit").is_some() {
        return Err(malformed("the GJWT's header must not have 'crit'"));
    }
    if header.required::<String>("alg", "a string")? != "HS256" {
        return Err(malformed("the GJWT's 'alg' must be HS256"));
    }
    header.optional("kid", "a string")
}

impl Claims {
    fn read(claims: &TokenPart<'_>) -> Result<Self, Refusal> {
        const GROUP: &str = "an integer from 1 to 2^53-1";
        const DATE: &str = "a number of Unix seconds";

        let group = claims.required("groupid", GROUP)?;
        let user: String = claims.required("sub", "a string")?;
        check_name(&user, "the GJWT's 'sub'")?;
        Ok(Self {
            group: GroupId::new(group).ok_or_else(|| wrong_member("groupid", GROUP))?,
            user,
            exp: claims.required("exp", DATE)?,
            not_before: claims.optional("nbf", DATE)?,
            issued_at: claims.optional("iat", DATE)?,
        })
    }

    fn check_times(&self, now: i64) -> Result<(), Refusal> {
        #[expect(clippy::cast_precision_loss, reason = "the clock stays below 2^53 seconds")]
        let [now, leeway, max_ahead] = [now, LEEWAY, MAX_AHEAD].map(|seconds| seconds as NumericDate);
        let invalid = |message| Err(Refusal::new(Code::CredentialInvalid, message));

        if self.exp + leeway <= now {
            return Err(Refusal::new(Code::CredentialExpired, "the GJWT has expired"));
        }
        if self.not_before.is_some_and(|date| date > now + leeway) {
            return invalid("the GJWT is not valid yet: its 'nbf' is in the future");
        }
        if self.issued_at.is_some_and(|date| date > now + leeway) {
            return invalid("the GJWT's 'iat' is in the future");
        }
        if self.exp > now + max_ahead + leeway {
            return invalid("the GJWT's 'exp' must lie at most 120 minutes ahead");
        }
        Ok(())
    }
}

/// The header or the claims: a JSON object whose names all differ.
struct TokenPart<'a> {
    /// `header` or `claims`, for messages.
    name: &'static str,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

fn decode(encoded: &str, part: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL.decode(encoded).map_err(|_| malformed(format!("the GJWT's {part} must be unpadded base64url")))
}

impl<'a> TokenPart<'a> {
    fn read(json: &'a [u8], name: &'static str) -> Result<Self, Refusal> {
        let members = std::str::from_utf8(json).ok().and_then(|text| read_object(text).ok());
        let members = members.map(RawMembers::into_vec).ok_or_else(|| {
            malformed(format!("the GJWT's {name} must be a JSON object without repeated names"))
        })?;
        Ok(Self { name, members })
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn required<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<T, Refusal> {
        self.optional(name, kind)?
            .ok_or_else(|| malformed(format!("the GJWT's {} must have '{name}', {kind}", self.name)))
    }

    /// A null is not absent: it is of the wrong type.
    fn optional<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<Option<T>, Refusal> {
        let value = self.get(name).map(|value| serde_json::from_str(value.get()));
        value.transpose().map_err(|_| wrong_member(name, kind))
    }
}

fn wrong_member(name: &str, kind: &str) -> Refusal {
    malformed(format!("the GJWT's '{name}' must be {kind}"))
}

fn wrong_shape() -> Refusal {
    malformed("a GJWT must have three parts, joined by dots")
}
