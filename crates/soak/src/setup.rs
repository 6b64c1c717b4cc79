//! What has to be there before the first invite: settings, schema, groups, workers.

use crate::{
    broker,
    invite::{GROUPS, Secrets},
    options::{Options, Surroundings},
    plan::GATEWAYS,
    provider::{ACCOUNT, Provider},
    workers::{GRACE, Place, Places},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

/// Keys of the groups.
pub fn secrets() -> Secrets {
    Secrets { api_keys: [(); 2].map(|()| secret()), jwt_secrets: [(); 2].map(|()| secret()) }
}

fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// All that the program needs, but for the URLs that lead through a tunnel. The later of two of a name counts.
pub fn environment(
    options: &Options,
    surroundings: &Surroundings,
    provider: &Provider,
    gateway: &str,
) -> Vec<(String, String)> {
    let public = format!("http://{gateway}");
    let own = [
        // Receipts go to the first gateway, whether it is there or not.
        ("PUBLIC_URL", public.as_str()),
        ("DATABASE_URL", surroundings.database.as_str()),
        ("DATABASE_MAX_CONNECTIONS", "4"),
        ("AMQP_URL", &surroundings.broker),
        ("QUEUE_PREFIX", broker::PREFIX),
        ("PREFETCH", "100"),
        ("SECRETS_KEY", &BASE64_STANDARD.encode(rand::random::<[u8; 32]>())),
        ("SMS_BASE_URL", &provider.url),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", &provider.auth_token),
        ("SMS_FROM", "+15005550006"),
        ("SMS_TIMEOUT", "2s"),
        ("SMS_SETTLE", "2s"),
        ("SMS_MAX_ATTEMPTS", "5"),
        ("INVITE_MAX_AGE", "1h"),
        ("SHUTDOWN_GRACE", GRACE),
        ("HTTP_ADDR", "127.0.0.1:0"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.into_iter().chain(options.settings.iter().cloned()).collect()
}

/// The schema and the groups.
pub fn prepare(surroundings: &Surroundings, environment: &[(String, String)], secrets: &Secrets) {
    let run = |arguments: &[&str]| {
        let ran = Command::new(&surroundings.program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().cloned())
            .current_dir("/")
            .output();
        let ran = ran.expect("the program starts");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    run(&["migrate"]);
    for (place, group) in GROUPS.iter().enumerate() {
        let (group, keys) = (group.to_string(), (&secrets.api_keys[place], &secrets.jwt_secrets[place]));
        let options = ["--per-number", "0", "--key-length", "9", "--session-ttl", "1h"];
        let mut arguments = vec!["groups", "add", &group, "--api-key", keys.0, "--jwt-secret", keys.1];
        arguments.extend(options);
        run(&arguments);
    }
}

/// Addresses for gateways, that nothing listens on yet.
pub fn addresses() -> Vec<String> {
    // All are held until all are known, so that they differ.
    let held = [(); GATEWAYS].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect()
}

/// The same for the gateways, each at an address of its own.
pub async fn start_gateways(
    places: &Places,
    addresses: &[String],
    surroundings: &Surroundings,
    provider: &Provider,
    environment: &[(String, String)],
    logs: &Path,
) {
    for (index, address) in addresses.iter().enumerate() {
        let own = [("GATEWAY_ADDR", address.as_str()), ("GATEWAY_TIMEOUT", "20s")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = environment.iter().cloned().chain(own).collect();
        let logs = PathBuf::from(logs);
        let place = Place::new(index, "gateway", surroundings, &provider.url, environment, logs).await;
        let place = place.expect("a tunnel has a port");
        place.start();
        tokio::spawn(place.clone().watch());
        places.add(place);
    }
}

/// The first process in each place.
pub async fn start_workers(
    workers: &Places,
    options: &Options,
    surroundings: &Surroundings,
    provider: &Provider,
    environment: &[(String, String)],
    logs: &Path,
) {
    for index in 0..usize::from(options.workers) {
        let (environment, logs) = (environment.to_vec(), PathBuf::from(logs));
        let place = Place::new(index, "worker", surroundings, &provider.url, environment, logs).await;
        let place = place.expect("a tunnel has a port");
        place.start();
        tokio::spawn(place.clone().watch());
        workers.add(place);
    }
}
