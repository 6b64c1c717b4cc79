//! Faults on purpose: their settings, and which fault each request to create a message gets.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sms_provider::codes::ErrorCode;
use strum::{EnumCount, EnumString, IntoStaticStr, VariantArray};

use super::message::DeliveryOutcome;

/// A fault that one request to create a message can get.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    EnumCount,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Fault {
    /// 429, code 20429, with `Retry-After`; not accepted.
    Throttle,
    /// 429, code 63038: the daily limit is reached; not accepted.
    DailyLimit,
    /// 503, code 20503; not accepted.
    Fail,
    /// 500, code 20500, though the message was accepted.
    AcceptThenFail,
    /// Accepted, then the connection is cut without an answer.
    Cut,
    /// The connection is cut without an answer; not accepted.
    CutBefore,
    /// Accepted, and no answer until the client disconnects.
    Hang,
    /// 201 without a `sid`; accepted.
    NoSid,
    /// 302; not accepted.
    Redirect,
    /// 200 with an HTML page, like a proxy's error page; not accepted.
    Garbage,
}

impl Fault {
    /// The fault's name in flags, settings and statistics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// An invalid setting: its name, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SettingError {
    /// The name of the setting in the request.
    pub field: String,
    /// Why it is invalid.
    pub reason: String,
}

impl SettingError {
    fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// How many outcomes `next` can hold.
const MAX_NEXT: usize = 10_000;

/// The settings of `/sandbox/faults`. By default nothing goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultSettings {
    latency_ms: u64,
    retry_after: u64,
    list_lag_ms: u64,
    /// The error status that answers each list request, if any.
    list_status: Option<StatusCode>,
    error_code: Option<ErrorCode>,
    error_status: StatusCode,
    deliver: DeliveryOutcome,
    /// For each fault, the share of creates that gets it.
    shares: [f64; Fault::COUNT],
    /// What the next creates get, before the shares apply; `None` is no fault.
    next: VecDeque<Option<Fault>>,
}

impl Default for FaultSettings {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            retry_after: 1,
            list_lag_ms: 0,
            list_status: None,
            error_code: None,
            error_status: StatusCode::BAD_REQUEST,
            deliver: DeliveryOutcome::default(),
            shares: [0.0; Fault::COUNT],
            next: VecDeque::new(),
        }
    }
}

impl FaultSettings {
    /// These settings with the given ones changed. The others stay as they are.
    ///
    /// # Errors
    ///
    /// For a name that is not a setting, a value outside its range, and shares of more than 1 in sum.
    pub fn patched(mut self, changes: &Map<String, Value>) -> Result<Self, SettingError> {
        for (field, value) in changes {
            self.set(field, value)?;
        }
        if self.shares.iter().sum::<f64>() > 1.0 + 1e-9 {
            let set = Fault::VARIANTS.iter().filter(|fault| self.shares[**fault as usize] > 0.0);
            let names: Vec<_> = set.map(|fault| fault.name()).collect();
            return Err(SettingError::new(&names.join(", "), "the sum of the shares is more than 1"));
        }
        Ok(self)
    }

    fn set(&mut self, field: &str, value: &Value) -> Result<(), SettingError> {
        if let Ok(fault) = field.parse::<Fault>() {
            self.shares[fault as usize] = value
                .as_f64()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| SettingError::new(field, "must be a share from 0 to 1"))?;
            return Ok(());
        }
        match field {
            "latency_ms" => self.latency_ms = within(field, value, 0, 600_000)?,
            "retry_after" => self.retry_after = within(field, value, 0, 86_400)?,
            "list_lag_ms" => self.list_lag_ms = within(field, value, 0, 86_400_000)?,
            "list_status" if value.is_null() => self.list_status = None,
            "list_status" => self.list_status = Some(error_status(field, value)?),
            "error_code" if value.is_null() => self.error_code = None,
            "error_code" => self.error_code = Some(within(field, value, 1, 99_999)?),
            "error_status" => self.error_status = error_status(field, value)?,
            "deliver" => {
                self.deliver = DeliveryOutcome::deserialize(value)
                    .map_err(|_| SettingError::new(field, "must be delivered, undelivered or none"))?;
            }
            "next" => self.next = next_faults(field, value)?,
            _ => return Err(SettingError::new(field, "unknown setting")),
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
            "next": self.next.iter().map(|fault| fault.map_or("ok", Fault::name)).collect::<Vec<_>>(),
        });
        for fault in Fault::VARIANTS {
            all[fault.name()] = self.shares[*fault as usize].into();
        }
        all
    }
}

/// An integer from `min` to `max`.
fn within<T: TryFrom<u64>>(field: &str, value: &Value, min: u64, max: u64) -> Result<T, SettingError> {
    value
        .as_u64()
        .filter(|n| (min..=max).contains(n))
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| SettingError::new(field, format!("must be an integer from {min} to {max}")))
}

/// A 4xx or 5xx status.
fn error_status(field: &str, value: &Value) -> Result<StatusCode, SettingError> {
    let status = within(field, value, 400, 599)?;
    StatusCode::from_u16(status).map_err(|error| SettingError::new(field, error.to_string()))
}

fn next_faults(field: &str, value: &Value) -> Result<VecDeque<Option<Fault>>, SettingError> {
    let names = value.as_array().filter(|names| names.len() <= MAX_NEXT);
    let names = names.ok_or_else(|| SettingError::new(field, "must be an array of fault names or ok"))?;
    let outcome = |name: &Value| match name.as_str() {
        Some("ok") => Ok(None),
        Some(name) if let Ok(fault) = name.parse() => Ok(Some(fault)),
        _ => Err(SettingError::new(field, format!("{name} is neither the name of a fault nor ok"))),
    };
    names.iter().map(outcome).collect()
}

/// What one create gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreateOutcome {
    /// The message is accepted.
    Success,
    /// This Twilio error. The message is not accepted.
    Error {
        status: StatusCode,
        code: ErrorCode,
    },
    Fault(Fault),
}

/// The current settings, and the random number generator.
#[derive(Debug)]
pub(super) struct FaultInjector {
    pub faults: FaultSettings,
    rng: StdRng,
}

impl FaultInjector {
    /// The same seed and settings give the same outcomes in the same order.
    pub(crate) fn new(faults: FaultSettings, seed: u64) -> Self {
        Self { faults, rng: StdRng::seed_from_u64(seed) }
    }

    /// Decides what the next create gets: `next` first, then `error_code`, then the shares.
    pub(crate) fn next_outcome(&mut self) -> CreateOutcome {
        if let Some(fault) = self.faults.next.pop_front() {
            return fault.map_or(CreateOutcome::Success, CreateOutcome::Fault);
        }
        if let Some(code) = self.faults.error_code {
            return CreateOutcome::Error { status: self.faults.error_status, code };
        }
        // One draw over the sum of the shares, so that no share depends on the others.
        let mut left: f64 = self.rng.random();
        for fault in Fault::VARIANTS {
            left -= self.faults.shares[*fault as usize];
            if left < 0.0 {
                return CreateOutcome::Fault(*fault);
            }
        }
        CreateOutcome::Success
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.faults.latency_ms)
    }

    pub(crate) fn list_lag(&self) -> Duration {
        Duration::from_millis(self.faults.list_lag_ms)
    }

    pub(crate) fn list_status(&self) -> Option<StatusCode> {
        self.faults.list_status
    }

    /// Seconds.
    pub(crate) fn retry_after(&self) -> u64 {
        self.faults.retry_after
    }

    pub(crate) fn deliver(&self) -> DeliveryOutcome {
        self.faults.deliver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(faults: FaultSettings, changes: &Value) -> Result<FaultSettings, SettingError> {
        faults.patched(changes.as_object().unwrap())
    }

    #[test]
    fn a_patch_changes_what_it_names_and_keeps_the_rest() {
        let first = patch(FaultSettings::default(), &json!({"cut": 0.25, "latency_ms": 20})).unwrap();
        let then = patch(first, &json!({"cut": 0, "next": ["hang", "ok"]})).unwrap().to_json();
        assert_eq!(then["latency_ms"], 20);
        assert_eq!(then["cut"], 0.0);
        assert_eq!(then["next"], json!(["hang", "ok"]));
    }

    #[test]
    fn settings_survive_a_round_trip_through_json() {
        let faults =
            patch(FaultSettings::default(), &json!({"error_code": 21610, "deliver": "none", "fail": 0.5}));
        let faults = faults.unwrap();
        assert_eq!(patch(FaultSettings::default(), &faults.to_json()).unwrap(), faults);
    }

    #[test]
    fn an_error_names_the_invalid_setting() {
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
            assert_eq!(patch(FaultSettings::default(), &changes).unwrap_err().field, field, "{changes}");
        }
    }

    #[test]
    fn serde_and_the_settings_use_the_same_names_of_faults() {
        for fault in Fault::VARIANTS {
            assert_eq!(fault.name().parse(), Ok(*fault));
            assert_eq!(json!(fault), fault.name());
        }
    }

    #[test]
    fn the_shares_are_kept_and_a_seed_repeats_the_outcomes() {
        let faults = patch(FaultSettings::default(), &json!({"throttle": 0.1, "cut": 0.2})).unwrap();
        let draw = |seed| {
            let mut injector = FaultInjector::new(faults.clone(), seed);
            (0..10_000).map(|_| injector.next_outcome()).collect::<Vec<_>>()
        };
        let outcomes = draw(7);
        let count =
            |fault| outcomes.iter().filter(|outcome| **outcome == CreateOutcome::Fault(fault)).count();
        assert!((900..1100).contains(&count(Fault::Throttle)));
        assert!((1850..2150).contains(&count(Fault::Cut)));
        assert_eq!(outcomes, draw(7));
        assert_ne!(outcomes, draw(8));
    }

    #[test]
    fn next_applies_before_the_error_code_and_the_shares() {
        let changes = json!({"next": ["ok", "cut"], "error_code": 20503, "error_status": 503, "hang": 1});
        let mut injector = FaultInjector::new(patch(FaultSettings::default(), &changes).unwrap(), 0);
        assert_eq!(injector.next_outcome(), CreateOutcome::Success);
        assert_eq!(injector.next_outcome(), CreateOutcome::Fault(Fault::Cut));
        assert_eq!(
            injector.next_outcome(),
            CreateOutcome::Error { status: StatusCode::SERVICE_UNAVAILABLE, code: 20503 }
        );
    }
}
