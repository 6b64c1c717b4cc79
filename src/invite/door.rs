//! The checks before any work is done for an invite: its credential, and whether credential and request name the same
//! group. They leave no row. The gateway runs the same code before it publishes a request.

use super::{Authenticator, Caller, Context, Envelope, Reply, Request};
use crate::{
    refusal::{Code, Decision, Refusal},
    sessions::ResumedRow,
    trouble::Trouble,
};

impl Request<'_> {
    /// The authenticated sender, if its group is the one that the request names.
    pub async fn authenticate(
        &self,
        envelope: &Envelope,
        authenticator: &Authenticator,
    ) -> Result<Decision<Caller>, Trouble> {
        let credential = match self.credential(envelope) {
            Ok(credential) => credential,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let decision = authenticator.authenticate(&credential).await?;
        Ok(decision.and_then(|caller| {
            if self.groupid.as_ref().is_ok_and(|named| *named != caller.group.id) {
                let message = "the credential is good for another group than groupid";
                return Err(Refusal::new(Code::GroupMismatch, message).field("groupid"));
            }
            Ok(caller)
        }))
    }
}

/// Whether the sender of a message that is set aside has shown a good credential, or one that has expired since.
pub(crate) async fn is_from_authenticated_sender(
    ctx: &Context,
    envelope: &Envelope,
) -> Result<bool, Trouble> {
    if let Some((session, ticket)) = envelope.ticket
        && matches!(ctx.sessions.resume(session, ticket).await?, ResumedRow::Found(_))
    {
        return Ok(true);
    }
    let Ok(request) = Request::parse(envelope) else { return Ok(false) };
    // A row proves that the credential was good once.
    if let (Ok(group), Ok(id)) = (&request.groupid, envelope.idempotency_key())
        && ctx.sessions.recall(*group, id, &envelope.sha256()).await?.is_some()
    {
        return Ok(true);
    }
    let decision = request.authenticate(envelope, &ctx.authenticator).await?;
    Ok(decision.map_or_else(|refusal| Reply::refused(&refusal).is_to_authenticated_sender(), |_| true))
}
