//! A provider that fails, hangs, refuses or is away.

use super::{SeededFault, SeenIn::WorkerReadiness, problems, seeded_faults, type_command};
use crate::support::{Message, Setup, Tunnel, World, fixed_server, free_address};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Mutex;

/// An invite's own outcome is the subject of other tests, and may take some tries.
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);

/// The provider answers all texts in this way, until its settings are `well` again.
async fn answers(fault: SeededFault, settings: Value, well: Value, logged: Option<&str>) -> u8 {
    let world = Setup::default().short_waits().set("SMS_TIMEOUT", "8s").start().await;
    if let Some(logged) = logged {
        world.expect_error(logged);
    }
    world.provider.set(settings).await;
    world.broker.request(Message::json(&world.request_to_number(1)).correlation("hit")).await;
    let origin = world.provider.url.clone();
    let repair = async |_: &str| {
        world.provider.set(well).await;
        world.invite(&world.request_to_number(2)).await.sent();
    };
    let look = async || problems(world.running()).await;
    let points = fault.with(&[("origin", &origin)]).score(look, repair).await;
    drop(world.broker.reply_within(ANSWERED_WITHIN, "hit").await);
    points
}

/// The list of texts cannot be read, and a text's answer was lost.
async fn has_no_list(fault: SeededFault) -> u8 {
    let world = Setup::default().short_waits().start().await;
    world.provider.set(json!({"next": ["cut_before"], "list_status": 503})).await;
    world.broker.request(Message::json(&world.request()).correlation("hit")).await;
    let repair = async |_: &str| {
        world.provider.set(json!({"list_status": null})).await;
        // The next look may be half a minute away.
        world.broker.reply_within(ANSWERED_WITHIN, "hit").await.sent();
    };
    fault.with(&[]).score(async || problems(world.running()).await, repair).await
}

/// No DNS server is asked for it: a label has at most 63 characters.
const UNRESOLVABLE: &str = "api-of-a-provider-whose-name-is-longer-than-any-label-of-a-host-can-be.example";

/// Nothing listens where SMS_BASE_URL points, until the provider does.
async fn is_away(fault: SeededFault) -> u8 {
    let address = free_address();
    let origin = format!("http://{address}");
    let world = Setup::default().one_try().set("SMS_BASE_URL", &origin).start().await;
    world.invite(&world.request()).await.refused("failed", "provider_unavailable", 503);
    let tunnel = Mutex::new(None);
    let repair = async |_: &str| {
        let port = address.rsplit_once(':').expect("a port").1.parse().expect("a number");
        *tunnel.lock().await = Some(Tunnel::open_on(port, &world.provider.url));
        world.invite(&world.request()).await.sent();
    };
    fault.with(&[("origin", &origin)]).score(async || problems(world.running()).await, repair).await
}

/// A worker with a wrong setting, which is started again with the right one.
async fn is_set_wrong(
    fault: SeededFault,
    name: &str,
    wrong: impl Fn(&World) -> String,
    logged: Option<&str>,
) -> u8 {
    let mut world = Setup::default().one_try().set("PUBLIC_URL", "http://127.0.0.1:9").start().await;
    let wrong = wrong(&world);
    if let Some(logged) = logged {
        world.expect_error(logged);
    }
    let worker = Mutex::new(world.replace_worker(&[(name, &wrong)]).await);
    let reply = world.invite(&world.request()).await;
    drop(reply);
    let address = world.provider.url.trim_start_matches("http://").to_owned();
    let look = async || {
        let worker = worker.lock().await;
        problems(&worker).await
    };
    let repair = async |_: &str| {
        assert!(worker.lock().await.stop().success());
        let right = world.start_worker().await;
        *worker.lock().await = right;
        world.invite(&world.request()).await.sent();
    };
    let points = fault.with(&[("address", &address), ("host", UNRESOLVABLE)]).score(look, repair).await;
    assert!(worker.into_inner().stop().success());
    points
}

/// SMS_BASE_URL points to what redirects to the provider. Texts are not sent there, so they may have gone out.
async fn redirects(fault: SeededFault) -> u8 {
    let mut world = Setup::default().short_waits().start().await;
    let target = world.provider.url.clone();
    let origin = fixed_server(&format!("308 Permanent Redirect\r\nlocation: {target}/2010-04-01/x"));
    let worker = Mutex::new(world.replace_worker(&[("SMS_BASE_URL", &origin)]).await);
    world.broker.request(Message::json(&world.request()).correlation("hit")).await;
    let look = async || {
        let worker = worker.lock().await;
        problems(&worker).await
    };
    let repair = async |_: &str| {
        assert!(worker.lock().await.stop().success());
        let right = world.start_worker().await;
        *worker.lock().await = right;
    };
    let points = fault.with(&[("origin", &origin), ("target", &target)]).score(look, repair).await;
    world.broker.reply_within(ANSWERED_WITHIN, "hit").await.sent();
    assert!(worker.into_inner().stop().success());
    points
}

/// The group's own From number is not the account's.
async fn refuses_the_groups_number(fault: SeededFault) -> u8 {
    let world = Setup::default().group(&["--sms-from", "+15005550001"]).start().await;
    world.expect_error(SENDER);
    world.provider.set(json!({"error_code": 21_606, "error_status": 400})).await;
    world.invite(&world.request()).await.refused("failed", "provider_misconfigured", 503);
    let repair = async |remedy: &str| {
        world.provider.set(json!({"error_code": null})).await;
        type_command(&world, &remedy.replace("NUMBER", "+15005550006"));
    };
    fault.with(&[]).score(async || problems(world.running()).await, repair).await
}

/// Every other connection is cut before the answer.
async fn leaves_a_part_unanswered(fault: SeededFault) -> u8 {
    let world = Setup::default().short_waits().start().await;
    let turns: Vec<_> = ["cut_before", "ok"].into_iter().cycle().take(24).collect();
    world.provider.next(&turns).await;
    for n in 1..=12 {
        world.broker.request(Message::json(&world.request_to_number(n)).correlation("hit")).await;
        world.provider.until_posts(u64::try_from(n).expect("few")).await;
    }
    let repair = async |_: &str| {
        world.provider.next(&[]).await;
        for n in 100..120 {
            world.invite(&world.request_to_number(n)).await.sent();
        }
    };
    let points = fault.with(&[]).score(async || problems(world.running()).await, repair).await;
    for _ in 1..=12 {
        world.broker.reply_within(ANSWERED_WITHIN, "hit").await.sent();
    }
    points
}

const fn fault(cause: &'static [&'static str], remedy: &'static str, typed: &'static str) -> SeededFault {
    SeededFault::new(WorkerReadiness, cause, remedy, typed)
}

const WORKS_AGAIN: &str = "nothing: the provider works again, and an invite goes on by itself";
const SENDER: &str = "the provider refuses this group's From number";
const ACCOUNT: &str = "the provider refuses the operator's account";

seeded_faults! {
    the_provider_answers_503:
        fault(&["503, code 20503", "in a row"], "curl -sSI {origin}/", WORKS_AGAIN),
        |fault| answers(fault, json!({"fail": 1.0}), json!({"fail": 0.0}), None);
    the_provider_answers_429:
        fault(&["429, code 20429", "in a row"], "set SMS_PER_SECOND", "the provider raises what it allows"),
        |fault| answers(fault, json!({"throttle": 1.0}), json!({"throttle": 0.0}), None);
    the_provider_answers_garbage:
        fault(&["SMS_BASE_URL", "200, ", "in a row"], "curl -sSi {origin}/", "the provider answers there again"),
        |fault| answers(fault, json!({"garbage": 1.0}), json!({"garbage": 0.0}), None);
    the_accounts_daily_limit_is_reached:
        fault(&["daily limit", "429, code 63038"], "let the provider raise the account's daily limit", "the provider raises it"),
        |fault| answers(fault, json!({"daily_limit": 1.0}), json!({"daily_limit": 0.0}), None);
    the_account_is_suspended:
        fault(&["refuses the operator's account (30002)"], "in the provider's console, see why the account is not active", "the account is active again"),
        |fault| answers(fault, json!({"error_code": 30_002, "error_status": 400}), json!({"error_code": null}), Some(ACCOUNT));
    the_provider_hangs:
        fault(&["the provider has answered no text for"], "curl -sS -m 10", WORKS_AGAIN),
        |fault| answers(fault, json!({"hang": 1.0}), json!({"hang": 0.0}), None);
    the_providers_list_cannot_be_read:
        fault(&["the provider's list of texts cannot be read", "503"], "session-invite doctor reads that list too", WORKS_AGAIN),
        has_no_list;
    nothing_listens_at_the_providers_address:
        fault(&["the provider cannot be reached", "Connection refused"], "curl -sS -m 10 -o /dev/null {origin}/", "the provider listens there again"),
        is_away;
    the_worker_has_a_wrong_auth_token:
        fault(&["refuses the operator's account", "401"], "check TWILIO_ACCOUNT_SID, and TWILIO_AUTH_TOKEN", "the right token, and a restart"),
        |fault| is_set_wrong(fault, "TWILIO_AUTH_TOKEN", |_| "not-the-accounts".to_owned(), Some(ACCOUNT));
    the_providers_host_does_not_resolve:
        fault(&["the provider cannot be reached", "failed to lookup address information"], "curl -sS -m 10 -o /dev/null http://{host}/", "the right host, and a restart"),
        |fault| is_set_wrong(fault, "SMS_BASE_URL", |_| format!("http://{UNRESOLVABLE}"), None);
    the_providers_address_redirects:
        fault(&["redirects to another address", "308", "to {target}"], "curl -sSI {origin}/2010-04-01/Accounts.json", "SMS_BASE_URL as the redirect has it, and a restart"),
        redirects;
    the_senders_number_is_not_the_accounts:
        fault(&["the provider refuses the sender +15005550006 of group 72", "21659, it is not the account's"], "set SMS_FROM", "the account has the number"),
        |fault| answers(fault, json!({"error_code": 21_659, "error_status": 400}), json!({"error_code": null}), Some(SENDER));
    a_groups_number_cannot_send:
        fault(&["the provider refuses the sender +15005550001 of group 72", "code 21606"], "session-invite groups set 72 --sms-from NUMBER", "that command, with a number of the account"),
        refuses_the_groups_number;
    the_provider_leaves_a_part_of_the_texts_unanswered:
        fault(&["of the last", "failed at the provider"], "curl -sS -m 10", "nothing: the provider works again, and invites go on by themselves"),
        leaves_a_part_unanswered;
    the_provider_speaks_no_tls:
        fault(&["the provider cannot be reached"], "curl -sS -m 10 -o /dev/null https://{address}/", "the scheme that works for curl, and a restart"),
        |fault| is_set_wrong(fault, "SMS_BASE_URL", |world| world.provider.url.replacen("http", "https", 1), None);
}
