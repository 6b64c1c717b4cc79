//! A file for each command.

mod api;
mod bare;
mod bench;
mod browser;
mod check;
mod compose;
mod dashboard;
mod demo;
mod deploying;
mod fuzz;
mod images;
mod package;
mod setup;
mod shards;
mod soak;
mod test;
mod up;
mod upgrade;

use crate::{cli::Command, output::say, random};
use anyhow::Result;

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Shards(options) => shards::run(&options),
        Command::Upgrade(options) => upgrade::run(&options),
        Command::SoakService(options) => soak::change_service(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Profile(options) => bench::profile(options),
        Command::Browser(options) => browser::run(&options),
        Command::Dashboard(options) => dashboard::run(&options),
        Command::Api(options) => api::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Images => images::run(),
        Command::Deploying => deploying::run(),
        Command::Package(options) => package::run(&options),
        Command::Compose(options) => compose::run(&options),
        Command::Bare(options) => bare::run(&options),
        Command::Up(options) => up::up(&options),
        Command::Down(options) => up::down(&options),
        Command::Key => {
            say(format!("SECRETS_KEY={}", random::key()?));
            Ok(())
        }
    }
}
