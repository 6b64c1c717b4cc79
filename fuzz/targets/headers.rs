//! A message's properties as bytes on the wire. If the frame inspector lets them through, the client library and the worker read
//! them whole. If not, the library cannot read them, or they are nested too deeply.

#![cfg_attr(fuzzing, no_main)]

use libfuzzer_sys::fuzz_target;
use session_invite::internals::fuzzing::queue;

fuzz_target!(|properties: &[u8]| {
    queue::properties(properties);
});
