//! Holds the table of sessions against the provider's list of texts, in both directions.

use crate::{
    masked::debug_shows,
    phone,
    sessions::{
        self, ReportResult, TextReport,
        steps::ReportSource,
        texts::{self, SessionText},
    },
    sms::{ListedMessage, LookError, Sms},
    trouble::Trouble,
};
use serde::Serialize;
use sqlx::PgPool;
use std::collections::{BTreeMap, HashMap, HashSet};
use strum::{IntoStaticStr, VariantArray};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// A text may be older than its session by the clocks, or younger by its tries.
const EARLIER: Duration = Duration::minutes(10);
/// Sessions that are read at once.
const SESSIONS_AT_ONCE: i64 = 5_000;
/// Findings that a report names; it counts the others.
const NAMED: usize = 1_000;

/// What is held against what.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    /// Texts and sessions that were made from this moment on.
    pub since: OffsetDateTime,
    /// And before this one: what is younger may still be under way.
    pub until: OffsetDateTime,
    /// The From numbers and messaging services whose texts are ours.
    pub senders: Vec<&'a str>,
    /// Whether what the list shows is noted in the sessions.
    pub notes: bool,
}

/// A text and a session that do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Difference {
    /// No session has this text: another program uses the sender, or sessions were lost or deleted.
    TextWithoutSession,
    /// The session has a text that the provider does not list.
    SessionWithoutText,
    /// Two texts for one session.
    TextedTwice,
    /// The reply had said that no text was sent.
    TextAfterDenial,
    /// The session did not know of its text.
    TextNotNoted,
    /// The receipt never came.
    ReceiptMissing,
}

impl Difference {
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One difference.
#[derive(Serialize)]
pub(crate) struct FoundDifference {
    pub difference: Difference,
    pub session: Option<Uuid>,
    pub group: Option<i64>,
    /// The provider's id.
    pub text: Option<String>,
    /// The first digits of the number.
    pub to: String,
    #[serde(with = "time::serde::rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    /// The provider's status of the text.
    pub provider_status: Option<String>,
    /// The session's.
    pub session_status: Option<&'static str>,
}

debug_shows!(FoundDifference { difference, session, group });

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
    /// Texts of our senders in the provider's list.
    pub texts: u64,
    /// Sessions that have a text.
    pub sessions: u64,
    /// Of each difference, how many.
    pub differences: BTreeMap<&'static str, u64>,
    /// How many of them were noted in their sessions.
    pub noted: u64,
    /// The first thousand.
    pub findings: Vec<FoundDifference>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    List(#[from] LookError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Trouble(#[from] Trouble),
}

/// Reads the provider's list page by page, and then the sessions. `progress` is called after each page with the texts so far.
///
/// # Errors
///
/// The list or the database cannot be read. What was noted until then stays noted, and the report counts it.
pub(crate) async fn reconcile(
    pool: &PgPool,
    sms: &Sms,
    scope: &Scope<'_>,
    progress: impl Fn(u64),
) -> (Report, Result<(), ReconcileError>) {
    let mut run = Run { pool, scope, report: Report::of(scope), listed: HashSet::new() };
    let compared = run.compare(sms, progress).await;
    (run.report, compared)
}

struct Run<'a> {
    pool: &'a PgPool,
    scope: &'a Scope<'a>,
    report: Report,
    /// The ids of the provider's texts.
    listed: HashSet<String>,
}

impl Run<'_> {
    async fn compare(&mut self, sms: &Sms, progress: impl Fn(u64)) -> Result<(), ReconcileError> {
        let mut list = sms.permit().await?.list(self.scope.since - EARLIER);
        while let Some(page) = list.next_page().await? {
            let page: Vec<_> = page.into_iter().filter(|text| text.may_be_of(&self.scope.senders)).collect();
            self.compare_texts(&page).await?;
            progress(self.report.texts);
        }
        self.compare_sessions().await
    }

    async fn compare_texts(&mut self, page: &[ListedMessage]) -> Result<(), ReconcileError> {
        // A provider may list some numbers in the other of their two forms.
        let numbers = page.iter().filter_map(|text| text.to.clone());
        let numbers: HashSet<_> = numbers.flat_map(|to| phone::twin(&to).into_iter().chain([to])).collect();
        let numbers: Vec<_> = numbers.into_iter().collect();
        let sessions = SessionTexts::of(texts::of_numbers(self.pool, &numbers).await?);
        for text in page {
            let Some(sid) = text.sid.as_deref() else { continue };
            self.listed.insert(sid.to_owned());
            let is_in_scope = |at| (self.scope.since..self.scope.until).contains(&at);
            if text.created().is_none_or(is_in_scope) {
                self.report.texts += 1;
                self.compare_text(text, sid, &sessions).await?;
            }
        }
        Ok(())
    }

    async fn compare_text(
        &mut self,
        text: &ListedMessage,
        sid: &str,
        sessions: &SessionTexts,
    ) -> Result<(), ReconcileError> {
        let Some(session) = sessions.of_text(text, sid) else {
            self.report.add(Difference::TextWithoutSession, Some(text), None);
            return Ok(());
        };
        let status = text.status.as_deref();
        let report = status.and_then(|status| TextReport::of_status(status, text.error_code()));
        let (report, word) =
            report.map_or((TextReport::Accepted, "accepted"), |report| (report, status.unwrap_or_default()));
        let Some(mut difference) = difference(session, sid, report) else { return Ok(()) };
        if self.scope.notes && difference != Difference::TextedTwice {
            let noted =
                sessions::note_receipt(self.pool, session.id, sid, report, word, ReportSource::List).await?;
            match noted {
                ReportResult::Noted => self.report.noted += 1,
                ReportResult::SecondText { .. } => difference = Difference::TextedTwice,
                ReportResult::TextAfterDenial => difference = Difference::TextAfterDenial,
                ReportResult::NoSession => difference = Difference::TextWithoutSession,
            }
        }
        self.report.add(difference, Some(text), Some(session));
        Ok(())
    }

    async fn compare_sessions(&mut self) -> Result<(), ReconcileError> {
        let (since, until) = (self.scope.since, self.scope.until);
        let mut after = None;
        loop {
            let page = texts::with_text(self.pool, (since, until), after, SESSIONS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for session in &page {
                self.report.sessions += 1;
                if session.provider_message_id.as_ref().is_some_and(|sid| !self.listed.contains(sid)) {
                    self.report.add(Difference::SessionWithoutText, None, Some(session));
                }
            }
        }
    }
}

/// What is wrong between a text and its session, as far as both show it.
fn difference(session: &SessionText, sid: &str, report: TextReport) -> Option<Difference> {
    match (session.provider_message_id.as_deref(), report) {
        (Some(own), _) if own != sid => Some(Difference::TextedTwice),
        (None, _) => Some(Difference::TextNotNoted),
        (_, TextReport::Delivered) if !session.is_delivered => Some(Difference::ReceiptMissing),
        (_, TextReport::Undelivered { .. }) if !session.is_delivered && !session.is_undelivered => {
            Some(Difference::ReceiptMissing)
        }
        _ => None,
    }
}

/// The sessions of a page's numbers.
struct SessionTexts(HashMap<String, Vec<SessionText>>);

impl SessionTexts {
    fn of(sessions: Vec<SessionText>) -> Self {
        let mut by_number: HashMap<_, Vec<_>> = HashMap::new();
        for session in sessions {
            by_number.entry(session.phone.clone().unwrap_or_default()).or_default().push(session);
        }
        Self(by_number)
    }

    /// The session of a text: the one that has its id, or else the newest one whose link or key it holds.
    fn of_text(&self, text: &ListedMessage, sid: &str) -> Option<&SessionText> {
        let to = text.to.as_deref()?;
        let numbers = [Some(to.to_owned()), phone::twin(to)].into_iter().flatten();
        let sessions: Vec<_> = numbers.filter_map(|number| self.0.get(&number)).flatten().collect();
        let has_id = |session: &&&SessionText| session.provider_message_id.as_deref() == Some(sid);
        let is_held = |session: &&&SessionText| {
            let token = session.token.as_deref();
            token.is_some_and(|token| text.holds(token, session.session_key.as_deref()))
        };
        let by_id = sessions.iter().find(has_id);
        by_id.or_else(|| sessions.iter().filter(is_held).max_by_key(|session| session.id)).copied()
    }
}

impl Report {
    fn of(scope: &Scope<'_>) -> Self {
        let differences = Difference::VARIANTS.iter().map(|kind| (kind.as_str(), 0)).collect();
        let Scope { since, until, .. } = *scope;
        Self { since, until, texts: 0, sessions: 0, differences, noted: 0, findings: Vec::new() }
    }

    fn add(&mut self, difference: Difference, text: Option<&ListedMessage>, session: Option<&SessionText>) {
        *self.differences.entry(difference.as_str()).or_default() += 1;
        if self.findings.len() == NAMED {
            return;
        }
        let number = text.and_then(|text| text.to.as_deref());
        let number = number.or_else(|| session.and_then(|session| session.phone.as_deref()));
        let own = session.and_then(|session| session.provider_message_id.clone());
        self.findings.push(FoundDifference {
            difference,
            session: session.map(|session| session.id),
            group: session.map(|session| session.group_id),
            text: text.and_then(|text| text.sid.clone()).or(own),
            to: number.map(phone::masked_prefix).unwrap_or_default(),
            at: text.and_then(ListedMessage::created),
            provider_status: text.and_then(|text| text.status.clone()),
            session_status: session.map(|session| session.status.as_str()),
        });
    }

    pub(crate) fn count(&self, difference: Difference) -> u64 {
        self.differences.get(difference.as_str()).copied().unwrap_or_default()
    }

    /// How many differences there are, with those that were noted.
    pub(crate) fn total(&self) -> u64 {
        self.differences.values().sum()
    }
}
