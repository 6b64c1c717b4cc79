//! What follows for the message from what came of its invite. Pure: the queue carries it out.

use super::Reply;
use crate::{
    refusal::{Code, Refusal},
    trouble::Trouble,
};

/// What the queue does with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Publish the reply, then acknowledge.
    Answer(Reply),
    /// Set the request aside with this reason, tell its sender, then acknowledge.
    SetAside { reply: Reply, reason: String },
    /// Give it back, for another worker.
    Return,
}

/// The only place where trouble becomes a dead letter or a return.
pub fn verdict(result: Result<Reply, Trouble>) -> Verdict {
    match result {
        Ok(reply) => Verdict::Answer(reply),
        Err(Trouble::Stopping) => Verdict::Return,
        Err(Trouble::Defect(reason)) => {
            let message =
                "the worker could not finish this invite; it is set aside, and an operator can replay it";
            Verdict::SetAside { reply: Reply::refused(&Refusal::new(Code::InternalError, message)), reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_one_consequence() {
        let reply = Reply { status: "sent", code: None, body: b"{}".to_vec(), has_row: true };
        assert_eq!(verdict(Ok(reply.clone())), Verdict::Answer(reply));
        assert_eq!(verdict(Err(Trouble::Stopping)), Verdict::Return);
        let Verdict::SetAside { reply, reason } = verdict(Err(Trouble::Defect("why".into()))) else {
            panic!()
        };
        assert_eq!((reply.status, reply.code, reason.as_str()), ("failed", Some("internal_error"), "why"));
    }
}
