//! The names in a `reply_to`: of a queue, or for a direct reply.

use super::topology::QueueNames;
use crate::config::ReplyToAllow;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD as CANONICAL,
};

/// How the name for a direct reply begins.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// How the broker treats a `reply_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyToKind {
    /// The name of a queue.
    Queue,
    Direct,
    /// It begins as the name for a direct reply does, but does not have its form.
    Malformed,
}

impl ReplyToKind {
    /// Direct is the prefix alone, or followed by a dot and two base64 parts with a dot between (contract, section 7).
    pub(super) fn of(reply_to: &str) -> Self {
        let Some(rest) = reply_to.strip_prefix(DIRECT_REPLY_TO) else { return Self::Queue };
        let parts = rest.strip_prefix('.').and_then(|rest| rest.split_once('.'));
        let is_whole = parts.is_some_and(|(process, key)| decode(process).is_some() && decode(key).is_some());
        if rest.is_empty() || is_whole { Self::Direct } else { Self::Malformed }
    }
}

/// Whether a reply may go to this queue: it is not one of the worker's own, and `REPLY_TO_ALLOW` allows it.
pub(super) fn may_reply_to(queue: &str, names: &QueueNames, allow: &ReplyToAllow) -> bool {
    ReplyToKind::of(queue) == ReplyToKind::Queue && !names.is_reserved(queue) && allow.allows(queue)
}

/// In either alphabet, padded or not; not empty.
fn decode(part: &str) -> Option<Vec<u8>> {
    let decoded = STANDARD.decode(part).or_else(|_| URL_SAFE.decode(part)).ok()?;
    (!decoded.is_empty()).then_some(decoded)
}

/// The broker's node in the name for a direct reply: the atom in a process id of Erlang's external term format
/// (<https://www.erlang.org/doc/apps/erts/erl_ext_dist>). `None` for a name that the broker would not write itself, over
/// which it may close the connection: another alphabet or padding, an older form of the id or the atom, or bytes after the
/// id.
pub(super) fn node(reply_to: &str) -> Option<Vec<u8>> {
    let (process, _) = reply_to.strip_prefix(DIRECT_REPLY_TO)?.strip_prefix('.')?.split_once('.')?;
    let term = CANONICAL.decode(process).ok()?;
    // NEW_PID_EXT: the node, then 12 bytes.
    let (&[131, 88], atom) = term.split_first_chunk()? else { return None };
    let (name, length) = match *atom.first()? {
        // ATOM_UTF8_EXT and SMALL_ATOM_UTF8_EXT.
        118 => (3, usize::from(u16::from_be_bytes([*atom.get(1)?, *atom.get(2)?]))),
        119 => (2, usize::from(*atom.get(1)?)),
        _ => return None,
    };
    let node = atom.get(name..name + length)?;
    (atom.len() == name + length + 12).then(|| node.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RabbitMQ 3.10.
    const REAL: &str =
        "amq.rabbitmq.reply-to.g1h2AA1yZXBseUA5MjQ4ODg0AAAIeAAAAABrC/oX.mjVeKtB70cU8N4h0QnYOjw==";

    #[test]
    fn a_direct_name_is_the_prefix_alone_or_with_two_base64_parts() {
        for direct in
            [DIRECT_REPLY_TO, REAL, "amq.rabbitmq.reply-to.g1h2AA==.AAAA", "amq.rabbitmq.reply-to.-_8.AA"]
        {
            assert_eq!(ReplyToKind::of(direct), ReplyToKind::Direct, "{direct}");
        }
        for malformed in [
            "amq.rabbitmq.reply-to.",
            "amq.rabbitmq.reply-to..",
            "amq.rabbitmq.reply-to.g1h2AA.x",
            "amq.rabbitmq.reply-to.AAAA",
            "amq.rabbitmq.reply-to.AAAA.",
            "amq.rabbitmq.reply-to..AAAA",
            "amq.rabbitmq.reply-to.AAAA.BB BB",
            "amq.rabbitmq.reply-to.AAAA.BBBB.CCCC",
            "amq.rabbitmq.reply-to.AAAA.BBB\u{e9}",
            "amq.rabbitmq.reply-toAAAA.BBBB",
            "amq.rabbitmq.reply-to-mine",
        ] {
            assert_eq!(ReplyToKind::of(malformed), ReplyToKind::Malformed, "{malformed}");
        }
        for queue in ["", "crm.replies", "amq.rabbitmq.reply", "AMQ.RABBITMQ.REPLY-TO.AAAA.BBBB"] {
            assert_eq!(ReplyToKind::of(queue), ReplyToKind::Queue, "{queue}");
        }
    }

    #[test]
    fn a_node_is_read_from_a_whole_process_id_only() {
        assert_eq!(node(REAL).as_deref(), Some(&b"reply@9248884"[..]));
        let with = |term: &[u8]| node(&format!("{DIRECT_REPLY_TO}.{}.AAAA", STANDARD.encode(term)));
        assert_eq!(with(b"\x83Xv\0\x01a000000000000").as_deref(), Some(&b"a"[..]));
        assert_eq!(with(b"\x83Xw\x01a000000000000").as_deref(), Some(&b"a"[..]));
        for broken in [
            &b""[..],
            b"\x83",
            b"\x83X",
            b"\x83Xv",
            b"\x83Xv\xff\xffa",
            b"\x83Xw\x01a00000000000",
            b"\x83Xw\x01a0000000000000",
            b"\x83a\x05",
            // Forms that older brokers wrote, and over which those of today close the connection.
            b"\x83gd\0\x01a000000000",
            b"\x83gw\x01a000000000",
            b"\x83Xd\0\x01a000000000000",
            b"\x83Xs\x01a000000000000",
        ] {
            assert_eq!(with(broken), None, "{broken:?}");
        }
        // A plus and a slash, and a length that needs padding.
        let real = b"\x83Xw\x07ab\xfb\xef\xbe\xff\xff000000000000";
        let standard = STANDARD.encode(real);
        assert!(standard.contains('+') && standard.contains('/') && standard.ends_with('='), "{standard}");
        let named = |process: &str| node(&format!("{DIRECT_REPLY_TO}.{process}.AAAA"));
        assert!(named(&standard).is_some());
        assert_eq!(named(standard.trim_end_matches('=')), None);
        assert_eq!(named(&standard.replace('+', "-").replace('/', "_")), None);
    }
}
