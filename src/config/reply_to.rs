//! `REPLY_TO_ALLOW`: which queues a reply may go to.

/// The queues that replies may go to: names in which `*` stands for any characters, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyToAllow(Vec<String>);

impl ReplyToAllow {
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns: Vec<String> =
            text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()).map(str::to_owned).collect();
        if patterns.is_empty() {
            Err(format!("{text:?} has no pattern; * allows all"))
        } else {
            Ok(Self(patterns))
        }
    }

    pub fn allows(&self, queue: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, queue))
    }
}

/// Whether the name fits the pattern, with `*` for any characters. Linear in both, for any pattern.
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
        assert!(!allows("ab*ba", "aba"), "the two ends must not overlap");
        assert!(ReplyToAllow::parse(" , ").is_err());
    }
}
