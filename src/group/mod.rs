//! A group: one tenant, with its settings, its keys, and the addresses that name its users.

pub(crate) mod directory;
mod key_uses;
pub(crate) mod options;
pub(crate) mod store;
pub(crate) mod template;
#[cfg(test)]
pub(crate) mod tests;

use crate::{group_id::GroupId, hmac_key::HmacKey};
pub use key_uses::LastUse;
use options::GroupOptions;
use template::{JoinUrl, Wording};
use time::OffsetDateTime;

/// One of the API keys that sign a group's login keys.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// What the login keys are signed with.
    pub key: HmacKey,
    /// When it was last used.
    pub last_use: LastUse,
}

/// One of a group's JWT secrets. A token with a `kid` is checked against the secret of that kid only.
#[derive(Clone, Debug)]
pub struct JwtSecret {
    /// The `kid` by which a token names the secret.
    pub kid: Option<String>,
    /// What the tokens are signed with.
    pub key: HmacKey,
    /// When it was last used.
    pub last_use: LastUse,
}

/// A group as it was last read, with its keys opened and its templates parsed.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number, the `groupid` of requests.
    pub id: GroupId,
    /// `false` refuses its invites with `group_disabled`.
    pub enabled: bool,
    /// Since when its texts wait for `groups resume`.
    pub paused_at: Option<OffsetDateTime>,
    /// Its settings.
    pub options: GroupOptions,
    /// The options' template and link, parsed.
    pub wording: Wording,
    /// The options' join URL, parsed.
    pub join: Option<JoinUrl>,
    /// The active keys of its login keys.
    pub api_keys: Vec<ApiKey>,
    /// The active secrets of its web tokens.
    pub jwt_secrets: Vec<JwtSecret>,
    /// Whether some of its keys or secrets did not open. Then a credential that fails to verify is not surely wrong.
    pub keys_missing: bool,
}
