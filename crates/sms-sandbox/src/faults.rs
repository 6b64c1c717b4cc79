//! What goes wrong on purpose: how the provider's troubles are set, and which one meets each create.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sms_provider::codes::ErrorCode;

use super::message::Deliver;

/// A trouble that one create can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// 429, code 20429, with `Retry-After`; not accepted.
    Throttle,
    /// 429, code 63038: no more today; not accepted.
    DailyLimit,
    /// 503, code 20503; not accepted.
    Fail,
    /// 500, code 20500, though the message was accepted.
    AcceptThenFail,
    /// Accepted, and the connection cut without an answer.
    Cut,
    /// The connection cut without an answer; not accepted.
    CutBefore,
    /// Accepted, and no answer until the client leaves.
    Hang,
    /// 201 without a `sid`; accepted.
    NoSid,
    /// 302; not accepted.
    Redirect,
    /// 200 with an HTML page, as a proxy in between gives; not accepted.
    Garbage,
}

impl Fault {
    /// Every fault, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Throttle,
        Self::DailyLimit,
        Self::Fail,
        Self::AcceptThenFail,
        Self::Cut,
        Self::CutBefore,
        Self::Hang,
        Self::NoSid,
        Self::Redirect,
        Self::Garbage,
    ];

    /// The fault's name in flags, settings and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::DailyLimit => "daily_limit",
            Self::Fail => "fail",
            Self::AcceptThenFail => "accept_then_fail",
            Self::Cut => "cut",
            Self::CutBefore => "cut_before",
            Self::Hang => "hang",
            Self::NoSid => "no_sid",
            Self::Redirect => "redirect",
            Self::Garbage => "garbage",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

/// A setting that cannot be: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadSetting {
    pub field: String,
    pub reason: String,
}

impl BadSetting {
    fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// How many turns `next` can hold.
const MAX_NEXT: usize = 10_000;

/// The settings of `/sandbox/faults`. By default nothing goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    latency_ms: u64,
    retry_after: u64,
    list_lag_ms: u64,
    /// What lists are answered with, instead of a list.
    list_status: Option<StatusCode>,
    error_code: Option<ErrorCode>,
    error_status: StatusCode,
    deliver: Deliver,
    /// The share of creates that meets each of [`Fault::ALL`].
    shares: [f64; Fault::ALL.len()],
    /// What meets the next creates, before the shares apply; `None` is no fault.
    next: VecDeque<Option<Fault>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            retry_after: 1,
            list_lag_ms: 0,
            list_status: None,
            error_code: None,
            error_status: StatusCode::BAD_REQUEST,
            deliver: Deliver::default(),
            shares: [0.0; Fault::ALL.len()],
            next: VecDeque::new(),
        }
    }
}

impl Faults {
    /// These settings with the given ones changed; the others stay.
    ///
    /// # Errors
    ///
    /// For a name that is not a setting, a value outside its range, and shares of more than 1 in sum.
    pub fn patched(mut self, changes: &Map<String, Value>) -> Result<Self, BadSetting> {
        for (field, value) in changes {
            self.set(field, value)?;
        }
        if self.shares.iter().sum::<f64>() > 1.0 + 1e-9 {
            let set = Fault::ALL.iter().filter(|fault| self.shares[**fault as usize] > 0.0);
            let names: Vec<_> = set.map(|fault| fault.name()).collect();
            return Err(BadSetting::new(&names.join(", "), "the shares come to more than 1"));
        }
        Ok(self)
    }

    fn set(&mut self, field: &str, value: &Value) -> Result<(), BadSetting> {
        if let Some(fault) = Fault::named(field) {
            self.shares[fault as usize] = value
                .as_f64()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| BadSetting::new(field, "a share from 0 to 1 is wanted"))?;
            return Ok(());
        }
        match field {
            "latency_ms" => self.latency_ms = within(field, value, 0, 600_000)?,
            "retry_after" => self.retry_after = within(field, value, 0, 86_400)?,
            "list_lag_ms" => self.list_lag_ms = within(field, value, 0, 86_400_000)?,
            "list_status" if value.is_null() => self.list_status = None,
            "list_status" => self.list_status = Some(status(field, value)?),
            "error_code" if value.is_null() => self.error_code = None,
            "error_code" => self.error_code = Some(within(field, value, 1, 99_999)?),
            "error_status" => self.error_status = status(field, value)?,
            "deliver" => {
                self.deliver = Deliver::deserialize(value)
                    .map_err(|_| BadSetting::new(field, "delivered, undelivered or none is wanted"))?;
            }
            "next" => self.next = turns(field, value)?,
            _ => return Err(BadSetting::new(field, "no such setting")),
        }
        Ok(())
    }

    /// The settings as JSON, by the names that [`Self::patched`] takes.
    pub fn to_json(&self) -> Value {
        let mut all = json!({
            "latency_ms": self.latency_ms,
            "retry_after": self.retry_after,
            "list_lag_ms": self.list_lag_ms,
            "list_status": self.list_status.map(|status| status.as_u16()),
            "error_code": self.error_code,
            "error_status": self.error_status.as_u16(),
            "deliver": self.deliver,
            "next": self.next.iter().map(|turn| turn.map_or("ok", Fault::name)).collect::<Vec<_>>(),
        });
        for fault in Fault::ALL {
            all[fault.name()] = self.shares[fault as usize].into();
        }
        all
    }
}

/// An integer from `min` to `max`.
fn within<T: TryFrom<u64>>(field: &str, value: &Value, min: u64, max: u64) -> Result<T, BadSetting> {
    value
        .as_u64()
        .filter(|n| (min..=max).contains(n))
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| BadSetting::new(field, format!("an integer from {min} to {max} is wanted")))
}

/// A status of an error.
fn status(field: &str, value: &Value) -> Result<StatusCode, BadSetting> {
    let status = within(field, value, 400, 599)?;
    StatusCode::from_u16(status).map_err(|error| BadSetting::new(field, error.to_string()))
}

fn turns(field: &str, value: &Value) -> Result<VecDeque<Option<Fault>>, BadSetting> {
    let names = value.as_array().filter(|names| names.len() <= MAX_NEXT);
    let names = names.ok_or_else(|| BadSetting::new(field, "an array of fault names, or ok, is wanted"))?;
    let turn = |name: &Value| match name.as_str() {
        Some("ok") => Ok(None),
        Some(name) if Fault::named(name).is_some() => Ok(Fault::named(name)),
        _ => Err(BadSetting::new(field, format!("{name} is neither a fault's name nor ok"))),
    };
    names.iter().map(turn).collect()
}

/// What one create meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is served as it should be.
    Fine,
    /// It gets this Twilio error, and is not accepted.
    Error {
        status: StatusCode,
        code: ErrorCode,
    },
    Fault(Fault),
}

/// The settings in force, and the random draws.
#[derive(Debug)]
pub(super) struct Fate {
    pub faults: Faults,
    rng: StdRng,
}

impl Fate {
    /// The same seed and settings bring the same turns in the same order.
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, rng: StdRng::seed_from_u64(seed) }
    }

    /// Decides what the next create meets: `next` first, then `error_code`, then the shares.
    pub fn turn(&mut self) -> Turn {
        if let Some(turn) = self.faults.next.pop_front() {
            return turn.map_or(Turn::Fine, Turn::Fault);
        }
        if let Some(code) = self.faults.error_code {
            return Turn::Error { status: self.faults.error_status, code };
        }
        // One draw over the shares laid end to end, so that each share holds whatever the others are.
        let mut left: f64 = self.rng.random();
        for fault in Fault::ALL {
            left -= self.faults.shares[fault as usize];
            if left < 0.0 {
                return Turn::Fault(fault);
            }
        }
        Turn::Fine
    }

    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.faults.latency_ms)
    }

    pub fn list_lag(&self) -> Duration {
        Duration::from_millis(self.faults.list_lag_ms)
    }

    pub fn list_status(&self) -> Option<StatusCode> {
        self.faults.list_status
    }

    /// Seconds.
    pub fn retry_after(&self) -> u64 {
        self.faults.retry_after
    }

    pub fn deliver(&self) -> Deliver {
        self.faults.deliver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(faults: Faults, changes: &Value) -> Result<Faults, BadSetting> {
        faults.patched(changes.as_object().unwrap())
    }

    #[test]
    fn a_patch_changes_what_it_names_and_keeps_the_rest() {
        let first = patch(Faults::default(), &json!({"cut": 0.25, "latency_ms": 20})).unwrap();
        let then = patch(first, &json!({"cut": 0, "next": ["hang", "ok"]})).unwrap().to_json();
        assert_eq!(then["latency_ms"], 20);
        assert_eq!(then["cut"], 0.0);
        assert_eq!(then["next"], json!(["hang", "ok"]));
    }

    #[test]
    fn settings_come_back_through_their_own_json() {
        let faults = patch(Faults::default(), &json!({"error_code": 21610, "deliver": "none", "fail": 0.5}));
        let faults = faults.unwrap();
        assert_eq!(patch(Faults::default(), &faults.to_json()).unwrap(), faults);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (changes, field) in [
            (json!({"cutt": 0.1}), "cutt"),
            (json!({"cut": 1.1}), "cut"),
            (json!({"cut": "0.1"}), "cut"),
            (json!({"latency_ms": -1}), "latency_ms"),
            (json!({"error_status": 200}), "error_status"),
            (json!({"error_code": 0}), "error_code"),
            (json!({"deliver": "maybe"}), "deliver"),
            (json!({"next": ["ok", "nope"]}), "next"),
            (json!({"next": "ok"}), "next"),
            (json!({"cut": 0.6, "hang": 0.6}), "cut, hang"),
        ] {
            assert_eq!(patch(Faults::default(), &changes).unwrap_err().field, field, "{changes}");
        }
    }

    #[test]
    fn every_fault_is_found_by_the_name_that_serde_gives_it() {
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(fault));
            assert_eq!(json!(fault), fault.name());
        }
    }

    #[test]
    fn shares_hold_and_the_seed_repeats_them() {
        let faults = patch(Faults::default(), &json!({"throttle": 0.1, "cut": 0.2})).unwrap();
        let draw = |seed| {
            let mut fate = Fate::new(faults.clone(), seed);
            (0..10_000).map(|_| fate.turn()).collect::<Vec<_>>()
        };
        let turns = draw(7);
        let share = |wanted| turns.iter().filter(|turn| **turn == Turn::Fault(wanted)).count();
        assert!((900..1100).contains(&share(Fault::Throttle)));
        assert!((1850..2150).contains(&share(Fault::Cut)));
        assert_eq!(turns, draw(7));
        assert_ne!(turns, draw(8));
    }

    #[test]
    fn next_comes_before_the_error_and_the_shares() {
        let changes = json!({"next": ["ok", "cut"], "error_code": 20503, "error_status": 503, "hang": 1});
        let mut fate = Fate::new(patch(Faults::default(), &changes).unwrap(), 0);
        assert_eq!(fate.turn(), Turn::Fine);
        assert_eq!(fate.turn(), Turn::Fault(Fault::Cut));
        assert_eq!(fate.turn(), Turn::Error { status: StatusCode::SERVICE_UNAVAILABLE, code: 20503 });
    }
}
