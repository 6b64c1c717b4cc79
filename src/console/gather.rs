//! Gathers the facts, for all operators at once.

use super::{facts::Facts, state::Console};
use crate::{
    db::{PAGE_LIMIT, SharedReading},
    processes,
    queue::QueueDepth,
    sessions::{
        self,
        recent::{self, LastHour},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// How long all operators are shown the same facts. The overview's script asks every 5 s.
const SHOWN_FOR: Duration = Duration::from_secs(2);
/// How long the broker may take.
const BROKER_WITHIN: Duration = Duration::from_secs(2);

/// The facts, of the last two seconds or new.
pub(super) async fn gathered(console: &Console) -> Arc<Facts> {
    let mut last = console.facts.lock().await;
    if let Some((at, facts)) = &*last
        && at.elapsed() < SHOWN_FOR
    {
        return facts.clone();
    }
    let facts = Arc::new(gather(console).await);
    *last = Some((Instant::now(), facts.clone()));
    facts
}

async fn gather(console: &Console) -> Facts {
    let gateway = &console.gateway;
    let snapshot = gateway.services().ok().map(|services| services.directory.snapshot());
    let paused = snapshot.iter().flat_map(|snapshot| snapshot.paused());
    let mut paused: Vec<_> = paused.filter_map(|group| Some((group.id, group.paused_at?))).collect();
    paused.sort_unstable();
    // The cheap ones first: all three share one limit.
    let from_database = console.read(|db| {
        Box::pin(async move {
            let mut shared = SharedReading::new(db, PAGE_LIMIT);
            Ok((
                shared.read(|db| Box::pin(processes::list(db))).await,
                shared.read(|db| Box::pin(sessions::outbox_depth(db))).await,
                shared.read(|db| Box::pin(recent::last_hour(db))).await,
            ))
        })
    });
    let (depths, from_database) = tokio::join!(depths(console), from_database);
    let (processes, outbox, last_hour) = from_database.unwrap_or_else(|why| (Err(why), Err(why), Err(why)));
    let (minutes, in_trouble) = match last_hour {
        Ok(LastHour { minutes, in_trouble }) => (Ok(minutes), Ok(in_trouble)),
        Err(why) => (Err(why), Err(why)),
    };
    let (own_problems, sighting) = (gateway.problems(), gateway.sighting());
    let at = OffsetDateTime::now_utc();
    Facts { at, own_problems, sighting, paused, processes, depths, outbox, minutes, in_trouble }
}

async fn depths(console: &Console) -> Option<Vec<QueueDepth>> {
    let mut reader = console.depths.lock().await;
    tokio::time::timeout(BROKER_WITHIN, reader.read()).await.ok()?.ok()
}
