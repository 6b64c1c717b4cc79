//! The texts of sessions, to be held against the provider's list.

use super::status::Status;
use crate::masked::debug_shows;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::{Builder, Uuid};

/// A session that has a text, or may have one.
pub(crate) struct SessionText {
    pub(crate) id: Uuid,
    pub(crate) group_id: i64,
    pub(crate) phone: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) session_key: Option<String>,
    pub(crate) provider_message_id: Option<String>,
    pub(crate) status: Status,
    pub(crate) is_delivered: bool,
    pub(crate) is_undelivered: bool,
}

debug_shows!(SessionText { id, group_id, status });

/// The sessions of these numbers, in E.164.
pub(crate) async fn of_numbers(pool: &PgPool, numbers: &[String]) -> Result<Vec<SessionText>, sqlx::Error> {
    sqlx::query_as!(
        SessionText,
        r#"select id, group_id, phone, token, session_key, provider_message_id, status as "status: Status",
                  delivered_at is not null as "is_delivered!", undelivered_at is not null as "is_undelivered!"
             from sessions where phone = any($1) and token is not null"#,
        numbers
    )
    .fetch_all(pool)
    .await
}

/// Sessions with a provider's id of their text, of those that were created from `since` until before `until`: the first ones
/// after `after`, at most `limit`.
pub(crate) async fn with_text(
    pool: &PgPool,
    (since, until): (OffsetDateTime, OffsetDateTime),
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<SessionText>, sqlx::Error> {
    sqlx::query_as!(
        SessionText,
        r#"select id, group_id, phone, token, session_key, provider_message_id, status as "status: Status",
                  delivered_at is not null as "is_delivered!", undelivered_at is not null as "is_undelivered!"
             from sessions
            where id > $1 and id < $2 and provider_message_id is not null
            order by id limit $3"#,
        after.unwrap_or_else(|| lowest_id(since)),
        lowest_id(until),
        limit
    )
    .fetch_all(pool)
    .await
}

/// The lowest id of a session that was created at this moment: ids begin with their time (UUID version 7).
fn lowest_id(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::{Duration, macros::datetime};

    #[test]
    fn the_lowest_id_of_a_moment_is_between_the_ids_before_and_after() {
        let at = datetime!(2026-11-30 12:00:00.123 UTC);
        let id_of = |at: OffsetDateTime, rest| {
            let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap();
            Builder::from_unix_timestamp_millis(millis, &[rest; 10]).into_uuid()
        };
        assert!(id_of(at - Duration::milliseconds(1), 0xff) < lowest_id(at) && lowest_id(at) < id_of(at, 1));
    }
}
