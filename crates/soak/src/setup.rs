//! Prepares a soak: settings, schema, groups, workers and gateways.

use crate::{
    broker,
    invite::{GROUPS, GroupSecrets},
    options::Options,
    plan::GATEWAYS,
    processes::{GRACE, ProcessSlot, ProcessSlots},
    provider::{ACCOUNT, Provider},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{net::TcpListener, path::Path, process::Command};
use test_support::driver::RunEnvironment;

/// New keys for the groups.
pub(crate) fn group_secrets() -> GroupSecrets {
    GroupSecrets { api_keys: [(); 2].map(|()| secret()), jwt_secrets: [(); 2].map(|()| secret()) }
}

fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// All settings of the program, except for the URLs of tunnels. The last setting of a name counts.
pub(crate) fn settings(
    options: &Options,
    environment: &RunEnvironment,
    provider: &Provider,
    gateway: &str,
) -> Vec<(String, String)> {
    // The provider sends its receipts to the first gateway, also while that is down.
    let public_url = format!("http://{gateway}");
    let settings = [
        ("PUBLIC_URL", public_url.as_str()),
        ("DATABASE_URL", environment.database_url.as_str()),
        // Commits that wait for a standby need more connections: two or three are reserved for batches.
        ("DATABASE_MAX_CONNECTIONS", if options.cluster { "16" } else { "4" }),
        ("AMQP_URL", &environment.amqp_url),
        ("QUEUE_PREFIX", broker::PREFIX),
        ("PREFETCH", "100"),
        ("SECRETS_KEY", &BASE64_STANDARD.encode(rand::random::<[u8; 32]>())),
        ("SMS_BASE_URL", &provider.url),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", &provider.auth_token),
        ("SMS_FROM", "+15005550006"),
        ("SMS_TIMEOUT", "2s"),
        ("SMS_SETTLE", "2s"),
        // With three tries nobody waits for the delays of 30 and 120 s.
        ("SMS_MAX_ATTEMPTS", if options.cluster { "3" } else { "5" }),
        ("INVITE_MAX_AGE", "1h"),
        ("SHUTDOWN_GRACE", GRACE),
        ("HTTP_ADDR", "127.0.0.1:0"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    settings.into_iter().chain(options.settings.iter().cloned()).collect()
}

/// Creates the schema and the groups.
pub(crate) fn prepare(environment: &RunEnvironment, settings: &[(String, String)], secrets: &GroupSecrets) {
    let run = |arguments: &[&str]| {
        let output = Command::new(&environment.program)
            .args(arguments)
            .env_clear()
            .envs(settings.iter().cloned())
            .current_dir("/")
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["migrate"]);
    for (index, group) in GROUPS.iter().enumerate() {
        let (group, api_key, jwt_secret) =
            (group.to_string(), &secrets.api_keys[index], &secrets.jwt_secrets[index]);
        let options = ["--per-number", "0", "--key-length", "9", "--session-ttl", "1h"];
        let mut arguments = vec!["groups", "add", &group, "--api-key", api_key, "--jwt-secret", jwt_secret];
        arguments.extend(options);
        run(&arguments);
    }
}

/// Free addresses for the gateways.
pub(crate) fn free_addresses() -> Vec<String> {
    // All listeners exist at the same time, so that the addresses differ.
    let listeners = [(); GATEWAYS].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect()
}

/// Starts the workers.
pub(crate) async fn start_workers(
    slots: &ProcessSlots,
    options: &Options,
    environment: &RunEnvironment,
    provider: &Provider,
    settings: &[(String, String)],
    logs: &Path,
) {
    for index in 0..usize::from(options.workers) {
        start(slots, (index, "worker"), environment, provider, settings.to_vec(), logs).await;
    }
}

/// Starts the gateways, each at its address.
pub(crate) async fn start_gateways(
    slots: &ProcessSlots,
    addresses: &[String],
    environment: &RunEnvironment,
    provider: &Provider,
    settings: &[(String, String)],
    logs: &Path,
) {
    for (index, address) in addresses.iter().enumerate() {
        let more = [("GATEWAY_ADDR", address.as_str()), ("GATEWAY_TIMEOUT", "20s")];
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = settings.iter().cloned().chain(more).collect();
        start(slots, (index, "gateway"), environment, provider, settings, logs).await;
    }
}

/// Starts the slot of this index and command.
pub(crate) async fn start(
    slots: &ProcessSlots,
    (index, command): (usize, &'static str),
    environment: &RunEnvironment,
    provider: &Provider,
    settings: Vec<(String, String)>,
    logs: &Path,
) {
    let slot = ProcessSlot::new(index, command, environment, &provider.url, settings, logs.to_owned()).await;
    let slot = slot.expect("a tunnel has a port");
    slot.start();
    tokio::spawn(slot.clone().watch());
    slots.add(slot);
}
