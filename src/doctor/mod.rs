//! Checks everything that the worker needs: no migration, no declaration, no text. It publishes only a message of its own, to
//! test a delivery limit (`queue/returns.rs`).

mod broker;
mod database;
mod finding;
mod locks;
mod outside;
mod processes;

pub(crate) use finding::{CheckStatus, Finding};

use crate::config::{Faults, GatewayArgs, MisspeltSetting, WorkerArgs};

const CONFIGURATION: &str = "configuration";

/// Makes all checks, and returns their findings in a fixed order. The servers are checked at the same time, each within a
/// few seconds.
pub(crate) async fn examine(args: &WorkerArgs, misspelt: &[MisspeltSetting]) -> Vec<Finding> {
    let mut findings = configuration(args, misspelt);
    let (database, broker, outside) =
        tokio::join!(database::examine(args), broker::examine(args), outside::examine(args));
    findings.extend(database.into_iter().chain(broker).chain(outside));
    findings
}

/// Every fault in the settings of a worker and of a gateway, as at their start.
fn configuration(args: &WorkerArgs, misspelt: &[MisspeltSetting]) -> Vec<Finding> {
    let mut faults = args.check().err().map(|faults| faults.lines().to_vec()).unwrap_or_default();
    let of_gateway = GatewayArgs::beside(args).check().err();
    let of_gateway = of_gateway.iter().flat_map(Faults::lines).filter(|fault| !faults.contains(fault));
    let of_gateway: Vec<_> =
        of_gateway.map(|fault| (fault.clone(), "session-invite gateway --help")).collect();
    let all = faults.drain(..).map(|fault| (fault, "session-invite worker --help")).chain(of_gateway);
    let mut findings: Vec<_> = all
        .map(|(fault, help)| Finding::failed(CONFIGURATION, fault, format!("correct it: {help} explains it")))
        .collect();
    findings.extend(misspelt.iter().map(|found| {
        let remedy =
            format!("rename it, if {} is meant; session-invite config show lists all", found.setting);
        Finding::warning(CONFIGURATION, found.to_string(), remedy)
    }));
    if findings.is_empty() {
        findings.push(Finding::ok(
            CONFIGURATION,
            "of worker and gateway complete, as far as the settings alone show",
        ));
    }
    findings
}
