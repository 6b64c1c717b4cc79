//! Checks of the names and group ids in tokens.

use super::refusals::malformed;
use crate::{group_id::GroupId, refusal::Refusal};

/// The most characters in a user id, an address or a person id.
const MAX_NAME_CHARS: usize = 255;

/// Checks the length of a user id, an address or a person id, and that PostgreSQL can store it. `what` names it in the error.
pub(super) fn check_name(name: &str, what: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return Err(malformed(format!("{what} must have 1 to {MAX_NAME_CHARS} characters")));
    }
    if name.contains('\0') {
        return Err(malformed(format!("{what} must not contain U+0000")));
    }
    Ok(())
}

/// Reads a group id: decimal, without leading zeros, 1 … 2^53-1.
///
/// `072` is not `72`: a GKEY signs the digits as they are written.
pub(super) fn parse_group(digits: &str, what: &str) -> Result<GroupId, Refusal> {
    let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok().and_then(GroupId::new)).flatten().ok_or_else(|| {
        malformed(format!("{what} must be a decimal number from 1 to 2^53-1 without leading zeros"))
    })
}
