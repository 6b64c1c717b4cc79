//! What an invite comes to, and so what the queue does with its message.

use super::Reply;
use crate::{
    refusal::{Code, Refusal},
    sessions::Resume,
    trouble::Trouble,
};

/// What the queue does with a message. [`process`](super::process()) comes to the first two.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Publish the reply, then acknowledge.
    Answer(Reply),
    /// Publish a copy to a retry queue, then acknowledge.
    Later(Resume),
    /// Set the request aside with this reason, tell its sender, then acknowledge.
    SetAside { reply: Reply, reason: String },
    /// Give it back, for another worker.
    Return,
}

/// The only place where trouble becomes a dead letter or a return.
impl From<Trouble> for Verdict {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Stopping | Trouble::Unsure(_) => Self::Return,
            Trouble::Defect(reason) => {
                let message =
                    "the worker could not finish this invite; it is set aside, and an operator can replay it";
                Self::SetAside { reply: Reply::refused(&Refusal::new(Code::InternalError, message)), reason }
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
        let Verdict::SetAside { reply, reason } = Verdict::from(Trouble::Defect("why".into())) else {
            panic!()
        };
        assert_eq!((reply.status, reply.code, reason.as_str()), ("failed", Some("internal_error"), "why"));
    }
}
