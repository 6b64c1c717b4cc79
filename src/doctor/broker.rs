//! Checks of RabbitMQ: whether it can be reached, its queues, and messages that were set aside.

use super::finding::{CONNECTS_WITHIN, Finding, PATIENCE, with_remedy};
use crate::{
    config::{BrokerConfig, Faults, WorkerArgs},
    queue::{self, BrokerConnection, BrokerNodeLook, QueueNames, QueueReport, QueueState},
};
use lapin::Connection;
use std::time::Duration;
use tokio::time::timeout;

const SERVER: &str = "broker";
const NODE: &str = "broker node";
const QUEUES: &str = "queues";
const BACKLOG: &str = "backlog";
const LIMITS: &str = "delivery limit";

/// How long the queue of requests is watched, if invites wait in it.
const WATCHED_FOR: Duration = Duration::from_millis(600);
/// Fewer invites than this may wait for a moment at any time.
const MANY_WAIT: u32 = 20;

pub(super) async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut faults = Faults::default();
    let Some(config) = args.broker.check(&mut faults) else {
        return vec![Finding::skipped(SERVER, "AMQP_URL is not usable")];
    };
    let config = in_short_time(config);
    let (mut findings, looks) = tokio::join!(examine_queues(&config), queue::look_at_broker_nodes(&config));
    findings.extend(node_findings(&looks));
    findings
}

/// The nodes are tried one after the other, so each has a part of the time.
fn in_short_time(mut config: BrokerConfig) -> BrokerConfig {
    let nodes = u32::try_from(config.nodes.len()).unwrap_or(1).max(1);
    let each = CONNECTS_WITHIN.min(CONNECTS_WITHIN * 2 / nodes);
    let each = u64::try_from(each.as_millis()).unwrap_or(u64::MAX);
    for node in &mut config.nodes {
        let own = node.query.connection_timeout.unwrap_or(u64::MAX);
        node.query.connection_timeout = Some(own.min(each));
    }
    config
}

async fn examine_queues(config: &BrokerConfig) -> Vec<Finding> {
    let checking = async {
        let names = QueueNames::new(&config.queue_prefix);
        let inspecting = async |open: &BrokerConnection| inspect(open, &names).await;
        let (open, (reports, growth)) = queue::on_answering_node(config, "doctor", inspecting).await?;
        let version = open.broker.get().unwrap_or("of an unknown version").to_owned();
        let held_back = queue::publishers_held_back(&open.connection).await;
        let limit = if has_default_limit(&version) && held_back.is_none() {
            try_delivery_limit(&open.connection, &names, &reports).await
        } else {
            None
        };
        if held_back.is_none() {
            queue::close_connection(&open.connection).await;
        }
        Ok::<_, queue::BrokerError>(BrokerFacts { version, held_back, reports, growth, limit })
    };
    let why = match timeout(PATIENCE, checking).await {
        Ok(Ok(facts)) => return facts.findings(config),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {:.1} s", PATIENCE.as_secs_f64()),
    };
    let skipped = [QUEUES, BACKLOG].map(|check| Finding::skipped(check, "needs the broker"));
    std::iter::once(Finding::failed(SERVER, &why, remedy_of(&why))).chain(skipped).collect()
}

/// What a broker that answers says of itself and its queues.
struct BrokerFacts {
    version: String,
    /// Set while it holds publishers back.
    held_back: Option<String>,
    reports: Vec<QueueReport>,
    growth: i64,
    limit: Option<DeliveryLimit>,
}

impl BrokerFacts {
    fn findings(self, config: &BrokerConfig) -> Vec<Finding> {
        let mut findings = vec![version_finding(&self.version)];
        findings.extend(self.held_back.map(|problem| {
            let (found, remedy) = with_remedy(&problem);
            Finding::failed(SERVER, found, remedy.unwrap_or_else(|| "rabbitmqctl status".to_owned()))
        }));
        findings.extend(queue_findings(&self.reports));
        findings.push(backlog_finding(&self.reports, self.growth));
        let vhost = config.nodes.first().map_or("/", |node| node.vhost.as_str());
        findings.extend(self.limit.map(|limit| limit_finding(limit, &config.queue_prefix, vhost)));
        findings
    }
}

/// What to do about a broker that cannot be used, by the error's text.
fn remedy_of(why: &str) -> &'static str {
    if why.contains("ACCESS_REFUSED") || why.contains("refuses the login") {
        "correct the user and the password in AMQP_URL; rabbitmqctl authenticate_user NAME tries them"
    } else if why.contains("does not run") {
        "rabbitmqctl list_queues name state shows it; start the nodes that have it"
    } else if why.contains("vhost") {
        "correct the vhost in AMQP_URL, or give the user rights there; rabbitmqctl list_vhosts and list_permissions show them"
    } else if why.contains("Connection refused") {
        "nothing listens there: start the broker, or correct the host and the port in AMQP_URL"
    } else if why.contains("no answer") || why.contains("timed out") || why.contains("timeout") {
        "see whether it is stopped, or holds clients back: rabbitmqctl status (its alarms)"
    } else {
        "is it running where AMQP_URL points, and does it take this login and vhost?"
    }
}

/// The states of the queues, and how many more requests wait after [`WATCHED_FOR`].
async fn inspect(
    open: &BrokerConnection,
    names: &QueueNames,
) -> Result<(Vec<QueueReport>, i64), queue::BrokerError> {
    let reports = queue::inspect(&open.connection, names).await?;
    let waiting = |reports: &[QueueReport]| requests(reports).map_or(0, |(messages, _)| i64::from(messages));
    let before = waiting(&reports);
    if before == 0 {
        return Ok((reports, 0));
    }
    tokio::time::sleep(WATCHED_FOR).await;
    let after = queue::inspect(&open.connection, names).await?;
    let growth = waiting(&after) - before;
    Ok((after, growth))
}

/// The messages and the consumers of the queue of requests.
fn requests(reports: &[QueueReport]) -> Option<(u32, u32)> {
    let report = reports.iter().find(|report| report.name.ends_with(".requests"))?;
    match report.state {
        QueueState::Declared { messages, consumers } => Some((messages, consumers)),
        _ => None,
    }
}

/// Whether invites wait, and whether they become more.
fn backlog_finding(reports: &[QueueReport], growth: i64) -> Finding {
    match requests(reports) {
        None => Finding::skipped(BACKLOG, "needs the queue of requests"),
        Some((messages, 0)) if messages > 0 => Finding::failed(
            BACKLOG,
            format!("{messages} invites wait, and no worker takes them"),
            "start a worker: session-invite worker; one that runs says in its log and in /readyz why it takes none",
        ),
        Some((messages, consumers)) if messages >= MANY_WAIT && growth > 0 => Finding::warning(
            BACKLOG,
            format!(
                "{messages} invites wait for {consumers} consumers, and {growth} more after {:.1} s",
                WATCHED_FOR.as_secs_f64()
            ),
            "see what holds the workers up in the findings of the check processes; if nothing does, start another: session-invite \
             worker",
        ),
        Some((messages, consumers)) => Finding::ok(
            BACKLOG,
            format!("{messages} invites wait for {consumers} consumers, {}", direction(growth)),
        ),
    }
}

fn direction(growth: i64) -> &'static str {
    match growth {
        1.. => "and become more",
        0 => "no more than a moment before",
        _ => "and become fewer",
    }
}

/// The oldest release that the worker is made for, and the newest that it was tried with.
const OLDEST: (u32, u32) = (3, 10);
const NEWEST_MAJOR: u32 = 4;

fn version_finding(version: &str) -> Finding {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    let found = format!("reached: RabbitMQ {version}");
    match major.zip(minor) {
        None => Finding::warning(
            SERVER,
            found,
            "its version is not known; RabbitMQ 3.10 to 4 are: rabbitmqctl version",
        ),
        Some(number) if number < OLDEST => Finding::failed(
            SERVER,
            format!(
                "{found}, which is too old: it loses messages of quorum queues that expire or are rejected"
            ),
            "upgrade it to RabbitMQ 3.10 or later: https://www.rabbitmq.com/docs/upgrade",
        ),
        Some((major, _)) if major > NEWEST_MAJOR => Finding::warning(
            SERVER,
            format!("{found}, which is newer than the releases that session-invite was tried with"),
            "try an invite on it: session-invite send --group 72 --phone 111-000-0000",
        ),
        Some(_) => Finding::ok(SERVER, found),
    }
}

/// A finding for each node. A node that is away is a failure where no other answers.
fn node_findings(looks: &[BrokerNodeLook]) -> Vec<Finding> {
    let answering = || looks.iter().filter_map(|look| look.found.as_ref().ok().map(|broker| (look, broker)));
    let first = answering().find_map(|(look, broker)| Some((look.name.as_str(), broker.cluster()?)));
    let finding = |BrokerNodeLook { name, found }: &BrokerNodeLook| {
        let broker = match found {
            Ok(broker) => broker,
            Err(why) => {
                let (found, remedy) =
                    (format!("{name} is away: {why}"), "start it, or remove it from AMQP_URL");
                return if answering().next().is_some() {
                    Finding::warning(NODE, found, remedy)
                } else {
                    Finding::failed(NODE, found, remedy)
                };
            }
        };
        let (version, cluster) = (broker.get().unwrap_or("?"), broker.cluster());
        match first {
            // A name that is set holds for the whole cluster: a node without one belongs to another.
            Some((other, theirs)) if cluster != Some(theirs) => Finding::failed(
                NODE,
                format!(
                    "{name} belongs to another cluster than {other} ({}, and {theirs:?})",
                    cluster.map_or_else(|| "which has no name".to_owned(), |name| format!("{name:?}"))
                ),
                "let AMQP_URL name the nodes of one cluster; rabbitmqctl cluster_status lists them",
            ),
            _ => {
                let cluster = cluster.map(|name| format!(", cluster {name:?}")).unwrap_or_default();
                Finding::ok(NODE, format!("{name} answers: RabbitMQ {version}{cluster}"))
            }
        }
    };
    looks.iter().map(finding).collect()
}

/// Whether this RabbitMQ has a delivery limit for quorum queues by default.
fn has_default_limit(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 4)
}

/// Whether a message is lost that is returned to a queue too often.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeliveryLimit {
    /// It is lost from these queues.
    In(Vec<String>),
    /// The queues are in use, so that it could not be tried in any.
    Unknown,
}

/// Tries the limit in the queues without a dead-letter queue; `None` if one of them is missing, or does not run.
async fn try_delivery_limit(
    connection: &Connection,
    names: &QueueNames,
    reports: &[QueueReport],
) -> Option<DeliveryLimit> {
    let (mut limited, mut was_tried) = (Vec::new(), false);
    // Not in the replies queue: its consumers would receive the test message.
    for queue in [&names.unreadable, &names.dead] {
        let runs = |report: &QueueReport| {
            report.name == *queue && !matches!(report.state, QueueState::Missing | QueueState::Down(_))
        };
        if !reports.iter().any(runs) {
            return None;
        }
        // Without the permission to try, it stays unknown.
        if let Ok(Some(is_limited)) = queue::is_limited(connection, queue).await {
            was_tried = true;
            limited.extend(is_limited.then(|| queue.clone()));
        }
    }
    Some(if was_tried { DeliveryLimit::In(limited) } else { DeliveryLimit::Unknown })
}

fn limit_finding(limit: DeliveryLimit, prefix: &str, vhost: &str) -> Finding {
    let found = match limit {
        DeliveryLimit::In(queues) if queues.is_empty() => {
            return Finding::ok(LIMITS, "no message is lost by being returned often");
        }
        DeliveryLimit::In(queues) => {
            format!("RabbitMQ 4 drops a message that is returned 21 times to {}", queues.join(" or "))
        }
        DeliveryLimit::Unknown => {
            "RabbitMQ 4 may drop a message that is returned 21 times: the queues are in use, so it could not be tried"
                .to_owned()
        }
    };
    Finding::warning(LIMITS, found, policy(prefix, vhost))
}

/// The command that removes the limit. Not with -1: RabbitMQ 3.10 would drop a message at its first return.
fn policy(prefix: &str, vhost: &str) -> String {
    let on = if vhost == "/" { String::new() } else { format!("-p '{vhost}' ") };
    let pattern = prefix.replace('.', "\\.");
    format!(
        "rabbitmqctl set_policy {on}--apply-to quorum_queues {prefix} '^{pattern}\\.(replies|dead|unreadable)$' \
         '{{\"delivery-limit\": 1000000}}'"
    )
}

/// The findings for all queues; a single one if all is well.
fn queue_findings(reports: &[QueueReport]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = reports.iter().filter_map(queue_finding).collect();
    let missing = reports.iter().filter(|report| report.state == QueueState::Missing).count();
    if missing > 0 {
        let found = format!("{missing} of {} are not there yet", reports.len());
        findings.push(Finding::warning(QUEUES, found, "a worker declares them when it starts"));
    }
    if findings.is_empty() {
        let found = format!("all {} are there, and no message was set aside", reports.len());
        findings.push(Finding::ok(QUEUES, found));
    }
    findings
}

/// What is wrong with one queue, except that it is missing.
fn queue_finding(report: &QueueReport) -> Option<Finding> {
    let QueueReport { name, state } = report;
    let suffix = name.rsplit('.').next().unwrap_or_default();
    match state {
        QueueState::Differs(why) => {
            let remedy = "see who declared it, and with what: rabbitmqctl list_queues name arguments policy; another QUEUE_PREFIX \
                          leaves it alone";
            Some(Finding::failed(QUEUES, format!("{name} is not as the worker declares it: {why}"), remedy))
        }
        QueueState::Down(why) => {
            let remedy = "rabbitmqctl list_queues name state shows it; start the nodes that have it, and restart the node of a queue \
                          that has crashed";
            Some(Finding::failed(QUEUES, format!("{name} is there, and does not run: {why}"), remedy))
        }
        QueueState::Declared { consumers: 0, .. } if suffix == "requests" => {
            let found = format!("{name} has no consumer");
            Some(Finding::warning(QUEUES, found, "start a worker: session-invite worker"))
        }
        QueueState::Declared { messages: messages @ 1.., .. } if suffix == "dead" => {
            let found = format!("{messages} messages are in {name}");
            Some(Finding::warning(
                QUEUES,
                found,
                "see why: session-invite dead list; then: session-invite dead replay ID",
            ))
        }
        QueueState::Declared { messages: messages @ 1.., .. } if suffix == "unreadable" => {
            let found = format!("{messages} messages are in {name}, which the worker cannot decode");
            let remedy = format!(
                "see who publishes them (headers, user): rabbitmqadmin get queue={name} count=10; they stay until you \
                 decide"
            );
            Some(Finding::warning(QUEUES, found, remedy))
        }
        QueueState::Declared { .. } | QueueState::Missing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckStatus;

    #[test]
    fn a_delivery_limit_is_reported_with_the_command_that_removes_it() {
        assert!(has_default_limit("4.0.5") && has_default_limit("10.1"));
        assert!(!has_default_limit("3.13.7") && !has_default_limit("?"));
        let in_dead = DeliveryLimit::In(vec!["session-invite.dead".to_owned()]);
        let lost = limit_finding(in_dead, "session-invite", "/");
        assert_eq!(lost.status, CheckStatus::Warning);
        assert!(lost.found.contains("session-invite.dead"));
        let command = "rabbitmqctl set_policy --apply-to quorum_queues session-invite \
                       '^session-invite\\.(replies|dead|unreadable)$' '{\"delivery-limit\": 1000000}'";
        assert_eq!(lost.remedy.as_deref(), Some(command));
        assert!(
            policy("a.b", "v")
                .starts_with(r"rabbitmqctl set_policy -p 'v' --apply-to quorum_queues a.b '^a\.b\.")
        );
        assert_eq!(limit_finding(DeliveryLimit::Unknown, "x", "v").status, CheckStatus::Warning);
        assert_eq!(limit_finding(DeliveryLimit::In(Vec::new()), "x", "v").status, CheckStatus::Ok);
    }

    #[test]
    fn set_aside_messages_missing_queues_and_missing_consumers_are_reported() {
        let report = |name: &str, state| QueueReport { name: format!("x.{name}"), state };
        let declared = |messages, consumers| QueueState::Declared { messages, consumers };
        let statuses = |reports: &[QueueReport]| {
            queue_findings(reports).iter().map(|finding| finding.status).collect::<Vec<_>>()
        };
        let well = [report("requests", declared(5, 1)), report("dead", declared(0, 0))];
        assert_eq!(statuses(&well), [CheckStatus::Ok]);
        let unwell = [report("requests", declared(5, 0)), report("dead", declared(2, 0))];
        assert_eq!(statuses(&unwell), [CheckStatus::Warning; 2]);
        assert_eq!(statuses(&[report("retry.1s", QueueState::Missing)]), [CheckStatus::Warning]);
        assert_eq!(statuses(&[report("dead", QueueState::Differs("why".to_owned()))]), [CheckStatus::Failed]);
        assert_eq!(statuses(&[report("dead", QueueState::Down("why".to_owned()))]), [CheckStatus::Failed]);
    }

    #[test]
    fn a_backlog_that_grows_or_that_nobody_takes_is_reported() {
        let status = |messages, consumers, growth| {
            let state = QueueState::Declared { messages, consumers };
            backlog_finding(&[QueueReport { name: "x.requests".to_owned(), state }], growth).status
        };
        assert_eq!(status(0, 0, 0), CheckStatus::Ok);
        assert_eq!(status(1, 0, 0), CheckStatus::Failed);
        assert_eq!(status(100, 2, 5), CheckStatus::Warning);
        assert_eq!((status(100, 2, -5), status(5, 2, 5)), (CheckStatus::Ok, CheckStatus::Ok));
        assert_eq!(backlog_finding(&[], 0).status, CheckStatus::Skipped);
    }

    #[test]
    fn a_version_that_is_too_old_or_not_tried_is_reported() {
        for (version, status) in [
            ("3.9.29", CheckStatus::Failed),
            ("3.10.0", CheckStatus::Ok),
            ("4.1.2", CheckStatus::Ok),
            ("5.0.0", CheckStatus::Warning),
            ("of an unknown version", CheckStatus::Warning),
        ] {
            assert_eq!(version_finding(version).status, status, "{version}");
        }
    }
}
