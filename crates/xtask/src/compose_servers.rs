//! PostgreSQL and RabbitMQ of the Compose file, as a project of this run's own on free ports.

use crate::{
    compose::{ComposeFile, Project},
    output::{say, show_end},
    packages, ports, rabbitmq,
    run::Run,
    shell::RunToEnd as _,
    undo::Resource,
};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// Starts the file's PostgreSQL, and gives its URL.
pub(crate) fn start_postgres(run: &Run) -> Result<String> {
    let port = ports::free()?;
    start(run, "postgres", vec![("POSTGRES_PORT", port.to_string())])?;
    packages::need_command("psql", &["postgresql-client"])?;
    say(format!("PostgreSQL: Docker Compose, 127.0.0.1:{port}"));
    Ok(format!("postgres://session_invite:session_invite@127.0.0.1:{port}/postgres"))
}

/// Starts the file's RabbitMQ. Gives its URL, and its `rabbitmqctl`.
pub(crate) fn start_rabbitmq(run: &Run) -> Result<(String, PathBuf)> {
    let port = ports::free()?;
    let ports = vec![("RABBITMQ_PORT", port.to_string()), ("RABBITMQ_UI_PORT", ports::free()?.to_string())];
    let project = start(run, "rabbitmq", ports)?;
    let container = project.command().args(["ps", "--quiet", "rabbitmq"]).read()?;
    let ctl = ["docker", "exec", &container, "rabbitmqctl"].map(str::to_owned);
    let ctl = rabbitmq::make_rabbitmqctl(run, "rabbitmqctl", &ctl)?;
    say(format!("RabbitMQ: Docker Compose, 127.0.0.1:{port}"));
    Ok((format!("amqp://session_invite:session_invite@127.0.0.1:{port}/%2f"), ctl))
}

fn start(run: &Run, service: &str, environment: Vec<(&'static str, String)>) -> Result<Project> {
    let project = Project { environment, file: ComposeFile::MainWithPorts, ..run.compose_project() };
    run.note_data(Resource::ComposeProject(project.name.clone()))?;
    say(format!("Starting {service} with Docker Compose"));
    let log = run.log(&format!("compose-{service}"));
    if !project.command().args(["up", "--detach", "--wait", service]).logs_to(&log)? {
        show_end(&log, 10);
        bail!("Docker Compose could not start {service}");
    }
    Ok(project)
}
