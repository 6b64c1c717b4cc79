//! A session after its invite: its keys, states, events and end.

mod events;
mod keys;
mod retention;
mod states;
