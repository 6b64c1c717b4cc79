//! What is reached over HTTP: the provider's account, where links lead, and a worker that is running already.

use super::finding::Finding;
use crate::config::{Faults, ProviderConfig, WorkerArgs};
use reqwest::{Client, StatusCode, redirect};
use secrecy::ExposeSecret;
use std::{net::Ipv4Addr, time::Duration};

const PROVIDER: &str = "provider";
const LINKS: &str = "links";
const WORKER: &str = "worker";
const PATIENCE: Duration = Duration::from_secs(5);

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
    vec![provider, links, worker]
}

/// Asks for one message of its list, which changes nothing.
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
        Ok(answer) => Finding::warning(
            PROVIDER,
            format!("{base_url} answers {} to a look at its list", answer.status().as_u16()),
            "is SMS_BASE_URL right? Texts whose answer is lost are looked up in that list",
        ),
        Err(error) => Finding::failed(
            PROVIDER,
            format!("{base_url} is not reached: {}", reason(&error)),
            "check SMS_BASE_URL, and that this machine may connect to it",
        ),
    }
}

/// Whether a visitor's link, and the provider's receipts, find the gateway.
async fn links(args: &WorkerArgs, client: &Client) -> Finding {
    let Ok(url) = args.secrets.public_url() else {
        return Finding::skipped(LINKS, "PUBLIC_URL is not usable");
    };
    let base = url.base;
    let host =
        url::Url::parse(&base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    if host.contains('_') {
        let mend = "the provider calls no host with an underscore: set another PUBLIC_URL";
        return Finding::failed(LINKS, format!("{base} has an underscore in its host"), mend);
    }
    match client.get(format!("{base}/healthz")).send().await {
        Ok(answer) if answer.status().is_success() => {
            Finding::ok(LINKS, format!("a gateway answers at {base}"))
        }
        Ok(answer) => Finding::warning(
            LINKS,
            format!("{base}/healthz answers {}", answer.status().as_u16()),
            "PUBLIC_URL has to lead to session-invite gateway, unless groups have links of their own",
        ),
        Err(error) => Finding::warning(
            LINKS,
            format!("nothing answers at {base}: {}", reason(&error)),
            "start session-invite gateway, or set PUBLIC_URL to where its proxy is",
        ),
    }
}

async fn worker(args: &WorkerArgs, client: &Client) -> Finding {
    let Ok(mut addr) = args.http.read() else { return Finding::skipped(WORKER, "HTTP_ADDR is not usable") };
    if addr.ip().is_unspecified() {
        addr.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let Ok(answer) = client.get(format!("http://{addr}/readyz")).send().await else {
        return Finding::ok(WORKER, format!("none answers at {addr}"));
    };
    let is_ready = answer.status().is_success();
    let body: serde_json::Value =
        answer.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
    let problems: Vec<&str> =
        body["problems"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    match (is_ready, problems.is_empty()) {
        (true, true) => Finding::ok(WORKER, format!("the one at {addr} is ready")),
        _ => Finding::warning(WORKER, format!("the one at {addr}: {}", problems.join("; ")), "see its log"),
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
