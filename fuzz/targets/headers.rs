//! A message's properties as bytes on the wire: what the frame inspector lets through, the client library reads whole, and so
//! do we; what it does not, the library cannot read, or it is too deep.

#![no_main]

use libfuzzer_sys::fuzz_target;
use session_invite::queue::fuzzing;

fuzz_target!(|properties: &[u8]| {
    fuzzing::properties(properties);
});
