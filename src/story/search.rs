//! Finding a session and what its story is shown from.

use super::words::{CONTROL, Sources};
use crate::{
    group_id::GroupId,
    masked::debug_shows,
    phone,
    sessions::{
        lookup::{self, SessionDetails},
        steps,
        trace::{self, FoundBy, FoundSession, Wanted},
    },
};
use sqlx::PgConnection;
use std::collections::HashMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// Characters of an id: those of a message id, the longest of them.
const LONGEST_ID: usize = 255;

/// An id as it was typed or sent, without spaces around it. A correlation id is stored without control characters, so it is
/// looked for in the same way.
///
/// # Errors
///
/// If no session can have it.
pub(crate) fn id(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_ID {
        return Err("an id has 1 to 255 characters");
    }
    Ok(text.replace(char::is_control, CONTROL))
}

/// What to look for: the id, also as a number that is read in this region.
pub(crate) fn wanted(
    id: String,
    region: &str,
    group: Option<GroupId>,
    since: OffsetDateTime,
    limit: i64,
) -> Wanted {
    let number = phone::parse_either_form(&id, region).ok();
    let twin = number.as_ref().and_then(|number| phone::twin(number.as_e164()));
    let phones = number.map(Into::into).into_iter().chain(twin).collect();
    Wanted { id, phones, group, since, limit }
}

/// A session, and by what it was found.
pub(crate) struct Found {
    pub(crate) session: SessionDetails,
    pub(crate) by: FoundBy,
}

debug_shows!(Found { by });

/// The sessions with an id.
#[derive(Debug)]
pub(crate) struct SessionFindings {
    /// The first one is meant most likely.
    pub(crate) found: Vec<Found>,
    /// Whether the sessions since `Wanted::since` were read for it, as no index has found it.
    pub(crate) has_read: bool,
}

/// The sessions with the id.
pub(crate) async fn find(db: &mut PgConnection, wanted: &Wanted) -> Result<SessionFindings, sqlx::Error> {
    let found = find_by_index(&mut *db, wanted).await?;
    if !found.is_empty() {
        return Ok(SessionFindings { found, has_read: false });
    }
    let ids = trace::find_by_reading(&mut *db, wanted).await?;
    Ok(SessionFindings { found: details(db, &ids).await?, has_read: true })
}

/// The sessions with an id that has an index.
pub(crate) async fn find_by_index(db: &mut PgConnection, wanted: &Wanted) -> Result<Vec<Found>, sqlx::Error> {
    let ids = trace::find_by_index(&mut *db, wanted).await?;
    details(db, &ids).await
}

/// In the order of `found`. Retention may have deleted some meanwhile.
async fn details(db: &mut PgConnection, found: &[FoundSession]) -> Result<Vec<Found>, sqlx::Error> {
    let ids: Vec<Uuid> = found.iter().map(|found| found.id).collect();
    let rows = lookup::with_ids(&mut *db, &ids).await?;
    let mut rows: HashMap<Uuid, SessionDetails> = rows.into_iter().map(|row| (row.id, row)).collect();
    let found = found.iter().filter_map(|FoundSession { id, by }| Some((rows.remove(id)?, by)));
    found
        .map(|(session, by)| {
            let by =
                by.parse().map_err(|_| sqlx::Error::Decode(format!("an unknown kind of id: {by}").into()))?;
            Ok(Found { session, by })
        })
        .collect()
}

/// What the story of a session is shown from, beside its row.
pub(crate) async fn sources(db: &mut PgConnection, session: Uuid) -> Result<Sources, sqlx::Error> {
    Ok(Sources {
        circumstances: trace::circumstances(&mut *db, session).await?,
        steps: steps::of_session(&mut *db, session).await?,
        events: trace::waiting_events(&mut *db, session).await?,
    })
}
