//! The stream from the broker, in which a sender controls headers, bodies and routing keys. The output is the same for pieces of
//! any size, and the client library reads each message.

#![cfg_attr(fuzzing, no_main)]

use amq_protocol::frame::parse_frame;
use libfuzzer_sys::fuzz_target;
use session_invite::internals::fuzzing::queue;

/// A frame's type, channel and size; and its last byte.
const HEAD: usize = 7;
const END: u8 = 0xce;

fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else { return };
    let whole = queue::screened(stream, 32 * 1024);
    let in_pieces = queue::screened(stream, usize::from(*piece) + 1);
    match (whole, in_pieces) {
        (Ok(whole), Ok(in_pieces)) => {
            assert_eq!(whole, in_pieces);
            read(&whole);
        }
        (Err(_), Err(_)) => {}
        (whole, in_pieces) => panic!("whole: {whole:?}, in pieces: {in_pieces:?}"),
    }
});

fn read(mut stream: &[u8]) {
    if stream.first() == Some(&b'A') {
        stream = stream.get(8..).unwrap_or_default();
    }
    while let Some(&[kind, _, _, a, b, c, d]) = stream.first_chunk::<HEAD>() {
        let length = HEAD + u32::from_be_bytes([a, b, c, d]) as usize + 1;
        let Some(frame) = stream.get(..length) else { return };
        stream = &stream[length..];
        // The broker itself writes method frames and the end of each frame, so these are not checked.
        if kind != 1 && frame.ends_with(&[END]) {
            let (rest, _) = parse_frame(frame).unwrap_or_else(|error| panic!("{error:?}: {frame:?}"));
            assert!(rest.is_empty());
        }
    }
}
