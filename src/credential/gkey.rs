//! GKEY, a login key: signed with a group's API key, valid for at most a day.

use super::{
    encoding::{is_base64url, percent_decode, percent_encode},
    names::{check_name, parse_group},
    refusals::{malformed, unproven},
    requester::{CredentialKind, Requester},
};
use crate::masked::debug_shows;
use crate::{
    group_id::GroupId,
    hmac_key::{HmacKey, SIGNATURE_CHARS, any_signed},
    pasted,
    refusal::{Code, Refusal},
};
use std::fmt;

/// The most seconds that a login key's expiry may be in the future.
pub const MAX_AHEAD: i64 = 86_400;

/// The digits of an expiry. Exactly ten: else `user1` with one expiry would sign the same bytes as `user` with another.
const EXPIRY_DIGITS: usize = 10;

/// The only version of the signature. It is signed too.
const VERSION: &str = "1";

/// A login key of the right shape.
pub struct GkeyToken {
    subject: LoginKeySubject,
    /// Unix seconds, as the ten digits that were signed.
    expiry: [u8; EXPIRY_DIGITS],
    signature: [u8; SIGNATURE_CHARS],
}

/// Whose login key it is.
enum LoginKeySubject {
    User(GroupUser),
    /// In lower case.
    Address(String),
}

/// A user of a group: named by a login key, or by an address in one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GroupUser {
    /// The user's group.
    pub group: GroupId,
    /// Decoded.
    pub user: String,
}

debug_shows!(GroupUser { group });

impl GkeyToken {
    /// Reads `partnerid&partneruserid&loginkey` if the value has exactly two `&`, else `glanceaddress~loginkey`.
    ///
    /// # Errors
    ///
    /// `credential_malformed`.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        let (subject, login_key) = if value.bytes().filter(|&b| b == b'&').count() == 2 {
            let (group, rest) = value.split_once('&').ok_or_else(wrong_shape)?;
            let (user, login_key) = rest.split_once('&').ok_or_else(wrong_shape)?;
            let group = parse_group(group, "the login key's partnerid")?;
            let user = percent_decode(user)
                .ok_or_else(|| malformed("the login key's partneruserid must be URL-encoded UTF-8"))?;
            check_name(&user, "the login key's partneruserid")?;
            (LoginKeySubject::User(GroupUser { group, user }), login_key)
        } else {
            let (address, login_key) = value.rsplit_once('~').ok_or_else(wrong_shape)?;
            (LoginKeySubject::Address(fold_address(address)?), login_key)
        };
        let (expiry, signature) = parse_login_key(login_key)?;
        Ok(Self { subject, expiry, signature })
    }

    /// The user that the token names; `lookup` finds the one of an address (in lower case). `None` for an unknown address:
    /// call `verify` all the same, so that it costs as much as a wrong signature.
    pub fn group_user<'a>(
        &'a self,
        lookup: impl FnOnce(&str) -> Option<&'a GroupUser>,
    ) -> Option<&'a GroupUser> {
        match &self.subject {
            LoginKeySubject::User(user) => Some(user),
            LoginKeySubject::Address(address) => lookup(address),
        }
    }

    /// Verifies the token at the Unix time `now`, in seconds. Pass no user for an unknown address, and no keys for an unknown
    /// group: both cost as much as a wrong signature, and give the same refusal.
    ///
    /// # Errors
    ///
    /// `credential_invalid`; or `credential_expired`, if the signature is right.
    pub fn verify<'k>(
        &self,
        user: Option<&GroupUser>,
        keys: impl IntoIterator<Item = &'k HmacKey>,
        now: i64,
    ) -> Result<Requester, Refusal> {
        let Some(GroupUser { group, user }) = user else {
            any_signed([], &[&self.expiry], &self.signature);
            return Err(unproven());
        };
        let id = group.get().to_string();
        let signed = [id.as_bytes(), user.as_bytes(), VERSION.as_bytes(), &self.expiry];
        if !any_signed(keys, &signed, &self.signature) {
            return Err(unproven());
        }

        let expiry = self.expiry.iter().fold(0, |seconds, digit| seconds * 10 + i64::from(digit - b'0'));
        if expiry <= now {
            return Err(Refusal::new(Code::CredentialExpired, "the login key has expired"));
        }
        if expiry > now.saturating_add(MAX_AHEAD) {
            return Err(Refusal::new(
                Code::CredentialInvalid,
                "the login key's expiry must lie at most one day ahead",
            ));
        }
        Ok(Requester { group: *group, kind: CredentialKind::Gkey, user: user.clone() })
    }
}

impl fmt::Debug for GkeyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GkeyToken([REDACTED])")
    }
}

/// An address in lower case, as addresses are stored and compared.
///
/// # Errors
///
/// `credential_malformed` outside 1 … 255 characters, or with U+0000 or an invisible character.
pub fn fold_address(address: &str) -> Result<String, Refusal> {
    if let Some(c) = address.chars().find(|c| pasted::is_invisible(*c)) {
        return Err(malformed(format!(
            "the login key's address must not contain an invisible character (U+{:04X})",
            u32::from(c)
        )));
    }
    let folded = address.to_lowercase();
    check_name(&folded, "the login key's address")?;
    Ok(folded)
}

/// Makes a login key for the user, valid until `exp` (Unix seconds): `72&12345&$1$1589912963$…`.
///
/// [`GkeyToken::parse`] accepts it only if the user has 1 … 255 characters, and `exp` has ten digits.
pub fn mint(group: GroupId, user: &str, api_key: &[u8], exp: i64) -> String {
    let (id, expiry) = (group.to_string(), format!("{exp:0EXPIRY_DIGITS$}"));
    let signature = HmacKey::from_secret(api_key).sign(&[
        id.as_bytes(),
        user.as_bytes(),
        VERSION.as_bytes(),
        expiry.as_bytes(),
    ]);
    format!("{id}&{}&${VERSION}${expiry}${signature}", percent_encode(user))
}

/// Splits `$1$exp$sig` into the expiry and the signature.
fn parse_login_key(login_key: &str) -> Result<([u8; EXPIRY_DIGITS], [u8; SIGNATURE_CHARS]), Refusal> {
    let mut fields = login_key.split('$');
    let (Some(""), Some(version), Some(expiry), Some(signature), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(malformed("the login key must end in '$1$', its expiry, '$' and its signature"));
    };
    if version != VERSION {
        return Err(malformed("the login key's version must be 1"));
    }
    let digits = <[u8; EXPIRY_DIGITS]>::try_from(expiry.as_bytes()).ok();
    let expiry = digits
        .filter(|digits| digits.iter().all(u8::is_ascii_digit))
        .ok_or_else(|| malformed("the login key's expiry must be ten digits"))?;
    let chars = <[u8; SIGNATURE_CHARS]>::try_from(signature.as_bytes()).ok();
    let signature = chars
        .filter(|_| is_base64url(signature))
        .ok_or_else(|| malformed("the login key's signature must be 43 characters of unpadded base64url"))?;
    Ok((expiry, signature))
}

fn wrong_shape() -> Refusal {
    malformed("a GKEY must read 'partnerid&partneruserid&loginkey' or 'glanceaddress~loginkey'")
}
