//! Where PostgreSQL and RabbitMQ come from: the first source that works, for each by itself.

use crate::{
    compose, compose_servers,
    installation::Installation,
    output::{say, without_password},
    postgres, rabbitmq,
    run::Run,
    series,
    server::{Server, Source},
    shell::variable,
};
use anyhow::{Result, bail};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Series {
    /// Whatever --services finds
    #[default]
    Old,
    /// RabbitMQ 4 and PostgreSQL 17 of Debian 13
    New,
}

/// The options `--services` and `--series`.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct ServiceOptions {
    /// Take the servers from here only [default: the first that works]
    #[arg(long, value_name = "FROM")]
    pub services: Option<Source>,
    /// Which versions of the servers
    #[arg(long, value_name = "SERIES", default_value = "old")]
    pub series: Series,
}

#[derive(Debug)]
pub(crate) struct Services {
    pub postgres: Server,
    pub rabbitmq: Server,
    /// `rabbitmqctl` for a broker that was started here.
    pub rabbitmqctl: Option<PathBuf>,
}

impl Services {
    /// What the tests read.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("DATABASE_URL".to_owned(), self.postgres.url.clone()),
            ("AMQP_URL".to_owned(), self.rabbitmq.url.clone()),
        ];
        if let Some(program) = &self.rabbitmqctl {
            variables.push(("RABBITMQCTL".to_owned(), program.display().to_string()));
        }
        variables
    }
}

/// The decision for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// Its URL is in the variable.
    Given(String),
    /// It answers on the default port.
    Answering(String),
    Compose,
    Private,
    None,
}

/// The first source that is allowed and works. What is not reached is not looked at.
fn choose(
    wanted: Option<Source>,
    given: Option<String>,
    answering: impl FnOnce() -> Result<Option<String>>,
    compose_works: impl FnOnce() -> Result<bool>,
) -> Result<Choice> {
    let may_be = |source| wanted.is_none_or(|wanted| wanted == source);
    if may_be(Source::Running) {
        if let Some(url) = given {
            return Ok(Choice::Given(url));
        }
        if let Some(url) = answering()? {
            return Ok(Choice::Answering(url));
        }
    }
    if may_be(Source::Compose) && compose_works()? {
        return Ok(Choice::Compose);
    }
    Ok(if may_be(Source::Private) { Choice::Private } else { Choice::None })
}

pub(crate) fn find(run: &Run, options: ServiceOptions) -> Result<Services> {
    let installation = installation(run, options.services, options.series)?;
    let source = if options.series == Series::New { Some(Source::Private) } else { options.services };
    let postgres = find_postgres(run, source, &installation)?;
    let (rabbitmq, rabbitmqctl) = find_rabbitmq(run, source, &installation)?;
    Ok(Services { postgres, rabbitmq, rabbitmqctl })
}

/// Where the servers of a series are installed.
pub(crate) fn installation(run: &Run, services: Option<Source>, series: Series) -> Result<Installation> {
    match series {
        Series::Old => Ok(Installation::of_this_machine()),
        Series::New => series::installation(run, services),
    }
}

fn find_postgres(run: &Run, wanted: Option<Source>, installation: &Installation) -> Result<Server> {
    match choose(wanted, variable("DATABASE_URL"), postgres::running, compose::works)? {
        Choice::Given(url) => {
            say(format!("PostgreSQL: DATABASE_URL, {}", without_password(&url)));
            Ok(Server { url, source: Source::Running })
        }
        Choice::Answering(url) => {
            say(format!("PostgreSQL: the one on the default port, {}", without_password(&url)));
            Ok(Server { url, source: Source::Running })
        }
        Choice::Compose => Ok(Server { url: compose_servers::start_postgres(run)?, source: Source::Compose }),
        Choice::Private => {
            Ok(Server { url: postgres::start_private(run, installation)?, source: Source::Private })
        }
        Choice::None => bail!("no PostgreSQL: {}", why_none(wanted, "DATABASE_URL", 5432)),
    }
}

fn find_rabbitmq(
    run: &Run,
    wanted: Option<Source>,
    installation: &Installation,
) -> Result<(Server, Option<PathBuf>)> {
    let running = |url| Server { url, source: Source::Running };
    match choose(wanted, variable("AMQP_URL"), || Ok(rabbitmq::running()), compose::works)? {
        Choice::Given(url) => {
            say(format!("RabbitMQ: AMQP_URL, {}", without_password(&url)));
            Ok((running(url), None))
        }
        Choice::Answering(url) => {
            say(format!("RabbitMQ: the one on the default port, {}", without_password(&url)));
            Ok((running(url), None))
        }
        Choice::Compose => {
            let (url, ctl) = compose_servers::start_rabbitmq(run)?;
            Ok((Server { url, source: Source::Compose }, Some(ctl)))
        }
        Choice::Private => {
            let (url, ctl) = rabbitmq::start_private(run, installation)?;
            Ok((Server { url, source: Source::Private }, Some(ctl)))
        }
        Choice::None => bail!("no RabbitMQ: {}", why_none(wanted, "AMQP_URL", 5672)),
    }
}

fn why_none(wanted: Option<Source>, variable: &str, port: u16) -> String {
    match wanted {
        Some(Source::Running) => {
            format!("{variable} is not set, and nothing usable answers on 127.0.0.1:{port}")
        }
        _ => "no Docker engine with Compose answers here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: Option<Source>, given: bool, answering: bool, compose: bool) -> Choice {
        let url = |is_there: bool| is_there.then(|| "url".to_owned());
        choose(wanted, url(given), || Ok(url(answering)), || Ok(compose)).unwrap()
    }

    #[test]
    fn the_first_source_that_works_is_taken() {
        assert_eq!(chosen(None, true, true, true), Choice::Given("url".to_owned()));
        assert_eq!(chosen(None, false, true, true), Choice::Answering("url".to_owned()));
        assert_eq!(chosen(None, false, false, true), Choice::Compose);
        assert_eq!(chosen(None, false, false, false), Choice::Private);
    }

    #[test]
    fn a_source_that_is_asked_for_is_the_only_one() {
        assert_eq!(chosen(Some(Source::Running), false, false, true), Choice::None);
        assert_eq!(chosen(Some(Source::Compose), true, true, true), Choice::Compose);
        assert_eq!(chosen(Some(Source::Compose), true, true, false), Choice::None);
        assert_eq!(chosen(Some(Source::Private), true, true, true), Choice::Private);
    }

    #[test]
    fn what_is_not_needed_is_not_looked_at() {
        let unreached = |_: &str| -> Result<Option<String>> { panic!("it is not needed") };
        let given = Some("url".to_owned());
        choose(None, given, || unreached("port"), || panic!("it is not needed")).unwrap();
        choose(Some(Source::Private), None, || unreached("port"), || panic!("it is not needed")).unwrap();
    }
}
