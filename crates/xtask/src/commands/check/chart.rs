//! The Helm chart, by Helm's own code and Kubernetes' schemas.

use super::outcome::Outcome;
use crate::{
    python,
    shell::{self, RunToEnd as _},
};
use anyhow::Result;

/// The SDK has Helm 4 in it; there is no registry here with its program.
const VERSIONS: [&str; 2] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"];

pub(crate) fn check(install: bool) -> Result<Outcome> {
    if !install && !python::is_installed("helm", &VERSIONS)? {
        return Ok(Outcome::Skipped("Helm is not installed (./dev check --install)"));
    }
    let python = python::programs("helm", &VERSIONS)?.join("python");
    shell::command(python).arg("tests/chart/check.py").run()?;
    Ok(Outcome::Passed)
}
