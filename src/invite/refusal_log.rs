//! The log of refusals: the first of each group and code in a minute, with the number of those left out since the last line.
//! So "why does this group get 401" has an answer in the log, and no sender can fill it.

use super::{Envelope, Reply, Request};
use crate::{group_id::GroupId, refusal::Refusal, seal::SecretsKey};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_mins(1);
/// Groups and codes with lines of their own in a minute. Any sender can name any group, so the others share a line for each
/// code.
const LINES_AT_MOST: usize = 500;

/// Logs refusals.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    secrets: SecretsKey,
    lines: Mutex<HashMap<LineKey, LoggedLine>>,
}

/// The group, as far as it is known, and the code.
type LineKey = (Option<GroupId>, &'static str);

#[derive(Debug)]
struct LoggedLine {
    at: Instant,
    /// Refusals since then that have no line.
    left_out: u64,
}

/// A refusal, as the log shows it.
#[derive(Clone, Copy)]
struct RefusedRequest<'a> {
    /// The group of an authenticated sender.
    group: Option<GroupId>,
    code: &'static str,
    why: &'a str,
}

impl RefusalLog {
    pub(crate) fn new(secrets: SecretsKey) -> Self {
        Self { secrets, lines: Mutex::default() }
    }

    /// Notes the reply to a request, if it is a refusal.
    pub(crate) fn note_reply(&self, envelope: &Envelope, reply: &Reply) {
        let Some(code) = reply.code else { return };
        let why = reply.why.as_deref().unwrap_or_default();
        self.note_refused(envelope, None, RefusedRequest { group: reply.group, code, why });
    }

    /// Notes a refusal of a request whose sender may be authenticated.
    pub(crate) fn note(
        &self,
        envelope: &Envelope,
        request: &Request<'_>,
        group: Option<GroupId>,
        refusal: &Refusal,
    ) {
        let refused = RefusedRequest { group, code: refusal.code.as_str(), why: &refusal.message };
        self.note_refused(envelope, Some(request), refused);
    }

    fn note_refused(&self, envelope: &Envelope, request: Option<&Request<'_>>, refused: RefusedRequest<'_>) {
        let parsed = if request.is_none() { Request::parse(envelope).ok() } else { None };
        let request = request.or(parsed.as_ref());
        let named = || request.and_then(|request| request.named_group(envelope));
        let group = refused.group.or_else(named);
        let Some((group, left_out)) = self.due((group, refused.code), Instant::now()) else { return };
        let credential = request.and_then(|request| request.credential_value(envelope));
        let credential = credential.map(|value| self.secrets.credential_hash(&value));
        tracing::info!(
            group = group.map(GroupId::get),
            authenticated = refused.group.is_some(),
            code = refused.code,
            why = refused.why,
            credential,
            left_out,
            "refused"
        );
    }

    /// Counts a refusal. If a line is due, returns its group and the number of refusals without a line before it.
    fn due(&self, mut key: LineKey, now: Instant) -> Option<(Option<GroupId>, u64)> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_AT_MOST && !lines.contains_key(&key) {
            lines.retain(|_, line| now.saturating_duration_since(line.at) < EVERY);
            if lines.len() >= LINES_AT_MOST {
                key.0 = None;
            }
        }
        let Some(line) = lines.get_mut(&key) else {
            lines.insert(key, LoggedLine { at: now, left_out: 0 });
            return Some((key.0, 0));
        };
        if now.saturating_duration_since(line.at) < EVERY {
            line.left_out += 1;
            return None;
        }
        let left_out = std::mem::take(&mut line.left_out);
        line.at = now;
        Some((key.0, left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;
    use base64::Engine;

    fn log() -> RefusalLog {
        let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
        RefusalLog::new(SecretsKey::parse(&key).unwrap())
    }

    fn group(id: i64) -> Option<GroupId> {
        GroupId::new(id)
    }

    #[test]
    fn the_first_of_a_group_and_a_code_in_a_minute_has_a_line() {
        let (log, now) = (log(), Instant::now());
        assert_eq!(log.due((group(72), "credential_invalid"), now), Some((group(72), 0)));
        assert_eq!(log.due((group(72), "credential_invalid"), now), None);
        assert_eq!(log.due((group(72), "credential_invalid"), now), None);
        assert_eq!(log.due((group(72), "phone_invalid"), now), Some((group(72), 0)));
        assert_eq!(log.due((group(73), "credential_invalid"), now), Some((group(73), 0)));
        assert_eq!(log.due((group(72), "credential_invalid"), now + EVERY), Some((group(72), 2)));
    }

    #[test]
    fn senders_who_name_many_groups_share_a_line() {
        let (log, now) = (log(), Instant::now());
        let logged =
            (1..=10_000).filter(|id| log.due((group(*id), Code::CredentialInvalid.as_str()), now).is_some());
        assert_eq!(logged.count(), LINES_AT_MOST + 1);
        assert!(log.lines.lock().unwrap().len() <= LINES_AT_MOST + Code::ALL.len());
        let later = log.due((group(20_000), Code::CredentialInvalid.as_str()), now + EVERY);
        assert_eq!(later, Some((group(20_000), 0)), "there is room again");
    }
}
