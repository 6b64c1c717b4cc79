//! The group that a command is about.

use crate::{group_id::GroupId, output::Format};

#[derive(Debug, clap::Args)]
pub(super) struct GroupArg {
    /// The group's id
    #[arg(value_parser = group_id)]
    pub(super) group: GroupId,
    #[command(flatten)]
    pub(super) format: Format,
}

/// A group's id as an argument.
pub(crate) fn group_id(text: &str) -> Result<GroupId, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .and_then(GroupId::new)
        .ok_or_else(|| format!("a group's id is a whole number from 1 to {}", GroupId::MAX))
}
