//! The invites: their content, and how each must end.

use crate::options::Options;
use lapin::BasicProperties;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::time::Duration;
use test_support::credentials;

/// The groups. The second has a fifth of the invites.
pub(crate) const GROUPS: [u64; 2] = [72, 73];

/// What is special about an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InviteKind {
    Plain,
    /// Published again at once, perhaps while the first is being processed.
    RepeatedAtOnce,
    /// Published again, some time after its answer.
    RepeatedLater,
    /// Its id is used again, after its answer, for another number.
    Conflict,
    /// Without a `message_id`.
    Anonymous,
    /// The provider refuses its number as opted out.
    OptedOut,
    BadPhone,
    BadCredential,
    /// With the credential of the other group.
    Mismatch,
    /// Not JSON.
    Malformed,
    /// More than 64 KiB.
    TooLong,
    /// Its `reply_to` names a queue that does not exist.
    Orphan,
}

/// All kinds but `Plain`, with their shares in thousandths.
const SHARES: [(InviteKind, u32); 11] = [
    (InviteKind::RepeatedAtOnce, 50),
    (InviteKind::RepeatedLater, 40),
    (InviteKind::Conflict, 10),
    (InviteKind::Anonymous, 40),
    (InviteKind::OptedOut, 10),
    (InviteKind::BadPhone, 15),
    (InviteKind::BadCredential, 15),
    (InviteKind::Mismatch, 10),
    (InviteKind::Malformed, 8),
    (InviteKind::TooLong, 2),
    (InviteKind::Orphan, 5),
];

/// One invite.
#[derive(Debug, Clone)]
pub(crate) struct Invite {
    pub index: usize,
    pub kind: InviteKind,
    pub group: u64,
    /// When it is published first, from the start.
    pub due: Duration,
    /// E.164. No other invite has it, except for the number that opted out.
    pub phone: String,
    /// The number of a conflicting use of its id.
    pub other_phone: String,
    /// Whether its credential is a JSON web token.
    pub jwt: bool,
    /// The time between its answer and its repeat.
    pub pause: Duration,
    /// Whether it requests the front camera.
    pub front: bool,
    /// Whether its first request goes over HTTP. Its repeats go over the queue.
    pub over_http: bool,
}

/// The invites, sorted by their times. The same seed gives the same invites. Half of them come in groups just before a
/// fault, so that many are being processed when it happens. The others come evenly.
pub(crate) fn invites(options: &Options, seed: u64, faults: &[Duration]) -> Vec<Invite> {
    let mut rng = StdRng::seed_from_u64(seed);
    let first = rng.random_range(0..NUMBERS);
    let count = options.invites();
    let length = Duration::from_secs(options.seconds());
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let evenly = |index: usize| length.mul_f64(index as f64 / count as f64 * 0.98);
    let mut times: Vec<Duration> = (0..count)
        .map(|index| match faults.len() {
            count @ 1.. if rng.random_bool(0.5) => faults[rng.random_range(0..count)]
                .saturating_sub(Duration::from_millis(rng.random_range(0..400))),
            _ => evenly(index),
        })
        .collect();
    times.sort_unstable();
    times
        .into_iter()
        .enumerate()
        .map(|(index, due)| {
            let kind = kind(rng.random_range(0..1_000));
            let phone_index = first + 2 * index as u64;
            Invite {
                index,
                kind,
                group: GROUPS[usize::from(rng.random_bool(0.2))],
                due,
                phone: if kind == InviteKind::OptedOut {
                    "+15005550004".to_owned()
                } else {
                    phone(phone_index)
                },
                other_phone: phone(phone_index + 1),
                jwt: rng.random_bool(0.15),
                pause: Duration::from_millis(rng.random_range(0..3_000)),
                front: rng.random_bool(0.5),
                over_http: rng.random_bool(0.15)
                    && !matches!(kind, InviteKind::Anonymous | InviteKind::Orphan),
            }
        })
        .collect()
}

fn kind(mut draw: u32) -> InviteKind {
    for (kind, share) in SHARES {
        if draw < share {
            return kind;
        }
        draw -= share;
    }
    InviteKind::Plain
}

/// How many numbers there are: areas 201 to 499, exchanges 200 to 999, four digits. The provider's test numbers are in
/// area 500.
const NUMBERS: u64 = 299 * 800 * 10_000;

/// A different number for each index, as 7919 and `NUMBERS` have no common factor. Neighbours are far apart.
fn phone(index: u64) -> String {
    let place = (index % NUMBERS) * 7_919 % NUMBERS;
    let (area, exchange, line) = (201 + place / 8_000_000, 200 + place / 10_000 % 800, place % 10_000);
    format!("+1{area}{exchange}{line:04}")
}

/// The keys that sign the groups' credentials.
#[derive(Debug, Clone)]
pub(crate) struct GroupSecrets {
    pub api_keys: [String; 2],
    pub jwt_secrets: [String; 2],
}

/// How an invite must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedEnd {
    /// With a text, or with a reply that the text failed or that its outcome is unknown.
    Text,
    /// Refused with this code, and without a text.
    Refusal(&'static str),
}

impl Invite {
    /// Its `message_id`.
    pub(crate) fn id(&self) -> Option<String> {
        (self.kind != InviteKind::Anonymous).then(|| format!("soak-{}", self.index))
    }

    pub(crate) fn expected(&self) -> ExpectedEnd {
        match self.kind {
            InviteKind::OptedOut => ExpectedEnd::Refusal("opted_out"),
            InviteKind::BadPhone => ExpectedEnd::Refusal("phone_invalid"),
            InviteKind::BadCredential => ExpectedEnd::Refusal("credential_invalid"),
            InviteKind::Mismatch => ExpectedEnd::Refusal("group_mismatch"),
            InviteKind::Malformed | InviteKind::TooLong => ExpectedEnd::Refusal("request_malformed"),
            _ => ExpectedEnd::Text,
        }
    }

    /// The body of a request with one of its numbers.
    pub(crate) fn body(&self, phone: &str, secrets: &GroupSecrets) -> Vec<u8> {
        if self.kind == InviteKind::Malformed {
            return format!("{{\"groupid\": {}, \"smsPhone\": ", self.group).into_bytes();
        }
        let signer =
            if self.kind == InviteKind::Mismatch { GROUPS[0] + GROUPS[1] - self.group } else { self.group };
        let place = usize::from(signer == GROUPS[1]);
        let authorization = match self.kind {
            InviteKind::BadCredential => credentials::gkey(signer, "12345", "a wrong key"),
            _ if self.jwt => credentials::gjwt(&credentials::claims(signer), &secrets.jwt_secrets[place]),
            _ => credentials::gkey(signer, "12345", &secrets.api_keys[place]),
        };
        let mut body = json!({
            "groupid": self.group,
            "sessiontype": 1,
            "smsPhone": if self.kind == InviteKind::BadPhone { "12" } else { phone },
            "sessionParams": {"camera": if self.front { "front" } else { "back" }, "resolution": "352x288"},
            "authorization": authorization,
        });
        if self.kind == InviteKind::TooLong {
            body["ignored"] = "x".repeat(66_000).into();
        }
        body.to_string().into_bytes()
    }

    /// The properties. Without `reply_to`, the reply goes to the default queue.
    pub(crate) fn properties(&self, correlation: &str, reply_to: Option<&str>) -> BasicProperties {
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_timestamp(credentials::now())
            .with_correlation_id(correlation.into());
        if let Some(id) = self.id() {
            properties = properties.with_message_id(id.into());
        }
        if let Some(queue) = reply_to {
            properties = properties.with_reply_to(queue.into());
        }
        properties
    }
}
