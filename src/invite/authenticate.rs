//! From a parsed credential to its caller: the lookups between what a token names and what proves it.

use crate::masked::debug_shows;
use crate::{
    credential::{Credential, Requester, WebsiteSession, unproven},
    hmac_key::HmacKey,
};
use crate::{
    db::{kinds, persist},
    group::{
        Group,
        directory::{Directory, Snapshot},
    },
    refusal::{Code, Refusal},
    trouble::Trouble,
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio_util::sync::CancellationToken;

/// Whoever sent an invite, proven, with the settings of the group that the proof is good for.
#[derive(Clone)]
pub struct Caller {
    pub group: Arc<Group>,
    /// Such as `gkey:12345`.
    pub requested_by: String,
}

debug_shows!(Caller { group });

impl Caller {
    /// The contract's check of the group, which comes once its credential is known to be good.
    pub fn enabled(&self) -> Result<(), Refusal> {
        if self.group.enabled { Ok(()) } else { Err(group_disabled()) }
    }
}

/// Knows the groups' keys and the website's sessions.
#[derive(Debug)]
pub struct Authenticator {
    directory: Arc<Directory>,
    stop: CancellationToken,
}

/// The answer to an invite of a group that an operator has switched off.
pub fn group_disabled() -> Refusal {
    Refusal::new(Code::GroupDisabled, "the group is switched off")
}

impl Authenticator {
    /// `stop` ends the waiting for a database that is away.
    pub fn new(directory: Arc<Directory>, stop: CancellationToken) -> Self {
        Self { directory, stop }
    }

    /// The caller, or the refusal. Nobody is refused by what may be old: the groups are read again first.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Result<Caller, Refusal>, Trouble> {
        let session = match credential {
            Credential::Gssnid(token) => {
                let find = || self.directory.website_session(token.sha256());
                // Queries are boxed: most invites need none, and are not to carry the room for one about.
                Box::pin(persist(&kinds::FIND_WEBSITE_SESSION, &self.stop, find)).await?
            }
            _ => None,
        };
        let verified = verify(credential, &self.directory.snapshot(), session.as_ref());
        if verified.is_ok() {
            return Ok(verified);
        }
        let fresh =
            Box::pin(persist(&kinds::LOOK_FOR_CHANGES, &self.stop, || self.directory.fresh())).await?;
        match verify(credential, &fresh, session.as_ref()) {
            // The sender may be right, and the key that proves it lost to us: not a refusal, but the operator's to mend.
            Err(refusal) if refusal.code == Code::CredentialInvalid && keys_missing(credential, &fresh) => {
                Err(Trouble::Defect(
                    "SECRETS_KEY does not open all keys of the group: add the one that sealed them"
                        .to_owned(),
                ))
            }
            verified => Ok(verified),
        }
    }
}

/// Whatever is not known is verified all the same, against nothing, so that it costs what a wrong signature does.
fn verify(
    credential: &Credential,
    known: &Snapshot,
    session: Option<&WebsiteSession>,
) -> Result<Caller, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let requester = match credential {
        Credential::Gkey(token) => {
            let account = token.account(|address| known.address(address));
            let group = account.and_then(|account| known.group(account.group));
            token.verify(account, group.iter().flat_map(|group| &group.api_keys), now)?
        }
        Credential::Gjwt(token) => {
            let group = known.group(token.group());
            let secrets = group.iter().flat_map(|group| &group.jwt_secrets);
            let secrets =
                secrets.map(|secret| -> (Option<&str>, &HmacKey) { (secret.kid.as_deref(), &secret.key) });
            token.verify(secrets, now)?
        }
        Credential::Gssnid(token) => token.accept(session)?,
    };
    caller(&requester, known)
}

/// Whether the group that the credential names has keys that did not open.
fn keys_missing(credential: &Credential, known: &Snapshot) -> bool {
    let group = match credential {
        Credential::Gkey(token) => {
            token.account(|address| known.address(address)).map(|account| account.group)
        }
        Credential::Gjwt(token) => Some(token.group()),
        Credential::Gssnid(_) => None,
    };
    group.and_then(|group| known.group(group)).is_some_and(|group| group.keys_missing)
}

fn caller(requester: &Requester, known: &Snapshot) -> Result<Caller, Refusal> {
    // Only a website session can name a group that is not there: keys stand with their groups.
    let group = known.group(requester.group).cloned().ok_or_else(unproven)?;
    Ok(Caller { group, requested_by: requester.requested_by() })
}
