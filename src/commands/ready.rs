//! `session-invite ready`: a container's health check, as the image has no curl.

use crate::config::HttpAddrArgs;
use anyhow::{Context, bail};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  Until the worker is ready:
    until session-invite ready; do sleep 1; done

  A gateway, by its public address:
    session-invite ready --http-addr 127.0.0.1:8080

It prints the answer of /readyz. Exit code 1 if the process is not ready, or does not answer within 4 s.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReadyArgs {
    #[command(flatten)]
    http: HttpAddrArgs,
}

pub(crate) async fn run(args: &ReadyArgs) -> anyhow::Result<()> {
    let mut addr = args.http.read()?;
    if addr.ip().is_unspecified() {
        addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(4)).build()?;
    let response = client
        .get(format!("http://{addr}/readyz"))
        .send()
        .await
        .context(format!("http://{addr}/readyz does not answer"))?;
    let status = response.status();
    let body = response.text().await.unwrap_or_default();
    if !status.is_success() {
        bail!("not ready: {body}");
    }
    crate::output::print(&body)
}
