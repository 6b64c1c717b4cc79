//! Names of databases, queues and directories.

use crate::{paths, random};
use std::io;

/// Names of what one run makes on servers that others use too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub database: String,
    pub queue_prefix: String,
}

impl Names {
    /// Such as `session_invite_demo_0123456789ab` and `session-invite-demo-0123456789ab`.
    pub(crate) fn of_run(command: &str) -> io::Result<Self> {
        Ok(Self::new(command, &random::word()?))
    }

    /// One of each for every checkout: two that share servers must not take each other's invites.
    pub(crate) fn of_checkout() -> io::Result<Self> {
        Ok(Self::new("up", &checksum(&paths::root()?.display().to_string())))
    }

    fn new(command: &str, word: &str) -> Self {
        Self {
            database: format!("session_invite_{command}_{word}"),
            queue_prefix: format!("session-invite-{command}-{word}"),
        }
    }
}

/// The CRC of POSIX's `cksum`, over the text and a line end.
pub(crate) fn checksum(text: &str) -> String {
    let bytes = text.bytes().chain([b'\n']);
    // The length follows, without its leading zeros.
    let length = (text.len() + 1).to_le_bytes();
    let used = length.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let crc = bytes.chain(length.into_iter().take(used)).fold(0, add_byte);
    (!crc).to_string()
}

fn add_byte(crc: u32, byte: u8) -> u32 {
    let mut crc = crc ^ (u32::from(byte) << 24);
    for _ in 0..8 {
        crc = if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04c1_1db7 };
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        let names = Names::new("demo", "0123456789ab");
        assert_eq!(names.database, "session_invite_demo_0123456789ab");
        assert_eq!(names.queue_prefix, "session-invite-demo-0123456789ab");
        assert_ne!(Names::of_run("demo").unwrap(), Names::of_run("demo").unwrap());
        assert_eq!(Names::of_checkout().unwrap(), Names::of_checkout().unwrap());
    }

    #[test]
    fn a_checksum_is_that_of_cksum() {
        assert_eq!(checksum("/work/main"), "4142808585");
        assert_eq!(checksum("/root/x"), "1910074192");
        assert_eq!(checksum(""), "3515105045");
    }
}
