//! The errors of the groups' tables.

use crate::{group::template::TemplateError, group_id::GroupId};

/// Why groups were not read or changed, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("group {0} exists; use `groups set` to change it, or `groups rotate-key` to give it another key")]
    Exists(GroupId),
    #[error("there is no group {0}; `groups list` shows all, `groups add {0}` adds it")]
    NoGroup(GroupId),
    #[error(
        "this API key is in use by group {0}: a key belongs to one group, so give another key, or none to generate one"
    )]
    KeyInUse(GroupId),
    #[error("group {0} has an active JWT secret with the kid {1:?}; give another --jwt-kid")]
    KidInUse(GroupId, String),
    #[error("the address {0} names a user already; `addresses remove` it first")]
    AddressExists(String),
    #[error("there is no address {0}; `addresses list` shows all")]
    NoAddress(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(
        "SECRETS_KEY opens none of the {0} sealed keys: set the one that sealed them, after a comma if it is an old one"
    )]
    WrongSecretsKey(usize),
    #[error("the database holds an option of group {0} that cannot be read")]
    Unreadable(i64),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}
