//! `./dev bench`: how fast invites are answered, beside the least that a broker could be asked to do, and where this
//! machine's time goes meanwhile.
//!
//! `./dev bench` starts it, and says in its environment where the servers are. It starts itself again as the provider, as the floor and as a crowd of connections, so that each has a process whose CPU can be read.

mod answer;
mod block;
mod broker;
mod crowd;
mod database;
mod figures;
mod floor;
mod front;
mod http;
mod load;
mod machine;
mod measure;
mod options;
mod outcome;
mod over_http;
mod part;
mod plan;
mod plot;
mod processes;
mod provider;
mod report;
mod stage;
mod svg;
#[cfg(test)]
mod tests;
mod usage;
mod write;

use clap::Parser;
use options::{Options, Surroundings};
use std::{os::unix::process::parent_id, process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        [floor::ROLE, url, queue] => runtime.block_on(floor::run(url, queue)),
        [provider::ROLE, latency_ms] => runtime.block_on(provider::run(latency_ms)),
        [crowd::ROLE, gateway, idle, slow] => runtime.block_on(crowd::run(gateway, idle, slow)),
        _ => {
            let options = Options::parse();
            if options.check {
                return ExitCode::SUCCESS;
            }
            let Some(surroundings) = Surroundings::read() else {
                eprintln!("error: the benchmark needs servers and a release build; start it by ./dev bench");
                return ExitCode::from(2);
            };
            runtime.block_on(until_orphaned(options, surroundings))
        }
    }
}

/// When `./dev bench` is gone, so are the processes that were started here.
async fn until_orphaned(options: Options, surroundings: Surroundings) -> ExitCode {
    let parent = parent_id();
    let orphaned = async {
        while parent_id() == parent {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        code = stage::run(options, surroundings) => code,
        () = orphaned => ExitCode::from(129),
    }
}
