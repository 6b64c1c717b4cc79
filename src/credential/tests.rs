//! The credentials of the contract's §3, case by case, and properties of any credential.

mod collecting;
mod gjwts;
mod gkeys;
mod gssnids;

use crate::{
    group_id::GroupId,
    refusal::{Code, Refusal},
};

/// The time at which tokens are checked, in Unix seconds.
const NOW: i64 = 1_589_912_000;
const KEY: &[u8] = b"test-api-key";

fn group(id: i64) -> GroupId {
    GroupId::new(id).unwrap()
}

fn code<T>(result: Result<T, Refusal>) -> Result<T, Code> {
    result.map_err(|refusal| refusal.code)
}

/// The token with the character at the index replaced; `None` if it is the same character.
fn with_char(token: &str, index: usize, replacement: char) -> Option<String> {
    let mut chars: Vec<char> = token.chars().collect();
    let index = index % chars.len();
    (std::mem::replace(&mut chars[index], replacement) != replacement).then(|| chars.into_iter().collect())
}
