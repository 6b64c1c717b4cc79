//! A time as a person writes it: RFC 3339, or how long ago.

use std::{str::FromStr, time::Duration};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// `2h` is two hours ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Ago(Duration),
    At(OffsetDateTime),
}

impl Moment {
    /// The time, for a clock that shows `now`. What was before year 1 counts as 1970.
    pub(crate) fn at(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::Ago(ago) => {
                let ago = time::Duration::try_from(ago).ok();
                ago.and_then(|ago| now.checked_sub(ago)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
            }
            Self::At(at) => at,
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ago = humantime::parse_duration(text).ok().map(Self::Ago);
        let moment = ago.or_else(|| in_utc(text).map(Self::At));
        moment.ok_or("a time is how long ago, such as 2h or 1d, or RFC 3339, such as 2026-11-30T08:00:00Z")
    }
}

/// `None` for a time after the year 9999 in UTC, too.
fn in_utc(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_how_long_ago_or_rfc_3339() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        let at = |text: &str| text.parse::<Moment>().map(|moment| moment.at(now).unix_timestamp());
        assert_eq!(at("2h"), Ok(992_800));
        assert_eq!(at("1d 1s"), Ok(913_599));
        assert_eq!(at("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(at("1000000y"), Ok(0));
        for wrong in ["", "yesterday", "2026-11-30", "5", "-2h", "9999-12-31T23:59:59-23:59"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
