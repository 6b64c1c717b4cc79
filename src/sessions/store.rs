//! The sessions of one installation, and how a row is found.

use super::{
    batch::Batcher,
    claim_times::ClaimTimes,
    content_hash::ContentHasher,
    insert::InsertStatement,
    look_first::Losses,
    rewinds::Rewinds,
    row::SessionRow,
    statements::{self, RecordStatement, RowLookup},
};
use crate::{
    db::{self, StatementError, kinds, persist},
    group_id::GroupId,
    trouble::Trouble,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a retry copy's session id leads to.
#[derive(Debug)]
pub(crate) enum ResumedRow {
    Found(Box<SessionRow>),
    /// The ticket is not the row's: no worker wrote the copy.
    OfAnother,
    Gone,
}

/// The sessions of one installation.
#[derive(Debug)]
pub struct Sessions {
    pub(super) pool: PgPool,
    pub(super) inserts: Batcher<InsertStatement>,
    pub(super) records: Batcher<RecordStatement>,
    pub(super) times: ClaimTimes,
    pub(super) rewinds: Rewinds,
    pub(super) hasher: ContentHasher,
    pub(super) stop: CancellationToken,
}

impl Sessions {
    /// `stop` ends the waiting for a database that is away.
    pub(crate) fn start(
        pool: PgPool,
        times: ClaimTimes,
        losses: Losses,
        hasher: ContentHasher,
        stop: CancellationToken,
    ) -> Self {
        let rewinds = losses.rewinds.clone();
        let inserts = Batcher::start(InsertStatement { times, losses }, &pool, &stop);
        let records = Batcher::start(RecordStatement, &pool, &stop);
        Self { pool, inserts, records, times, rewinds, hasher, stop }
    }

    /// The row of a redelivered request, if it was written for the same bytes. No credential is needed: a sender who can
    /// repeat the whole request has sent it before.
    ///
    /// A request without a message id is taken for any request with equal bytes whose acknowledgement is not sure: no text
    /// is better than two.
    pub(crate) async fn recall(
        &self,
        group: GroupId,
        message_id: Option<&str>,
        request_sha256: &[u8; 32],
    ) -> Result<Option<SessionRow>, Trouble> {
        let Some(message_id) = message_id else {
            return self.find(RowLookup::Unacknowledged { request_sha256 }).await;
        };
        let owner = self.find(RowLookup::Owner { group, message_id, params: "{}" }).await?;
        let former = RowLookup::Former { group, message_id, request_sha256 };
        match owner.filter(|row| row.came_from(request_sha256)) {
            Some(row) => Ok(Some(row)),
            None => self.find(former).await,
        }
        .map(|row| row.filter(SessionRow::is_answerable))
    }

    /// The row of a retry copy.
    pub(crate) async fn resume(&self, session: Uuid, ticket: Uuid) -> Result<ResumedRow, Trouble> {
        let Some(row) = self.by_id(session).await? else { return Ok(ResumedRow::Gone) };
        let is_ours = row.ticket == ticket && !ticket.is_nil() && row.is_answerable();
        Ok(if is_ours { ResumedRow::Found(Box::new(row)) } else { ResumedRow::OfAnother })
    }

    /// The row as it is now.
    ///
    /// # Errors
    ///
    /// [`Trouble::RowLost`] if it is not there: the program never deletes the row of an open invite.
    pub(crate) async fn reread(&self, id: Uuid) -> Result<SessionRow, Trouble> {
        self.by_id(id).await?.ok_or(Trouble::RowLost)
    }

    /// Marks requests without a message id whose acknowledgements the broker has surely taken: from now on, a request with
    /// the same bytes is a new one.
    pub(crate) async fn acknowledged(&self, requests: &[[u8; 32]]) -> Result<(), Trouble> {
        // Run once only: a second run might mark the row of an equal request that is still open. A mark that is lost leaves
        // the request unsure, which is safe.
        let marked = db::with_time_limit(Box::pin(statements::acknowledge(&self.pool, requests))).await;
        kinds::ACKNOWLEDGE.note(&marked);
        marked.map_err(|error| Trouble::Defect(error.summary()))
    }

    /// The row that answers for a message id; `params` are the parameters that a repeat is compared with, as JSON.
    pub(super) async fn owner(
        &self,
        group: GroupId,
        message_id: &str,
        params: &str,
    ) -> Result<Option<SessionRow>, Trouble> {
        self.find(RowLookup::Owner { group, message_id, params }).await
    }

    pub(super) async fn by_id(&self, id: Uuid) -> Result<Option<SessionRow>, Trouble> {
        self.find(RowLookup::Id(id)).await
    }

    async fn find(&self, lookup: RowLookup<'_>) -> Result<Option<SessionRow>, Trouble> {
        persist(&kinds::FIND_SESSION, &self.stop, || statements::find(&self.pool, lookup, self.times.settle))
            .await
    }
}
