//! What an invite needs on its way.

use super::{Authenticator, plan::Policy};
use crate::{
    config::{AgeLimits, PublicUrl},
    group::directory::Directory,
    limits::Limits,
    optouts::OptOuts,
    sessions::Sessions,
    sms::Sms,
};
use std::sync::Arc;

/// The services that all invites share, and the settings that decide about them.
#[derive(Debug)]
pub struct Context {
    pub authenticator: Authenticator,
    pub groups: Arc<Directory>,
    pub sessions: Sessions,
    pub sms: Sms,
    pub optouts: OptOuts,
    pub limits: Limits,
    pub policy: Policy,
    pub age: AgeLimits,
    pub public_url: PublicUrl,
}
