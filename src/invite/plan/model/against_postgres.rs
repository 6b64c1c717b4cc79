//! The model's copies of the statements (`sql.rs`) against the statements themselves: each pair runs on the same rows, and
//! must leave equal rows and return equal results.
//!
//! The rows are all combinations, within the model's domain, of the values that the statements' conditions compare: the
//! states of a row, its fence, and each time before, at and after the present. So a changed condition on either side decides
//! differently for some row.
//!
//! Everything runs on one connection and in one transaction. In it `now()` does not move, so times are compared exactly.

use super::{
    DEFAULT_BOUNDS,
    clock::{MARGIN, TIMEOUT, Time},
    row::{ModelCode, ModelReply, ModelRow},
    sql,
    world::{ModelState, RowSnapshot},
};
use crate::{
    group::tests::with_database,
    group_id::GroupId,
    optouts::PhoneHashes,
    phone::PhoneNumber,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sessions::{
        Claim, ClaimResult, ClaimTimes, FirstStep, Losses, NewSession, Recipient, ReportResult,
        RequestRecord, SendPermission, SessionRow, Status, TextReport, TextState,
        bare_statements::{
            InsertResult, InsertStatement, NewRow, RecordStatement, RowLookup, Statement, claim, find,
            may_send, note, record_miss, sweep,
        },
        ledger_entry,
    },
};
use sqlx::{PgPool, Row as _, postgres::PgPoolOptions, types::Json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use time::OffsetDateTime;
use uuid::Uuid;

/// The model's time at the database's `now()`.
const NOW: Time = 50;
/// The groups of the rows: one is on, the other is switched off.
const ON: i64 = 72;
const OFF: i64 = 73;
/// The fence of the row as the worker has read it.
const READ_FENCE: u8 = 1;
const RECIPIENT: Recipient<'static> =
    Recipient { sender: "+15005550006", hashes: PhoneHashes { own: [7; 32], twin: None } };

/// The states of a row: each combination that the statements write.
const STATES: &[(Status, TextState, Option<ModelCode>, bool)] = &[
    (Status::Sending, TextState::Begun, None, false),
    (Status::Sending, TextState::Waiting, None, false),
    (Status::Sending, TextState::Unknown, None, false),
    (Status::Sent, TextState::Accepted, None, true),
    // Accepted after its outcome was `unknown`.
    (Status::Sent, TextState::Accepted, Some(ModelCode::Unknown), true),
    (Status::Unknown, TextState::Unknown, Some(ModelCode::Unknown), false),
    (Status::Rejected, TextState::Refused, Some(ModelCode::Rejected), false),
    // Refused before it had a session: no try, and no text state in the database.
    (Status::Failed, TextState::Refused, Some(ModelCode::Expired), false),
];

fn times() -> ClaimTimes {
    ClaimTimes { ends: span(MARGIN + TIMEOUT), settle: span(DEFAULT_BOUNDS.settle) }
}

fn span(time: Time) -> Duration {
    Duration::from_secs(time.unsigned_abs().into())
}

/// Every combination of the values that conditions compare. The other columns take their values in turn.
fn rows() -> Vec<ModelRow> {
    let around = [NOW - 1, NOW, NOW + 1];
    let leases = [None, Some(NOW - 1), Some(NOW), Some(NOW + 1)];
    let mut rows = Vec::new();
    for &(status, text_state, error, sid) in STATES {
        for (fence, unsettled) in [(0, false), (READ_FENCE, false), (READ_FENCE, true), (2, true)] {
            for (lease_until, expires_at) in leases.into_iter().flat_map(|until| around.map(|at| (until, at)))
            {
                let n = rows.len();
                let looks = [0, 1, 2][n / 5 % 3];
                rows.push(ModelRow {
                    status,
                    text_state,
                    fence,
                    attempts: if status == Status::Failed { 0 } else { [5, 6][n / 2 % 2] },
                    looks,
                    looked_at: (looks > 0).then_some(NOW - 1),
                    unsettled,
                    abandoned: [0, 1][n / 7 % 2],
                    unsure_from: around[n / 3 % 3],
                    lease_until,
                    expires_at,
                    deadline_at: [None, Some(NOW - 1), Some(NOW + 2)][n / 4 % 3],
                    error,
                    sid,
                });
            }
        }
    }
    rows
}

fn state(row: ModelRow) -> ModelState {
    ModelState { now: NOW, row: Some(row), ..ModelState::start(&DEFAULT_BOUNDS) }
}

/// A connection within a transaction that is never committed.
struct Database {
    pool: PgPool,
    now: OffsetDateTime,
}

impl Database {
    async fn begin(pool: &PgPool) -> Self {
        let options = (*pool.connect_options()).clone();
        // The only connection, so that each statement runs in the transaction.
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        sqlx::raw_sql("begin").execute(&pool).await.unwrap();
        sqlx::query(
            "insert into groups (id, enabled, template) values ($1, true, '{key}'), ($2, false, '{key}')",
        )
        .bind(ON)
        .bind(OFF)
        .execute(&pool)
        .await
        .unwrap();
        let now = sqlx::query_scalar("select now()").fetch_one(&pool).await.unwrap();
        Self { pool, now }
    }

    /// Replaces all rows. Returns the id of each.
    async fn fill(&self, group: i64, rows: &[ModelRow]) -> Vec<Uuid> {
        sqlx::query("delete from sessions").execute(&self.pool).await.unwrap();
        let ids: Vec<Uuid> = rows.iter().map(|_| Uuid::now_v7()).collect();
        let columns: Vec<_> =
            ids.iter().zip(rows).enumerate().map(|(n, (id, row))| columns(n, *id, row)).collect();
        sqlx::query(
            "insert into sessions (id, group_id, status, text_state, fence, ticket, attempts, looks, looked_at, unsettled,
                                   abandoned, unsure_from, lease_until, expires_at, due_at, deadline_at, error, error_code,
                                   provider_message_id, session_key, key_held, token, phone, invitation_text, message_id,
                                   owns_message_id, requested_by)
             select r.id, $2, r.status, r.text_state, r.fence, gen_random_uuid(), r.attempts, r.looks,
                    now() + make_interval(secs => r.looked_at), r.unsettled, r.abandoned,
                    now() + make_interval(secs => r.unsure_from), now() + make_interval(secs => r.lease_until),
                    now() + make_interval(secs => r.expires_at), now() + make_interval(secs => r.expires_at),
                    now() + make_interval(secs => r.deadline_at), r.error, r.error->>'code', r.sid, r.key, r.key is not null,
                    r.token, '+11110000000', 'code ' || r.key, r.message_id, true, 'gkey:12345'
               from jsonb_to_recordset($1) as r (
                    id uuid, status text, text_state text, fence bigint, attempts int, looks int, looked_at float8,
                    unsettled bool, abandoned int, unsure_from float8, lease_until float8, expires_at float8,
                    deadline_at float8, error jsonb, sid text, key text, token text, message_id text)",
        )
        .bind(Json(columns))
        .bind(group)
        .execute(&self.pool)
        .await
        .unwrap();
        ids
    }

    /// All rows, as the model has them. `now` is the model's time at the database's `now()`.
    async fn read(&self, now: Time) -> HashMap<Uuid, ModelRow> {
        let rows = sqlx::query(
            "select id, status, coalesce(text_state, 'refused') as text_state, fence, attempts, looks, unsettled, abandoned,
                    extract(epoch from looked_at - now())::float8 as looked_at,
                    -- Null for a request that was refused before it had a session; no statement reads it there.
                    extract(epoch from unsure_from - now())::float8 as unsure_from,
                    extract(epoch from expires_at - now())::float8 as expires_at,
                    extract(epoch from lease_until - now())::float8 as lease_until,
                    extract(epoch from deadline_at - now())::float8 as deadline_at,
                    error, provider_message_id is not null as sid
               from sessions",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let time = |row: &sqlx::postgres::PgRow, column: &str| {
            row.get::<Option<f64>, _>(column).map(|seconds| now + whole(seconds))
        };
        let small = |number: i32| u8::try_from(number).unwrap();
        let read = |row: &sqlx::postgres::PgRow| ModelRow {
            status: row.get("status"),
            text_state: row.get("text_state"),
            fence: u8::try_from(row.get::<i64, _>("fence")).unwrap(),
            attempts: small(row.get("attempts")),
            looks: small(row.get("looks")),
            looked_at: time(row, "looked_at"),
            unsettled: row.get("unsettled"),
            abandoned: small(row.get("abandoned")),
            unsure_from: time(row, "unsure_from").unwrap_or_default(),
            lease_until: time(row, "lease_until"),
            expires_at: time(row, "expires_at").unwrap_or_default(),
            deadline_at: time(row, "deadline_at"),
            error: row.get::<Option<Json<Refusal>>, _>("error").map(|Json(refusal)| ModelCode::of(&refusal)),
            sid: row.get("sid"),
        };
        rows.iter().map(|row| (row.get("id"), read(row))).collect()
    }

    /// Compares all rows with the model's.
    async fn expect(&self, ids: &[Uuid], before: &[ModelRow], after: &[ModelRow], statement: &str) {
        let stored = self.read(NOW).await;
        for ((id, before), after) in ids.iter().zip(before).zip(after) {
            assert_eq!(
                stored[id], *after,
                "{statement}: the database's row and the model's, from {before:?}"
            );
        }
    }
}

/// A row's columns as JSON, with times in seconds from now.
fn columns(n: usize, id: Uuid, row: &ModelRow) -> serde_json::Value {
    let from_now = |at: Time| f64::from(at - NOW);
    // As `record` leaves it: surely no text, so it has no key and no token.
    let has_key = !matches!(row.status, Status::Rejected | Status::Failed);
    serde_json::json!({
        "id": id,
        "status": row.status,
        "text_state": (row.attempts > 0).then_some(row.text_state),
        "fence": row.fence,
        "attempts": row.attempts,
        "looks": row.looks,
        "looked_at": row.looked_at.map(from_now),
        "unsettled": row.unsettled,
        "abandoned": row.abandoned,
        "unsure_from": from_now(row.unsure_from),
        "lease_until": row.lease_until.map(from_now),
        "expires_at": from_now(row.expires_at),
        "deadline_at": row.deadline_at.map(from_now),
        "error": row.error.map(ModelCode::refusal),
        "sid": row.sid.then_some("SM1"),
        "key": has_key.then(|| format!("{n:08}")),
        "token": has_key.then(|| format!("t{n:015}")),
        "message_id": format!("m{n}"),
    })
}

fn whole(seconds: f64) -> Time {
    assert!(seconds.fract() == 0.0 && seconds.abs() < 100.0, "{seconds} s");
    #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
    let whole = seconds as Time;
    whole
}

/// What a worker has read of a row, before another may have claimed it.
fn read_before(id: Uuid, row: &ModelRow) -> SessionRow {
    SessionRow { id, ..ModelRow { fence: READ_FENCE, ..*row }.session_row(NOW) }
}

fn snapshot(read: &SessionRow) -> RowSnapshot {
    let small = |number: i32| u8::try_from(number).unwrap();
    RowSnapshot {
        fence: READ_FENCE,
        attempts: small(read.attempts),
        looks: small(read.looks),
        unsettled: read.unsettled,
        may_have_been_taken: read.may_have_been_taken(),
        abandoned: small(read.abandoned + i32::from(read.is_abandoned())),
        at: NOW - 1,
    }
}

#[tokio::test]
async fn find_matches_the_model() {
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        let rows = rows();
        for (id, row) in database.fill(ON, &rows).await.into_iter().zip(rows) {
            let read = find(&database.pool, RowLookup::Id(id), times().settle).await.unwrap().unwrap();
            assert_eq!(deciding(&read), deciding(&row.session_row(NOW)), "find: {row:?}");
            assert_eq!(
                read.outcome().map(|outcome| ModelReply::of(&outcome)),
                state(row).outcome(),
                "{row:?}"
            );
        }
    })
    .await;
}

/// What `next_step` and the claims depend on.
fn deciding(row: &SessionRow) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (
            row.status,
            row.text_state.unwrap_or(TextState::Refused),
            row.fence,
            row.attempts,
            row.looks,
            row.unsettled,
            row.abandoned,
        ),
        (row.lease_left, row.unsure_for, row.looked_ago, row.session_left, row.deadline_left),
        (row.error.as_ref().map(|Json(refusal)| refusal.code), row.provider_message_id.is_some()),
    )
}

#[tokio::test]
async fn insert_matches_the_model() {
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        let taken: Vec<Option<ModelRow>> =
            std::iter::once(None).chain(rows().into_iter().step_by(17).map(Some)).collect();
        let whys = [None, Some(ModelCode::Expired), Some(ModelCode::SwitchedOff)];
        for (n, row) in taken.into_iter().enumerate() {
            for (why, deadline) in whys.into_iter().flat_map(|why| [None, Some(3)].map(|left| (why, left))) {
                database.fill(ON, row.as_slice()).await;
                let mut model = ModelState {
                    now: NOW,
                    deadline: deadline.map(|left| NOW + left),
                    row,
                    ..ModelState::start(&DEFAULT_BOUNDS)
                };
                let inserted = match why {
                    None => sql::insert(&mut model, &DEFAULT_BOUNDS),
                    Some(why) => sql::insert_refused(&mut model, &DEFAULT_BOUNDS, why),
                };
                let mut connection = database.pool.acquire().await.unwrap();
                let new = new_row(n, why, deadline);
                let result = InsertStatement { times: times(), losses: Losses::none() }
                    .run(&mut connection, &[new])
                    .await
                    .unwrap();
                drop(connection);
                assert_eq!(matches!(result[..], [InsertResult::Written(_)]), inserted, "insert over {row:?}");
                let stored = database.read(model.now).await.into_values().collect::<Vec<_>>();
                let mut expected = model.row.expect("a row");
                if why.is_some() && inserted {
                    // Null in the database.
                    (expected.unsure_from, expected.expires_at) = (0, 0);
                }
                assert_eq!(stored, [expected], "insert of {why:?} over {row:?}");
            }
        }
    })
    .await;
}

/// A row for the message id of the first row, if there is one.
fn new_row(n: usize, why: Option<ModelCode>, deadline: Option<Time>) -> NewRow {
    let phone = PhoneNumber::from_e164("+11110000000").unwrap();
    let request = RequestRecord {
        message_id: Some("m0".to_owned()),
        phone: Some(phone.clone()),
        deadline: deadline.map(span),
        ..RequestRecord::new(GroupId::new(ON).unwrap(), "gkey:12345".to_owned())
    };
    let id = Uuid::now_v7();
    if let Some(why) = why {
        NewRow::refusal(id, &request, &why.refusal())
    } else {
        let session = NewSession {
            key: SessionKey::parse(&format!("9{n:08}")).unwrap(),
            token: Token::draw(),
            text: "code".to_owned().into(),
            phone,
            ttl: span(DEFAULT_BOUNDS.ttl),
            sender: RECIPIENT.sender.into(),
            hashes: RECIPIENT.hashes,
            per_number: None,
            first_step: FirstStep::Try,
        };
        NewRow::session(id, &request, &session)
    }
}

#[tokio::test]
async fn claim_matches_the_model() {
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        for group in [ON, OFF] {
            let (before, mut after) = (rows(), Vec::new());
            let ids = database.fill(group, &before).await;
            let row = SessionRow { group_id: GroupId::new(group).unwrap(), ..before[0].session_row(NOW) };
            // The model's worker claims only for a group that is on.
            let permission = may_send(&database.pool, &row, &RECIPIENT).await.unwrap();
            assert_eq!(permission == SendPermission::Granted, group == ON);
            for (id, row) in ids.iter().zip(&before) {
                let read = read_before(*id, row);
                let mut model = ModelState { switched_off: group == OFF, ..state(*row) };
                let expected = sql::claim(&mut model, snapshot(&read), NOW + MARGIN, &DEFAULT_BOUNDS);
                // Twice, as after a lost connection: the second run returns the same and changes nothing.
                for _ in 0..2 {
                    let mut connection = database.pool.acquire().await.unwrap();
                    // The model names a claim by the number of its try. No other row here has that fence.
                    let fence = i64::from(read.attempts + 1);
                    let limits = claim(&mut connection, &read, &RECIPIENT, fence, times()).await.unwrap();
                    assert_eq!(limits.is_some(), expected.is_some(), "claim in group {group}: {row:?}");
                    if let (Some(limits), Some(held)) = (limits, expected) {
                        let claim = Claim::of_row(&read, fence, Instant::now(), &limits).unwrap();
                        let model = (i32::from(held.attempts), held.unsettled);
                        assert_eq!((claim.attempts, claim.unsettled), model, "claim: {row:?}");
                    }
                }
                after.push(model.row.expect("a row"));
            }
            database.expect(&ids, &before, &after, "claim").await;
        }
    })
    .await;
}

#[tokio::test]
async fn record_matches_the_model() {
    let refused = |why: ModelCode| ClaimResult::Refused(why.refusal());
    let results = [
        ClaimResult::Accepted { provider_message_id: "SM1".to_owned() },
        refused(ModelCode::Rejected),
        refused(ModelCode::Unavailable),
        ClaimResult::Unknown(ModelCode::Unknown.refusal()),
        ClaimResult::Waiting { after: span(5) },
        ClaimResult::Unsure { rest: span(2), again: span(1) },
    ];
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        for result in results {
            let (before, mut after) = (rows(), Vec::new());
            let ids = database.fill(ON, &before).await;
            let entries: Vec<_> =
                ids.iter().map(|id| ledger_entry(*id, READ_FENCE.into(), &result)).collect();
            let mut answers = Vec::new();
            for part in entries.chunks(256) {
                let mut connection = database.pool.acquire().await.unwrap();
                answers.extend(RecordStatement.run(&mut connection, part).await.unwrap());
            }
            for (row, answer) in before.iter().zip(answers) {
                let mut model = *row;
                let recorded = sql::record(&mut model, sql::entry(READ_FENCE, &result), NOW, &DEFAULT_BOUNDS);
                assert_eq!(answer, recorded, "record of {result:?}: {row:?}");
                after.push(model);
            }
            database.expect(&ids, &before, &after, "record").await;
        }
    })
    .await;
}

#[tokio::test]
async fn record_miss_matches_the_model() {
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        let (before, mut after) = (rows(), Vec::new());
        let ids = database.fill(ON, &before).await;
        for (id, row) in ids.iter().zip(&before) {
            let read = SessionRow { read_at: database.now - Duration::from_secs(1), ..read_before(*id, row) };
            record_miss(&database.pool, &read).await.unwrap();
            let mut model = *row;
            sql::missed(&mut model, snapshot(&read), NOW, &DEFAULT_BOUNDS);
            after.push(model);
        }
        database.expect(&ids, &before, &after, "record_miss").await;
    })
    .await;
}

#[tokio::test]
async fn note_matches_the_model() {
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        let (before, mut after) = (rows(), Vec::new());
        let ids = database.fill(ON, &before).await;
        for (id, row) in ids.iter().zip(&before) {
            let result = note(&database.pool, *id, "SM1", TextReport::Accepted, None).await.unwrap();
            let mut model = *row;
            sql::accepted(&mut model);
            assert_eq!(result == ReportResult::Noted, model.sid, "note: {row:?}");
            after.push(model);
        }
        database.expect(&ids, &before, &after, "note").await;
    })
    .await;
}

#[tokio::test]
async fn sweep_matches_the_model() {
    with_database(|pool| async move {
        let database = Database::begin(&pool).await;
        let before = rows();
        let ids = database.fill(ON, &before).await;
        while sweep(&database.pool).await.unwrap() > 0 {}
        let stored = database.read(NOW).await;
        let mut changed = 0;
        for (id, row) in ids.iter().zip(&before) {
            let mut model = *row;
            changed += u32::from(sql::sweep(&mut model, NOW));
            if row.status == Status::Sending {
                assert_eq!(stored[id], model, "sweep: {row:?}");
            } else {
                // It may expire: the model leaves that out, as it changes no outcome.
                assert_eq!(state(stored[id]).outcome(), state(model).outcome(), "sweep: {row:?}");
            }
        }
        assert!(changed > 0);
    })
    .await;
}
