//! What is asked of an invite before anything is done for it: its shape, its credential, and the group that both name.
//! None of it leaves a row. The gateway asks the same, by the same code, before it troubles the broker.

use super::{Authenticator, Caller, Context, Envelope, Reply, Request};
use crate::{
    refusal::{Code, Refusal},
    trouble::Trouble,
};

impl Request<'_> {
    /// The sender, proven, and of the group that the request names.
    pub async fn authenticate(
        &self,
        envelope: &Envelope,
        authenticator: &Authenticator,
    ) -> Result<Result<Caller, Refusal>, Trouble> {
        let credential = match self.credential(envelope) {
            Ok(credential) => credential,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let proven = authenticator.authenticate(&credential).await?;
        Ok(proven.and_then(|caller| {
            if self.groupid.as_ref().is_ok_and(|named| *named != caller.group.id) {
                let message = "the credential is good for another group than groupid";
                return Err(Refusal::new(Code::GroupMismatch, message).field("groupid"));
            }
            Ok(caller)
        }))
    }
}

/// Whether the request is of somebody with a good credential, or one that was good; asked of what is not worked on.
pub async fn is_from_authenticated(ctx: &Context, envelope: &Envelope) -> Result<bool, Trouble> {
    if let Some((session, ticket)) = envelope.ticket
        && ctx.sessions.resume(session, ticket).await?.is_some()
    {
        return Ok(true);
    }
    let Ok(request) = Request::parse(envelope) else { return Ok(false) };
    // Whatever has become of its credential since.
    if let (Ok(group), Ok(id)) = (&request.groupid, envelope.idempotency_key())
        && ctx.sessions.recall(*group, id, &envelope.sha256()).await?.is_some()
    {
        return Ok(true);
    }
    let proven = request.authenticate(envelope, &ctx.authenticator).await?;
    Ok(proven.map_or_else(|refusal| Reply::refused(&refusal).is_to_authenticated(), |_| true))
}
