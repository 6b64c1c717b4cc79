//! The services and settings that all invites share.

use super::{
    Authenticator, RefusalLog, key_spaces::KeySpaces, plan::Policy, refused_senders::RefusedSenders,
    sender_clocks::SenderClocks,
};
use crate::{
    config::{AgeLimits, PublicUrl},
    group::directory::Directory,
    limits::Limits,
    optouts::OptOuts,
    sessions::Sessions,
    sms::Sms,
};
use std::sync::Arc;

#[derive(Debug)]
pub struct Context {
    pub authenticator: Authenticator,
    pub groups: Arc<Directory>,
    pub sessions: Sessions,
    pub sms: Sms,
    pub optouts: OptOuts,
    pub limits: Limits,
    pub policy: Policy,
    pub(crate) refusal_log: RefusalLog,
    pub age: AgeLimits,
    pub public_url: PublicUrl,
    pub(crate) key_spaces: KeySpaces,
    pub(crate) refused_senders: RefusedSenders,
    pub(crate) sender_clocks: SenderClocks,
}

impl Context {
    /// What is wrong with groups and with their senders' credentials, for `/readyz`.
    pub(crate) fn problems(&self) -> Vec<String> {
        let groups = self.groups.snapshot();
        let mut problems = groups.problems().to_vec();
        problems.extend(
            self.refused_senders.problems(|id| {
                groups.group(id).map(|group| self.sms.sender(group.options.sms_from.as_deref()))
            }),
        );
        problems.extend(self.sender_clocks.problems());
        problems.extend(self.problems_with_an_alert());
        problems
    }

    /// Those of the problems that have an alert of their own, so that `session_invite_problems` leaves them out.
    pub(crate) fn problems_with_an_alert(&self) -> Vec<String> {
        let groups = self.groups.snapshot();
        let mut problems = self.authenticator.problems();
        problems
            .extend(self.key_spaces.problems(|id| groups.group(id).map(|group| group.options.key_length)));
        problems
    }
}
