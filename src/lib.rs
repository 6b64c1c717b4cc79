//! Session Invite: an invite from RabbitMQ becomes a session, a text and a reply, once each.
//!
//! In the order in which an invite meets them:
//!
//! - `queue`: deliveries in, verdicts out; the only acknowledgement.
//! - `invite`: the story of one invite, top to bottom, in `invite::process()`.
//! - `credential`, `group`, `phone`: the sender's credential, its tenant, and the number to text.
//! - `sessions`: the table, as verbs.
//! - `sms`: the provider.
//! - `gateway`: the HTTP request, by way of the queue; look-ups for agents, and pages for visitors.
//!
//! Around it: `config` (the only reader of the environment), `commands` (one file each). What the provider defines is a
//! crate of its own (`crates/sms-provider`), and so is the sandbox, a provider to develop against (`crates/sms-sandbox`).
//!
//! Dependencies point one way, from the left to the right. `tests/arrows.rs` checks it:
//!
//! ```text
//! program → cli → commands → console → gateway, doctor, reconcile, story → dead_letters, health, measurements → queue
//!      → invite → sessions → group, limits, optouts, processes, sms, suspects → audit → credential, db, http, spans
//!      → supervise, config → phone, seal, session_key, sms_text → leaves
//! ```
//!
//! The leaves know no other module: a group's id, a refusal, a trace context, delays, JSON, metrics.

// Tests may spawn tasks directly.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
// They panic if their reader goes away. Use `output::print` and `output::note`.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod audit;
mod backoff;
mod cli;
mod commands;
mod config;
mod console;
mod credential;
mod db;
mod dead_letters;
mod doctor;
mod failpoint;
mod gateway;
mod group;
mod group_id;
mod health;
mod hmac_key;
mod http;
mod invite;
mod json;
mod limits;
mod log_throttle;
mod masked;
mod measurements;
mod metrics;
mod moment;
mod nodes;
mod optouts;
mod output;
mod pasted;
mod phone;
mod processes;
mod program;
mod queue;
mod rate_limit;
mod reconcile;
mod refusal;
mod seal;

mod session_key;
mod sessions;
mod shutdown;
mod sms;
mod sms_text;
mod spans;
mod story;
mod supervise;
mod suspects;
mod telemetry;
mod traceparent;
mod trouble;

pub use program::main;

/// For the tests, the soak, the benchmark and the fuzzing targets of this repository. It is not a public API.
pub mod internals {
    pub use crate::{
        cli::Cli,
        config::AgeLimits,
        credential::{
            Credential, CredentialSource, GjwtToken, GkeyToken, Requester, SourceKind, SourceValue,
            WebsiteSession, collect, gjwt, gkey,
        },
        gateway::{document, routes},
        group::{
            ApiKey, Group, JwtSecret, LastUse,
            directory::Directory,
            options::GroupOptions,
            template::{DEFAULT_TEXT, TemplateValues, Wording},
        },
        group_id::GroupId,
        hmac_key::HmacKey,
        invite::{Authenticator, Caller, Envelope, Reply, Request, process},
        optouts::keyword,
        phone::{PhoneCheck, PhoneNumber},
        queue::{BrokerVersion, QueueNames, connect_to_node},
        refusal::{Code, Refusal},
        seal::SecretsKey,
        session_key::{SessionKey, Token},
        sessions::{Outcome, RequestRecord, SentSession},
        sms::TryResult,
        supervise::{Process, Task},
    };

    /// Phone numbers: parsing them, and the parts of them that may be shown.
    pub mod phone {
        pub use crate::phone::{country, masked_prefix, parse, parse_either_form, twin};
    }

    /// The functions that the fuzzing targets call (docs/FUZZING.md).
    pub mod fuzzing {
        pub use crate::{gateway::fuzzing as gateway, queue::fuzzing as queue, sms::fuzzing as sms};
    }
}
