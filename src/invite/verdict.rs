//! What follows for the message from what came of its invite. Pure: the queue carries it out.

use super::{Progress, Reply};
use crate::{
    refusal::{Code, Refusal},
    sessions::Resume,
    trouble::Trouble,
};

/// What the queue does with a message.
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
pub fn verdict(result: Result<Progress, Trouble>) -> Verdict {
    match result {
        Ok(Progress::Answered(reply)) => Verdict::Answer(reply),
        Ok(Progress::Later(resume)) => Verdict::Later(resume),
        Err(Trouble::Stopping | Trouble::Unsure(_)) => Verdict::Return,
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
    use std::time::Duration;
    use uuid::Uuid;

    #[test]
    fn each_result_has_one_consequence() {
        let reply = Reply { status: "sent", code: None, body: b"{}".to_vec(), has_row: true };
        assert_eq!(verdict(Ok(reply.clone().into())), Verdict::Answer(reply));
        let resume = Resume { session: Uuid::nil(), ticket: Uuid::max(), after: Duration::from_secs(1) };
        assert_eq!(verdict(Ok(Progress::Later(resume))), Verdict::Later(resume));
        assert_eq!(verdict(Err(Trouble::Stopping)), Verdict::Return);
        assert_eq!(verdict(Err(Trouble::Unsure("count"))), Verdict::Return);
        let Verdict::SetAside { reply, reason } = verdict(Err(Trouble::Defect("why".into()))) else {
            panic!()
        };
        assert_eq!((reply.status, reply.code, reason.as_str()), ("failed", Some("internal_error"), "why"));
    }
}
