//! `./dev upgrade`: the soak, with the previous release's program and this one side by side.

use crate::{
    cli::{SoakOptions, UpgradeOptions},
    commands::soak,
    previous_release,
};
use anyhow::Result;

pub(crate) fn run(options: &UpgradeOptions) -> Result<()> {
    let soak = SoakOptions { cluster: false, series: options.series, options: options.options.clone() };
    soak::run_with(&soak, || {
        Ok(vec!["--previous".to_owned(), previous_release::build()?.display().to_string()])
    })
}
