//! The statement that begins an invite's session, or stores its refusal. Safe to repeat.

use super::{
    batch::Statement,
    claim_times::{ClaimTimes, span},
    gate::GateColumns,
    look_first::{LookFirst, Losses},
    new_row::{InsertedRow, NewRow, NewSession},
    refusals::{opted_out, too_many},
    statements::to_json,
    status::TextState,
};
use crate::{
    db::kinds::{self, StatementKind},
    phone::PhoneNumber,
    refusal::Refusal,
    supervise::Task,
    traceparent::TraceParent,
};
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::{
    cmp::Ordering,
    collections::HashMap,
    time::{Duration, Instant},
};
use time::OffsetDateTime;
use uuid::Uuid;

/// The result of one row's insert.
#[derive(Debug, Clone, Copy)]
pub(crate) enum InsertResult {
    Written(InsertedRow),
    /// Its number has opted out of this sender's texts.
    OptedOut,
    /// Its number has had its texts; there is room for one more after `after`.
    TooMany {
        after: Duration,
    },
    /// There is room, but other rows of the same statement may take all of it: to be tried again.
    Crowded,
    /// Its key or message id is taken, or this row is in the table already.
    Conflict,
}

impl InsertResult {
    /// The answer to an invite whose session may not begin.
    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::OptedOut => Some(opted_out()),
            Self::TooMany { after } => Some(too_many(after)),
            Self::Written(_) | Self::Crowded | Self::Conflict => None,
        }
    }
}

/// Inserts rows, and decides in the same statement which sessions may begin.
///
/// It does not see what other workers' statements have not committed yet. So of several workers that begin sessions for one
/// number at the same moment, each may insert as many as there is room for.
#[derive(Debug)]
pub(crate) struct InsertStatement {
    pub(crate) times: ClaimTimes,
    /// Whether the database has lost rows, so that some requests are looked for first.
    pub(crate) losses: Losses,
}

impl Statement for InsertStatement {
    type Row = NewRow;
    type Answer = InsertResult;
    const TASK: Task = Task::InsertSessions;

    fn kind(&self) -> &'static StatementKind {
        &kinds::INSERT_SESSIONS
    }

    fn span(row: &NewRow) -> Option<TraceParent> {
        row.request.span
    }

    /// Two workers may insert the same message ids at once.
    fn order(first: &NewRow, second: &NewRow) -> Ordering {
        let (first, second) = (&first.request, &second.request);
        (first.group.get(), &first.message_id).cmp(&(second.group.get(), &second.message_id))
    }

    async fn acquire(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.losses.rewinds.acquire(pool).await
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        rows: &[NewRow],
    ) -> Result<Vec<InsertResult>, sqlx::Error> {
        let begun = Instant::now();
        let looks: Vec<_> = rows.iter().map(|row| self.losses.look_first(&row.request, self.times)).collect();
        let mut results: HashMap<Uuid, InsertResult> = HashMap::with_capacity(rows.len());
        for output in insert(connection, rows, &looks, self.times).await? {
            let result = match (output.opted_out, output.after, output.ticket) {
                (None, _, Some(ticket)) => InsertResult::Written(InsertedRow {
                    expires_at: output.expires_at,
                    ticket,
                    begun,
                    looks_first: false,
                }),
                (Some(true), ..) => InsertResult::OptedOut,
                (_, Some(after), _) => InsertResult::TooMany { after: span(after) },
                _ => InsertResult::Crowded,
            };
            // If a row has two gates, the opt-out counts before the limit.
            if !matches!(results.get(&output.id), Some(InsertResult::OptedOut)) {
                results.insert(output.id, result);
            }
        }
        let result_of = |(row, look): (&NewRow, &Option<LookFirst>)| {
            let result = results.get(&row.id).copied().unwrap_or(InsertResult::Conflict);
            match result {
                InsertResult::Written(written) => {
                    InsertResult::Written(InsertedRow { looks_first: look.is_some(), ..written })
                }
                other => other,
            }
        };
        Ok(rows.iter().zip(&looks).map(result_of).collect())
    }
}

/// What the statement returns for a row that it wrote, or whose gate is closed.
struct InsertOutput {
    id: Uuid,
    expires_at: Option<time::OffsetDateTime>,
    ticket: Option<Uuid>,
    /// `None` for a row that was written.
    opted_out: Option<bool>,
    after: Option<f64>,
}

/// The statement names the columns once. Its parameters and the values here have the same order. A value that a row does not
/// have is null, and so is a moment without a span.
async fn insert(
    connection: &mut PgConnection,
    rows: &[NewRow],
    looks: &[Option<LookFirst>],
    times: ClaimTimes,
) -> Result<Vec<InsertOutput>, sqlx::Error> {
    let gates = GateColumns::of(rows);
    let (ends, settled): (Vec<_>, Vec<_>) =
        rows.iter().zip(looks).map(|(row, look)| try_ends(row, look.as_ref(), times)).unzip();
    let of_sessions = |times: &[f64]| -> Vec<Option<f64>> {
        rows.iter().zip(times).map(|(row, time)| row.new_session().map(|_| *time)).collect()
    };
    let tries = rows
        .iter()
        .zip(looks)
        .map(|(row, look)| i32::from(row.new_session().is_some() && !row.waits() && look.is_none()));
    let text_states =
        rows.iter().zip(looks).map(|(row, look)| row.text_state(look.is_some()).map(TextState::as_str));
    let ttl = session_column(rows, |session| session.ttl.as_secs_f64());
    sqlx::query_file_as!(
        InsertOutput,
        "src/sessions/insert.sql",
        &gates.ids,
        &gates.groups,
        &gates.phones as &[&str],
        &gates.senders as &[&str],
        &gates.phone_hashes as &[&[u8]],
        &gates.at_most as &[Option<i32>],
        &gates.nth,
        &gates.window as &[Option<f64>],
        &gates.since,
        &column(rows, |row| row.id),
        &column(rows, |row| row.request.group.get()),
        &column(rows, |row| row.status().as_str()) as &[&str],
        &column(rows, |row| row.request.session_type) as &[Option<i32>],
        &column(rows, |row| row.request.session_params.as_str()) as &[&str],
        &column(rows, |row| row.request.phone.as_ref().map(PhoneNumber::as_e164)) as &[Option<&str>],
        &column(rows, |row| row.request.requested_by.as_str()) as &[&str],
        &column(rows, |row| row.request.message_id.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.request.correlation_id.as_deref()) as &[Option<&str>],
        &column(rows, |row| row.request.request_sha256.as_slice()) as &[&[u8]],
        &column(rows, |row| row.owns_message_id && row.request.message_id.is_some()),
        // `acknowledged`: only a row without a message id waits for its acknowledgement.
        &column(rows, |row| row.request.message_id.is_some()),
        &session_column(rows, |session| session.key.as_str()) as &[Option<&str>],
        &column(rows, |row| row.new_session().is_some()),
        &session_column(rows, |session| session.token.as_str()) as &[Option<&str>],
        &session_column(rows, |session| session.text.as_str()) as &[Option<&str>],
        &text_states.collect::<Vec<_>>() as &[Option<&str>],
        &tries.collect::<Vec<_>>(),
        &column(rows, |row| row.refused_with().map(|refusal| refusal.code.as_str())) as &[Option<&str>],
        &column(rows, |row| row.refused_with().map(to_json)) as &[Option<String>],
        &ttl as &[Option<f64>],
        &ttl as &[Option<f64>],
        &column(rows, |row| row.request.deadline.map(|left| left.as_secs_f64())) as &[Option<f64>],
        &column(rows, |row| row.request.own_limit.map(|left| left.as_secs_f64())) as &[Option<f64>],
        &of_sessions(&ends) as &[Option<f64>],
        &of_sessions(&settled) as &[Option<f64>],
        // A refused request has ended with its row.
        &column(rows, |row| row.refused_with().map(|_| 0.0)) as &[Option<f64>],
        &column(rows, |row| row.request.reply_to.as_deref()) as &[Option<&str>],
        &looks.iter().map(|look| look.as_ref().map(|look| look.since)).collect::<Vec<_>>()
            as &[Option<OffsetDateTime>],
        &column(rows, |row| row.request.published.map(OffsetDateTime::from)) as &[Option<OffsetDateTime>],
        &column(rows, |row| row.request.traceparent.map(|trace| trace.to_string())) as &[Option<String>],
    )
    .fetch_all(connection)
    .await
}

/// In how many seconds the first try has surely ended, and the provider's list shows its text. A row that is looked for first
/// begins as one whose last try has ended, or will end; one that waits, as one whose wait is over.
fn try_ends(row: &NewRow, look: Option<&LookFirst>, times: ClaimTimes) -> (f64, f64) {
    let (ends, settle) = (times.ends.as_secs_f64(), times.settle.as_secs_f64());
    match look {
        Some(look) => (look.tries_end_in, look.tries_end_in + settle),
        None if row.waits() => (0.0, 0.0),
        None => (ends, ends + settle),
    }
}

/// A column's values, one for each row.
fn column<'a, T>(rows: &'a [NewRow], value: impl Fn(&'a NewRow) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A column that only rows with a session have.
fn session_column<'a, T>(rows: &'a [NewRow], value: impl Fn(&'a NewSession) -> T) -> Vec<Option<T>> {
    rows.iter().map(|row| row.new_session().map(&value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        group::tests::with_database,
        group_id::GroupId,
        optouts::PhoneHashes,
        rate_limit::RateLimit,
        session_key::{SessionKey, Token},
        sessions::new_row::{FirstStep, RequestRecord, RowContent},
    };
    use std::time::Duration;

    async fn insert(connection: &mut PgConnection, rows: &[NewRow]) -> Vec<InsertResult> {
        let times = ClaimTimes { ends: Duration::from_secs(20), settle: Duration::from_secs(30) };
        InsertStatement { times, losses: Losses::none() }.run(connection, rows).await.unwrap()
    }

    fn row(n: usize, phone: &str, at_most: u32) -> NewRow {
        let phone = PhoneNumber::from_e164(phone).unwrap();
        let group = GroupId::new(72).unwrap();
        NewRow {
            id: Uuid::now_v7(),
            request: RequestRecord {
                message_id: Some(format!("m{n}")),
                session_type: Some(1),
                phone: Some(phone.clone()),
                ..RequestRecord::new(group, "gkey:12345".to_owned())
            },
            owns_message_id: true,
            content: RowContent::Session(NewSession {
                key: SessionKey::parse(&format!("{n:06}")).unwrap(),
                token: Token::draw(),
                text: "a text".to_owned().into(),
                phone,
                ttl: Duration::from_mins(10),
                sender: "+15005550006".into(),
                hashes: PhoneHashes { own: [7; 32], twin: None },
                per_number: (at_most > 0)
                    .then_some(RateLimit { count: at_most, window: Duration::from_hours(1) }),
                first_step: FirstStep::Try,
            }),
        }
    }

    fn letters(results: &[InsertResult]) -> String {
        let letter = |result: &InsertResult| match result {
            InsertResult::Written(_) => 'w',
            InsertResult::Crowded => 'c',
            InsertResult::TooMany { .. } => 't',
            InsertResult::OptedOut => 'o',
            InsertResult::Conflict => 'n',
        };
        results.iter().map(letter).collect()
    }

    #[tokio::test]
    async fn one_statement_begins_as_many_sessions_as_there_is_room_for_and_is_safe_to_repeat() {
        with_database(|pool| async move {
            let mut connection = pool.acquire().await.unwrap();
            let rows: Vec<_> = (0..5).map(|n| row(n, "+12015550100", 3)).collect();
            assert_eq!(letters(&insert(&mut connection, &rows).await), "wwwcc");
            // As after a lost connection: each row is found in the table as soon as it is tried alone.
            assert_eq!(letters(&insert(&mut connection, &rows).await), "ncctt");
            for (own, expected) in rows.iter().zip(["n", "n", "n", "t", "t"]) {
                assert_eq!(letters(&insert(&mut connection, std::slice::from_ref(own)).await), expected);
            }
            // A row without a limit, or with another number, counts on its own.
            let others = [row(10, "+12015550100", 0), row(11, "+12015550101", 3)];
            assert_eq!(letters(&insert(&mut connection, &others).await), "ww");
            let last = row(12, "+12015550100", 5);
            assert_eq!(letters(&insert(&mut connection, std::slice::from_ref(&last)).await), "w");
            let after = insert(&mut connection, &[row(13, "+12015550100", 5)]).await;
            let [InsertResult::TooMany { after }] = after[..] else { panic!("{after:?}") };
            assert!(after > Duration::from_secs(3_500) && after <= Duration::from_hours(1), "{after:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn an_opt_out_counts_for_its_sender_or_for_any_and_before_the_limit() {
        with_database(|pool| async move {
            let mut connection = pool.acquire().await.unwrap();
            for (sender, expected) in [("MG1", "w"), ("+15005550006", "o"), ("*", "o")] {
                sqlx::query("delete from optouts").execute(&mut *connection).await.unwrap();
                sqlx::query("insert into optouts (phone_hash, sender, last_digits, source) values ($1, $2, '00', 'command')")
                    .bind([7_u8; 32].as_slice())
                    .bind(sender)
                    .execute(&mut *connection)
                    .await
                    .unwrap();
                let rows = [row(0, "+12015550100", 1)];
                assert_eq!(letters(&insert(&mut connection, &rows).await), expected, "{sender}");
                // The same if the opt-out is for the other way of writing the number.
                let full = if expected == "w" { "t" } else { expected };
                for (n, expected) in [(1, expected), (2, full)] {
                    let mut row = row(n, "+12015550101", 1);
                    let RowContent::Session(session) = &mut row.content else { unreachable!() };
                    session.hashes = PhoneHashes { own: [8; 32], twin: Some([7; 32]) };
                    assert_eq!(letters(&insert(&mut connection, &[row]).await), expected, "{sender} {n}");
                }
            }
        })
        .await;
    }
}
