//! The way of one invite, top to bottom.

use super::{
    Caller, Context, Envelope, Progress, Reply, Request,
    door::Shaped,
    envelope::has_control,
    group_disabled,
    metrics::{self, Stage},
    pursue::{hand_over, pursue},
    turn::turn,
};
use crate::{
    config::AgeLimits,
    failpoint,
    group::{GroupId, directory::Directory, template::Values},
    limits::{Limits, Slot},
    metrics::{self, Stage},
    optouts::OptOuts,
    phone::PhoneNumber,
    refusal::{Code, Refusal},
    session_key::{SessionKey, Token},
    sessions::{
        ClaimResult, Continuation, Duplicate, NewSession, OpenResult, RequestRecord, SessionRow, Sessions,
        too_late,
    },
    trouble::Trouble,
};
use std::time::{Duration, Instant, SystemTime};

/// A request that no worker got as far as its row is set aside after so many deliveries (contract, section 8).
const DELIVERIES_WITHOUT_A_ROW: i64 = 20;

/// Shape, credential, group, fields, phone, the id, age: the order of the contract's section 7.
///
/// A refusal is a reply. Trouble means that nothing was decided, and that no text is under way.
pub async fn process(ctx: &Context, envelope: &Envelope) -> Result<Progress, Trouble> {
    // A copy of ours goes on with its row, which was written for an authenticated sender.
    if let Some(row) = resumed(ctx, envelope).await? {
        return pursue(ctx, envelope, row).await;
    }
    let shaped = match Shaped::parse(envelope) {
        Ok(shaped) => shaped,
        Err(refusal) => return Ok(Reply::refused(&refusal).into()),
    };

    // A redelivery goes on with its row, whatever has become of its credential since.
    if let Some(row) = recall(ctx, envelope, shaped.groupid.as_ref().ok()).await? {
        return pursue(ctx, envelope, row).await;
    }
    if envelope.deliveries >= DELIVERIES_WITHOUT_A_ROW {
        return Err(Trouble::Defect(format!("it was delivered {} times before", envelope.deliveries)));
    }
    let caller = match shaped.admit(envelope, &ctx.authenticator).await? {
        Ok(caller) => caller,
        Err(refusal) => return Ok(Reply::refused(&refusal).into()),
    };
    let Shaped { request, groupid } = shaped;

    // From here on, whatever happens leaves a row.
    let mut record = record(&ctx.age, envelope, &caller);
    let phone = match check(&ctx.age, envelope, &request, &caller, groupid, &mut record) {
        Ok(phone) => phone,
        Err(refusal) => {
            if refusal.code == Code::GroupDisabled && request.fields(&caller.group, &mut record).is_ok() {
                return Box::pin(switched_off(ctx, envelope, &record, refusal)).await;
            }
            return Ok(Reply::to(&ctx.sessions.refuse(&record, refusal).await?).into());
        }
    };
    if is_too_old(ctx, envelope) {
        return refuse(ctx, envelope, &record, too_late()).await;
    }
    let group = &caller.group;
    let permits = match ctx.limits.admit(group, &phone).await? {
        Ok(permits) => permits,
        Err(refusal) => return refuse(ctx, envelope, &record, refusal).await,
    };

    let sender = ctx.sms.sender(group.options.sms_from.as_deref());
    let hashes = ctx.optouts.hashes(&phone);
    let draw = |nth| {
        let (key, token) = (SessionKey::draw(group.options.key_length, nth), Token::draw());
        let text = group.wording.render(&Values { key: &key, token: &token, group: group.id });
        NewSession {
            key,
            token,
            text,
            phone: phone.clone(),
            ttl: group.options.session_ttl,
            sender: sender.clone(),
            hashes,
            per_number: group.options.per_number,
        }
    };
    let (place, session) = loop {
        // Whoever is worked alone sends nothing here, and waits for no turn.
        let patience = limits(&ctx.age, envelope).0;
        let turn = match envelope.tries {
            0 => turn(ctx, envelope, &sender, patience).await?,
            _ => Some(Slot::unbounded()),
        };
        let Some(turn) = turn else { return refuse(ctx, envelope, &record, too_late()).await };
        // A place at the provider before the row: what is begun is sent at once.
        let since = Instant::now();
        let place = ctx.sms.place().await?;
        metrics::took(Stage::Place, since);
        if envelope.withdrawn.is_cancelled() {
            return Err(Trouble::Stopping);
        }
        // The waits for a turn and a place may have been long.
        if is_switched_off(ctx, group.id) {
            return refuse(ctx, envelope, &record, group_disabled()).await;
        }
        (record.deadline, record.own_limit) = limits(&ctx.age, envelope);
        let since = Instant::now();
        let opened = ctx.sessions.open(&record, draw).await?;
        metrics::took(Stage::Insert, since);
        match opened {
            OpenResult::New(session) => {
                turn.used();
                break (place, session);
            }
            OpenResult::Ours(row) => return pursue(ctx, envelope, *row).await,
            OpenResult::Refused(outcome) => return Ok(Reply::to(&outcome).into()),
            OpenResult::Taken => {}
        }
        // Whoever waits for another's outcome takes nobody's place.
        drop(place);
        if let Some(repeated) = ctx.sessions.repeat(&record).await? {
            return repeat(ctx, envelope, repeated, &record).await;
        }
    };
    permits.used();
    ctx.limits.texting(group.id, &phone);
    failpoint::hit("begun");
    if envelope.tries > 0 {
        // It was worked alone up to here, and ended no process. A copy waits for the provider, so that nobody waits for it.
        let recorded = ctx.sessions.record(session, ClaimResult::Waiting { after: Duration::ZERO }).await?;
        return match recorded {
            Continuation::Later(resume) => Ok(Progress::Later(resume)),
            Continuation::Outcome(_) | Continuation::Lost => Err(Trouble::Stopping),
        };
    }
    if envelope.withdrawn.is_cancelled() {
        // The message is another worker's by now, which may have had it before the row was there. Surely not handed over:
        // whoever finds the row begins where this one has ended.
        ctx.sessions.record(session, ClaimResult::Waiting { after: Duration::ZERO }).await?;
        return Err(Trouble::Stopping);
    }
    let id = session.id;
    // So may have been the wait for the database.
    if is_too_old(ctx, envelope) {
        return match ctx.sessions.record(session, ClaimResult::Refused(too_late())).await? {
            Continuation::Outcome(outcome) => Ok(Reply::to(&outcome).into()),
            Continuation::Later(_) | Continuation::Lost => {
                pursue(ctx, envelope, ctx.sessions.again(id).await?).await
            }
        };
    }
    match hand_over(ctx, envelope, place, session, group).await? {
        Some(progress) => Ok(progress),
        None => pursue(ctx, envelope, ctx.sessions.again(id).await?).await,
    }
}

/// A request of a group that is switched off begins nothing. But a repeat of what was begun before is answered from its
/// row: its sender is not told that there is no text where there is one.
async fn switched_off(
    ctx: &Context,
    envelope: &Envelope,
    record: &RequestRecord,
    refusal: Refusal,
) -> Result<Progress, Trouble> {
    match ctx.sessions.refuse_new(record, refusal.clone()).await? {
        Ok(outcome) => Ok(Reply::to(&outcome).into()),
        Err(Duplicate::Same(row)) => pursue(ctx, envelope, *row).await,
        // The group comes before the id.
        Err(Duplicate::Conflict) => Ok(Reply::to(&ctx.sessions.refuse(record, refusal).await?).into()),
    }
}

/// Whether the group was switched off since its invite was taken, as of a second ago at the most.
fn is_switched_off(ctx: &Context, group: GroupId) -> bool {
    ctx.groups.snapshot().group(group).is_some_and(|group| !group.enabled)
}

/// A refusal that comes after the look at the message id.
async fn refuse(
    ctx: &Context,
    envelope: &Envelope,
    record: &RequestRecord,
    refusal: Refusal,
) -> Result<Progress, Trouble> {
    match ctx.sessions.refuse_new(record, refusal).await? {
        Ok(outcome) => Ok(Reply::to(&outcome).into()),
        Err(repeated) => repeat(ctx, envelope, repeated, record).await,
    }
}

async fn resumed(ctx: &Context, envelope: &Envelope) -> Result<Option<SessionRow>, Trouble> {
    match envelope.ticket {
        Some((session, ticket)) => ctx.sessions.resume(session, ticket).await,
        None => Ok(None),
    }
}

async fn recall(
    ctx: &Context,
    envelope: &Envelope,
    group: Option<&GroupId>,
) -> Result<Option<SessionRow>, Trouble> {
    match (envelope.came_before(), group, envelope.idempotency_key()) {
        (true, Some(group), Ok(id)) => ctx.sessions.recall(*group, id, &envelope.sha256()).await,
        _ => Ok(None),
    }
}

/// Whether the group is on, fields and phone. The benchmark goes through here too, and through [`record`].
#[doc(hidden)]
pub fn check(
    age: &AgeLimits,
    envelope: &Envelope,
    request: &Request<'_>,
    caller: &Caller,
    groupid: Result<GroupId, Refusal>,
    record: &mut RequestRecord,
) -> Result<PhoneNumber, Refusal> {
    caller.enabled()?;
    groupid?;
    envelope.idempotency_key()?;
    if age.require_timestamp && envelope.timestamp.is_none() {
        let message = "the message needs a timestamp, as its age is unknown without one";
        return Err(Refusal::new(Code::FieldMissing, message).field("timestamp"));
    }
    request.fields(&caller.group, record)
}

/// What the row says of the request and its sender.
#[doc(hidden)]
pub fn record(age: &AgeLimits, envelope: &Envelope, caller: &Caller) -> RequestRecord {
    // Text in PostgreSQL holds no U+0000; other control characters would trouble whoever reads the table.
    let plain = |id: &str| {
        if has_control(id) { id.replace(char::is_control, "\u{fffd}") } else { id.to_owned() }
    };
    let (deadline, own_limit) = limits(age, envelope);
    RequestRecord {
        message_id: envelope.idempotency_key().ok().flatten().map(str::to_owned),
        correlation_id: envelope.correlation_id.as_deref().map(plain),
        request_sha256: envelope.sha256(),
        redelivered: envelope.came_before(),
        received: envelope.received.unwrap_or_else(Instant::now),
        deadline,
        own_limit,
        ..RequestRecord::new(caller.group.id, caller.requested_by.clone())
    }
}

fn is_too_old(ctx: &Context, envelope: &Envelope) -> bool {
    envelope.expired_in_queue || limits(&ctx.age, envelope).0.is_some_and(|left| left.is_zero())
}

/// Until the invite is too old, and until its own limit. The operator's limit is for one whose age is known.
fn limits(limits: &AgeLimits, envelope: &Envelope) -> (Option<Duration>, Option<Duration>) {
    // The clock is only read where it counts.
    let age = envelope.timestamp.and_then(|_| envelope.age(SystemTime::now()));
    let max_age = age.map(|age| limits.max_age.saturating_sub(age));
    let own = own_limit(envelope, age);
    ([own, max_age].into_iter().flatten().min(), own)
}

/// Until the request's own expiration, which counts from when it was written; or, if that is not known, from when it came.
fn own_limit(envelope: &Envelope, age: Option<Duration>) -> Option<Duration> {
    let limit = envelope.own_limit()?;
    let in_hand = || envelope.received.map(|at| at.elapsed()).unwrap_or_default();
    Some(limit.saturating_sub(age.unwrap_or_else(in_hand)))
}

/// A request whose message id was used before.
async fn repeat(
    ctx: &Context,
    envelope: &Envelope,
    repeated: Duplicate,
    record: &RequestRecord,
) -> Result<Progress, Trouble> {
    match repeated {
        Duplicate::Same(row) => pursue(ctx, envelope, *row).await,
        Duplicate::Conflict => {
            let message = "this message_id was used for an invite with another content";
            let refusal = Refusal::new(Code::IdempotencyConflict, message).field("message_id");
            Ok(Reply::to(&ctx.sessions.refuse(record, refusal).await?).into())
        }
    }
}
