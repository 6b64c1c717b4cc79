//! The way of one invite, top to bottom: the steps follow in the order in which they run.

use super::{
    Caller, Context, Envelope, Extent, Reply, Request, Verdict,
    attempt::{try_once, wait_for_provider},
    envelope::has_control,
    group_disabled,
    metrics::{self, Stage},
    pursue::pursue,
    slot::wait_for_slot,
};
use crate::{
    config::AgeLimits,
    failpoint,
    group::{Group, options::GroupOptions, template::TemplateValues},
    group_id::GroupId,
    limits::{Permits, Slot},
    optouts::PhoneHashes,
    phone::PhoneNumber,
    refusal::{Code, Refusal},
    session_key::{SessionKey, Token},
    sessions::{
        self, Claim, ClaimResult, Continuation, Duplicate, FirstStep, NewSession, OpenResult, Outcome,
        RefuseResult, RequestRecord, ResumedRow, SessionRow, steps::Step, too_late,
    },
    sms::ProviderPermit,
    trouble::Trouble,
};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Takes an invite to its reply, or as far as it can go now. The order of checks is the contract's (section 7).
///
/// # Errors
///
/// `Trouble` where nothing was decided, and no text is under way. A refusal is a reply, not an error.
pub async fn process(ctx: &Context, envelope: &Envelope, extent: Extent) -> Result<Verdict, Trouble> {
    match run(ctx, envelope, extent).await {
        Ok(verdict) | Err(Exit::Verdict(verdict)) => Ok(verdict),
        Err(Exit::Refused(refusal)) => {
            sessions::metrics::refused(None, refusal.code);
            Ok(Verdict::Answer(Reply::refused(&refusal)))
        }
        Err(Exit::Pursue(row)) => pursue(ctx, envelope, extent, *row).await,
        Err(Exit::Trouble(trouble)) => Err(trouble),
    }
}

async fn run(ctx: &Context, envelope: &Envelope, extent: Extent) -> Result<Verdict, Exit> {
    resume(ctx, envelope).await?; // a retry copy continues with its row
    let request = Request::parse(envelope)?;
    recall(ctx, envelope, &request).await?; // and so does a redelivery
    extent.ensure_may_begin()?;
    let caller = authenticate(ctx, envelope, &request).await?;
    let invite = check(ctx, envelope, &request, caller).await?; // from here on, every reply leaves a row
    let ready = begin(ctx, envelope, extent, invite).await?; // the row, before the text
    let ready = confirm(ctx, envelope, extent, ready).await?; // the database may have been slow
    hand_over(ctx, envelope, ready).await // the text, its record, the reply
}

/// Why an invite leaves `run` before its text is handed over.
enum Exit {
    /// It has its reply, or continues later.
    Verdict(Verdict),
    /// It is refused, and leaves no row.
    Refused(Refusal),
    /// It has a row already, which decides what comes next.
    Pursue(Box<SessionRow>),
    Trouble(Trouble),
}

impl Exit {
    /// The reply for a refusal that was just stored in a row.
    fn stored(group: GroupId, outcome: &Outcome) -> Self {
        if let Outcome::Refused(refusal) = outcome {
            sessions::metrics::refused(Some(group), refusal.code);
        }
        Self::Verdict(Verdict::Answer(Reply::to(outcome).of_group(group)))
    }
}

impl From<Refusal> for Exit {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Trouble> for Exit {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Leaves `run` if there is a row.
fn exit_with_row(row: Option<SessionRow>) -> Result<(), Exit> {
    row.map_or(Ok(()), |row| Err(Exit::Pursue(Box::new(row))))
}

/// A retry copy continues with its row, which was written for an authenticated sender.
async fn resume(ctx: &Context, envelope: &Envelope) -> Result<(), Exit> {
    let Some((session, ticket)) = envelope.ticket else { return Ok(()) };
    match ctx.sessions.resume(session, ticket).await? {
        ResumedRow::Found(row) => Err(Exit::Pursue(row)),
        // A copy holds no request, so that its invite cannot begin again.
        ResumedRow::Gone if envelope.is_bare_copy(session) => Err(Trouble::RowLost.into()),
        ResumedRow::Gone | ResumedRow::OfAnother => Ok(()),
    }
}

/// A redelivery continues with its row, even if its credential has expired since.
async fn recall(ctx: &Context, envelope: &Envelope, request: &Request<'_>) -> Result<(), Exit> {
    match (envelope.may_be_known(), &request.groupid, envelope.idempotency_key()) {
        (true, Ok(group), Ok(id)) => {
            let row = ctx.sessions.recall(*group, id, &envelope.sha256()).await?;
            if let Some(row) = &row {
                ctx.sessions.note_step(row.id, &came_again(row, false)).await;
            }
            exit_with_row(row)
        }
        _ => Ok(()),
    }
}

/// What a message finds that is not the first of its invite.
fn came_again(row: &SessionRow, repeat: bool) -> Step {
    let text_state = row.text_state.map(|state| state.as_str().to_owned());
    Step::Redelivered { status: row.status.as_str().to_owned(), text_state, repeat }
}

async fn authenticate(ctx: &Context, envelope: &Envelope, request: &Request<'_>) -> Result<Caller, Exit> {
    let since = Instant::now();
    let authenticated = request.authenticate(envelope, &ctx.authenticator).await;
    envelope.trace.step("authenticate", since);
    Ok(authenticated??)
}

/// An invite that passed every check.
struct Invite {
    group: Arc<Group>,
    record: RequestRecord,
    phone: PhoneNumber,
    from_number: Arc<str>,
    hashes: PhoneHashes,
    permits: Permits,
    first_step: FirstStep,
}

/// Checks group, fields, phone, age and the group's limits. The insert checks the message id, and so does each refusal.
async fn check(
    ctx: &Context,
    envelope: &Envelope,
    request: &Request<'_>,
    caller: Caller,
) -> Result<Invite, Exit> {
    ctx.sender_clocks.note(&caller.group, envelope);
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
    let GroupOptions { per_minute, per_country, .. } = group.options;
    let permits = match ctx.limits.admit(group.id, per_minute, per_country, &phone).await? {
        Ok(permits) => permits,
        Err(refusal) => return Err(refuse(ctx, &record, refusal).await?),
    };
    let from_number = ctx.sms.sender(group.options.sms_from.as_deref());
    let hashes = ctx.optouts.hashes(&phone);
    Ok(Invite { group, record, phone, from_number, hashes, permits, first_step: FirstStep::Try })
}

/// The row's values that come from the request and its sender, without the fields. The benchmark calls this, and
/// `check_fields`.
#[doc(hidden)]
pub fn record(age: &AgeLimits, envelope: &Envelope, caller: &Caller) -> RequestRecord {
    // Text in PostgreSQL holds no U+0000; other control characters would garble the table in a terminal.
    let plain = |id: &str| {
        if has_control(id) { id.replace(char::is_control, "\u{fffd}") } else { id.to_owned() }
    };
    let time = TimeLeft::of(age, envelope);
    RequestRecord {
        message_id: envelope.idempotency_key().ok().flatten().map(str::to_owned),
        correlation_id: envelope.correlation_id.as_deref().map(plain),
        reply_to: envelope.reply_to.clone().filter(|queue| !queue.is_empty() && !has_control(queue)),
        published: envelope.published(),
        traceparent: envelope.continued_trace(),
        span: envelope.trace.context(),
        published_after: envelope.published_after,
        request_sha256: envelope.sha256(),
        redelivered: envelope.may_be_known(),
        received: envelope.received.unwrap_or_else(Instant::now),
        deadline: time.deadline,
        own_limit: time.expiration,
        ..RequestRecord::new(caller.group.id, caller.requested_by.clone())
    }
}

/// Checks that the group is switched on, then the fields. Returns the number to text.
///
/// # Errors
///
/// The refusal, in the contract's order of checks.
#[doc(hidden)]
pub fn check_fields(
    age: &AgeLimits,
    envelope: &Envelope,
    request: &Request<'_>,
    caller: &Caller,
    record: &mut RequestRecord,
) -> Result<PhoneNumber, Refusal> {
    caller.ensure_enabled()?;
    request.groupid.clone()?;
    envelope.idempotency_key()?;
    if age.require_timestamp && envelope.timestamp.is_none() {
        let message = "the message needs a timestamp, as its age is unknown without one";
        return Err(Refusal::new(Code::FieldMissing, message).field("timestamp"));
    }
    request.fields(&caller.group, record)
}

/// Stores a refusal that comes before the check of the message id.
async fn refuse_at_once(
    ctx: &Context,
    request: &Request<'_>,
    caller: &Caller,
    mut record: RequestRecord,
    refusal: Refusal,
) -> Result<Exit, Trouble> {
    // A group that is switched off begins nothing. But a repeat of an invite from before is answered from its row, so that
    // no reply denies a text that was sent.
    if refusal.code == Code::GroupDisabled && request.fields(&caller.group, &mut record).is_ok() {
        match ctx.sessions.refuse_new(&record, refusal.clone()).await? {
            RefuseResult::Stored(outcome) => return Ok(Exit::stored(record.group, &outcome)),
            RefuseResult::Repeat(duplicate @ Duplicate::Same(_)) => {
                return repeat(ctx, &record, duplicate).await;
            }
            // The check of the group comes before that of the message id.
            RefuseResult::Repeat(Duplicate::Conflict) => {}
        }
    }
    Ok(Exit::stored(record.group, &ctx.sessions.refuse(&record, refusal).await?))
}

/// Stores a refusal that comes after the check of the message id.
async fn refuse(ctx: &Context, record: &RequestRecord, refusal: Refusal) -> Result<Exit, Trouble> {
    match ctx.sessions.refuse_new(record, refusal).await? {
        RefuseResult::Stored(outcome) => Ok(Exit::stored(record.group, &outcome)),
        RefuseResult::Repeat(duplicate) => repeat(ctx, record, duplicate).await,
    }
}

/// The way out of a request whose message id was used before.
async fn repeat(ctx: &Context, record: &RequestRecord, duplicate: Duplicate) -> Result<Exit, Trouble> {
    match duplicate {
        Duplicate::Same(row) => {
            ctx.sessions.note_step(row.id, &came_again(&row, !record.redelivered)).await;
            Ok(Exit::Pursue(row))
        }
        Duplicate::Conflict => {
            // The message does not name the id, as an HTTP client knows it as the Idempotency-Key. The field does.
            let message = "this id was used for an invite with another content";
            let refusal = Refusal::new(Code::IdempotencyConflict, message).field("message_id");
            Ok(Exit::stored(record.group, &ctx.sessions.refuse(record, refusal).await?))
        }
    }
}

/// A claim on a new row, with the permit to send its text now.
struct ReadyClaim {
    group: Arc<Group>,
    permit: ProviderPermit,
    claim: Claim,
}

/// Waits until the text can be handed over at once, then writes the row.
async fn begin(
    ctx: &Context,
    envelope: &Envelope,
    extent: Extent,
    mut invite: Invite,
) -> Result<ReadyClaim, Exit> {
    if invite.group.paused_at.is_some() {
        return Err(Box::pin(hold(ctx, envelope, invite)).await?);
    }
    loop {
        let slot = slot(ctx, envelope, extent, &invite).await?;
        // The provider's permit comes before the row: an invite that has begun is sent at once.
        let permit = wait_for_provider(ctx, envelope).await?;
        match ctx.groups.snapshot().group(invite.group.id) {
            Some(group) if !group.enabled => {
                return Err(refuse(ctx, &invite.record, group_disabled()).await?);
            }
            Some(group) if group.paused_at.is_some() => {
                drop((slot, permit));
                return Err(Box::pin(hold(ctx, envelope, invite)).await?);
            }
            _ => {}
        }
        if let Some(claim) = open(ctx, envelope, &mut invite).await? {
            slot.used();
            invite.permits.used();
            ctx.limits.count_text(invite.group.id, &invite.phone);
            failpoint::hit("begun");
            return Ok(ReadyClaim { group: invite.group, permit, claim });
        }
        // Other invites may send while this one waits for another worker's outcome.
        drop(permit);
        ensure_free_again(ctx, &invite.record).await?;
    }
}

/// Waits for the From number's slot, until the invite is too old.
async fn slot(ctx: &Context, envelope: &Envelope, extent: Extent, invite: &Invite) -> Result<Slot, Exit> {
    if !extent.is_whole() {
        return Ok(Slot::unbounded());
    }
    let patience = TimeLeft::of(&ctx.age, envelope).deadline;
    match wait_for_slot(ctx, envelope, &invite.from_number, patience).await? {
        Some(slot) => Ok(slot),
        None => Err(refuse(ctx, &invite.record, too_late()).await?),
    }
}

/// Writes the row of an invite whose group is paused, and leaves `run` with it. The row decides what comes next, so a pause
/// that is over by then holds nothing up. An invite that waits takes neither a slot nor a permit.
async fn hold(ctx: &Context, envelope: &Envelope, mut invite: Invite) -> Result<Exit, Exit> {
    invite.first_step = FirstStep::Wait;
    loop {
        let row = match open(ctx, envelope, &mut invite).await {
            Ok(None) => None,
            Ok(Some(claim)) => Some(Box::new(ctx.sessions.reread(claim.id).await?)),
            Err(Exit::Pursue(row)) => Some(row),
            Err(other) => return Err(other),
        };
        if let Some(row) = row {
            invite.permits.used();
            ctx.limits.count_text(invite.group.id, &invite.phone);
            return Ok(Exit::Pursue(row));
        }
        ensure_free_again(ctx, &invite.record).await?;
    }
}

/// Writes the row. `None` if another row owns its message id.
async fn open(ctx: &Context, envelope: &Envelope, invite: &mut Invite) -> Result<Option<Claim>, Exit> {
    let time = TimeLeft::of(&ctx.age, envelope);
    (invite.record.deadline, invite.record.own_limit) = (time.deadline, time.expiration);
    let invite = &*invite;
    let since = Instant::now();
    let draw = |nth| {
        if nth > 0 {
            ctx.key_spaces.note(&invite.group, nth);
        }
        invite.draw(nth)
    };
    let opened = ctx.sessions.open(&invite.record, draw).await?;
    metrics::took(Stage::Insert, since);
    envelope.trace.step("insert", since);
    match opened {
        OpenResult::New(claim) => Ok(Some(claim)),
        OpenResult::Taken => Ok(None),
        OpenResult::Ours(row) => Err(Exit::Pursue(row)),
        OpenResult::Refused(outcome) => Err(Exit::stored(invite.record.group, &outcome)),
    }
}

impl Invite {
    /// Draws a key and a token for the session. `nth` counts the draws before this one.
    fn draw(&self, nth: u32) -> NewSession {
        let options = &self.group.options;
        let (key, token) = (SessionKey::draw(options.key_length, nth), Token::draw());
        let values = TemplateValues { key: &key, token: &token, group: self.group.id };
        NewSession {
            text: self.group.wording.render(&values),
            key,
            token,
            phone: self.phone.clone(),
            ttl: options.session_ttl,
            sender: self.from_number.clone(),
            hashes: self.hashes,
            per_number: options.per_number,
            first_step: self.first_step,
        }
    }
}

/// Leaves `run` with the row that owns the message id, unless the id is free again.
async fn ensure_free_again(ctx: &Context, record: &RequestRecord) -> Result<(), Exit> {
    match ctx.sessions.repeat(record).await? {
        Some(duplicate) => Err(repeat(ctx, record, duplicate).await?),
        None => Ok(()),
    }
}

/// Checks again that the text may go out: the database may have been slow. If it may not, this worker surely does not hand
/// it over, and records that for the next worker.
async fn confirm(
    ctx: &Context,
    envelope: &Envelope,
    extent: Extent,
    ready: ReadyClaim,
) -> Result<ReadyClaim, Exit> {
    let not_handed_over = ClaimResult::Waiting { after: Duration::ZERO };
    if !extent.is_whole() {
        // Worked alone up to here, the message did not end the process. A retry copy waits for the provider, so that no other
        // message waits for this one.
        return Err(match ctx.sessions.record(ready.claim, not_handed_over, None).await? {
            Continuation::Later(resume) => Exit::Verdict(Verdict::Later(resume)),
            Continuation::Outcome(_) | Continuation::Lost => Exit::Trouble(Trouble::Stopping),
        });
    }
    if let Err(withdrawn) = envelope.ensure_not_withdrawn() {
        // Another worker may have had the message before this row was there.
        ctx.sessions.record(ready.claim, not_handed_over, None).await?;
        return Err(withdrawn.into());
    }
    if is_too_old(ctx, envelope) {
        let (id, group) = (ready.claim.id, ready.claim.group);
        return Err(match ctx.sessions.record(ready.claim, ClaimResult::Refused(too_late()), None).await? {
            Continuation::Outcome(outcome) => Exit::stored(group, &outcome),
            Continuation::Later(_) | Continuation::Lost => {
                Exit::Pursue(Box::new(ctx.sessions.reread(id).await?))
            }
        });
    }
    Ok(ready)
}

/// Makes the first try. If another worker has claimed the row meanwhile, the row decides what comes next.
async fn hand_over(ctx: &Context, envelope: &Envelope, ready: ReadyClaim) -> Result<Verdict, Exit> {
    let ReadyClaim { group, permit, claim } = ready;
    let id = claim.id;
    match try_once(ctx, envelope, permit, claim, &group).await? {
        Some(verdict) => Ok(verdict),
        None => Err(Exit::Pursue(Box::new(ctx.sessions.reread(id).await?))),
    }
}

fn is_too_old(ctx: &Context, envelope: &Envelope) -> bool {
    envelope.expired_in_queue || TimeLeft::of(&ctx.age, envelope).deadline.is_some_and(|left| left.is_zero())
}

/// How much time an invite has left. `None` is no limit.
struct TimeLeft {
    /// Until the invite is too old: the earlier of its own limit and the operator's.
    deadline: Option<Duration>,
    /// Until the request's own expiration.
    expiration: Option<Duration>,
}

impl TimeLeft {
    /// The operator's limit holds only for a request with a timestamp: without one, its age is unknown.
    fn of(limits: &AgeLimits, envelope: &Envelope) -> Self {
        // The clock is read only for a request with a timestamp, as that costs time.
        let age = envelope.timestamp.and_then(|_| envelope.age(SystemTime::now()));
        let max_age = age.map(|age| limits.max_age.saturating_sub(age));
        let expiration = until_expiration(envelope, age);
        Self { deadline: [expiration, max_age].into_iter().flatten().min(), expiration }
    }
}

/// The expiration counts from the request's timestamp or, without one, from its arrival.
fn until_expiration(envelope: &Envelope, age: Option<Duration>) -> Option<Duration> {
    let limit = envelope.expiration_limit()?;
    let since_arrival = || envelope.received.map(|at| at.elapsed()).unwrap_or_default();
    Some(limit.saturating_sub(age.unwrap_or_else(since_arrival)))
}
