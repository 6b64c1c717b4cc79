//! Where private services are installed, and the places for their files.

use crate::{
    names, packages,
    run::Run,
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::Result;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

/// Where private services are installed.
#[derive(Debug)]
pub(crate) struct Installation {
    pub root: PathBuf,
    /// The words before a command that runs there.
    pub within: Vec<String>,
}

impl Installation {
    pub(crate) fn of_this_machine() -> Self {
        Self { root: "/".into(), within: Vec::new() }
    }

    /// The same installation, for commands that other words precede.
    pub(crate) fn behind(&self, words: &[String]) -> Self {
        Self { root: self.root.clone(), within: [words, &self.within].concat() }
    }

    /// Makes a place for the files of a service. Root's service runs as that system user, as PostgreSQL
    /// refuses to be root. `./dev up` keeps the directory; other runs remove it.
    pub(crate) fn make_home(&self, run: &Run, name: &str, user: &str) -> Result<ServiceHome> {
        let mut directory = run.directory.join(name);
        let mut as_service = self.within.clone();
        if packages::is_root() {
            let ids = [format!("--reuid={user}"), format!("--regid={user}")];
            as_service.push("setpriv".to_owned());
            as_service.extend(ids);
            as_service.extend(["--init-groups", "--"].map(str::to_owned));
            let can_enter =
                shell::of_words(&as_service).args(["test", "-x"]).arg(&run.directory).succeeds()?;
            // In a home directory the user can not get to .dev/. The run's name finds it again for the next `up`.
            if !can_enter {
                let id = names::checksum(&run.directory.display().to_string());
                directory = format!("/var/tmp/session-invite-dev-{id}-{name}").into();
            }
        }
        run.note_data(Resource::Directory(directory.clone()))?;
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        let home = ServiceHome { directory, as_service };
        self.give(&home, user)?;
        Ok(home)
    }

    /// Makes the user of the service the owner of its files.
    pub(crate) fn give(&self, home: &ServiceHome, user: &str) -> Result<()> {
        if !packages::is_root() {
            return Ok(());
        }
        let mut words = self.within.clone();
        words.extend(["chown", "--recursive", &format!("{user}:")].map(str::to_owned));
        shell::of_words(&words).arg(&home.directory).run()
    }
}

/// A place for a service's files.
#[derive(Debug)]
pub(crate) struct ServiceHome {
    pub directory: PathBuf,
    /// The words before a command that runs as the service's user.
    pub as_service: Vec<String>,
}

impl ServiceHome {
    /// The whole command that runs as the service's user.
    pub(crate) fn as_service_do<const N: usize>(&self, words: [&str; N]) -> Vec<String> {
        let mut all = self.as_service.clone();
        all.extend(words.map(str::to_owned));
        all
    }
}
