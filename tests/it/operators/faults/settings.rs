//! Settings that are wrong: the process ends at once, and names the setting and what it takes.

use super::{
    NAMED_WITHIN, SeededFault,
    SeenIn::{Doctor, FatalLine},
    doctors_findings, seeded_faults, type_into_a_shell,
};
use crate::support::{Setup, World, run};
use std::time::Instant;
use tokio::sync::Mutex;

/// A fault of a setting, corrected and the process started again.
const fn setting(cause: &'static [&'static str], remedy: &'static str) -> SeededFault {
    SeededFault::new(FatalLine, cause, remedy, "the setting as it says, and the process started again")
}

/// Starts the worker with `name` set to `wrong`, and then to `right`. Without `right`, the world's own value is right.
async fn of_worker(fault: SeededFault, name: &str, wrong: &str, right: Option<&str>) -> u8 {
    let world = Setup::default().without_worker().await;
    let looked_for = fault.with(&[]);
    let begun = Instant::now();
    let ran = run(&world.environment(&[(name, wrong)]), &["worker"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    let line = ran.stderr.lines().find(|line| looked_for.is_named_in(line));
    if begun.elapsed() > NAMED_WITHIN || line.is_none() {
        eprintln!("the cause is not named: {ran:#?}");
        return 0;
    }
    if !line.is_some_and(|line| line.contains(fault.remedy)) {
        eprintln!("the remedy is not shown: {ran:#?}");
        return 1;
    }
    let corrected: Vec<_> = right.map(|right| (name, right)).into_iter().collect();
    let mut worker = world.spawn(&corrected);
    worker.ready().await;
    assert!(worker.stop().success());
    2
}

/// Starts the worker without a key, and then with one that was made by the command that is shown.
async fn without_a_key(fault: SeededFault) -> u8 {
    let key = type_into_a_shell(fault.remedy);
    of_worker(fault, "SECRETS_KEY", "", Some(&key)).await
}

/// A setting with a wrong letter in its name has no effect, and is named by the doctor.
async fn misspelt(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let name = Mutex::new("SMS_TIMOUT");
    let look = async || doctors_findings(&world, &[(*name.lock().await, "5s")]);
    fault.with(&[]).score(look, async |_| *name.lock().await = "SMS_TIMEOUT").await
}

seeded_faults! {
    the_database_url_is_not_set:
        setting(&["DATABASE_URL: is not set"], "such as postgres://user:password@127.0.0.1:5432/session_invite"),
        |fault| of_worker(fault, "DATABASE_URL", "", None);
    the_database_url_is_of_another_product:
        setting(&["DATABASE_URL: must be"], "a URL that begins with postgres:// or postgresql://"),
        |fault| of_worker(fault, "DATABASE_URL", "mysql://x:y@127.0.0.1/z", None);
    the_brokers_url_is_not_set:
        setting(&["AMQP_URL: is not set"], "such as amqp://user:password@127.0.0.1:5672/%2f"),
        |fault| of_worker(fault, "AMQP_URL", "", None);
    the_key_of_secrets_is_not_set:
        SeededFault::new(FatalLine, &["SECRETS_KEY: is not set"], "openssl rand -base64 32", "that command, and its key set"),
        without_a_key;
    the_key_of_secrets_is_no_key:
        setting(&["SECRETS_KEY: key 1 is not base64"], "openssl rand -base64 32"),
        |fault| of_worker(fault, "SECRETS_KEY", "hunter2!", None);
    the_auth_token_is_not_set:
        setting(&["TWILIO_AUTH_TOKEN: is not set"], "or set TWILIO_API_KEY and TWILIO_API_SECRET"),
        |fault| of_worker(fault, "TWILIO_AUTH_TOKEN", "", None);
    the_account_is_not_set:
        setting(&["TWILIO_ACCOUNT_SID: is not set"], "the account's id at the provider, AC…"),
        |fault| of_worker(fault, "TWILIO_ACCOUNT_SID", "", None);
    the_senders_number_is_not_set:
        setting(&["SMS_FROM: is not set"], "or set SMS_MESSAGING_SERVICE_SID"),
        |fault| of_worker(fault, "SMS_FROM", "", None);
    the_providers_url_has_another_scheme:
        setting(&["SMS_BASE_URL: must be"], "an absolute http:// or https:// URL"),
        |fault| of_worker(fault, "SMS_BASE_URL", "ftp://provider", None);
    the_public_url_has_no_scheme:
        setting(&["PUBLIC_URL: must be"], "an absolute http:// or https:// URL"),
        |fault| of_worker(fault, "PUBLIC_URL", "invite.example", Some("http://127.0.0.1:9"));
    a_settings_name_is_misspelt:
        SeededFault::new(Doctor, &["configuration: SMS_TIMOUT is set", "SMS_TIMEOUT, which is similar, is not set"], "rename it", "the right name"),
        misspelt;
    a_duration_is_a_word:
        setting(&["SMS_TIMEOUT: is not a duration"], "such as 10s, 10m or 24h"),
        |fault| of_worker(fault, "SMS_TIMEOUT", "soon", Some("10s"));
    the_retention_is_a_second:
        setting(&["RETENTION: must be"], "from 1d to 36525d"),
        |fault| of_worker(fault, "RETENTION", "1s", Some("1d"));
    the_prefetch_is_zero:
        setting(&["PREFETCH: must be"], "a whole number from 1 to 65535"),
        |fault| of_worker(fault, "PREFETCH", "0", Some("1"));
    the_pool_has_no_size:
        setting(&["DATABASE_MAX_CONNECTIONS: must be"], "a whole number from 2 to 1000"),
        |fault| of_worker(fault, "DATABASE_MAX_CONNECTIONS", "many", Some("2"));
    the_reaction_to_an_unsure_text_is_unknown:
        setting(&["SMS_WHEN_UNSURE: must be"], "look, fail or resend"),
        |fault| of_worker(fault, "SMS_WHEN_UNSURE", "guess", Some("look"));
    the_operators_address_has_no_port:
        setting(&["HTTP_ADDR: must be"], "an address and a port, such as 127.0.0.1:9464"),
        |fault| of_worker(fault, "HTTP_ADDR", "localhost", None);
    the_log_has_an_unknown_format:
        setting(&["LOG_FORMAT: must be"], "text or json"),
        |fault| of_worker(fault, "LOG_FORMAT", "xml", Some("text"));
    the_log_has_an_unusable_filter:
        setting(&["RUST_LOG: is not a filter"], "such as info, or warn,session_invite=debug"),
        |fault| of_worker(fault, "RUST_LOG", "a=b=c", Some("info"));
}
