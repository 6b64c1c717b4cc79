//! The record of what is done with letters. It cannot be in one transaction with the queue, so the audit has its beginning and
//! its end.

use crate::{audit::Operator, group_id::GroupId};
use serde_json::json;

/// What is done with letters, which has begun. Its end is recorded also after an error, with the letters that it was done with.
#[derive(Debug)]
pub(crate) struct LetterRecord<'o> {
    operator: &'o Operator,
    /// What is done, such as `replayed`.
    done: &'static str,
    /// The group that the letter names, where one letter was chosen by its page. Nobody has checked it.
    group: Option<GroupId>,
    ids: Vec<String>,
}

impl<'o> LetterRecord<'o> {
    /// Records the beginning.
    pub(crate) async fn begin(
        operator: &'o Operator,
        done: &'static str,
        group: Option<GroupId>,
    ) -> Result<Self, sqlx::Error> {
        operator.record(group, None, Some(json!({"state": "begun"}))).await?;
        Ok(Self { operator, done, group, ids: Vec::new() })
    }

    /// It was done with the letter of this id.
    pub(crate) fn add(&mut self, id: String) {
        self.ids.push(id);
    }

    /// Records the end, and returns the ids.
    pub(crate) async fn end(self) -> Result<Vec<String>, sqlx::Error> {
        self.write("ended").await
    }

    /// Records that it is not known with which other letters it was done.
    pub(crate) async fn end_unknown(self) -> Result<Vec<String>, sqlx::Error> {
        self.write("unknown").await
    }

    async fn write(self, state: &str) -> Result<Vec<String>, sqlx::Error> {
        let after = json!({"state": state, self.done: self.ids});
        self.operator.record(self.group, None, Some(after)).await?;
        Ok(self.ids)
    }
}
