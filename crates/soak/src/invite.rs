//! The invites: what each asks for, and how it has to end.

use crate::options::Options;
use lapin::BasicProperties;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::time::Duration;
use test_support::credentials;

/// The groups, of which the second has a fifth of the invites.
pub const GROUPS: [u64; 2] = [72, 73];

/// What is particular about an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Plain,
    /// Published again, while the first may be in hand.
    RepeatedAtOnce,
    /// Published again, some time after its answer.
    RepeatedLater,
    /// Its id is used again, after its answer, for another number.
    Conflict,
    /// Without a `message_id`.
    Anonymous,
    /// Its number has opted out, as the provider knows.
    OptedOut,
    BadPhone,
    BadCredential,
    /// The credential is another group's.
    Mismatch,
    /// Not JSON.
    Malformed,
    /// More than 64 KiB.
    TooLong,
    /// Its reply has no queue to go to.
    Orphan,
}

/// Kinds but the first, by their share of a thousand.
const SHARES: [(Kind, u32); 11] = [
    (Kind::RepeatedAtOnce, 50),
    (Kind::RepeatedLater, 40),
    (Kind::Conflict, 10),
    (Kind::Anonymous, 40),
    (Kind::OptedOut, 10),
    (Kind::BadPhone, 15),
    (Kind::BadCredential, 15),
    (Kind::Mismatch, 10),
    (Kind::Malformed, 8),
    (Kind::TooLong, 2),
    (Kind::Orphan, 5),
];

/// One invite.
#[derive(Debug, Clone)]
pub struct Invite {
    pub index: usize,
    pub kind: Kind,
    pub group: u64,
    /// When it is published first, from the start.
    pub due: Duration,
    /// E.164, and nobody else's, but for the one that opted out.
    pub phone: String,
    /// For a conflicting use of its id.
    pub other_phone: String,
    /// Whether its credential is a JSON web token.
    pub jwt: bool,
    /// Between its answer and its repetition.
    pub pause: Duration,
    /// The front camera, or the back one.
    pub front: bool,
    /// Whether it is asked for over HTTP first; repeats of it come by the queue.
    pub over_http: bool,
}

/// The same ones for the same seed, in the order of their times. Half of them come in crowds, each just before a fault,
/// so that there is much in hand when it happens; the others come evenly.
pub fn invites(options: &Options, seed: u64, faults: &[Duration]) -> Vec<Invite> {
    let mut rng = StdRng::seed_from_u64(seed);
    let first = rng.random_range(0..NUMBERS);
    let count = options.invites();
    let length = Duration::from_secs(options.seconds);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let evenly = |index: usize| length.mul_f64(index as f64 / count as f64 * 0.98);
    let mut times: Vec<Duration> = (0..count)
        .map(|index| match faults.len() {
            faults_there @ 1.. if rng.random_bool(0.5) => faults[rng.random_range(0..faults_there)]
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
            let place = first + 2 * index as u64;
            Invite {
                index,
                kind,
                group: GROUPS[usize::from(rng.random_bool(0.2))],
                due,
                phone: if kind == Kind::OptedOut { "+15005550004".to_owned() } else { number(place) },
                other_phone: number(place + 1),
                jwt: rng.random_bool(0.15),
                pause: Duration::from_millis(rng.random_range(0..3_000)),
                front: rng.random_bool(0.5),
                over_http: rng.random_bool(0.15) && !matches!(kind, Kind::Anonymous | Kind::Orphan),
            }
        })
        .collect()
}

fn kind(mut draw: u32) -> Kind {
    for (kind, share) in SHARES {
        if draw < share {
            return kind;
        }
        draw -= share;
    }
    Kind::Plain
}

/// Areas 201 to 499, exchanges 200 to 999, four digits; away from the provider's test numbers in area 500.
const NUMBERS: u64 = 299 * 800 * 10_000;

/// Different ones for different places, far apart: 7919 and `NUMBERS` have no common factor.
fn number(place: u64) -> String {
    let place = (place % NUMBERS) * 7_919 % NUMBERS;
    let (area, exchange, line) = (201 + place / 8_000_000, 200 + place / 10_000 % 800, place % 10_000);
    format!("+1{area}{exchange}{line:04}")
}

/// What signs the groups' credentials.
#[derive(Debug, Clone)]
pub struct Secrets {
    pub api_keys: [String; 2],
    pub jwt_secrets: [String; 2],
}

/// How an invite has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// With a text, or with the word that there is or may be none.
    Text,
    /// Refused with this code, and without a text.
    Refusal(&'static str),
}

impl Invite {
    /// Its `message_id`.
    pub fn id(&self) -> Option<String> {
        (self.kind != Kind::Anonymous).then(|| format!("soak-{}", self.index))
    }

    pub fn expected(&self) -> Expected {
        match self.kind {
            Kind::OptedOut => Expected::Refusal("opted_out"),
            Kind::BadPhone => Expected::Refusal("phone_invalid"),
            Kind::BadCredential => Expected::Refusal("credential_invalid"),
            Kind::Mismatch => Expected::Refusal("group_mismatch"),
            Kind::Malformed | Kind::TooLong => Expected::Refusal("request_malformed"),
            _ => Expected::Text,
        }
    }

    /// The body to publish, for one of its numbers.
    pub fn body(&self, phone: &str, secrets: &Secrets) -> Vec<u8> {
        if self.kind == Kind::Malformed {
            return format!("{{\"groupid\": {}, \"smsPhone\": ", self.group).into_bytes();
        }
        let signer =
            if self.kind == Kind::Mismatch { GROUPS[0] + GROUPS[1] - self.group } else { self.group };
        let place = usize::from(signer == GROUPS[1]);
        let authorization = match self.kind {
            Kind::BadCredential => credentials::gkey(signer, "12345", "a wrong key"),
            _ if self.jwt => credentials::gjwt(&credentials::claims(signer), &secrets.jwt_secrets[place]),
            _ => credentials::gkey(signer, "12345", &secrets.api_keys[place]),
        };
        let mut body = json!({
            "groupid": self.group,
            "sessiontype": 1,
            "smsPhone": if self.kind == Kind::BadPhone { "12" } else { phone },
            "sessionParams": {"camera": if self.front { "front" } else { "back" }, "resolution": "352x288"},
            "authorization": authorization,
        });
        if self.kind == Kind::TooLong {
            body["ignored"] = "x".repeat(66_000).into();
        }
        body.to_string().into_bytes()
    }

    /// The properties; `reply_to` is left out for the default queue.
    pub fn properties(&self, correlation: &str, reply_to: Option<&str>) -> BasicProperties {
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
