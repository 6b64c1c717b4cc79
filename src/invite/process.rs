//! The way of one invite, top to bottom.

use super::{Envelope, Reply, Request, request, trace::TraceParent};
use crate::{
    config::{AgeLimits, PublicUrl},
    credential::{Authenticator, Caller},
    group::{GroupId, template::Values},
    metrics,
    refusal::{Code, Refusal},
    sessions::{
        About, Asked, Fate, Opened, Opening, Outcome, Repeated, Session, SessionKey, Sessions, Token, unknown,
    },
    sms::{Answer, Later, Sms, Text},
    trouble::Trouble,
};
use std::time::{Instant, SystemTime};

/// What an invite needs on its way.
#[derive(Debug)]
pub struct Context {
    pub authenticator: Authenticator,
    pub sessions: Sessions,
    pub sms: Sms,
    pub age: AgeLimits,
    pub public_url: PublicUrl,
}

/// Shape, credential, group, fields, phone, the id, age: the order of the contract's section 7.
///
/// A refusal is a reply. Trouble means that nothing was decided, and that no text is under way.
pub async fn process(ctx: &Context, envelope: &Envelope) -> Result<Reply, Trouble> {
    let request = match Request::parse(envelope) {
        Ok(request) => request,
        Err(refusal) => return Ok(Reply::refused(&refusal)),
    };
    let groupid = request::groupid(&request, envelope);

    // A redelivery is answered from its row, whatever has become of its credential since.
    if let Some(outcome) = recall(ctx, envelope, groupid.as_ref().ok()).await? {
        return Ok(Reply::to(&outcome));
    }
    let credential = match request.credential(envelope) {
        Ok(credential) => credential,
        Err(refusal) => return Ok(Reply::refused(&refusal)),
    };
    let caller = match ctx.authenticator.authenticate(&credential).await? {
        Ok(caller) => caller,
        Err(refusal) => return Ok(Reply::refused(&refusal)),
    };
    if groupid.as_ref().is_ok_and(|named| *named != caller.group.id) {
        let message = "the credential is good for another group than groupid";
        return Ok(Reply::refused(&Refusal::new(Code::GroupMismatch, message).field("groupid")));
    }

    // From here on, whatever happens leaves a row.
    let about = about(envelope, &caller);
    let mut asked = Asked { session_params: "{}".to_owned(), ..Asked::default() };
    let wanted = check(ctx, envelope, &request, &caller, groupid, &mut asked);
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(refusal) => return Ok(Reply::to(&ctx.sessions.refuse(&about, &asked, refusal).await?)),
    };
    let asked = wanted.asked();
    if let Some(refusal) = too_old(ctx, envelope) {
        let repeated = ctx.sessions.refuse_new(&about, &asked, refusal).await?;
        return finished(ctx, repeated, about, asked).await;
    }

    let group = &caller.group;
    let text = |key: &SessionKey, token: &Token| {
        group.wording.render(&Values { key: key.as_str(), token: token.as_str(), group: group.id })
    };
    let opening = Opening {
        about: &about,
        asked: &asked,
        key_length: group.key_length,
        ttl: group.session_ttl,
        text: &text,
    };
    let (place, session) = loop {
        // A place at the provider before the row: what is begun is sent at once.
        let place = ctx.sms.place().await?;
        if envelope.withdrawn.is_cancelled() {
            return Err(Trouble::Stopping);
        }
        match ctx.sessions.open(&opening).await? {
            Opened::New(session) => break (place, session),
            Opened::Taken => {
                // Whoever waits for another's outcome takes nobody's place.
                drop(place);
                if let Some(repeated) = ctx.sessions.repeat(&about, &asked).await? {
                    return finished(ctx, repeated, about, asked).await;
                }
            }
        }
    };
    // The wait for a place, or for the database, may have been long.
    if let Some(refusal) = too_old(ctx, envelope) {
        return Ok(Reply::to(&ctx.sessions.record(session, Fate::Refused(refusal)).await?));
    }

    let asked_at = Instant::now();
    let answer = place.send(&message(ctx, envelope, &caller, &session)).await;
    metrics::texted(&answer, asked_at);
    // Recorded before it is told: a redelivery then finds the outcome.
    let fate = fate(answer, &session);
    Ok(Reply::to(&ctx.sessions.record(session, fate).await?))
}

async fn recall(
    ctx: &Context,
    envelope: &Envelope,
    group: Option<&GroupId>,
) -> Result<Option<Outcome>, Trouble> {
    match (envelope.came_before(), group, envelope.idempotency_key()) {
        (true, Some(group), Ok(id)) => ctx.sessions.recall(*group, id, &envelope.sha256()).await,
        _ => Ok(None),
    }
}

/// Group, fields and phone.
fn check(
    ctx: &Context,
    envelope: &Envelope,
    request: &Request<'_>,
    caller: &Caller,
    groupid: Result<GroupId, Refusal>,
    asked: &mut Asked,
) -> Result<request::Wanted, Refusal> {
    if !caller.group.enabled {
        return Err(Refusal::new(Code::GroupDisabled, "the group is switched off"));
    }
    groupid?;
    envelope.idempotency_key()?;
    if ctx.age.require_timestamp && envelope.timestamp.is_none() {
        let message = "the message needs a timestamp, as its age is unknown without one";
        return Err(Refusal::new(Code::FieldMissing, message).field("timestamp"));
    }
    request.fields(&caller.group, asked)
}

fn about(envelope: &Envelope, caller: &Caller) -> About {
    // Text in PostgreSQL holds no U+0000; other control characters would trouble whoever reads the table.
    let plain = |id: &str| id.replace(char::is_control, "\u{fffd}");
    About {
        group: caller.group.id,
        requested_by: caller.requested_by.clone(),
        message_id: envelope.idempotency_key().ok().flatten().map(str::to_owned),
        correlation_id: envelope.correlation_id.as_deref().map(plain),
        request_sha256: envelope.sha256(),
        redelivered: envelope.came_before(),
    }
}

fn too_old(ctx: &Context, envelope: &Envelope) -> Option<Refusal> {
    let age = envelope.age(SystemTime::now());
    let limit = envelope.own_limit().map_or(ctx.age.max_age, |own| own.min(ctx.age.max_age));
    let old = envelope.expired_in_queue || age.is_some_and(|age| age > limit);
    old.then(|| {
        Refusal::new(Code::InviteExpired, "the invite was too old when its turn came; nobody was texted")
    })
}

/// The answer when there is nothing to send.
async fn finished(ctx: &Context, repeated: Repeated, about: About, asked: Asked) -> Result<Reply, Trouble> {
    match repeated {
        Repeated::Finished(outcome) => Ok(Reply::to(&outcome)),
        Repeated::Conflict => {
            let message = "this message_id was used for an invite with another content";
            let refusal = Refusal::new(Code::IdempotencyConflict, message).field("message_id");
            Ok(Reply::to(&ctx.sessions.refuse(&about, &asked, refusal).await?))
        }
    }
}

fn message<'a>(ctx: &Context, envelope: &Envelope, caller: &'a Caller, session: &'a Session) -> Text<'a> {
    let callback =
        |session: &Session| format!("{}/webhooks/twilio/status/{}", ctx.public_url.base, session.id);
    Text {
        to: &session.phone,
        from: caller.group.sms_from.as_deref(),
        body: &session.text,
        validity: session.left(),
        callback: ctx.public_url.callbacks.then(|| callback(session)),
        trace: envelope.traceparent().map(TraceParent::child),
    }
}

/// What the provider's answer means for the session. A text that may have gone out is never sent again here.
fn fate(answer: Answer, session: &Session) -> Fate {
    match answer {
        Answer::Accepted { sid } => Fate::Accepted { provider_message_id: sid },
        Answer::Refused(refusal) => {
            if refusal.code == Code::ProviderMisconfigured {
                let code = refusal.provider_code;
                tracing::error!(
                    group = session.group,
                    code,
                    "the provider refuses this group's sender: check --sms-from"
                );
            }
            Fate::Refused(refusal)
        }
        Answer::Later { retry_after, why } => {
            let mut refusal = Refusal::new(
                Code::ProviderUnavailable,
                "the provider does not take texts now; try again later",
            );
            // Rounded up: not before the provider said.
            refusal.retry_after_seconds =
                retry_after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0));
            if let Later::Account { provider_code } = why {
                refusal.provider_code = provider_code;
                tracing::error!(
                    code = provider_code,
                    "the provider refuses the operator's account: check TWILIO_*"
                );
            }
            Fate::Refused(refusal)
        }
        Answer::PerhapsSent { why } => {
            tracing::warn!(session = %session.id, why, "a text may have gone out");
            Fate::Unknown(unknown())
        }
    }
}
