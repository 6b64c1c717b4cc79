//! Reading the sessions of a search, within the time of a page.

use super::search::{ROWS, Search};
use crate::{
    console::state::Console,
    db::{self, NotRead, PAGE_LIMIT, SharedReading},
    sessions::{
        lookup::{self, Filter, SessionDetails},
        portions::{self, SessionPortion},
        trace::FoundBy,
    },
    story::{self, Found},
};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use uuid::Uuid;

/// How long the search may take. The rest of the page's time is for the rows that it has found.
const SEARCHES_WITHIN: Duration = Duration::from_millis(150);
/// Sessions of the first portion, and of the largest: those of a larger one would not fit into PostgreSQL's `work_mem`.
const FIRST_PORTION: i64 = 200;
const LARGEST_PORTION: i64 = 25_000;
/// By how much each portion may be larger than the one before.
const GROWTH: i64 = 4;

/// A session of the list.
pub(super) struct ListedSession {
    pub(super) session: SessionDetails,
    /// `None` for one of a list.
    pub(super) by: Option<FoundBy>,
}

/// What a search has found.
pub(super) struct FoundSessions {
    pub(super) rows: Vec<ListedSession>,
    pub(super) rest: SearchRest,
}

/// What a search has not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SearchRest {
    Nothing,
    /// More sessions, before this one.
    More {
        before: Uuid,
    },
    /// There was no time to read those before this one, which was created then.
    Unread {
        before: Uuid,
        since: OffsetDateTime,
    },
}

pub(super) async fn read(console: &Console, search: Search) -> Result<FoundSessions, NotRead> {
    console.read(move |db| Box::pin(async move { Ok(find(db, search).await) })).await?
}

async fn find(db: &mut db::Connection, search: Search) -> Result<FoundSessions, NotRead> {
    let Search { wanted, filter, id } = search;
    let mut rows = Vec::new();
    let mut searching = SharedReading::new(&mut *db, SEARCHES_WITHIN);
    if let Some(wanted) = wanted {
        let by_index = searching
            .read(move |db| Box::pin(async move { story::find_by_index(db, &wanted).await }))
            .await?;
        rows.extend(
            by_index.into_iter().map(|Found { session, by }| ListedSession { session, by: Some(by) }),
        );
        if id.is_some() && !rows.is_empty() {
            return Ok(FoundSessions { rows, rest: SearchRest::Nothing });
        }
    }
    let (ids, rest) = search_portions(searching, filter, id.as_deref()).await?;
    let mut details = SharedReading::new(db, PAGE_LIMIT.saturating_sub(SEARCHES_WITHIN));
    let listed = details.read(move |db| Box::pin(async move { lookup::with_ids(db, &ids).await })).await?;
    let is_new = |session: &SessionDetails| rows.iter().all(|row| row.session.id != session.id);
    let listed: Vec<_> = listed.into_iter().filter(is_new).collect();
    rows.extend(listed.into_iter().map(|session| {
        let by = id.as_deref().map(|id| found_by(&session, id));
        ListedSession { session, by }
    }));
    Ok(FoundSessions { rows, rest })
}

/// The sessions of a page, and what is left. A page that has read something shows it.
async fn search_portions(
    mut reading: SharedReading<'_>,
    mut filter: Filter,
    id: Option<&str>,
) -> Result<(Vec<Uuid>, SearchRest), NotRead> {
    let (mut ids, mut rest, mut size) = (Vec::new(), SearchRest::Nothing, FIRST_PORTION);
    loop {
        let begun = Instant::now();
        let (this, of_this) = (filter.clone(), id.map(str::to_owned));
        let wanted = i64::try_from(ROWS + 1 - ids.len()).unwrap_or(i64::MAX);
        let portion = reading.read(move |db| {
            Box::pin(async move { portions::next_portion(db, &this, of_this.as_deref(), size, wanted).await })
        });
        let SessionPortion { ids: found, read, last, since } = match portion.await {
            Ok(portion) => portion,
            Err(NotRead::TooSlow) if rest != SearchRest::Nothing => return Ok((ids, rest)),
            Err(why) => return Err(why),
        };
        ids.extend(found);
        if let Some(before) = ids.get(ROWS - 1).filter(|_| ids.len() > ROWS).copied() {
            ids.truncate(ROWS);
            return Ok((ids, SearchRest::More { before }));
        }
        let Some((before, since)) = last.zip(since).filter(|_| read >= size) else {
            return Ok((ids, SearchRest::Nothing));
        };
        filter.before = Some(before);
        rest = SearchRest::Unread { before, since };
        let next = next_size(size, begun.elapsed(), reading.time_left());
        // An id is mostly one session's. The operator may look for more.
        let Some(next) = next.filter(|_| id.is_none() || ids.is_empty()) else { return Ok((ids, rest)) };
        size = next;
    }
}

/// As many as will be read in half of the time that is left, if the next portion is as fast. `None` if they are few.
fn next_size(size: i64, took: Duration, left: Duration) -> Option<i64> {
    let size = u128::try_from(size).unwrap_or_default();
    let fitting = size * left.as_micros() / (2 * took.as_micros()).max(1);
    let fitting = i64::try_from(fitting).unwrap_or(i64::MAX);
    let next =
        fitting.min(i64::try_from(size).unwrap_or(i64::MAX).saturating_mul(GROWTH)).min(LARGEST_PORTION);
    (next >= FIRST_PORTION && left >= SEARCHES_WITHIN / 5).then_some(next)
}

/// Which of the columns without an index has the id.
fn found_by(session: &SessionDetails, id: &str) -> FoundBy {
    let is = |column: &Option<String>| column.as_deref() == Some(id);
    if is(&session.provider_message_id) {
        FoundBy::ProviderId
    } else if is(&session.correlation_id) {
        FoundBy::CorrelationId
    } else {
        FoundBy::FormerKey
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_grow_as_far_as_the_time_allows() {
        let ms = Duration::from_millis;
        assert_eq!(next_size(200, ms(1), ms(149)), Some(800));
        assert_eq!(next_size(12_800, ms(10), ms(130)), Some(LARGEST_PORTION));
        assert_eq!(next_size(800, ms(40), ms(100)), Some(1_000));
        assert_eq!(next_size(200, ms(60), ms(90)), None);
        assert_eq!(next_size(25_000, ms(25), ms(20)), None);
        assert_eq!(next_size(200, Duration::ZERO, ms(150)), Some(800));
    }
}
