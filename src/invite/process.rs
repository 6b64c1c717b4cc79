//! The way of one invite, top to bottom. Each step stands below in the order in which it is taken.

use super::{
    Caller, Context, Envelope, Extent, Reply, Request, Verdict,
    attempt::{place, try_once},
    envelope::has_control,
    group_disabled,
    metrics::{self, Stage},
    pursue::pursue,
    turn::turn,
};
use crate::{
    config::AgeLimits,
    failpoint,
    group::{Group, template::Values},
    limits::{Permits, Slot},
    optouts::Hashes,
    phone::PhoneNumber,
    refusal::{Code, Refusal},
    session_key::{SessionKey, Token},
    sessions::{
        Claim, ClaimResult, Continuation, Duplicate, NewSession, OpenResult, Outcome, RequestRecord,
        SessionRow, too_late,
    },
    sms::Place,
    trouble::Trouble,
};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Takes an invite to an answer, or as far as it can come now. The order of checks is the contract's (section 7).
///
/// A refusal is an answer. Trouble means that nothing was decided, and that no text is under way.
pub async fn process(ctx: &Context, envelope: &Envelope, extent: Extent) -> Result<Verdict, Trouble> {
    match run(ctx, envelope, extent).await {
        Ok(verdict) | Err(Exit::Verdict(verdict)) => Ok(verdict),
        Err(Exit::Pursue(row)) => pursue(ctx, envelope, extent, *row).await,
        Err(Exit::Trouble(trouble)) => Err(trouble),
    }
}

async fn run(ctx: &Context, envelope: &Envelope, extent: Extent) -> Result<Verdict, Exit> {
    resume(ctx, envelope).await?; // a copy of ours goes on with its row
    let request = Request::parse(envelope)?;
    recall(ctx, envelope, &request).await?; // and so does a redelivery
    extent.ensure_new_row()?;
    let caller = authenticate(ctx, envelope, &request).await?;
    let invite = check(ctx, envelope, &request, caller).await?; // from here on, every answer leaves a row
    let ready = begin(ctx, envelope, extent, invite).await?; // the row, before the text
    let ready = confirm(ctx, envelope, extent, ready).await?; // the database may have been slow
    hand_over(ctx, envelope, ready).await // the text, its record, the reply
}

/// Why an invite leaves its way before a text is handed over.
enum Exit {
    /// It is answered, or goes on later.
    Verdict(Verdict),
    /// A row stands for it, which says how it goes on.
    Pursue(Box<SessionRow>),
    Trouble(Trouble),
}

impl Exit {
    /// The answer that a row stands for.
    fn answer(outcome: &Outcome) -> Self {
        Self::Verdict(Verdict::Answer(Reply::to(outcome)))
    }
}

/// An answer that leaves no row.
impl From<Refusal> for Exit {
    fn from(refusal: Refusal) -> Self {
        Self::Verdict(Verdict::Answer(Reply::refused(&refusal)))
    }
}

impl From<Trouble> for Exit {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// What its row stands for, if there is one.
fn pursue_if_there(row: Option<SessionRow>) -> Result<(), Exit> {
    row.map_or(Ok(()), |row| Err(Exit::Pursue(Box::new(row))))
}

/// A copy of ours goes on with its row, which was written for an authenticated sender.
async fn resume(ctx: &Context, envelope: &Envelope) -> Result<(), Exit> {
    let Some((session, ticket)) = envelope.ticket else { return Ok(()) };
    pursue_if_there(ctx.sessions.resume(session, ticket).await?)
}

/// A redelivery goes on with its row, whatever has become of its credential since.
async fn recall(ctx: &Context, envelope: &Envelope, request: &Request<'_>) -> Result<(), Exit> {
    match (envelope.came_before(), &request.groupid, envelope.idempotency_key()) {
        (true, Ok(group), Ok(id)) => {
            pursue_if_there(ctx.sessions.recall(*group, id, &envelope.sha256()).await?)
        }
        _ => Ok(()),
    }
}

async fn authenticate(ctx: &Context, envelope: &Envelope, request: &Request<'_>) -> Result<Caller, Exit> {
    Ok(request.authenticate(envelope, &ctx.authenticator).await??)
}

/// An invite that may begin.
struct Invite {
    group: Arc<Group>,
    record: RequestRecord,
    phone: PhoneNumber,
    /// Whom the text comes from.
    sender: Arc<str>,
    hashes: Hashes,
    permits: Permits,
}

/// Group, fields, phone, age, and the group's limits. The message id is looked at with each answer, and by the insert.
async fn check(
    ctx: &Context,
    envelope: &Envelope,
    request: &Request<'_>,
    caller: Caller,
) -> Result<Invite, Exit> {
    let mut record = record(&ctx.age, envelope, &caller);
    let phone = match check_fields(&ctx.age, envelope, request, &caller, &mut record) {
        Ok(phone) => phone,
        Err(refusal) => {
            return Err(Box::pin(refuse_at_once(ctx, request, &caller, record, refusal)).await?);
        }
    };
    if is_too_old(ctx, envelope) {
        return Err(refuse(ctx, &record, too_late()).await?);
    }
    let group = caller.group;
    let permits = match ctx.limits.admit(&group, &phone).await? {
        Ok(permits) => permits,
        Err(refusal) => return Err(refuse(ctx, &record, refusal).await?),
    };
    let sender = ctx.sms.sender(group.options.sms_from.as_deref());
    let hashes = ctx.optouts.hashes(&phone);
    Ok(Invite { group, record, phone, sender, hashes, permits })
}

/// What the row says of the request and its sender. The benchmark goes through here too, and through [`check_fields`].
#[doc(hidden)]
pub fn record(age: &AgeLimits, envelope: &Envelope, caller: &Caller) -> RequestRecord {
    // Text in PostgreSQL holds no U+0000; other control characters would garble the table in a terminal.
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

/// Whether the group is on, fields and phone; answers the number to text.
#[doc(hidden)]
pub fn check_fields(
    age: &AgeLimits,
    envelope: &Envelope,
    request: &Request<'_>,
    caller: &Caller,
    record: &mut RequestRecord,
) -> Result<PhoneNumber, Refusal> {
    caller.enabled()?;
    request.groupid.clone()?;
    envelope.idempotency_key()?;
    if age.require_timestamp && envelope.timestamp.is_none() {
        let message = "the message needs a timestamp, as its age is unknown without one";
        return Err(Refusal::new(Code::FieldMissing, message).field("timestamp"));
    }
    request.fields(&caller.group, record)
}

/// A refusal that comes before the look at the message id.
async fn refuse_at_once(
    ctx: &Context,
    request: &Request<'_>,
    caller: &Caller,
    mut record: RequestRecord,
    refusal: Refusal,
) -> Result<Exit, Trouble> {
    // A group that is switched off begins nothing. But a repeat of what was begun before is answered from its row: its
    // sender is not told that there is no text where there is one.
    if refusal.code == Code::GroupDisabled && request.fields(&caller.group, &mut record).is_ok() {
        match ctx.sessions.refuse_new(&record, refusal.clone()).await? {
            Ok(outcome) => return Ok(Exit::answer(&outcome)),
            Err(Duplicate::Same(row)) => return Ok(Exit::Pursue(row)),
            // The group comes before the id.
            Err(Duplicate::Conflict) => {}
        }
    }
    Ok(Exit::answer(&ctx.sessions.refuse(&record, refusal).await?))
}

/// A refusal that comes after the look at the message id.
async fn refuse(ctx: &Context, record: &RequestRecord, refusal: Refusal) -> Result<Exit, Trouble> {
    match ctx.sessions.refuse_new(record, refusal).await? {
        Ok(outcome) => Ok(Exit::answer(&outcome)),
        Err(duplicate) => repeat(ctx, record, duplicate).await,
    }
}

/// A request whose message id was used before.
async fn repeat(ctx: &Context, record: &RequestRecord, duplicate: Duplicate) -> Result<Exit, Trouble> {
    match duplicate {
        Duplicate::Same(row) => Ok(Exit::Pursue(row)),
        Duplicate::Conflict => {
            // The field says which id: an HTTP client knows it as the Idempotency-Key.
            let message = "this id was used for an invite with another content";
            let refusal = Refusal::new(Code::IdempotencyConflict, message).field("message_id");
            Ok(Exit::answer(&ctx.sessions.refuse(record, refusal).await?))
        }
    }
}

/// A session whose row is there, with the place at the provider to hand its text over from.
struct ReadyClaim {
    group: Arc<Group>,
    place: Place,
    claim: Claim,
}

/// Waits until the text could be handed over at once, and writes the row.
async fn begin(
    ctx: &Context,
    envelope: &Envelope,
    extent: Extent,
    mut invite: Invite,
) -> Result<ReadyClaim, Exit> {
    loop {
        let slot = wait_for_slot(ctx, envelope, extent, &invite).await?;
        // A place before the row: what is begun is sent at once.
        let place = place(ctx, envelope).await?;
        ensure_group_on(ctx, &invite).await?;
        if let Some(claim) = open(ctx, envelope, &mut invite).await? {
            slot.used();
            invite.permits.used();
            ctx.limits.texting(invite.group.id, &invite.phone);
            failpoint::hit("begun");
            return Ok(ReadyClaim { group: invite.group, place, claim });
        }
        // While it waits for another's outcome, it takes nobody's place.
        drop(place);
        ensure_free_again(ctx, &invite.record).await?;
    }
}

/// Waits for the sender's slot, for no longer than the invite may grow old.
async fn wait_for_slot(
    ctx: &Context,
    envelope: &Envelope,
    extent: Extent,
    invite: &Invite,
) -> Result<Slot, Exit> {
    if !extent.is_whole() {
        return Ok(Slot::unbounded());
    }
    let patience = limits(&ctx.age, envelope).0;
    match turn(ctx, envelope, &invite.sender, patience).await? {
        Some(slot) => Ok(slot),
        None => Err(refuse(ctx, &invite.record, too_late()).await?),
    }
}

/// The waits for a slot and a place may have been long. The directory of groups is a second old at the most.
async fn ensure_group_on(ctx: &Context, invite: &Invite) -> Result<(), Exit> {
    if ctx.groups.snapshot().group(invite.group.id).is_some_and(|group| !group.enabled) {
        return Err(refuse(ctx, &invite.record, group_disabled()).await?);
    }
    Ok(())
}

/// Writes the row; `None` when another row stands for its message id.
async fn open(ctx: &Context, envelope: &Envelope, invite: &mut Invite) -> Result<Option<Claim>, Exit> {
    (invite.record.deadline, invite.record.own_limit) = limits(&ctx.age, envelope);
    let invite = &*invite;
    let since = Instant::now();
    let opened = ctx.sessions.open(&invite.record, |nth| invite.draw(nth)).await?;
    metrics::took(Stage::Insert, since);
    match opened {
        OpenResult::New(claim) => Ok(Some(claim)),
        OpenResult::Taken => Ok(None),
        OpenResult::Ours(row) => Err(Exit::Pursue(row)),
        OpenResult::Refused(outcome) => Err(Exit::answer(&outcome)),
    }
}

impl Invite {
    /// The session of a draw, from 0.
    fn draw(&self, nth: u32) -> NewSession {
        let options = &self.group.options;
        let (key, token) = (SessionKey::draw(options.key_length, nth), Token::draw());
        let values = Values { key: &key, token: &token, group: self.group.id };
        NewSession {
            text: self.group.wording.render(&values),
            key,
            token,
            phone: self.phone.clone(),
            ttl: options.session_ttl,
            sender: self.sender.clone(),
            hashes: self.hashes,
            per_number: options.per_number,
        }
    }
}

/// What another row for the message id stands for; nothing when the id is free again.
async fn ensure_free_again(ctx: &Context, record: &RequestRecord) -> Result<(), Exit> {
    match ctx.sessions.repeat(record).await? {
        Some(duplicate) => Err(repeat(ctx, record, duplicate).await?),
        None => Ok(()),
    }
}

/// Whether the text may still go out: the database may have been slow. Where it may not, it is surely not handed over, and
/// the next worker that finds the row begins where this one ends.
async fn confirm(
    ctx: &Context,
    envelope: &Envelope,
    extent: Extent,
    ready: ReadyClaim,
) -> Result<ReadyClaim, Exit> {
    let not_handed_over = ClaimResult::Waiting { after: Duration::ZERO };
    if !extent.is_whole() {
        // It was worked alone up to here, and ended no process. A copy waits for the provider, so that nobody waits for it.
        return Err(match ctx.sessions.record(ready.claim, not_handed_over).await? {
            Continuation::Later(resume) => Exit::Verdict(Verdict::Later(resume)),
            Continuation::Outcome(_) | Continuation::Lost => Exit::Trouble(Trouble::Stopping),
        });
    }
    if let Err(taken_back) = envelope.ensure_held() {
        // Another worker has the message by now, and may have had it before the row was there.
        ctx.sessions.record(ready.claim, not_handed_over).await?;
        return Err(taken_back.into());
    }
    if is_too_old(ctx, envelope) {
        let id = ready.claim.id;
        return Err(match ctx.sessions.record(ready.claim, ClaimResult::Refused(too_late())).await? {
            Continuation::Outcome(outcome) => Exit::answer(&outcome),
            Continuation::Later(_) | Continuation::Lost => {
                Exit::Pursue(Box::new(ctx.sessions.again(id).await?))
            }
        });
    }
    Ok(ready)
}

/// The first try. When another worker has claimed the row meanwhile, the row says how the invite goes on.
async fn hand_over(ctx: &Context, envelope: &Envelope, ready: ReadyClaim) -> Result<Verdict, Exit> {
    let ReadyClaim { group, place, claim } = ready;
    let id = claim.id;
    match try_once(ctx, envelope, place, claim, &group).await? {
        Some(verdict) => Ok(verdict),
        None => Err(Exit::Pursue(Box::new(ctx.sessions.again(id).await?))),
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
