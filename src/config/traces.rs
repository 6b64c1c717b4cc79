//! The settings of traces, by OpenTelemetry's own names
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use super::read::{self, Faults, nonempty};
use crate::masked::debug_shows;
use clap::Args;
use secrecy::SecretString;

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Traces")]
pub struct TracesArgs {
    /// Where spans go, by OTLP over HTTP as JSON, such as http://127.0.0.1:4318; without it there are no traces
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// Headers for the collector: name=value, with commas, percent-encoded
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_name = "NAME=VALUE[,…]")]
    pub otel_exporter_otlp_headers: Option<String>,
    /// Which invites are traced: always_on, always_off, traceidratio, or one of them after parentbased_, which follows the
    /// sender's traceparent where there is one [default: parentbased_traceidratio]
    #[arg(long, env = "OTEL_TRACES_SAMPLER", hide_env_values = true, value_name = "SAMPLER")]
    pub otel_traces_sampler: Option<String>,
    /// The share of traceidratio, from 0 to 1 [default: 1]
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", hide_env_values = true, value_name = "RATIO")]
    pub otel_traces_sampler_arg: Option<String>,
    /// The name of the service in its spans [default: session-invite-worker]
    #[arg(long, env = "OTEL_SERVICE_NAME", hide_env_values = true, value_name = "NAME")]
    pub otel_service_name: Option<String>,
}

debug_shows!(TracesArgs { otel_traces_sampler, otel_traces_sampler_arg, otel_service_name });

/// Where spans go, and which invites are traced.
#[derive(Clone)]
pub struct TracesConfig {
    /// Of the spans themselves, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    pub headers: Vec<(String, SecretString)>,
    pub sampler: Sampler,
    pub service_name: String,
}

debug_shows!(TracesConfig { url, sampler, service_name });

/// Which invites are traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether the sender's decision counts, if its `traceparent` has one.
    pub follows_parent: bool,
    /// The share of the others.
    pub ratio: f64,
}

impl TracesArgs {
    /// `None` within for no traces.
    #[expect(clippy::option_option, reason = "a fault, no traces, or their configuration")]
    pub(super) fn check(&self, faults: &mut Faults) -> Option<Option<TracesConfig>> {
        let ratio_arg = self.otel_traces_sampler_arg.as_ref();
        let ratio = faults.read("OTEL_TRACES_SAMPLER_ARG", ratio_arg, "1", read::decimal(0.0, 1.0));
        let default = "parentbased_traceidratio";
        let kind = faults.read("OTEL_TRACES_SAMPLER", self.otel_traces_sampler.as_ref(), default, sampler);
        let headers = self.otel_exporter_otlp_headers.as_ref();
        let headers = faults.read("OTEL_EXPORTER_OTLP_HEADERS", headers, "", parse_headers);
        let endpoint = nonempty(self.otel_exporter_otlp_endpoint.as_ref()).map(|_| {
            let given = self.otel_exporter_otlp_endpoint.as_ref();
            faults.read("OTEL_EXPORTER_OTLP_ENDPOINT", given, "", read::base_url)
        });
        let (ratio, (follows_parent, fixed), headers) = (ratio?, kind?, headers?);
        let Some(endpoint) = endpoint else { return Some(None) };
        Some(Some(TracesConfig {
            url: format!("{}/v1/traces", endpoint?),
            headers,
            sampler: Sampler { follows_parent, ratio: fixed.unwrap_or(ratio) },
            service_name: nonempty(self.otel_service_name.as_ref())
                .unwrap_or("session-invite-worker")
                .to_owned(),
        }))
    }
}

/// Whether the sampler follows the parent, and its ratio if its name has one.
fn sampler(text: &str) -> Result<(bool, Option<f64>), &'static str> {
    let (follows_parent, root) = text.strip_prefix("parentbased_").map_or((false, text), |root| (true, root));
    let ratio = match root {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => None,
        _ => {
            return Err("must be always_on, always_off or traceidratio, or parentbased_ and one of them");
        }
    };
    Ok((follows_parent, ratio))
}

fn parse_headers(text: &str) -> Result<Vec<(String, SecretString)>, &'static str> {
    const WRONG: &str = "must be name=value pairs with commas between them, their values percent-encoded";
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(WRONG)?;
            let value =
                percent_encoding::percent_decode_str(value.trim()).decode_utf8().map_err(|_| WRONG)?;
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let fits = !name.is_empty()
                && name.trim().bytes().all(is_name)
                && value.bytes().all(|b| (b' '..0x7f).contains(&b));
            fits.then(|| (name.trim().to_ascii_lowercase(), value.into_owned().into())).ok_or(WRONG)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn check(change: impl FnOnce(&mut TracesArgs)) -> Result<Option<TracesConfig>, String> {
        let mut args = TracesArgs {
            otel_exporter_otlp_endpoint: Some("http://127.0.0.1:4318/".to_owned()),
            ..TracesArgs::default()
        };
        change(&mut args);
        let mut faults = Faults::default();
        let config = args.check(&mut faults);
        faults.finish(config).map_err(|faults| faults.to_string())
    }

    #[test]
    fn without_an_endpoint_there_are_no_traces() {
        assert!(check(|args| args.otel_exporter_otlp_endpoint = Some(String::new())).unwrap().is_none());
        let config = check(|_| {}).unwrap().unwrap();
        assert_eq!(config.url, "http://127.0.0.1:4318/v1/traces");
        assert_eq!(config.sampler, Sampler { follows_parent: true, ratio: 1.0 });
    }

    #[test]
    fn samplers_have_the_standard_names() {
        let sampler = |name: &str| {
            let (name, ratio) = (Some(name.to_owned()), Some("0.01".to_owned()));
            let config = check(|args| {
                (args.otel_traces_sampler, args.otel_traces_sampler_arg) = (name, ratio);
            });
            config.unwrap().unwrap().sampler
        };
        for (name, follows_parent, ratio) in [
            ("always_on", false, 1.0),
            ("always_off", false, 0.0),
            ("traceidratio", false, 0.01),
            ("parentbased_always_on", true, 1.0),
            ("parentbased_traceidratio", true, 0.01),
        ] {
            assert_eq!(sampler(name), Sampler { follows_parent, ratio }, "{name}");
        }
    }

    #[test]
    fn headers_are_read_and_a_fault_shows_none() {
        let config = check(|args| args.otel_exporter_otlp_headers = Some("Api-Key=a%20b, x=1".to_owned()));
        let headers = config.unwrap().unwrap().headers;
        let shown: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(shown, [("api-key", "a b"), ("x", "1")]);
        for wrong in ["5ECRET", "a=5ECRET%0a", "=5ECRET"] {
            let fault = check(|args| args.otel_exporter_otlp_headers = Some(wrong.to_owned())).unwrap_err();
            assert!(fault.contains("OTEL_EXPORTER_OTLP_HEADERS") && !fault.contains("5ECRET"), "{fault}");
        }
    }
}
