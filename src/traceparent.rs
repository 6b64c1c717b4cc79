//! The W3C trace context (<https://www.w3.org/TR/trace-context/>) of a request. The worker puts it into its spans, into the
//! request to the provider and into the reply, so that one trace shows an invite from end to end.

use std::fmt;

/// A valid `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

impl TraceParent {
    /// Accepts the form of version 00, and of a later version that begins with it.
    pub fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        let mut parts = header.splitn(5, '-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            (part.len() == digits && part.bytes().all(lower)).then_some(part)
        };
        let (version, trace, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let more = parts.next().is_some();
        if version == "ff" || (version == "00" && more) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let parent_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, parent_id, flags: u8::from_str_radix(flags, 16).ok()? })
    }

    /// The same trace, with a new span as the parent.
    #[must_use]
    pub fn child(self) -> Self {
        Self { parent_id: rand::random_range(1..=u64::MAX), ..self }
    }

    /// A new trace.
    pub(crate) fn random() -> Self {
        Self {
            trace_id: rand::random_range(1..=u128::MAX),
            parent_id: rand::random_range(1..=u64::MAX),
            flags: 0,
        }
    }

    /// The same, with the flag that says that it is traced.
    #[must_use]
    pub(crate) fn sampled(self) -> Self {
        Self { flags: 1, ..self }
    }

    /// Whether its sender traces it.
    pub(crate) fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }

    /// Whether the trace is among a share of all traces, by its id, so that all who sample by this share agree.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "56 random bits are enough"
    )]
    pub(crate) fn is_within(self, ratio: f64) -> bool {
        // The last 56 bits are random (<https://www.w3.org/TR/trace-context-2/#random-trace-id-flag>).
        let random = (self.trace_id as u64) & ((1 << 56) - 1);
        (random as f64) < ratio * (1_u64 << 56) as f64
    }

    /// The span: 16 hex digits.
    pub(crate) fn span_id(self) -> String {
        format!("{:016x}", self.parent_id)
    }

    /// For the worker's spans: 32 hex digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Version 00 has only the flag `sampled`.
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags & 1)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_child_stays_in_the_trace() {
        let child = TraceParent::parse(GOOD).unwrap().child().to_string();
        assert!(child.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && child.ends_with("-01"));
        assert!(!child.contains("b7ad6b7169203331"));
    }

    #[test]
    fn a_share_of_traces_is_sampled_by_their_ids() {
        let sampled = |ratio| (0..10_000).filter(|_| TraceParent::random().is_within(ratio)).count();
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((800..1_200).contains(&sampled(0.1)));
        let good = TraceParent::parse(GOOD).unwrap();
        assert!(good.is_sampled() && !TraceParent::random().is_sampled());
        assert_eq!((good.span_id().as_str(), good.sampled()), ("b7ad6b7169203331", good));
    }

    #[test]
    fn a_malformed_traceparent_is_refused() {
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
        assert!(TraceParent::parse(&format!("{}-later", GOOD.replacen("00", "01", 1))).is_some());
    }
}
