//! GJWT, a JSON web token (RFC 7519): HS256 and nothing else, whatever its header says.

use super::{
    encoding::{BASE64URL, is_base64url},
    refused::{malformed, unproven},
    requester::{CredentialKind, Requester},
    subject::check_name,
};
use crate::{
    group_id::GroupId,
    hmac_key::{HmacKey, any_signed},
    json::Name,
    refusal::{Code, Refusal},
};
use base64::Engine as _;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::{json, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// How far the clocks of signer and worker may differ, in seconds.
pub const LEEWAY: i64 = 30;

/// How far ahead `exp` may lie, in seconds, before [`LEEWAY`].
pub const MAX_AHEAD: i64 = 7_200;

/// The longest token that is looked at, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// A JSON web token of the right shape.
pub struct GjwtToken {
    token: String,
    /// The dot before the signature: up to it stand the header and the claims, as they were signed.
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

/// Unix seconds, perhaps with a fraction (RFC 7519 §2). Exact to the second until the year 285,000,000.
type NumericDate = f64;

impl GjwtToken {
    /// Reads `header.claims.signature`. Members that are not known are ignored, but `crit` says that they must not be.
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
        let kid = read_header(&Object::read(&decode(header, "header")?, "header")?)?;
        let claims = Claims::read(&Object::read(&decode(claims, "claims")?, "claims")?)?;
        if !is_base64url(signature) {
            return Err(malformed("the GJWT's signature must be unpadded base64url"));
        }
        Ok(Self { token: value.to_owned(), last_dot, kid, claims })
    }

    /// The group whose secrets are to verify it. Nothing is proven yet.
    pub fn group(&self) -> GroupId {
        self.claims.group
    }

    /// Decides at the Unix time `now`, in seconds, by the group's secrets, each with its kid. A token with a `kid` is
    /// checked against the secrets of that name only. Give none for an unknown group: it costs as much as a wrong
    /// signature, and reads the same.
    ///
    /// # Errors
    ///
    /// `credential_invalid` or, once the signature holds, `credential_expired`.
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

/// A token for the user, signed with one of the group's secrets; `iat` and `exp` are Unix seconds.
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

/// The `kid`, of a header that is good.
fn read_header(header: &Object<'_>) -> Result<Option<String>, Refusal> {
    if header.get("crit").is_some() {
        return Err(malformed("the GJWT's header must not have 'crit'"));
    }
    if header.required::<String>("alg", "a string")? != "HS256" {
        return Err(malformed("the GJWT's 'alg' must be HS256"));
    }
    header.optional("kid", "a string")
}

impl Claims {
    fn read(claims: &Object<'_>) -> Result<Self, Refusal> {
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
            return invalid("the GJWT is not good yet: its 'nbf' lies ahead");
        }
        if self.issued_at.is_some_and(|date| date > now + leeway) {
            return invalid("the GJWT's 'iat' lies ahead");
        }
        if self.exp > now + max_ahead + leeway {
            return invalid("the GJWT's 'exp' must lie at most 120 minutes ahead");
        }
        Ok(())
    }
}

/// A JSON object whose names are all different, so that no two readers can see different claims in it.
struct Object<'a> {
    part: &'static str,
    members: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

fn decode(encoded: &str, part: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL.decode(encoded).map_err(|_| malformed(format!("the GJWT's {part} must be unpadded base64url")))
}

impl<'a> Object<'a> {
    fn read(json: &'a [u8], part: &'static str) -> Result<Self, Refusal> {
        let Members(members) = serde_json::from_slice(json).map_err(|_| {
            malformed(format!("the GJWT's {part} must be a JSON object without repeated names"))
        })?;
        Ok(Self { part, members })
    }

    fn get(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).copied()
    }

    fn required<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<T, Refusal> {
        self.optional(name, kind)?
            .ok_or_else(|| malformed(format!("the GJWT's {} must have '{name}', {kind}", self.part)))
    }

    /// A null is not absent: it is of the wrong type.
    fn optional<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<Option<T>, Refusal> {
        let value = self.get(name).map(|value| serde_json::from_str(value.get()));
        value.transpose().map_err(|_| wrong_member(name, kind))
    }
}

struct Members<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Distinct;

        impl<'de> Visitor<'de> for Distinct {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object without repeated names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a repeated name"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Distinct)
    }
}

fn wrong_member(name: &str, kind: &str) -> Refusal {
    malformed(format!("the GJWT's '{name}' must be {kind}"))
}

fn wrong_shape() -> Refusal {
    malformed("a GJWT must have three parts, joined by dots")
}
