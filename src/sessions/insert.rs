//! The statement that an invite begins with, or is refused by. Safe to repeat.

use super::{
    batch::Statement,
    claim::span,
    gate::{self, GateColumns},
    new_row::{InsertedRow, NewRow, NewSession},
    statements::{ClaimTimes, to_json},
    status::TextState,
};
use crate::{
    db::kinds::{self, Kind},
    phone::PhoneNumber,
    refusal::Refusal,
    supervise::Task,
};
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// What became of a row.
#[derive(Debug, Clone, Copy)]
pub enum InsertResult {
    Written(InsertedRow),
    /// Its number wants no texts from this sender.
    OptedOut,
    /// Its number has had its texts; after that there is room for one more.
    TooMany {
        after: Duration,
    },
    /// There is room, but others of the same statement may take all of it: to be asked again.
    Crowded,
    /// Its key or message id is taken, or it is there already.
    Conflict,
}

impl InsertResult {
    /// The answer to an invite whose session may not begin.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::OptedOut => Some(gate::opted_out()),
            Self::TooMany { after } => Some(gate::too_many(after)),
            Self::Written(_) | Self::Crowded | Self::Conflict => None,
        }
    }
}

/// Inserts rows, and decides in the same statement which sessions may begin.
///
/// What other workers' statements have not committed yet, it does not see: of several workers that begin sessions for one
/// number at the same moment, each may let as many pass as there is room for.
#[derive(Debug)]
pub struct Insert {
    pub times: ClaimTimes,
}

impl Statement for Insert {
    type Row = NewRow;
    type Answer = InsertResult;
    const TASK: Task = Task::InsertSessions;

    fn kind(&self) -> &'static Kind {
        &kinds::INSERT_SESSIONS
    }

    async fn run(&self, line: &mut PgConnection, rows: &[NewRow]) -> Result<Vec<InsertResult>, sqlx::Error> {
        let begun = Instant::now();
        let mut results: HashMap<Uuid, InsertResult> = HashMap::with_capacity(rows.len());
        for answer in insert(line, rows, self.times).await? {
            let result = match (answer.opted_out, answer.after, answer.ticket) {
                (None, _, Some(ticket)) => {
                    InsertResult::Written(InsertedRow { expires_at: answer.expires_at, ticket, begun })
                }
                (Some(true), ..) => InsertResult::OptedOut,
                (_, Some(after), _) => InsertResult::TooMany { after: span(after) },
                _ => InsertResult::Crowded,
            };
            // Of a row with two gates, the opt-out counts before the limit.
            if !matches!(results.get(&answer.id), Some(InsertResult::OptedOut)) {
                results.insert(answer.id, result);
            }
        }
        let of = |row: &NewRow| results.get(&row.id).copied().unwrap_or(InsertResult::Conflict);
        Ok(rows.iter().map(of).collect())
    }
}

/// What the statement says of a row that it wrote, or whose gate it found closed.
struct InsertOutput {
    id: Uuid,
    expires_at: Option<time::OffsetDateTime>,
    ticket: Option<Uuid>,
    /// `None` for a row that it wrote.
    opted_out: Option<bool>,
    after: Option<f64>,
}

/// The columns stand in the statement once, as names; their values stand there and here, in the same order. A value that a
/// row does not have is null, and so is a moment of which no span is given.
async fn insert(
    line: &mut PgConnection,
    rows: &[NewRow],
    times: ClaimTimes,
) -> Result<Vec<InsertOutput>, sqlx::Error> {
    let gates = GateColumns::of(rows);
    let (ends, settled) = (times.ends.as_secs_f64(), (times.ends + times.settle).as_secs_f64());
    let ttl = of_sessions(rows, |session| session.ttl.as_secs_f64());
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
        &of(rows, |row| row.id),
        &of(rows, |row| row.request.group.get()),
        &of(rows, |row| row.status().as_str()) as &[&str],
        &of(rows, |row| row.request.session_type) as &[Option<i32>],
        &of(rows, |row| row.request.session_params.as_str()) as &[&str],
        &of(rows, |row| row.request.phone.as_ref().map(PhoneNumber::as_e164)) as &[Option<&str>],
        &of(rows, |row| row.request.requested_by.as_str()) as &[&str],
        &of(rows, |row| row.request.message_id.as_deref()) as &[Option<&str>],
        &of(rows, |row| row.request.correlation_id.as_deref()) as &[Option<&str>],
        &of(rows, |row| row.request.request_sha256.as_slice()) as &[&[u8]],
        &of(rows, |row| row.owns_message_id && row.request.message_id.is_some()),
        // Only such a row waits for its acknowledgement.
        &of(rows, |row| row.request.message_id.is_some()),
        &of_sessions(rows, |session| session.key.as_str()) as &[Option<&str>],
        &of(rows, |row| row.session().is_some()),
        &of_sessions(rows, |session| session.token.as_str()) as &[Option<&str>],
        &of_sessions(rows, |session| session.text.as_str()) as &[Option<&str>],
        &of(rows, |row| row.text_state().map(TextState::as_str)) as &[Option<&str>],
        &of(rows, |row| i32::from(row.session().is_some())),
        &of(rows, |row| row.refusal().map(|refusal| refusal.code.as_str())) as &[Option<&str>],
        &of(rows, |row| row.refusal().map(to_json)) as &[Option<String>],
        &ttl as &[Option<f64>],
        &ttl as &[Option<f64>],
        &of(rows, |row| row.request.deadline.map(|left| left.as_secs_f64())) as &[Option<f64>],
        &of(rows, |row| row.request.own_limit.map(|left| left.as_secs_f64())) as &[Option<f64>],
        &of_sessions(rows, |_| ends) as &[Option<f64>],
        &of_sessions(rows, |_| settled) as &[Option<f64>],
        // A refused request has ended with its row.
        &of(rows, |row| row.refusal().map(|_| 0.0)) as &[Option<f64>],
    )
    .fetch_all(line)
    .await
}

/// A column: of each row.
fn of<'a, T>(rows: &'a [NewRow], value: impl Fn(&'a NewRow) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A column that only rows have that begin a session.
fn of_sessions<'a, T>(rows: &'a [NewRow], value: impl Fn(&'a NewSession) -> T) -> Vec<Option<T>> {
    rows.iter().map(|row| row.session().map(&value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        group::tests::with_database,
        group_id::GroupId,
        optouts::Hashes,
        rate_limit::RateLimit,
        session_key::{SessionKey, Token},
        sessions::RequestRecord,
    };
    use std::time::Duration;

    const INSERT: Insert =
        Insert { times: ClaimTimes { ends: Duration::from_secs(20), settle: Duration::from_secs(30) } };

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
            content: Ok(NewSession {
                key: SessionKey::parse(&format!("{n:06}")).unwrap(),
                token: Token::draw(),
                text: "a text".to_owned().into(),
                phone,
                ttl: Duration::from_mins(10),
                sender: "+15005550006".into(),
                hashes: Hashes { own: [7; 32], twin: None },
                per_number: (at_most > 0)
                    .then_some(RateLimit { count: at_most, window: Duration::from_hours(1) }),
            }),
        }
    }

    fn told(answers: &[InsertResult]) -> String {
        let letter = |answer: &InsertResult| match answer {
            InsertResult::Written(_) => 'w',
            InsertResult::Crowded => 'c',
            InsertResult::TooMany { .. } => 't',
            InsertResult::OptedOut => 'o',
            InsertResult::Conflict => 'n',
        };
        answers.iter().map(letter).collect()
    }

    #[tokio::test]
    async fn of_one_statement_as_many_begin_as_there_is_room_for_and_it_is_safe_to_repeat() {
        with_database(|pool| async move {
            let mut line = pool.acquire().await.unwrap();
            let rows: Vec<_> = (0..5).map(|n| row(n, "+12015550100", 3)).collect();
            assert_eq!(told(&INSERT.run(&mut line, &rows).await.unwrap()), "wwwcc");
            // As after a lost connection: each finds that it is there, as soon as it is asked about alone.
            assert_eq!(told(&INSERT.run(&mut line, &rows).await.unwrap()), "ncctt");
            for (own, expected) in rows.iter().zip(["n", "n", "n", "t", "t"]) {
                assert_eq!(told(&INSERT.run(&mut line, std::slice::from_ref(own)).await.unwrap()), expected);
            }
            // Whoever has no limit, or another number, is not counted against.
            let others = [row(10, "+12015550100", 0), row(11, "+12015550101", 3)];
            assert_eq!(told(&INSERT.run(&mut line, &others).await.unwrap()), "ww");
            let last = row(12, "+12015550100", 5);
            assert_eq!(told(&INSERT.run(&mut line, std::slice::from_ref(&last)).await.unwrap()), "w");
            let after = INSERT.run(&mut line, &[row(13, "+12015550100", 5)]).await.unwrap();
            let [InsertResult::TooMany { after }] = after[..] else { panic!("{after:?}") };
            assert!(after > Duration::from_secs(3_590) && after <= Duration::from_hours(1), "{after:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn an_opt_out_counts_for_its_sender_or_for_any_and_before_the_limit() {
        with_database(|pool| async move {
            let mut line = pool.acquire().await.unwrap();
            for (sender, expected) in [("MG1", "w"), ("+15005550006", "o"), ("*", "o")] {
                sqlx::query("delete from optouts").execute(&mut *line).await.unwrap();
                sqlx::query("insert into optouts (phone_hash, sender, last_digits, source) values ($1, $2, '00', 'command')")
                    .bind([7_u8; 32].as_slice())
                    .bind(sender)
                    .execute(&mut *line)
                    .await
                    .unwrap();
                let rows = [row(0, "+12015550100", 1)];
                assert_eq!(told(&INSERT.run(&mut line, &rows).await.unwrap()), expected, "{sender}");
                // Likewise where it stands under the other way of writing the number.
                let full = if expected == "w" { "t" } else { expected };
                for (n, expected) in [(1, expected), (2, full)] {
                    let mut row = row(n, "+12015550101", 1);
                    row.content.as_mut().unwrap().hashes = Hashes { own: [8; 32], twin: Some([7; 32]) };
                    assert_eq!(told(&INSERT.run(&mut line, &[row]).await.unwrap()), expected, "{sender} {n}");
                }
            }
        })
        .await;
    }
}
