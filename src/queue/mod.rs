//! The broker: what the queues are called, consuming from them, and publishing with confirms.

mod ack;
mod allowance;
mod ask;
mod cause;
mod connection;
mod consume;
pub mod dead;
mod delivery;
mod direct;
mod events;
mod publish;
mod returns;
mod settle;
mod topology;
mod watch;
mod wire;
mod work;

pub use ask::{AskError, Asking};
pub use cause::Cause;
pub use connection::{Right, Unusable, connect, connect_and_ask, connect_to};
pub use consume::{Consumer, Source};
pub use direct::DirectReplies;
pub use events::Events;
pub use publish::{Name, Outgoing, Published, Publisher};
pub use returns::is_limited;
pub use topology::{Names, QueueState, Standing, declare, delete, look, look_for_requests};
pub use watch::Consuming;
pub use wire::Server;

/// Where replies may go: names in which `*` stands for any characters, several with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyToAllow(Vec<String>);

impl ReplyToAllow {
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns: Vec<String> =
            text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect();
        if patterns.is_empty() {
            Err(format!("{text:?} holds no pattern; * allows all"))
        } else {
            Ok(Self(patterns))
        }
    }

    pub fn allows(&self, queue: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, queue))
    }

    /// Whether a reply may go to the queue: it is none of the worker's own, and is allowed.
    pub fn takes(&self, names: &Names, queue: &str) -> bool {
        direct::form(queue) == direct::Form::Queue && !names.is_reserved(queue) && self.allows(queue)
    }
}

/// Whether the name is the pattern, with `*` for any characters. Linear in both, whatever the pattern.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    // `split` gives at least one part.
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// What the fuzzing targets call (docs/FUZZING.md).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::wire::{properties, screened};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_allow_by_name() {
        let allows = |pattern: &str, queue: &str| ReplyToAllow::parse(pattern).unwrap().allows(queue);
        assert!(allows("*", "anything"));
        assert!(allows("crm.*", "crm.replies") && !allows("crm.*", "x.crm.replies"));
        assert!(
            allows("crm, web-*", "crm") && allows("crm, web-*", "web-1") && !allows("crm, web-*", "crm1")
        );
        assert!(allows("*.replies", "a.replies") && !allows("*.replies", "a.replies.b"));
        assert!(allows("a*b*c", "a1b2c") && !allows("a*b*c", "acb"));
        assert!(!allows("ab*ba", "aba"), "the ends do not overlap");
        assert!(ReplyToAllow::parse(" , ").is_err());
    }
}
