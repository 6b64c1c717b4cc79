//! Checks over HTTP: the provider's account, the target of links, and a worker that is running already.

use super::finding::{Finding, with_remedy};
use crate::config::{Faults, ProviderConfig, WorkerArgs};
use reqwest::{Client, StatusCode, header::LOCATION, redirect};
use secrecy::ExposeSecret;
use std::{net::Ipv4Addr, time::Duration};

const PROVIDER: &str = "provider";
const LINKS: &str = "links";
const WORKER: &str = "worker";
/// The provider's list takes a moment. A gateway, and a worker on this machine, answer at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// The title of the gateway's OpenAPI document.
const GATEWAY_TITLE: &str = "Session Invite";

pub(super) async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let client = Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            return vec![Finding::failed(PROVIDER, error.to_string(), "this machine's TLS is unusable")];
        }
    };
    let (provider, links, worker) =
        tokio::join!(provider(args, &client), links(args, &client), worker(args, &client));
    [provider, links].into_iter().chain(worker).collect()
}

/// Reads one message of the provider's list, which changes nothing.
async fn provider(args: &WorkerArgs, client: &Client) -> Finding {
    let mut faults = Faults::default();
    let Some(config) = args.provider.check(&mut faults) else {
        return Finding::skipped(PROVIDER, "its settings are not usable");
    };
    let ProviderConfig { base_url, account_sid, user, password, .. } = &config;
    let url = format!("{base_url}/2010-04-01/Accounts/{account_sid}/Messages.json?PageSize=1");
    match client.get(url).basic_auth(user, Some(password.expose_secret())).send().await {
        Ok(answer) if answer.status().is_success() => {
            Finding::ok(PROVIDER, format!("{base_url} takes the account"))
        }
        Ok(answer) if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Finding::failed(
                PROVIDER,
                format!("{base_url} refuses the account ({})", answer.status().as_u16()),
                "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, or TWILIO_API_KEY and TWILIO_API_SECRET",
            )
        }
        Ok(answer) if answer.status().is_redirection() => {
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url::Url::parse(to).ok()).map(|to| to.origin().ascii_serialization());
            let to = to.unwrap_or_else(|| "another address".to_owned());
            let found = format!(
                "{base_url} redirects to {to} ({}), and texts are sent to no other address",
                answer.status().as_u16()
            );
            Finding::failed(PROVIDER, found, format!("set SMS_BASE_URL={to}, if that is the provider"))
        }
        Ok(answer) => Finding::warning(
            PROVIDER,
            format!("{base_url} answers {} when its list is read", answer.status().as_u16()),
            "is SMS_BASE_URL right? Texts whose answer is lost are looked up in that list",
        ),
        Err(error) if error.is_timeout() && !error.is_connect() => Finding::failed(
            PROVIDER,
            format!("{base_url} can be reached, and does not answer within {} s", PATIENCE.as_secs()),
            "see the provider's status page (Twilio: https://status.twilio.com); /readyz of a worker says how texts fare",
        ),
        Err(error) => Finding::failed(
            PROVIDER,
            format!("{base_url} cannot be reached: {}", reason(&error)),
            "check SMS_BASE_URL, and that this machine may connect to it",
        ),
    }
}

/// Whether a visitor's link, and the provider's receipts, reach the gateway.
async fn links(args: &WorkerArgs, client: &Client) -> Finding {
    let Ok(url) = args.secrets.public_url() else {
        return Finding::skipped(LINKS, "PUBLIC_URL is not usable");
    };
    let base = url.base;
    let host =
        url::Url::parse(&base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    if host.contains('_') {
        let remedy = "the provider calls no host with an underscore: set another PUBLIC_URL";
        return Finding::failed(LINKS, format!("{base} has an underscore in its host"), remedy);
    }
    match client.get(format!("{base}/healthz")).send().await {
        Ok(answer) if answer.status().is_success() => match answers_as_gateway(&base, client).await {
            Ok(()) => Finding::ok(LINKS, format!("a gateway answers at {base}")),
            Err(why) => Finding::warning(
                LINKS,
                format!("what answers at {base} is not session-invite gateway: {why}"),
                format!(
                    "see what it is: curl -sSi {base}/openapi.json | head -20; set PUBLIC_URL to where the gateway is, or let the \
                     proxy there lead to it"
                ),
            ),
        },
        Ok(answer) => Finding::warning(
            LINKS,
            format!("{base}/healthz answers {}", answer.status().as_u16()),
            "PUBLIC_URL must lead to session-invite gateway, unless groups have links of their own",
        ),
        Err(error) => Finding::warning(
            LINKS,
            format!("nothing answers at {base}: {}", reason(&error)),
            "start session-invite gateway, or set PUBLIC_URL to where its proxy is",
        ),
    }
}

/// Whether the address has the gateway's own document: any program may have a `/healthz`.
async fn answers_as_gateway(base: &str, client: &Client) -> Result<(), String> {
    let answer = client.get(format!("{base}/openapi.json")).send().await.map_err(|error| reason(&error))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|error| reason(&error))?;
    let title = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|document| document["info"]["title"].as_str().map(str::to_owned));
    match title {
        Some(title) if status.is_success() && title == GATEWAY_TITLE => Ok(()),
        Some(title) => Err(format!("its /openapi.json is of {title:?}")),
        None => Err(format!("its /openapi.json answers {}, and is not the gateway's", status.as_u16())),
    }
}

/// Whether a process that runs on this machine is ready: a finding for each of its problems.
async fn worker(args: &WorkerArgs, client: &Client) -> Vec<Finding> {
    let Ok(mut addr) = args.http.read() else {
        return vec![Finding::skipped(WORKER, "HTTP_ADDR is not usable")];
    };
    if addr.ip().is_unspecified() {
        addr.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let answer = match client.get(format!("http://{addr}/readyz")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() && !error.is_connect() => {
            let found = format!("what listens at {addr} does not answer: it is stopped (SIGSTOP), or hangs");
            let remedy = format!(
                "see which process it is, and its state (T is stopped: kill -CONT its id): ps -o pid,stat,args -p $(ss -Hltnp \
                 'sport = :{}' | grep -o 'pid=[0-9]*' | cut -d= -f2 | head -1)",
                addr.port()
            );
            return vec![Finding::failed(WORKER, found, remedy)];
        }
        Err(_) => return vec![Finding::ok(WORKER, format!("no worker answers at {addr}"))],
    };
    let is_ready = answer.status().is_success();
    let body: serde_json::Value =
        answer.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let problems = body["problems"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    let finding = |problem: &str| {
        let (found, remedy) = with_remedy(problem);
        let remedy = remedy.unwrap_or_else(|| "the log of that process says more".to_owned());
        let found = format!("the process at {addr}: {found}");
        if is_ready {
            Finding::warning(WORKER, found, remedy)
        } else {
            Finding::failed(WORKER, found, remedy)
        }
    };
    let findings: Vec<_> = problems.map(finding).collect();
    match (is_ready, findings.is_empty()) {
        (_, false) => findings,
        (true, true) => vec![Finding::ok(WORKER, format!("the process at {addr} is ready"))],
        (false, true) => {
            let found = format!("what answers at {addr} is not ready, and does not say why");
            vec![Finding::failed(WORKER, found, format!("see what it is: curl -sSi http://{addr}/readyz"))]
        }
    }
}

/// The innermost cause: the outer ones repeat the address.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
