//! The undo log: a line for each thing that a run starts or makes.

use crate::{
    compose::{self, ComposeFile, Volumes},
    netns, packages,
    process::Process,
    program, psql,
    shell::{self, RunToEnd as _},
};
use std::{fs, path::PathBuf};

/// What a run has started or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    Process(Process),
    /// All queues and exchanges under a prefix, on a broker that outlives the run.
    Queues {
        broker: String,
        prefix: String,
    },
    /// A database on a server that outlives the run.
    Database {
        server: String,
        name: String,
    },
    Directory(PathBuf),
    /// A directory whose files are root's.
    RootDirectory(PathBuf),
    ComposeProject(String),
    /// A project of docker-compose.cluster.yml.
    ComposeCluster(String),
    /// The project whose volumes hold what was fetched and compiled: those stay.
    ComposeTests(String),
    Container(String),
    /// A network namespace, with the processes in it.
    Namespace(String),
    /// A network interface.
    Link(String),
}

/// How much of a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// What is marked as kept stays, for the next `./dev up`.
    KeepData,
}

/// A line of the undo log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub resource: Resource,
    /// Whether it outlives `./dev down`.
    pub is_kept: bool,
}

impl Entry {
    pub(crate) fn to_line(&self) -> String {
        let words: Vec<String> = match &self.resource {
            Resource::Process(it) => {
                vec!["process".into(), it.name.clone(), it.pid.to_string(), it.start.to_string()]
            }
            Resource::Queues { broker, prefix } => vec!["queues".into(), broker.clone(), prefix.clone()],
            Resource::Database { server, name } => vec!["database".into(), server.clone(), name.clone()],
            Resource::Directory(path) => vec!["directory".into(), path.display().to_string()],
            Resource::RootDirectory(path) => vec!["root-directory".into(), path.display().to_string()],
            Resource::ComposeProject(name) => vec!["compose".into(), name.clone()],
            Resource::ComposeCluster(name) => vec!["compose-cluster".into(), name.clone()],
            Resource::ComposeTests(name) => vec!["compose-tests".into(), name.clone()],
            Resource::Container(name) => vec!["container".into(), name.clone()],
            Resource::Namespace(name) => vec!["namespace".into(), name.clone()],
            Resource::Link(name) => vec!["link".into(), name.clone()],
        };
        let mark = if self.is_kept { "kept-" } else { "" };
        format!("{mark}{}", words.join("\t"))
    }

    /// Without a tab, it is a line of the earlier `./dev`, which wrote spaces.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let (is_kept, line) = line.strip_prefix("kept-").map_or((false, line), |line| (true, line));
        let separator = if line.contains('\t') { '\t' } else { ' ' };
        let words: Vec<&str> = line.split(separator).collect();
        let own = |word: &&str| (*word).to_owned();
        let resource = match words.as_slice() {
            ["process", name, pid, start] => Resource::Process(Process {
                name: own(name),
                pid: pid.parse().ok()?,
                start: start.parse().ok()?,
            }),
            ["queues", broker, prefix] => Resource::Queues { broker: own(broker), prefix: own(prefix) },
            ["database", server, name] => Resource::Database { server: own(server), name: own(name) },
            ["directory", path] => Resource::Directory(path.into()),
            ["root-directory", path] => Resource::RootDirectory(path.into()),
            ["compose", name] => Resource::ComposeProject(own(name)),
            ["compose-cluster", name] => Resource::ComposeCluster(own(name)),
            ["compose-tests", name] => Resource::ComposeTests(own(name)),
            ["container", name] => Resource::Container(own(name)),
            ["namespace", name] => Resource::Namespace(own(name)),
            ["link", name] => Resource::Link(own(name)),
            _ => return None,
        };
        Some(Self { resource, is_kept })
    }

    /// Stops or removes it. What has gone already is no failure.
    pub(crate) fn undo(&self, extent: Extent) {
        let stays = self.is_kept && extent == Extent::KeepData;
        match &self.resource {
            // The containers stop in any case; the volumes are what stays.
            Resource::ComposeProject(name) => {
                let volumes = if extent == Extent::All { Volumes::Remove } else { Volumes::Keep };
                compose::down(name, ComposeFile::Main, volumes);
            }
            _ if stays => {}
            Resource::Process(process) => process.stop(process.ending_signal()),
            Resource::Queues { broker, prefix } => program::delete_queues(broker, prefix),
            Resource::Database { server, name } => psql::drop_database(server, name),
            Resource::Directory(path) => {
                let _ = fs::remove_dir_all(path);
            }
            Resource::RootDirectory(path) => {
                let _ = shell::of_words(&packages::as_root_do(["rm", "-rf"])).arg(path).succeeds();
            }
            Resource::ComposeCluster(name) => compose::down(name, ComposeFile::Cluster, Volumes::Remove),
            Resource::Namespace(name) => netns::remove_namespace(name),
            Resource::Link(name) => netns::remove_link(name),
            Resource::ComposeTests(name) => compose::down(name, ComposeFile::Main, Volumes::KeepCaches),
            Resource::Container(name) => {
                let _ = shell::command("docker").args(["rm", "--force", name]).succeeds();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_says_all() {
        let word = |text: &str| text.to_owned();
        for resource in [
            Resource::Process(Process { name: word("worker"), pid: 17, start: 4711 }),
            Resource::Queues {
                broker: word("amqp://guest:guest@127.0.0.1/%2f"),
                prefix: word("session-invite-x"),
            },
            Resource::Database {
                server: word("postgres://127.0.0.1/postgres"),
                name: word("session_invite_x"),
            },
            Resource::Directory("/home/a b/.dev/up/postgres".into()),
            Resource::RootDirectory("/x".into()),
            Resource::ComposeProject(word("p")),
            Resource::ComposeCluster(word("p")),
            Resource::ComposeTests(word("p")),
            Resource::Container(word("c")),
            Resource::Namespace(word("si1-r1")),
            Resource::Link(word("si1-h")),
        ] {
            for is_kept in [false, true] {
                let entry = Entry { resource: resource.clone(), is_kept };
                assert_eq!(Entry::from_line(&entry.to_line()), Some(entry));
            }
        }
        assert_eq!(Entry::from_line("process\tworker\tx\t1"), None);
        assert_eq!(Entry::from_line(""), None);
    }

    #[test]
    fn a_worker_of_the_soak_is_a_process() {
        // The soak's driver writes this (crates/soak/src/processes.rs).
        let process = Process { name: "worker".to_owned(), pid: 17, start: 4711 };
        let entry = Entry { resource: Resource::Process(process), is_kept: false };
        assert_eq!(Entry::from_line("process\tworker\t17\t4711"), Some(entry));
    }

    #[test]
    fn a_line_of_the_earlier_log_is_read() {
        let process = Process { name: "worker".to_owned(), pid: 17, start: 4711 };
        let entry = Entry { resource: Resource::Process(process), is_kept: false };
        assert_eq!(Entry::from_line("process worker 17 4711"), Some(entry));
        let (server, name) = ("postgres://127.0.0.1/postgres".to_owned(), "x".to_owned());
        let entry = Entry { resource: Resource::Database { server, name }, is_kept: true };
        assert_eq!(Entry::from_line("kept-database postgres://127.0.0.1/postgres x"), Some(entry));
        assert_eq!(Entry::from_line("directory /home/a b"), None);
    }
}
