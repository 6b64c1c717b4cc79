//! RabbitMQ: reached, its queues as they should be, and what lies in them.

use super::finding::{Finding, PATIENCE};
use crate::{
    config::{Faults, WorkerArgs},
    queue::{self, Names, QueueState, Server, Standing},
};
use lapin::Connection;
use tokio::time::timeout;

const SERVER: &str = "broker";
const QUEUES: &str = "queues";
const LIMITS: &str = "delivery limit";

pub(super) async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut faults = Faults::default();
    let Some(config) = args.broker.check(&mut faults) else {
        return vec![Finding::skipped(SERVER, "AMQP_URL is not usable")];
    };
    let looking = async {
        let (server, names) = (Server::default(), Names::new(&config.queue_prefix));
        let connection = queue::connect_and_ask(&config, "doctor", server.clone()).await?;
        let states = queue::look(&connection, &names).await?;
        let version = server.version().unwrap_or("of an unknown version").to_owned();
        let limits = if throws_away(&version) { limits(&connection, &names, &states).await } else { None };
        let _ = connection.close(200, "done".into()).await;
        Ok::<_, queue::Unusable>((version, states, limits))
    };
    let why = match timeout(PATIENCE, looking).await {
        Ok(Ok((version, states, limits))) => {
            let mut findings = vec![Finding::ok(SERVER, format!("reached: RabbitMQ {version}"))];
            findings.extend(told(&states));
            let vhost = config.nodes.first().map_or("/", |node| node.vhost.as_str());
            findings.extend(limits.map(|limited| of_limits(limited, &config.queue_prefix, vhost)));
            return findings;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
    };
    let mend = "is it running where AMQP_URL points, and does it take this login and vhost?";
    vec![Finding::failed(SERVER, why, mend), Finding::skipped(QUEUES, "needs the broker")]
}

/// Whether this server has a delivery limit where nothing says so.
fn throws_away(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 4)
}

/// The queues from which a message that is returned too often is lost, as far as that can be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Limited {
    /// Those in which it was tried, and lost.
    Here(Vec<String>),
    /// They are in use: it could not be tried in any.
    Unknown,
}

/// Tried where there are queues without a dead-letter queue.
async fn limits(connection: &Connection, names: &Names, states: &[QueueState]) -> Option<Limited> {
    let (mut limited, mut tried) = (Vec::new(), false);
    // The replies have consumers, who would see what is tried.
    for queue in [&names.unreadable, &names.dead] {
        let is_there = |state: &QueueState| state.name == *queue && state.standing != Standing::Missing;
        if !states.iter().any(is_there) {
            return None;
        }
        // Without the right to try, it stays unknown.
        if let Ok(Some(is_limited)) = queue::is_limited(connection, queue).await {
            tried = true;
            limited.extend(is_limited.then(|| queue.clone()));
        }
    }
    Some(if tried { Limited::Here(limited) } else { Limited::Unknown })
}

fn of_limits(limited: Limited, prefix: &str, vhost: &str) -> Finding {
    let found = match limited {
        Limited::Here(queues) if queues.is_empty() => {
            return Finding::ok(LIMITS, "no message is lost by being returned often");
        }
        Limited::Here(queues) => {
            format!("RabbitMQ 4 throws away a message that is returned 21 times to {}", queues.join(" or "))
        }
        Limited::Unknown => {
            "RabbitMQ 4 may throw away a message that is returned 21 times: the queues are in use, \
                             so it could not be tried"
                .to_owned()
        }
    };
    Finding::warning(LIMITS, found, policy(prefix, vhost))
}

/// The command that lifts the limit. Not with -1: RabbitMQ 3.10 drops a message at its first return then.
fn policy(prefix: &str, vhost: &str) -> String {
    let on = if vhost == "/" { String::new() } else { format!("-p '{vhost}' ") };
    let pattern = prefix.replace('.', "\\.");
    format!(
        "rabbitmqctl set_policy {on}--apply-to quorum_queues {prefix} '^{pattern}\\.(replies|dead|unreadable)$' \
         '{{\"delivery-limit\": 1000000}}'"
    )
}

/// What is to be said of the queues; one line if all is well.
fn told(states: &[QueueState]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = states.iter().filter_map(of_one).collect();
    let missing = states.iter().filter(|state| state.standing == Standing::Missing).count();
    if missing > 0 {
        let found = format!("{missing} of {} are not there yet", states.len());
        findings.push(Finding::warning(QUEUES, found, "a worker declares them when it starts"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(QUEUES, format!("all {} are there, and nothing lies aside", states.len())));
    }
    findings
}

fn of_one(state: &QueueState) -> Option<Finding> {
    let QueueState { name, standing } = state;
    let suffix = name.rsplit('.').next().unwrap_or_default();
    match standing {
        Standing::Differs(why) => {
            let mend = "delete it if it is nobody's, or set another QUEUE_PREFIX";
            Some(Finding::failed(QUEUES, format!("{name} is not as the worker declares it: {why}"), mend))
        }
        Standing::There { messages, consumers: 0 } if suffix == "requests" => {
            let found = format!("nobody consumes {name}, where {messages} wait");
            Some(Finding::warning(QUEUES, found, "start a worker: session-invite worker"))
        }
        Standing::There { messages: 1.., .. } if suffix == "dead" => {
            let found = format!("{} lie in {name}", count(state));
            Some(Finding::warning(QUEUES, found, "session-invite dead list"))
        }
        Standing::There { messages: 1.., .. } if suffix == "unreadable" => {
            let found = format!("{} lie in {name}, which no client of ours can decode", count(state));
            Some(Finding::warning(QUEUES, found, "find out who publishes them; then purge the queue"))
        }
        Standing::There { .. } | Standing::Missing => None,
    }
}

fn count(state: &QueueState) -> u32 {
    match state.standing {
        Standing::There { messages, .. } => messages,
        Standing::Missing | Standing::Differs(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_limit_is_told_with_the_command_that_lifts_it() {
        assert!(throws_away("4.0.5") && throws_away("10.1") && !throws_away("3.13.7") && !throws_away("?"));
        let lost = of_limits(Limited::Here(vec!["session-invite.dead".to_owned()]), "session-invite", "/");
        assert_eq!(lost.verdict, Verdict::Warning);
        assert!(lost.found.contains("session-invite.dead"));
        let command = "rabbitmqctl set_policy --apply-to quorum_queues session-invite \
                       '^session-invite\\.(replies|dead|unreadable)$' '{\"delivery-limit\": 1000000}'";
        assert!(lost.mend.as_ref().is_some_and(|mend| mend == command), "{lost:?}");
        assert!(
            policy("a.b", "v")
                .starts_with(r"rabbitmqctl set_policy -p 'v' --apply-to quorum_queues a.b '^a\.b\.")
        );
        assert_eq!(of_limits(Limited::Unknown, "x", "v").verdict, Verdict::Warning);
        assert_eq!(of_limits(Limited::Here(Vec::new()), "x", "v").verdict, Verdict::Ok);
    }

    #[test]
    fn what_lies_aside_is_told_and_who_is_not_there() {
        let state = |name: &str, standing| QueueState { name: format!("x.{name}"), standing };
        let there = |messages, consumers| Standing::There { messages, consumers };
        let told = |states: &[QueueState]| {
            let verdicts: Vec<_> = told(states).iter().map(|finding| finding.verdict).collect();
            verdicts
        };
        assert_eq!(told(&[state("requests", there(5, 1)), state("dead", there(0, 0))]), [Verdict::Ok]);
        assert_eq!(
            told(&[state("requests", there(5, 0)), state("dead", there(2, 0))]),
            [Verdict::Warning; 2]
        );
        assert_eq!(told(&[state("retry.1s", Standing::Missing)]), [Verdict::Warning]);
        assert_eq!(told(&[state("dead", Standing::Differs("why".to_owned()))]), [Verdict::Failed]);
    }
}
