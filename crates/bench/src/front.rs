//! The gateway of a measurement, and the crowd before it.

use crate::{crowd, http::Client, part::Scenario, processes::Process};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
};
use test_support::process;

#[derive(Debug)]
pub struct Front {
    gateway: Process,
    crowd: Option<Process>,
}

impl Front {
    /// Starts it, waits until it is ready, and lets the crowd in.
    pub async fn start(
        mut command: Command,
        scenario: &Scenario,
        api_key: &str,
        logs: &Path,
    ) -> Result<(Self, Client), String> {
        let address = free_address().map_err(|error| format!("no free port: {error}"))?;
        command.env("GATEWAY_ADDR", address.to_string()).stdout(Stdio::null());
        let gateway = Process::start(&mut command, &logs.join("gateway.log"))?;
        let client = match Client::connect(address, api_key).await {
            Ok(client) => client,
            Err(why) => return Err(format!("{why}: {}", gateway.says())),
        };
        let mut front = Self { gateway, crowd: None };
        if scenario.idle + scenario.slow > 0 {
            let [address, idle, slow] =
                [address.to_string(), scenario.idle.to_string(), scenario.slow.to_string()];
            let arguments = [crowd::ROLE, &address, &idle, &slow];
            front.crowd.insert(Process::start_role(&arguments, &logs.join("crowd.log"))?).first_line()?;
        }
        Ok((front, client))
    }

    pub fn pid(&self) -> u32 {
        self.gateway.pid()
    }

    /// The largest resident memory so far, in KiB.
    pub fn peak(&self) -> Option<u64> {
        process::peak(self.pid())
    }

    /// The crowd first.
    pub async fn stop(self) -> Result<(), String> {
        drop(self.crowd);
        self.gateway.stop().await
    }
}

/// Nobody listens there, a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
