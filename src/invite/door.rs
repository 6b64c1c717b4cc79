//! What is asked of an invite before anything is done for it: its shape, its credential, and the group that both name.
//! None of it leaves a row. The gateway asks the same, by the same code, before it troubles the broker.

use super::{Authenticator, Caller, Context, Envelope, Reply, Request, request};
use crate::{
    group_id::GroupId,
    refusal::{Code, Refusal},
    trouble::Trouble,
};

/// A request of the right shape, of which nothing is proven yet.
#[derive(Debug)]
pub struct Shaped<'a> {
    pub request: Request<'a>,
    /// The group that it names. That it names none is told to whoever proved to be a sender.
    pub groupid: Result<GroupId, Refusal>,
}

impl<'a> Shaped<'a> {
    pub fn parse(envelope: &'a Envelope) -> Result<Self, Refusal> {
        Ok(Self::of(Request::parse(envelope)?, envelope))
    }

    pub fn of(request: Request<'a>, envelope: &Envelope) -> Self {
        let groupid = request::groupid(&request, envelope);
        Self { request, groupid }
    }

    /// The sender, proven, and of the group that the request names.
    pub async fn admit(
        &self,
        envelope: &Envelope,
        authenticator: &Authenticator,
    ) -> Result<Result<Caller, Refusal>, Trouble> {
        let credential = match self.request.credential(envelope) {
            Ok(credential) => credential,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let admitted = authenticator.authenticate(&credential).await?;
        Ok(admitted.and_then(|caller| {
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
    let Ok(shaped) = Shaped::parse(envelope) else { return Ok(false) };
    // Whatever has become of its credential since.
    if let (Ok(group), Ok(id)) = (&shaped.groupid, envelope.idempotency_key())
        && ctx.sessions.recall(*group, id, &envelope.sha256()).await?.is_some()
    {
        return Ok(true);
    }
    let admitted = shaped.admit(envelope, &ctx.authenticator).await?;
    Ok(admitted.map_or_else(|refusal| Reply::refused(&refusal).is_to_authenticated(), |_| true))
}
