//! The gateway of a measurement, and the crowd of connections to it.

use crate::{http_client::HttpClient, processes::ChildProcess, scenario::Scenario};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
};
use test_support::process;

/// The processes of a gateway and its crowd.
#[derive(Debug)]
pub(crate) struct GatewayProcesses {
    gateway: ChildProcess,
    crowd: Option<ChildProcess>,
}

impl GatewayProcesses {
    /// Starts the gateway, waits until it is ready, then opens the crowd's connections.
    pub(crate) async fn start(
        mut command: Command,
        scenario: &Scenario,
        api_key: &str,
        logs: &Path,
    ) -> Result<(Self, HttpClient), String> {
        let address = free_address().map_err(|error| format!("no free port: {error}"))?;
        command.env("GATEWAY_ADDR", address.to_string()).stdout(Stdio::null());
        let gateway = ChildProcess::start(&mut command, &logs.join("gateway.log"))?;
        let client = match HttpClient::connect(address, api_key).await {
            Ok(client) => client,
            Err(error) => return Err(format!("{error}: {}", gateway.last_log_lines())),
        };
        let mut processes = Self { gateway, crowd: None };
        if scenario.idle + scenario.slow > 0 {
            let [address, idle, slow] =
                [address.to_string(), scenario.idle.to_string(), scenario.slow.to_string()];
            let arguments = ["crowd", &address, &idle, &slow];
            let crowd = ChildProcess::start_role(&arguments, &logs.join("crowd.log"))?;
            processes.crowd.insert(crowd).first_line()?;
        }
        Ok((processes, client))
    }

    /// The gateway's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.gateway.pid()
    }

    /// The gateway's largest resident memory so far, in KiB.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        process::peak_memory(self.pid())
    }

    /// Stops the crowd, then the gateway.
    pub(crate) async fn stop(self) -> Result<(), String> {
        drop(self.crowd);
        self.gateway.stop().await
    }
}

/// An address without a listener at this moment.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
