//! From a parsed credential to its caller: the lookups between what a token names and what proves it.

use super::{Credential, Requester, WebsiteSession};
use crate::{
    group::{Directory, Group, Snapshot, website_sessions},
    refusal::Refusal,
    trouble::Trouble,
};
use sqlx::PgPool;
use std::{sync::Arc, time::SystemTime};

/// Whoever sent an invite, proven, with the settings of the group that the proof is good for.
#[derive(Debug, Clone)]
pub struct Caller {
    pub group: Arc<Group>,
    /// Such as `gkey:12345`.
    pub requested_by: String,
}

/// Knows the groups' keys and the website's sessions.
#[derive(Debug)]
pub struct Authenticator {
    directory: Directory,
    pool: PgPool,
}

impl Authenticator {
    pub fn new(directory: Directory, pool: PgPool) -> Self {
        Self { directory, pool }
    }

    /// The caller, or the refusal. Nobody is refused by what may be old: the groups are read again first.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Result<Caller, Refusal>, Trouble> {
        let session = match credential {
            Credential::Gssnid(token) => website_sessions::find(&self.pool, token.sha256()).await?,
            _ => None,
        };
        let known = self.directory.snapshot();
        match verify(credential, &known, session.as_ref()) {
            Ok(caller) => Ok(Ok(caller)),
            Err(_) => {
                let fresh = self.directory.fresh().await?;
                Ok(verify(credential, &fresh, session.as_ref()))
            }
        }
    }
}
