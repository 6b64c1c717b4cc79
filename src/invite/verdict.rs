//! What the queue does with a message once its invite is processed.

use super::{Reply, metrics};
use crate::{
    log_throttle::LogThrottle,
    refusal::{Code, Refusal},
    sessions::{self, Resume, unknown},
    trouble::Trouble,
};

/// Any sender can publish what looks like the copy of such an invite.
static ROWS_LOST: LogThrottle = LogThrottle::new();

/// What the queue does with a message. [`process`](super::process()) returns the first two.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Publish the reply, then acknowledge.
    Answer(Reply),
    /// Publish a copy to a retry queue, then acknowledge.
    Later(Resume),
    /// Set the request aside as a dead letter with this reason, reply to its sender, then acknowledge.
    SetAside { reply: Box<Reply>, reason: String },
    /// Return the message to the queue, for another worker.
    Return,
}

/// The only place where trouble becomes a dead letter or a return.
impl From<Trouble> for Verdict {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Stopping | Trouble::Unsure(_) => Self::Return,
            Trouble::RowLost => {
                metrics::row_lost();
                sessions::metrics::refused(None, Code::OutcomeUnknown);
                if let Some(rows) = ROWS_LOST.due() {
                    tracing::warn!(
                        rows,
                        "rows of open invites are gone; the invites are answered as unknown"
                    );
                }
                Self::Answer(Reply::refused(&unknown()))
            }
            Trouble::Defect(reason) => {
                sessions::metrics::refused(None, Code::InternalError);
                let message =
                    "the worker could not finish this invite; it is set aside, and an operator can replay it";
                let reply = Box::new(Reply::refused(&Refusal::new(Code::InternalError, message)));
                Self::SetAside { reply, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_returns_a_message_or_sets_it_aside() {
        assert_eq!(Verdict::from(Trouble::Stopping), Verdict::Return);
        assert_eq!(Verdict::from(Trouble::Unsure("count")), Verdict::Return);
        let Verdict::Answer(reply) = Verdict::from(Trouble::RowLost) else { panic!() };
        assert_eq!((reply.status, reply.code), ("failed", Some("outcome_unknown")));
        let Verdict::SetAside { reply, reason } = Verdict::from(Trouble::Defect("why".into())) else {
            panic!()
        };
        assert_eq!((reply.status, reply.code, reason.as_str()), ("failed", Some("internal_error"), "why"));
    }
}
