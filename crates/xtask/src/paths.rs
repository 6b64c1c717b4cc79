//! Where things are. All paths begin at the project's root, which is the working directory.

use std::{
    env, io,
    path::{Path, PathBuf},
};

/// Enters the project's root: that of the checkout for which cargo runs this program.
pub(crate) fn enter_root() -> io::Result<()> {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = manifest.ancestors().nth(2).map_or(PathBuf::from("."), Path::to_owned);
    env::set_current_dir(root)
}

pub(crate) fn root() -> io::Result<PathBuf> {
    env::current_dir()
}

/// What `./dev` keeps: runs, logs, tools.
pub(crate) fn dev() -> io::Result<PathBuf> {
    Ok(root()?.join(".dev"))
}

/// The run of `./dev up`, which outlives its command.
pub(crate) fn up() -> io::Result<PathBuf> {
    Ok(dev()?.join("up"))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()).map_or("target".into(), PathBuf::from)
}
