//! From a parsed credential to its caller: finds the keys of the group that a token names, and verifies the token.

use super::refused_credentials::RefusedCredentials;
use crate::{
    credential::{Credential, Requester, WebsiteSession, unproven},
    db::{kinds, persist},
    group::{
        ApiKey, Group, JwtSecret, LastUse,
        directory::{Directory, Snapshot},
    },
    hmac_key::HmacKey,
    masked::debug_shows,
    refusal::{Code, Decision, Refusal},
    trouble::Trouble,
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// An authenticated sender, with the settings of its group.
#[derive(Clone)]
pub struct Caller {
    /// The group of the credential.
    pub group: Arc<Group>,
    /// The credential's type and user, such as `gkey:12345`.
    pub requested_by: String,
}

debug_shows!(Caller { group });

impl Caller {
    /// Checks that the group is switched on. In the contract's order this follows the check of the credential.
    pub fn ensure_enabled(&self) -> Result<(), Refusal> {
        if self.group.enabled { Ok(()) } else { Err(group_disabled()) }
    }
}

/// Verifies credentials by the groups' keys and the website's sessions.
#[derive(Debug)]
pub struct Authenticator {
    directory: Arc<Directory>,
    refused: RefusedCredentials,
    stop: CancellationToken,
}

/// The refusal for a group that an operator has switched off.
pub(crate) fn group_disabled() -> Refusal {
    Refusal::new(Code::GroupDisabled, "the group is switched off")
}

impl Authenticator {
    /// `stop` ends the waiting for an unreachable database.
    pub fn new(directory: Arc<Directory>, stop: CancellationToken) -> Self {
        Self { directory, refused: RefusedCredentials::default(), stop }
    }

    /// Groups whose credentials are all refused, for `/readyz`.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.refused.problems()
    }

    /// Brings the gauge of the refused credentials up to date, for `/metrics`.
    pub(crate) fn measure(&self) {
        self.refused.measure();
    }

    /// Decides about a credential. No sender is refused by old data: the groups are read again first.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Decision<Caller>, Trouble> {
        let session = match credential {
            Credential::Gssnid(token) => {
                let find = || self.directory.website_session(token.sha256());
                // Boxed: most invites need no query, and their futures should have no room for one.
                Box::pin(persist(&kinds::FIND_WEBSITE_SESSION, &self.stop, find)).await?
            }
            _ => None,
        };
        let verified = verify(credential, &self.directory.snapshot(), session.as_ref());
        if let Ok(caller) = &verified {
            self.refused.accepted(caller.group.id);
            return Ok(verified);
        }
        let fresh =
            Box::pin(persist(&kinds::LOOK_FOR_CHANGES, &self.stop, || self.directory.fresh())).await?;
        match verify(credential, &fresh, session.as_ref()) {
            // The sender may be right, but a key that could prove it cannot be opened: the operator has to act.
            Err(refusal) if refusal.code == Code::CredentialInvalid && keys_missing(credential, &fresh) => {
                Err(Trouble::Defect(
                    "SECRETS_KEY does not open all keys of the group: add the one that sealed them"
                        .to_owned(),
                ))
            }
            verified => {
                match &verified {
                    Ok(caller) => self.refused.accepted(caller.group.id),
                    Err(refusal) => {
                        if let Some(group) = named_group(credential, &fresh) {
                            self.refused.refused(group, refusal.code);
                        }
                    }
                }
                Ok(verified)
            }
        }
    }
}

/// An unknown group or address is verified too, against no keys, so that it costs as much as a wrong signature.
fn verify(
    credential: &Credential,
    known: &Snapshot,
    session: Option<&WebsiteSession>,
) -> Result<Caller, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let requester = match credential {
        Credential::Gkey(token) => {
            let user = token.group_user(|address| known.address(address));
            let group = user.and_then(|user| known.group(user.group));
            let keys = || group.iter().flat_map(|group| &group.api_keys);
            let requester = token.verify(user, keys().map(|key| &key.key), now)?;
            let signed = |key: &&ApiKey| token.verify(user, [&key.key], now).is_ok();
            note_use(keys().map(|key| (key, &key.last_use)), signed, now);
            requester
        }
        Credential::Gjwt(token) => {
            let group = known.group(token.group());
            let secrets = || group.iter().flat_map(|group| &group.jwt_secrets);
            let requester = token.verify(secrets().map(named), now)?;
            let signed = |secret: &&JwtSecret| token.verify([named(secret)], now).is_ok();
            note_use(secrets().map(|secret| (secret, &secret.last_use)), signed, now);
            requester
        }
        Credential::Gssnid(token) => token.accept(session)?,
    };
    caller(&requester, known)
}

/// A secret as a token is checked against it.
fn named(secret: &JwtSecret) -> (Option<&str>, &HmacKey) {
    (secret.kid.as_deref(), &secret.key)
}

/// Notes the use of the key that has signed an accepted credential. Only where there are several, each is tried once more.
fn note_use<'g, K>(keys: impl Iterator<Item = (K, &'g LastUse)>, signed: impl Fn(&K) -> bool, now: i64) {
    let mut keys = keys.peekable();
    while let Some((key, last_use)) = keys.next() {
        if keys.peek().is_none() || signed(&key) {
            return last_use.note(now);
        }
    }
}

/// Whether the group that the credential names has keys that did not open.
fn keys_missing(credential: &Credential, known: &Snapshot) -> bool {
    named_group(credential, known).is_some_and(|group| group.keys_missing)
}

/// The group that the credential names, if it exists. That is not proven.
fn named_group<'a>(credential: &Credential, known: &'a Snapshot) -> Option<&'a Arc<Group>> {
    let group = match credential {
        Credential::Gkey(token) => token.group_user(|address| known.address(address)).map(|user| user.group),
        Credential::Gjwt(token) => Some(token.group()),
        Credential::Gssnid(_) => None,
    };
    group.and_then(|group| known.group(group))
}

fn caller(requester: &Requester, known: &Snapshot) -> Result<Caller, Refusal> {
    // Only a website session can name a group that does not exist: keys are read with their group.
    let group = known.group(requester.group).cloned().ok_or_else(unproven)?;
    Ok(Caller { group, requested_by: requester.requested_by() })
}
