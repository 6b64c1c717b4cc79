//! RabbitMQ: reached, its queues as they should be, and what lies in them.

use super::{Finding, PATIENCE};
use crate::{
    config::{Faults, WorkerArgs},
    queue::{self, Names, QueueState, Standing},
};
use tokio::time::timeout;

const SERVER: &str = "broker";
const QUEUES: &str = "queues";

pub(super) async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut faults = Faults::default();
    let Some(config) = args.broker.check(&mut faults) else {
        return vec![Finding::skipped(SERVER, "AMQP_URL is not usable")];
    };
    let looking = async {
        let connection = queue::connect(&config, "doctor").await?;
        let states = queue::look(&connection, &Names::new(&config.queue_prefix)).await?;
        let _ = connection.close(200, "done".into()).await;
        Ok::<_, queue::Unusable>(states)
    };
    let why = match timeout(PATIENCE, looking).await {
        Ok(Ok(states)) => {
            let mut findings = vec![Finding::ok(SERVER, "reached")];
            findings.extend(told(&states));
            return findings;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
    };
    let mend = "is it running where AMQP_URL points, and does it take this login and vhost?";
    vec![Finding::failed(SERVER, why, mend), Finding::skipped(QUEUES, "needs the broker")]
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
