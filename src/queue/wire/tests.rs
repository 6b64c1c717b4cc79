//! Bytes as from a broker, in pieces of any size.

use super::{readable::MAX_DEPTH, *};
use lapin::protocol::basic::parse_properties;
use proptest::prelude::*;

const LIMIT: u32 = 128 * 1024;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[FRAME_END]].concat()
}

fn header(properties: &[u8]) -> Vec<u8> {
    frame(2, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5][..], properties].concat())
}

fn body() -> Vec<u8> {
    frame(3, b"\x02\xce\xce{}")
}

/// Headers with arrays or tables that are nested so deep.
fn nested(kind: u8, levels: usize) -> Vec<u8> {
    let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
    let mut table = vec![1, b'h'];
    for level in 0..levels {
        table.extend_from_slice(if level > 0 { name } else { b"" });
        table.push(kind);
        let within = u32::try_from((levels - 1 - level) * (name.len() + 5)).unwrap();
        table.extend_from_slice(&within.to_be_bytes());
    }
    [&[0x20, 0][..], &u32::try_from(table.len()).unwrap().to_be_bytes(), &table].concat()
}

fn replaced() -> Vec<u8> {
    let mark = MARK.as_bytes();
    header(&[&[0, 4, u8::try_from(mark.len()).unwrap()][..], mark].concat())
}

#[test]
fn properties_that_lapin_cannot_parse_are_replaced_and_all_else_passes() {
    let good = header(&nested(b'A', MAX_DEPTH));
    let table = header(&nested(b'F', MAX_DEPTH));
    let too_large = header(&[&[0x04, 0, 0][..], &vec![0; LIMIT as usize]].concat());
    let sent = [
        b"AMQP\0\0\x09\x01".to_vec(),
        good.clone(),
        body(),
        header(&nested(b'A', MAX_DEPTH + 1)),
        body(),
        header(&nested(b'F', 10_000)),
        body(),
        header(&nested(b'A', 26_000)),
        body(),
        header(&[0x04, 0, 1, 0xff]),
        body(),
        too_large,
        body(),
        frame(8, b""),
        table.clone(),
        body(),
    ]
    .concat();
    let bad = [replaced(), body()].concat();
    let expected =
        [b"AMQP\0\0\x09\x01".to_vec(), good, body(), bad.repeat(5), frame(8, b""), table, body()].concat();
    for piece in [1, 7, 1_000, 20_000] {
        assert!(screened(&sent, piece).unwrap() == expected, "in pieces of {piece}");
    }
}

#[test]
fn the_mark_is_recognized() {
    let marked = replaced();
    let (rest, properties) =
        parse_properties(&marked[FRAME_HEAD + BEFORE_PROPERTIES..marked.len() - 1]).unwrap();
    assert!(rest.is_empty() && is_unreadable(&properties));
    assert!(!is_unreadable(&BasicProperties::default()));
    assert!(!is_unreadable(&BasicProperties::default().with_cluster_id("guess".into())));
}

#[test]
fn short_strings_of_methods_keep_their_length() {
    let deliver = |key: &[u8]| {
        let length = u8::try_from(key.len()).unwrap();
        frame(1, &[b"\0\x3c\0\x3c\x03tag\0\0\0\0\0\0\0\x01\0\x01e", &[length][..], key].concat())
    };
    assert_eq!(screened(&deliver("k\u{e9}".as_bytes()), 3).unwrap(), deliver("k\u{e9}".as_bytes()));
    assert_eq!(screened(&deliver(b"k\xff\xc3"), 3).unwrap(), deliver(b"k??"));
    let close = |text: &[u8]| frame(1, &[b"\0\x14\0\x28\x01\x94\x02", text, b"\0\x3c\0\x28"].concat());
    assert_eq!(screened(&close(b"a\xff"), 3).unwrap(), close(b"a?"));
}

#[test]
fn the_brokers_version_and_its_frame_limit_are_read() {
    let (version, properties) = (BrokerVersion::default(), b"\x07versionS\0\0\0\x063.10.8");
    let length = u32::try_from(properties.len()).unwrap().to_be_bytes();
    let start = frame(1, &[b"\0\x0a\0\x0a\0\x09", &length[..], properties, b"\0\0\0\0\0\0\0\0"].concat());
    let tune = frame(1, b"\0\x0a\0\x1e\0\0\0\0\x10\0\0\0");
    let mut screen = Screen::new(LIMIT, version.clone());
    for bytes in [start, tune] {
        screen.room()[..bytes.len()].copy_from_slice(&bytes);
        screen.received(bytes.len()).unwrap();
        screen.take(&mut [0; 1_000]);
    }
    assert_eq!((version.get(), screen.frame_max), (Some("3.10.8"), 4_096));
}

#[test]
fn bytes_that_are_not_a_frame_are_an_error() {
    for broken in [&b"\x07\0\0\0\0\0\0\xce"[..], b"\x02\0\x01\0\0\0\x02xx\xce", b"\x01\0\0\0\0\0\0\xce"] {
        assert!(screened(broken, 100).is_err(), "{broken:?}");
    }
    // A method that is larger than a frame may be is not buffered.
    assert!(screened(b"\x01\0\0\x7f\0\0\0", 100).is_err());
}

/// A value of any type.
fn value(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let fixed = prop_oneof![
        Just((b'V', 0)),
        Just((b't', 1)),
        Just((b'b', 1)),
        Just((b'B', 1)),
        Just((b's', 2)),
        Just((b'U', 2)),
        Just((b'u', 2)),
        Just((b'I', 4)),
        Just((b'i', 4)),
        Just((b'f', 4)),
        Just((b'D', 5)),
        Just((b'L', 8)),
        Just((b'l', 8)),
        Just((b'd', 8)),
        Just((b'T', 8)),
    ]
    .prop_map(|(kind, size)| [&[kind][..], &[7; 8][..size]].concat());
    let text = (prop_oneof![Just(b'S'), Just(b'x')], prop::collection::vec(any::<u8>(), 0..6)).prop_map(long);
    if depth == 0 {
        return prop_oneof![fixed, text].boxed();
    }
    let array =
        prop::collection::vec(value(depth - 1), 0..4).prop_map(|values| long((b'A', values.concat())));
    let table = prop::collection::vec(value(depth - 1), 0..4).prop_map(|values| {
        let named = values.iter().map(|value| [b"\x01n", &value[..]].concat()).collect::<Vec<_>>();
        long((b'F', named.concat()))
    });
    prop_oneof![fixed, text, array, table].boxed()
}

fn long((kind, bytes): (u8, Vec<u8>)) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, &bytes].concat()
}

proptest! {
    /// Properties with some bytes changed.
    #[test]
    fn the_check_agrees_with_lapins_parser(
        flags in any::<u8>(),
        values in prop::collection::vec(value(3), 0..5),
        rest in prop::collection::vec(any::<u8>(), 0..12),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let named = values.iter().map(|value| [b"\x02nn", &value[..]].concat()).collect::<Vec<_>>().concat();
        let table = long((b'F', named));
        let mut bytes = [&[0x20 | (flags & 0x1f), flags & 0xfc][..], &table[1..], &rest].concat();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let parsed = parse_properties(&bytes[..]).is_ok_and(|(rest, _)| rest.is_empty());
        prop_assert_eq!(readable::properties(&bytes), parsed, "{:?}", bytes);
    }
}
