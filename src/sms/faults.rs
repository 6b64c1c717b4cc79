//! What goes wrong at the provider, for operators: since when, how often in a row, its last answer, and what to do.

use super::{
    answer::{RetryReason, TryResult},
    connections::RequestError,
};
use crate::refusal::Code;
use serde_json::Value;
use sms_provider::codes::{self, ErrorCode};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::Url;

/// So many failures in a row are reported at once, and fewer after [`LISTED_AFTER`].
const LISTED_AT: u64 = 3;
const LISTED_AFTER: Duration = Duration::from_secs(2);
/// Requests are under way, and none is answered for so long.
const SILENT_AFTER: Duration = Duration::from_secs(4);
/// Failures among successes are reported, if within this time they come in so many runs, and are one in so many texts.
const SHARE_OF: Duration = Duration::from_mins(1);
const SHARE_RUNS: usize = 5;
const SHARE_LISTED_OF: u64 = 5;
/// They are reported no longer once so many were answered since the last.
const SHARE_OVER_AFTER: u64 = 20;
/// Runs that are remembered at most.
const SHARE_REMEMBERED: usize = 1_000;
/// Characters of an answer's body that are shown at most.
const SHOWN: usize = 80;

/// What is wrong with the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProviderFault {
    /// It answers with a server's error.
    ServerError,
    /// It sends texts to another address, where they are not sent.
    Redirect,
    /// It answers with success, and not as the provider does.
    ForeignAnswer,
    Throttled,
    DailyLimit,
    /// It refuses the operator's account, with this code or status.
    Account(ErrorCode),
    /// The connection is made, and no answer comes.
    Silent,
    NotConnected,
    /// This process may open no more files.
    NoFiles,
    /// Its list cannot be read.
    List,
}

/// What `/readyz` says of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProviderReport {
    /// In a few words; `ok` while nothing is wrong.
    pub state: &'static str,
    /// Each with what to do.
    pub problems: Vec<String>,
}

impl Default for ProviderReport {
    fn default() -> Self {
        Self { state: "ok", problems: Vec::new() }
    }
}

/// How the last requests to the provider went.
#[derive(Debug)]
pub(super) struct ProviderHealth {
    /// The provider's scheme, host and port.
    origin: String,
    texts: Streak,
    looks: Streak,
    share: FailedShare,
    start: Instant,
    under_way: AtomicUsize,
    /// Milliseconds since `start`: of the first of the requests under way, and of the last answer.
    under_way_since: AtomicU64,
    answered_at: AtomicU64,
}

/// A request for a text that is under way.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a ProviderHealth);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Failures among successes, which end each streak soon.
#[derive(Debug, Default)]
struct FailedShare {
    /// Texts that the provider has answered as it should, since the start.
    answered: AtomicU64,
    failed: Mutex<VecDeque<FailedRun>>,
}

/// Failures between two successes. An outage is one run, however long it lasts.
#[derive(Debug)]
struct FailedRun {
    count: u64,
    last_at: Instant,
    /// How many were answered before.
    answered_before: u64,
    fault: ProviderFault,
    last: String,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Streak {
    /// So that a success costs no lock while all is well.
    is_failing: AtomicBool,
    failures: Mutex<Option<Failures>>,
}

#[derive(Debug, Clone)]
struct Failures {
    count: u64,
    since: OffsetDateTime,
    noticed: Instant,
    last_at: OffsetDateTime,
    fault: ProviderFault,
    /// The last answer, in short.
    last: String,
}

impl ProviderHealth {
    pub(super) fn new(origin: String) -> Self {
        Self {
            origin,
            texts: Streak::default(),
            looks: Streak::default(),
            share: FailedShare::default(),
            start: Instant::now(),
            under_way: AtomicUsize::new(0),
            under_way_since: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
        }
    }

    /// Notes that a text is handed over, until the guard is dropped.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        if self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.under_way_since.store(self.now(), Ordering::Relaxed);
        }
        UnderWay(self)
    }

    /// Notes the answer to a text. `location` is where a redirect leads.
    pub(super) fn answered(&self, status: u16, location: Option<&str>, body: &[u8], result: &TryResult) {
        self.answered_at.store(self.now(), Ordering::Relaxed);
        let Some(fault) = fault_of_answer(status, result) else {
            self.share.answered.fetch_add(1, Ordering::Relaxed);
            // The provider may check a number before the account and its limits.
            let proves_all = matches!(result, TryResult::Accepted { .. });
            return self.texts.succeeded(|fault| {
                proves_all || !matches!(fault, ProviderFault::Account(_) | ProviderFault::DailyLimit)
            });
        };
        let to = location.filter(|_| fault == ProviderFault::Redirect).and_then(|to| Url::parse(to).ok());
        let to = to.map(|to| format!(", to {}", to.origin().ascii_serialization())).unwrap_or_default();
        self.failed(fault, answer_in_short(status, body) + &to);
    }

    /// Notes a text without an answer.
    pub(super) fn unanswered(&self, error: &RequestError, result: &TryResult) {
        if *result != TryResult::Withheld {
            self.failed(fault_of_error(error, result), error.to_string());
        }
    }

    fn failed(&self, fault: ProviderFault, last: String) {
        self.share.failed(fault, &last);
        self.texts.failed(fault, || last);
    }

    /// Notes how a look at the list went.
    pub(super) fn looked<T, E: ToString>(&self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.looks.succeeded(|_| true),
            Err(error) => self.looks.failed(ProviderFault::List, || error.to_string()),
        }
    }

    pub(super) fn report(&self) -> ProviderReport {
        let texts = self.texts.reported().map(|failures| (failures.fault, failures.text(&self.origin)));
        let texts = texts.or_else(|| self.silence().map(|text| (ProviderFault::Silent, text)));
        let part = if texts.is_none() { self.share.problem(&self.origin) } else { None };
        let looks = self.looks.reported().map(|failures| (failures.fault, failures.text(&self.origin)));
        let state = match (&texts, &part, &looks) {
            (None, Some(_), _) => "fails for a part of the texts",
            (Some((fault, _)), ..) | (None, None, Some((fault, _))) => fault.state(),
            (None, None, None) => "ok",
        };
        let streaks = [texts, looks].into_iter().flatten().map(|(_, text)| text);
        ProviderReport { state, problems: part.into_iter().chain(streaks).collect() }
    }

    /// The problem, if requests are under way and none is answered.
    fn silence(&self) -> Option<String> {
        let count = self.under_way.load(Ordering::Relaxed);
        let since =
            self.under_way_since.load(Ordering::Relaxed).max(self.answered_at.load(Ordering::Relaxed));
        let silent = Duration::from_millis(self.now().saturating_sub(since));
        (count > 0 && silent >= SILENT_AFTER).then(|| {
            let fault = ProviderFault::Silent;
            format!(
                "the provider has answered no text for {} s, and {count} wait for its answer. {} What to do: {}",
                silent.as_secs(),
                fault.meanwhile(),
                fault.remedy(&self.origin)
            )
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is wrong with the provider, by its answer to a text; `None` if it works.
fn fault_of_answer(status: u16, result: &TryResult) -> Option<ProviderFault> {
    match result {
        TryResult::PerhapsSent { .. } if (200..300).contains(&status) => Some(ProviderFault::ForeignAnswer),
        TryResult::PerhapsSent { .. } if (300..400).contains(&status) => Some(ProviderFault::Redirect),
        TryResult::PerhapsSent { .. } | TryResult::Later { why: RetryReason::Unreachable, .. } => {
            Some(ProviderFault::ServerError)
        }
        TryResult::Later { why: RetryReason::Account { provider_code }, .. } => {
            Some(ProviderFault::Account(provider_code.unwrap_or(i64::from(status))))
        }
        TryResult::Later { why: RetryReason::Throttled, .. } => Some(ProviderFault::Throttled),
        TryResult::Refused(refusal) if refusal.code == Code::ProviderUnavailable => {
            Some(ProviderFault::DailyLimit)
        }
        TryResult::Accepted { .. } | TryResult::Refused(_) | TryResult::Withheld => None,
    }
}

fn fault_of_error(error: &RequestError, result: &TryResult) -> ProviderFault {
    let was_written = matches!(result, TryResult::PerhapsSent { .. });
    match error {
        RequestError::NotConnected { no_files: true, .. } => ProviderFault::NoFiles,
        RequestError::NotConnected { .. } => ProviderFault::NotConnected,
        RequestError::TooSlow if !was_written => ProviderFault::NotConnected,
        RequestError::TooSlow | RequestError::Cut => ProviderFault::Silent,
        RequestError::TooLarge => ProviderFault::ForeignAnswer,
    }
}

impl ProviderFault {
    /// For the field `provider` of `/readyz`.
    fn state(self) -> &'static str {
        match self {
            Self::ServerError => "answers with errors",
            Self::Redirect => "redirects to another address",
            Self::ForeignAnswer => "answers as no provider does",
            Self::Throttled => "wants fewer texts",
            Self::DailyLimit => "has reached the daily limit",
            Self::Account(_) => "refuses the account",
            Self::Silent => "does not answer",
            Self::NotConnected => "cannot be reached",
            Self::NoFiles => "cannot be reached: no file descriptors",
            Self::List => "its list cannot be read",
        }
    }

    fn cause(self) -> String {
        match self {
            Self::ServerError => "the provider answers texts with errors".to_owned(),
            Self::Redirect => {
                "what answers at SMS_BASE_URL redirects to another address, and texts are sent to no other"
                    .to_owned()
            }
            Self::ForeignAnswer => {
                "what answers at SMS_BASE_URL does not answer as the provider does".to_owned()
            }
            Self::Throttled => "the provider takes no texts, because they are too many".to_owned(),
            Self::DailyLimit => "the account's daily limit at the provider is reached".to_owned(),
            Self::Account(code) => format!("the provider refuses the operator's account ({code})"),
            Self::Silent => "the provider does not answer texts".to_owned(),
            Self::NotConnected => "the provider cannot be reached".to_owned(),
            Self::NoFiles => {
                "the worker has no file descriptors left, so it cannot connect to the provider".to_owned()
            }
            Self::List => "the provider's list of texts cannot be read".to_owned(),
        }
    }

    /// What happens to invites.
    fn meanwhile(self) -> &'static str {
        match self {
            Self::ServerError | Self::Redirect | Self::ForeignAnswer | Self::Silent => {
                "Invites wait: their texts may have gone out, and are looked for before they are sent again \
                 (SMS_WHEN_UNSURE)."
            }
            Self::Throttled | Self::Account(_) | Self::NotConnected | Self::NoFiles => {
                "Invites wait for their next try, and fail as provider_unavailable after SMS_MAX_ATTEMPTS tries (5 unless it is \
                 set: in about three minutes)."
            }
            Self::DailyLimit => {
                "Each invite fails at once as provider_unavailable; its sender may send it again later."
            }
            Self::List => {
                "Invites whose text may have gone out wait, and end as outcome_unknown with their session."
            }
        }
    }

    fn remedy(self, origin: &str) -> String {
        match self {
            Self::ServerError => format!(
                "restart nothing, as invites go on by themselves; see the provider's status page (Twilio: \
                 https://status.twilio.com), and what answers: curl -sSI {origin}/"
            ),
            Self::Redirect => format!(
                "see where it leads: curl -sSI {origin}/2010-04-01/Accounts.json -- if that is the provider, set SMS_BASE_URL to it \
                 (https:// in place of http://, perhaps), and restart the workers one after the other"
            ),
            Self::ForeignAnswer => format!(
                "see what answers there: curl -sSi {origin}/ -- if that is not the provider, correct SMS_BASE_URL, or \
                 the proxy on the way"
            ),
            Self::Throttled => {
                "set SMS_PER_SECOND to what the provider allows for one From number, and restart the \
                                workers one after the other; or let the provider raise it. Where it takes none at all, \
                                session-invite groups pause GROUP keeps a group's invites until it does"
                    .to_owned()
            }
            Self::DailyLimit => {
                "let the provider raise the account's daily limit, or wait until its day is over; these \
                                 have failed: session-invite sessions list --status failed"
                    .to_owned()
            }
            Self::Account(code) => account_remedy(code).to_owned(),
            Self::Silent => format!(
                "see whether it answers from this machine: curl -sS -m 10 -o /dev/null -w '%{{http_code}}\\n' {origin}/ \
                 -- and its status page (Twilio: https://status.twilio.com); invites go on by themselves"
            ),
            Self::NotConnected => {
                format!("see what is in the way from this machine: curl -sS -m 10 -o /dev/null {origin}/")
            }
            Self::NoFiles => {
                "raise the limit of open files (ulimit -n, or LimitNOFILE= of the service), and restart \
                              the worker"
                    .to_owned()
            }
            Self::List => "session-invite doctor reads that list too, and says why it fails".to_owned(),
        }
    }
}

fn account_remedy(code: ErrorCode) -> &'static str {
    match code {
        codes::ACCOUNT_NOT_ACTIVE | codes::ACCOUNT_SUSPENDED => {
            "in the provider's console, see why the account is not active (its balance, a suspension)"
        }
        codes::SENDER_NOT_REGISTERED
        | codes::TOLL_FREE_NOT_VERIFIED
        | codes::CAMPAIGN_SUSPENDED
        | codes::NUMBER_NOT_REGISTERED => {
            "in the provider's console, see the registration of the From number and its campaign"
        }
        _ => {
            "check TWILIO_ACCOUNT_SID, and TWILIO_AUTH_TOKEN (or TWILIO_API_KEY and TWILIO_API_SECRET), against the \
             provider's console; session-invite doctor tries them. With the right ones, restart the workers one after the other: \
             invites that wait go on, and those that have failed have to be sent again"
        }
    }
}

impl FailedShare {
    fn failed(&self, fault: ProviderFault, last: &str) {
        let (last_at, answered_before) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|run| run.last_at.elapsed() < SHARE_OF);
        let count =
            failed.pop_back_if(|run| run.answered_before == answered_before).map_or(0, |run| run.count);
        if failed.len() >= SHARE_REMEMBERED {
            failed.pop_front();
        }
        failed.push_back(FailedRun {
            count: count + 1,
            last_at,
            answered_before,
            fault,
            last: last.to_owned(),
        });
    }

    /// The problem, if texts fail again and again among others that are sent, and not so many were sent since that it is over.
    fn problem(&self, origin: &str) -> Option<String> {
        let answered = self.answered.load(Ordering::Relaxed);
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let recent: Vec<_> = failed.iter().filter(|run| run.last_at.elapsed() < SHARE_OF).collect();
        let (first, last) = recent.first().zip(recent.last())?;
        let count: u64 = recent.iter().map(|run| run.count).sum();
        let all = count + answered.saturating_sub(first.answered_before);
        let is_over = answered.saturating_sub(last.answered_before) >= SHARE_OVER_AFTER;
        (recent.len() >= SHARE_RUNS && count * SHARE_LISTED_OF >= all && !is_over).then(|| {
            format!(
                "of the last {all} texts {count} failed at the provider, the last with: {}. It has answered the others as it \
                 should. {} What to do: {}",
                last.last,
                last.fault.meanwhile(),
                last.fault.remedy(origin)
            )
        })
    }
}

impl Streak {
    fn failed(&self, fault: ProviderFault, last: impl FnOnce() -> String) {
        let mut failures = self.lock();
        let (now, last) = (OffsetDateTime::now_utc(), last());
        let before = failures.take();
        if before.as_ref().is_none_or(|before| before.fault != fault) {
            log_fault(fault, &last);
        }
        let (count, since, noticed) =
            before.map_or((0, now, Instant::now()), |before| (before.count, before.since, before.noticed));
        *failures = Some(Failures { count: count + 1, since, noticed, last_at: now, fault, last });
        self.is_failing.store(true, Ordering::Release);
    }

    /// Ends the streak, if a success proves that its fault is over.
    fn succeeded(&self, proves: impl Fn(ProviderFault) -> bool) {
        if !self.is_failing.load(Ordering::Acquire) {
            return;
        }
        let mut failures = self.lock();
        if let Some(ended) = failures.take_if(|failures| proves(failures.fault)) {
            self.is_failing.store(false, Ordering::Release);
            if matches!(ended.fault, ProviderFault::Account(_)) {
                tracing::info!("the provider accepts the operator's account again");
            } else if ended.count >= LISTED_AT {
                tracing::info!(failures = ended.count, "the provider works again");
            }
        }
    }

    /// The failures, once they are more than a single one of the moment.
    fn reported(&self) -> Option<Failures> {
        let failures = self.lock().clone()?;
        let is_sure = matches!(failures.fault, ProviderFault::Account(_) | ProviderFault::DailyLimit);
        (is_sure || failures.count >= LISTED_AT || failures.noticed.elapsed() >= LISTED_AFTER)
            .then_some(failures)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_fault(fault: ProviderFault, last: &str) {
    match fault {
        ProviderFault::Account(code) => {
            tracing::error!(code, "the provider refuses the operator's account: check TWILIO_*");
        }
        ProviderFault::DailyLimit => {
            tracing::warn!(last, "the account's daily limit at the provider is reached");
        }
        // The try's own lines say what happened.
        _ => tracing::debug!(fault = fault.state(), last, "the provider fails"),
    }
}

impl Failures {
    fn text(&self, origin: &str) -> String {
        let Self { count, since, last_at, fault, last, .. } = self;
        format!(
            "{}: since {}, {count} requests in a row, the last at {}: {last}. {} What to do: {}",
            fault.cause(),
            to_the_second(*since),
            to_the_second(*last_at),
            fault.meanwhile(),
            fault.remedy(origin)
        )
    }
}

fn to_the_second(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Status, code and a piece of the body, without what may be a number, a key, a token or a secret.
fn answer_in_short(status: u16, body: &[u8]) -> String {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = match &error["code"] {
        Value::Number(code) => format!(", code {code}"),
        Value::String(code) if code.len() <= 5 && code.bytes().all(|b| b.is_ascii_digit()) => {
            format!(", code {code}")
        }
        _ => String::new(),
    };
    let piece = match error["message"].as_str() {
        Some(message) => harmless(message),
        None => harmless(&String::from_utf8_lossy(&body[..body.len().min(8 * SHOWN)])),
    };
    if piece.is_empty() { format!("{status}{code}") } else { format!("{status}{code}, {piece:?}") }
}

/// Printable ASCII. A word of 16 characters or more, or with three digits, becomes `…`.
fn harmless(text: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "+/=_-%".contains(c);
    let mut shown = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()).max(first.len_utf8());
        let (word, after) = rest.split_at(end);
        rest = after;
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        if is_of_word(first) {
            shown.push_str(if word.len() >= 16 || digits >= 3 { "…" } else { word });
        } else if first.is_ascii_graphic() {
            shown.push(first);
        } else if !shown.is_empty() && !shown.ends_with(' ') {
            shown.push(' ');
        }
        if shown.chars().count() >= SHOWN {
            break;
        }
    }
    shown.chars().take(SHOWN).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::answer;

    fn answered(health: &ProviderHealth, status: u16, body: &str) {
        let result = answer::read(status, None, body.as_bytes());
        health.answered(status, Some("https://y.example/path?secret"), body.as_bytes(), &result);
    }

    fn health() -> ProviderHealth {
        ProviderHealth::new("https://api.x.example".to_owned())
    }

    #[test]
    fn three_failures_in_a_row_are_reported_and_the_first_success_ends_that() {
        for (status, body, state) in [
            (503, r#"{"code":20503,"message":"Service Unavailable"}"#, "answers with errors"),
            (429, r#"{"code":20429}"#, "wants fewer texts"),
            (200, "<html>Sign in</html>", "answers as no provider does"),
            (429, r#"{"code":63038}"#, "has reached the daily limit"),
            (401, "", "refuses the account"),
            (302, "", "redirects to another address"),
        ] {
            let health = health();
            for _ in 0..3 {
                answered(&health, status, body);
            }
            let report = health.report();
            assert_eq!(report.state, state, "{status}");
            let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
            assert!(problem.contains("3 requests in a row") && problem.contains("What to do: "), "{problem}");
            assert_eq!(problem.contains(": 302, to https://y.example."), status == 302, "{problem}");
            answered(&health, 201, r#"{"sid":"SM1"}"#);
            assert_eq!(health.report(), ProviderReport::default(), "{status}");
        }
    }

    #[test]
    fn a_refused_number_proves_that_the_provider_works_but_not_that_it_takes_the_account() {
        let health = health();
        let refuse = || answered(&health, 400, r#"{"code":21211}"#);
        (0..3).for_each(|_| answered(&health, 503, ""));
        refuse();
        assert_eq!(health.report().state, "ok");
        answered(&health, 401, "");
        refuse();
        assert_eq!(health.report().state, "refuses the account");
        assert!(health.report().problems[0].contains("(401)"));
    }

    #[test]
    fn failures_among_successes_are_reported_until_many_succeed() {
        let health = health();
        let succeed = |times: u32| (0..times).for_each(|_| answered(&health, 201, r#"{"sid":"SM1"}"#));
        for _ in 0..4 {
            answered(&health, 503, "");
            succeed(3);
        }
        assert_eq!(health.report().state, "ok", "four are few");
        answered(&health, 503, "");
        succeed(1);
        let report = health.report();
        assert_eq!(report.state, "fails for a part of the texts");
        let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
        assert!(
            problem.contains("of the last 18 texts 5 failed") && problem.contains("What to do: "),
            "{problem}"
        );
        succeed(19);
        assert_eq!(health.report(), ProviderReport::default());
    }

    #[test]
    fn one_failure_is_not_reported_at_once() {
        let health = health();
        answered(&health, 503, "");
        assert_eq!(health.report().state, "ok");
    }

    #[test]
    fn an_answer_is_shown_in_short_and_without_what_may_be_private() {
        assert_eq!(
            answer_in_short(503, br#"{"code":20503,"message":"Service\n Unavailable"}"#),
            r#"503, code 20503, "Service Unavailable""#
        );
        assert_eq!(answer_in_short(200, b""), "200");
        assert_eq!(
            answer_in_short(
                502,
                b"To=%2B12015550123 (201) 555-0123 code 123456 https://x.example/s/abcdefghijklmnop"
            ),
            r#"502, "… (…) … code … https://x.…""#
        );
        assert_eq!(answer_in_short(200, b"Basic QUMwMDAwMDAwMDAwMDAwMDA6cGFzcw=="), r#"200, "Basic …""#);
        let long = answer_in_short(200, "ab <é> ".repeat(100).as_bytes());
        assert!(long.is_ascii() && long.len() <= SHOWN + 8, "{long}");
    }
}
