//! RabbitMQ: the one that runs, a private one, and the queues on either.

use crate::{
    installation::{Installation, ServiceHome},
    output::{quoted, say},
    packages, ports, random,
    run::Run,
    server::{Server, Source},
    undo::Resource,
};
use anyhow::{Result, bail};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Seconds, as in RabbitMQ's own Jepsen suite: a partition of 30 s is then long enough for `pause_minority`.
pub(crate) const TICK_TIME: u32 = 15;
const STARTS_WITHIN: Duration = Duration::from_mins(2);
const EPMD_STARTS_WITHIN: Duration = Duration::from_secs(5);
/// Another process can take a free port before we do, so a failure gets a second set of ports.
const TRIES: usize = 2;

/// The URL of the broker on the default port.
pub(crate) fn running() -> Option<String> {
    ports::speaks_amqp(("127.0.0.1", 5672)).then(|| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// Starts a private broker. Gives its URL, and its `rabbitmqctl`.
pub(crate) fn start_private(run: &Run, installation: &Installation) -> Result<(String, PathBuf)> {
    packages::need_file(
        &installation.root.join("usr/lib/rabbitmq/bin/rabbitmq-server"),
        &["rabbitmq-server"],
    )?;
    let begun = Instant::now();
    let home = installation.make_home(run, "rabbitmq", "rabbitmq")?;
    for _ in 0..TRIES {
        let node = Node::prepare(run, installation, &home)?;
        let process = run.start("rabbitmq", &node.server(&home), &[])?;
        let port = node.port;
        if run.wait_for(&process, STARTS_WITHIN, || ports::speaks_amqp(("127.0.0.1", port)))? {
            let words = node.command(&home, &[], "/usr/lib/rabbitmq/bin/rabbitmqctl");
            let ctl = make_rabbitmqctl(run, "rabbitmqctl", &words)?;
            let plugins =
                format!("RABBITMQ_ENABLED_PLUGINS_FILE={}/enabled_plugins", home.directory.display());
            let words = node.command(&home, &[plugins], "/usr/lib/rabbitmq/bin/rabbitmq-plugins");
            make_rabbitmqctl(run, "rabbitmq-plugins", &words)?;
            say(format!("RabbitMQ: a private one, 127.0.0.1:{port} ({} ms)", begun.elapsed().as_millis()));
            return Ok((format!("amqp://guest:guest@127.0.0.1:{port}/%2f"), ctl));
        }
        process.stop(process.ending_signal());
    }
    bail!("the private RabbitMQ did not start in {TRIES} tries")
}

/// A broker's ports and name. Nothing of the system's broker is read: neither its configuration, plugins, cookie nor epmd.
pub(crate) struct Node {
    name: String,
    port: u16,
    epmd_port: u16,
    dist_port: u16,
    kind: NodeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeKind {
    /// Only this machine reaches it, on ports that were free.
    Local,
    /// It is in a network namespace of its own, with the usual ports, and its name has its address.
    Member,
}

impl Node {
    /// Writes the configuration, and starts epmd: the broker would start one as a daemon that outlives it.
    fn prepare(run: &Run, installation: &Installation, home: &ServiceHome) -> Result<Self> {
        // The data directory carries the node's name, so a kept one goes on under the name that it began with.
        let name_file = home.directory.join("node");
        if !name_file.exists() {
            fs::write(&name_file, format!("session-invite-dev-{}@localhost", random::word()?))?;
        }
        let node = Self {
            name: fs::read_to_string(name_file)?,
            port: ports::free()?,
            epmd_port: ports::free()?,
            dist_port: ports::free()?,
            kind: NodeKind::Local,
        };
        let epmd =
            home.as_service_do(["epmd", "-port", &node.epmd_port.to_string(), "-address", "127.0.0.1"]);
        let epmd = run.start("epmd", &epmd, &[])?;
        if !run.wait_for(&epmd, EPMD_STARTS_WITHIN, || ports::answers(node.epmd_port))? {
            bail!("epmd did not start on port {}", node.epmd_port);
        }
        write_configuration(home, &format!("listeners.tcp.1 = 127.0.0.1:{}\n", node.port))?;
        installation.give(home, "rabbitmq")?;
        Ok(node)
    }

    /// The same for a node at this address, with these peers. `name` is that of its process.
    pub(crate) fn prepare_member(
        run: &Run,
        installation: &Installation,
        home: &ServiceHome,
        name: &str,
        (address, peers): (&str, &[String]),
        cookie: &str,
    ) -> Result<Self> {
        let (port, epmd_port, dist_port) = (5672, 4369, 25_672);
        let node =
            Self { name: format!("rabbit@{address}"), port, epmd_port, dist_port, kind: NodeKind::Member };
        let epmd = home.as_service_do(["epmd", "-port", &epmd_port.to_string()]);
        let epmd = run.start(&format!("{name}-epmd"), &epmd, &[])?;
        if !run.wait_for(&epmd, EPMD_STARTS_WITHIN, || ports::answers_at((address, epmd_port)))? {
            bail!("epmd did not start for {name}");
        }
        let mut configuration = format!(
            "listeners.tcp.1 = {address}:{port}\nloopback_users = none\ncluster_partition_handling = pause_minority\n\
             net_ticktime = {TICK_TIME}\ncluster_formation.peer_discovery_backend = classic_config\n"
        );
        for (index, peer) in peers.iter().enumerate() {
            let line = format!("cluster_formation.classic_config.nodes.{} = rabbit@{peer}\n", index + 1);
            configuration.push_str(&line);
        }
        write_configuration(home, &configuration)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o400)
            .open(home.directory.join(".erlang.cookie"))?;
        file.write_all(cookie.as_bytes())?;
        installation.give(home, "rabbitmq")?;
        Ok(node)
    }

    /// A command with the variables that the broker and its `rabbitmqctl` need. They stand in the command itself, as sudo
    /// would drop them.
    pub(crate) fn command(&self, home: &ServiceHome, more: &[String], program: &str) -> Vec<String> {
        let directory = home.directory.display();
        let mut words =
            home.as_service_do(["env", "-u", "RABBITMQ_NODE_PORT", "-u", "RABBITMQ_NODE_IP_ADDRESS"]);
        words.extend([
            format!("HOME={directory}"),
            format!("ERL_EPMD_PORT={}", self.epmd_port),
            format!("RABBITMQ_NODENAME={}", self.name),
            format!("RABBITMQ_CONF_ENV_FILE={directory}/env.conf"),
        ]);
        words.push(match self.kind {
            NodeKind::Local => "ERL_EPMD_ADDRESS=127.0.0.1".to_owned(),
            NodeKind::Member => "RABBITMQ_USE_LONGNAME=true".to_owned(),
        });
        words.extend_from_slice(more);
        words.push(program.to_owned());
        words
    }

    pub(crate) fn server(&self, home: &ServiceHome) -> Vec<String> {
        let directory = home.directory.display();
        let own = [
            "ERL_CRASH_DUMP_SECONDS=0".to_owned(),
            format!("RABBITMQ_DIST_PORT={}", self.dist_port),
            format!("RABBITMQ_MNESIA_BASE={directory}/mnesia"),
            format!("RABBITMQ_LOG_BASE={directory}/log"),
            format!("RABBITMQ_PID_FILE={directory}/pid"),
            format!("RABBITMQ_CONFIG_FILE={directory}/rabbitmq"),
            format!("RABBITMQ_CONFIG_FILES={directory}/conf.d"),
            format!("RABBITMQ_ADVANCED_CONFIG_FILE={directory}/advanced.config"),
            format!("RABBITMQ_ENABLED_PLUGINS_FILE={directory}/enabled_plugins"),
        ];
        self.command(home, &own, "/usr/lib/rabbitmq/bin/rabbitmq-server")
    }
}

fn write_configuration(home: &ServiceHome, configuration: &str) -> Result<()> {
    fs::create_dir_all(home.directory.join("conf.d"))?;
    for (file, text) in [
        ("rabbitmq.conf", format!("{configuration}log.console = true\nlog.console.level = warning\n")),
        ("enabled_plugins", "[].\n".to_owned()),
        ("env.conf", String::new()),
    ] {
        fs::write(home.directory.join(file), text)?;
    }
    Ok(())
}

/// A program that runs `rabbitmqctl` with its own arguments, for tests that make users.
pub(crate) fn make_rabbitmqctl(run: &Run, name: &str, words: &[String]) -> Result<PathBuf> {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    make_program(run, name, &format!("exec {}", words.join(" ")))
}

/// A program in the run's directory that runs this with its own arguments.
pub(crate) fn make_program(run: &Run, name: &str, script: &str) -> Result<PathBuf> {
    let program = run.directory.join(name);
    let _ = fs::remove_file(&program);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&program)?;
    write!(file, "#!/bin/sh\n{script} \"$@\"\n")?;
    Ok(program)
}

/// Writes down the queues of a prefix, on a broker that outlives the run; ours takes its queues along.
pub(crate) fn note_queues(run: &Run, broker: &Server, prefix: &str) -> Result<()> {
    if broker.source == Source::Running {
        run.note_data(Resource::Queues { broker: broker.url.clone(), prefix: prefix.to_owned() })?;
    }
    Ok(())
}
