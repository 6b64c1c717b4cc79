//! Receipts with a wrong signature, for sessions that exist. While no receipt was right since the start, that is listed for
//! operators: a setting is wrong. Anyone can send a wrong signature, so the gateway stays ready, and looks few sessions up.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Look-ups at once, and the time after which there may be one more.
const LOOKS: u32 = 10;
const ONE_LOOK: Duration = Duration::from_secs(1);

/// Whether the provider's receipts are accepted.
#[derive(Debug, Default)]
pub(super) struct RefusedReceipts {
    /// Since the start.
    any_accepted: AtomicBool,
    state: Mutex<RefusalState>,
}

#[derive(Debug, Default)]
struct RefusalState {
    /// When as many look-ups as [`LOOKS`] are allowed again.
    all_looks_at: Option<Instant>,
    refused: Option<Refused>,
}

/// The refused receipts of sessions that exist.
#[derive(Debug, Clone)]
struct Refused {
    count: u64,
    since: OffsetDateTime,
    why: RefusalCause,
}

/// Why a signature is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RefusalCause {
    NoToken,
    /// The token is right, and the provider called another address.
    OtherUrl(String),
    Other,
}

impl RefusedReceipts {
    pub(super) fn accepted(&self) {
        if !self.any_accepted.load(Ordering::Relaxed) {
            self.any_accepted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one more session may be looked up. Counts it.
    pub(super) fn may_look(&self) -> bool {
        if self.any_accepted.load(Ordering::Relaxed) {
            return false;
        }
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.all_looks_at.map_or(now, |at| at.max(now)) + ONE_LOOK;
        let is_allowed = next.saturating_duration_since(now) <= ONE_LOOK * LOOKS;
        if is_allowed {
            state.all_looks_at = Some(next);
        }
        is_allowed
    }

    /// Notes a refused receipt of a session that exists.
    pub(super) fn refused(&self, why: RefusalCause) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.refused.take();
        if before.is_none() {
            tracing::warn!(
                "receipts of sessions that exist are refused for their signature; /readyz says more"
            );
        }
        let (count, since) =
            before.map_or((0, OffsetDateTime::now_utc()), |before| (before.count, before.since));
        state.refused = Some(Refused { count: count + 1, since, why });
    }

    /// For `/readyz`.
    pub(super) fn problem(&self, public_url: &str) -> Option<String> {
        if self.any_accepted.load(Ordering::Relaxed) {
            return None;
        }
        let refused = self.state.lock().unwrap_or_else(PoisonError::into_inner).refused.clone();
        refused.map(|refused| refused.text(public_url))
    }
}

impl Refused {
    fn text(&self, public_url: &str) -> String {
        let Self { count, since, why } = self;
        let since = since.replace_nanosecond(0).unwrap_or(*since).format(&Rfc3339).unwrap_or_default();
        let (cause, remedy) = match why {
            RefusalCause::NoToken => (
                "the gateway has no TWILIO_AUTH_TOKEN to check them with".to_owned(),
                "set the gateway's TWILIO_AUTH_TOKEN to the account's token, and restart the gateway".to_owned(),
            ),
            RefusalCause::OtherUrl(base) => (
                format!("the provider calls {base}, and the gateway's PUBLIC_URL is {public_url}"),
                format!("set the gateway's PUBLIC_URL={base}, as the workers have it, and restart the gateway"),
            ),
            RefusalCause::Other => (
                "the gateway's TWILIO_AUTH_TOKEN is not the token of the account that sends the texts, or its PUBLIC_URL is \
                 not the address that the provider calls"
                    .to_owned(),
                "session-invite doctor compares both settings of the gateway and the workers (check settings); set the right \
                 ones, and restart the gateway"
                    .to_owned(),
            ),
        };
        format!(
            "the provider's receipts are refused: since {since}, {count} for sessions that exist had a wrong signature, and \
             none was right since the start: {cause}. Sessions stay as they are, and STOP is not recorded. What to do: \
             {remedy}; then session-invite reconcile --since 1d notes the receipts that were missed"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_sessions_are_looked_up_and_none_once_a_receipt_was_right() {
        let (receipts, begun) = (RefusedReceipts::default(), Instant::now());
        let looks = (0..1_000).filter(|_| receipts.may_look()).count();
        let more = usize::try_from(begun.elapsed().as_secs()).unwrap();
        assert!((10..=11 + more).contains(&looks), "{looks}");
        let other = RefusedReceipts::default();
        other.refused(RefusalCause::NoToken);
        assert!(other.problem("https://x.example").is_some_and(|text| text.contains("TWILIO_AUTH_TOKEN")));
        other.accepted();
        assert!(other.problem("https://x.example").is_none() && !other.may_look());
    }
}
