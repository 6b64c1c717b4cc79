//! `./dev browser`: the gateway's pages in a real Chromium, which is installed if it is missing.

use crate::{
    cli::BrowserOptions,
    packages, paths,
    run::Run,
    services,
    shell::{self, RunToEnd as _},
};
use anyhow::Result;
use std::{fs, path::PathBuf};

const AXE: &str = "axe-core@4.14.1";
/// The console's pictures, which `pngquant` makes small. The visitor's page is one picture more.
const PICTURES: &str = "docs/console";
/// Colours of a picture at most.
const COLOURS: &str = "64";

pub(crate) fn run(options: &BrowserOptions) -> Result<()> {
    packages::need_command("chromedriver", &["chromium", "chromium-driver", "fonts-dejavu-core"])?;
    let axe = install_axe()?;
    let run = Run::begin()?;
    let services = services::find(&run, options.servers.options())?;
    let mut tests = shell::command("cargo");
    tests.args(["test", "--locked", "--quiet", "--test", "browser", "--"]).args(&options.arguments);
    tests.envs(services.environment()).env("AXE", axe);
    if !options.pictures {
        return tests.run();
    }
    packages::need_command("pngquant", &["pngquant"])?;
    fs::create_dir_all(paths::root()?.join(PICTURES))?;
    tests.env("PICTURES", paths::root()?.join("docs")).run()?;
    reduce_pictures()
}

/// Gives the path of the script that tests a page for accessibility.
fn install_axe() -> Result<PathBuf> {
    let folder = paths::dev()?.join("tools/axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        packages::need_command("npm", &["npm"])?;
        packages::install_from_npm(&folder, &[AXE])?;
    }
    Ok(script)
}

fn reduce_pictures() -> Result<()> {
    let mut command = shell::command("pngquant");
    command.args(["--force", "--strip", "--ext", ".png", COLOURS]);
    for entry in fs::read_dir(paths::root()?.join(PICTURES))? {
        command.arg(entry?.path());
    }
    command.run()
}
