//! Names and group ids, as tokens write them.

use super::refused::malformed;
use crate::{group_id::GroupId, refusal::Refusal};

/// The most characters in a user id, an address or a person id.
const MAX_NAME_CHARS: usize = 255;

/// Why a user id, an address or a person id cannot be one, if so.
pub(super) fn check_name(name: &str, what: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return Err(malformed(format!("{what} must have 1 to {MAX_NAME_CHARS} characters")));
    }
    if name.contains('\0') {
        return Err(malformed(format!("{what} must not contain U+0000")));
    }
    Ok(())
}

/// A group id as tokens write it: decimal, without leading zeros, 1 … 2^53-1.
///
/// `072` is not `72`: a GKEY signs the digits as they stand.
pub(super) fn parse_group(digits: &str, what: &str) -> Result<GroupId, Refusal> {
    let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok().and_then(GroupId::new)).flatten().ok_or_else(|| {
        malformed(format!("{what} must be a decimal number from 1 to 2^53-1 without leading zeros"))
    })
}
