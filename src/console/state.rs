//! What the console's pages share, and how they read and change.

use super::{
    access::{Access, ConsoleUser},
    facts::ShownFacts,
};
use crate::{
    audit::Operator,
    config::ConsoleConfig,
    db::{self, NotRead, PAGE_LIMIT},
    dead_letters::LetterDesk,
    gateway::{Gateway, MissLimit},
    queue::QueueDepths,
};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore};
use url::form_urlencoded;

/// Pages that read the database at a time: the gateway's other requests need its connections too.
const READERS: usize = 2;

/// What the console's pages share.
pub(super) struct Console {
    pub(super) gateway: Arc<Gateway>,
    pub(super) access: Access,
    pub(super) logins: MissLimit,
    pub(super) depths: Mutex<QueueDepths>,
    pub(super) letters: LetterDesk,
    /// What the overview showed last.
    pub(super) facts: Mutex<Option<ShownFacts>>,
    readers: Semaphore,
    /// What every link begins with.
    base: String,
}

impl Console {
    pub(super) fn new(gateway: &Arc<Gateway>, config: &ConsoleConfig) -> Self {
        let base = format!("{}/console", gateway.prefix());
        Self {
            access: Access::new(config, &gateway.config, &base),
            logins: MissLimit::of_logins(),
            depths: Mutex::new(QueueDepths::new(gateway.config.broker.clone())),
            letters: LetterDesk::new(gateway.config.broker.clone(), config.reply_to_allow.clone()),
            facts: Mutex::default(),
            readers: Semaphore::new(READERS),
            base,
            gateway: gateway.clone(),
        }
    }

    /// The address of a page, such as `/groups/72`.
    pub(super) fn link(&self, path: &str) -> String {
        [&self.base, path].concat()
    }

    /// The same with a query.
    pub(super) fn link_with(&self, path: &str, query: &[(&str, &str)]) -> String {
        let mut whole = self.link(path);
        whole.push('?');
        whole.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish());
        whole
    }

    /// Reads for a page, within its limits: a statement has 200 ms.
    pub(super) async fn read<T: Send>(
        &self,
        read: impl for<'c> FnOnce(&'c mut db::Connection) -> BoxFuture<'c, Result<T, db::Error>> + Send,
    ) -> Result<T, NotRead> {
        let pool = &self.gateway.services().map_err(|_| NotRead::Away)?.pool;
        let permit = tokio::time::timeout(db::AWAY_AFTER, self.readers.acquire()).await;
        let _permit = permit.map_err(|_| NotRead::Busy)?;
        db::read_within(pool, PAGE_LIMIT, read).await
    }

    /// The right to change something, as this user. `line` is what a command would be for the same, such as
    /// `groups pause 72`, and `action` its name. `None` while the database is away.
    pub(super) fn operator(&self, user: &ConsoleUser, action: &str, line: &str) -> Option<Operator> {
        let pool = self.gateway.services().ok()?.pool.clone();
        Some(Operator::of_console(pool, &user.person(), action, line))
    }
}
