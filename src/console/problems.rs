//! What is wrong now, each with what to do about it.

use super::{
    facts::Facts,
    words::{number, span},
};
use crate::{
    db::NotRead, gateway::SIGHTED, group_id::GroupId, invite::reply::to_the_second, processes::ProcessRow,
};
use time::OffsetDateTime;

/// The outbox is published within a second. Its first event is older than this only if something is wrong.
const OUTBOX_STUCK_AFTER: f64 = 30.0;
/// The queues whose messages mean a problem.
const WATCHED: [&str; 3] = ["requests", "dead", "unreadable"];
/// Paused groups that are listed one by one.
const PAUSED_ONE_BY_ONE: usize = 10;

/// How the problems of a group begin, before its number. Its name, which anyone may choose, comes after that.
const OF_A_GROUP: [&str; 6] = [
    "group",
    "not all keys of group",
    "the templates of group",
    "all credentials of group",
    "the session keys of group",
    "the timestamps of group",
];
/// How a problem begins that may be of several groups.
const OF_SENDER: &str = "the provider refuses the sender ";

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenProblem {
    pub(super) what: String,
    pub(super) remedy: Option<String>,
    /// The processes that say so.
    pub(super) of: Vec<String>,
    /// A page of the console where it can be repaired, and its name.
    pub(super) page: Option<(String, &'static str)>,
}

impl OpenProblem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: Some(remedy.into()), of: Vec::new(), page: None }
    }

    fn on(self, page: impl Into<String>, name: &'static str) -> Self {
        Self { page: Some((page.into(), name)), ..self }
    }
}

/// Everything that is wrong: what processes say first, then queues and events, then the groups that are paused on purpose.
pub(super) fn problems(facts: &Facts) -> Vec<OpenProblem> {
    let mut all = of_processes(&facts.processes, &facts.own_problems);
    all.extend(of_queues(facts));
    all.extend(of_outbox(facts));
    all.extend(paused(&facts.paused));
    all
}

/// What processes say of one group.
pub(super) fn problems_of(
    group: GroupId,
    processes: &Result<Vec<ProcessRow>, NotRead>,
    own: &[String],
) -> Vec<OpenProblem> {
    let mut all = of_processes(processes, own);
    all.retain(|problem| groups_named(&problem.what).contains(&group));
    for problem in &mut all {
        problem.page = None;
    }
    all
}

/// The groups that a problem is of, as in `group 72 has no active key`, or `the provider refuses the sender X of groups 7, 72
/// and 3 more`. Other words may be anyone's, such as a host's name, and name no group.
fn groups_named(what: &str) -> Vec<GroupId> {
    // A sender's name is too short to have ` of group` and a number.
    let of_sender = what.strip_prefix(OF_SENDER).and_then(|rest| Some(rest.split_once(" of group")?.1));
    let opening = || OF_A_GROUP.iter().find_map(|opening| what.strip_prefix(opening));
    let Some(after) = of_sender.or_else(opening) else { return Vec::new() };
    let Some(numbers) = after.strip_prefix('s').unwrap_or(after).strip_prefix(' ') else { return Vec::new() };
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ',' && c != ' ').unwrap_or(numbers.len());
    numbers[..end].split([',', ' ']).filter_map(|number| GroupId::new(number.parse().ok()?)).collect()
}

/// The page of the group that a problem is of, if it is one.
fn page_of(what: &str) -> Option<(String, &'static str)> {
    match groups_named(what)[..] {
        [group] => Some((format!("/groups/{group}"), "The group")),
        _ => None,
    }
}

/// What is not known of processes, as it could not be read.
pub(super) fn processes_not_known(processes: &Result<Vec<ProcessRow>, NotRead>) -> Option<String> {
    let why = processes.as_ref().err()?;
    Some(format!("Not known: what workers and gateways report, as {why}."))
}

/// What is not known, as it could not be read, with the cause.
pub(super) fn not_known(facts: &Facts) -> Vec<String> {
    let mut all = Vec::from_iter(processes_not_known(&facts.processes));
    let mut note = |what: &str, why: &str| all.push(format!("Not known: {what}, as {why}."));
    if facts.depths.is_none() {
        note("whether a queue is stuck", "the broker did not answer within 2 s");
    } else if let Some(queue) = WATCHED.into_iter().find(|queue| facts.depth(queue).is_none()) {
        let why = format!("there is no queue .{queue}, or this gateway may not see it");
        note("whether all queues are well", &why);
    }
    if let Err(why) = &facts.outbox {
        note("whether events are published", &why.to_string());
    }
    all
}

/// Each problem once, with all the processes that have it.
fn of_processes(processes: &Result<Vec<ProcessRow>, NotRead>, own: &[String]) -> Vec<OpenProblem> {
    let mut all: Vec<OpenProblem> = Vec::new();
    let mut note = |of: String, text: &str| {
        let (what, remedy) = match text.split_once("What to do: ") {
            Some((what, remedy)) => (what.trim(), Some(remedy.to_owned())),
            None => (text, None),
        };
        match all.iter_mut().find(|known| known.what == what) {
            Some(known) if known.of.contains(&of) => {}
            Some(known) => known.of.push(of),
            None => {
                let page = page_of(what);
                all.push(OpenProblem { what: what.to_owned(), remedy, of: vec![of], page });
            }
        }
    };
    for row in processes.iter().flatten() {
        if let Some((cause, remedy)) = row.silence() {
            note(row.name(), &format!("{cause}. What to do: {remedy}"));
        }
        for problem in row.problems.iter().filter(|problem| !problem.starts_with(SIGHTED)) {
            note(row.name(), problem);
        }
    }
    for problem in own {
        note("this gateway".to_owned(), problem);
    }
    all
}

fn of_queues(facts: &Facts) -> Vec<OpenProblem> {
    let mut all = Vec::new();
    if let Some(requests) = facts.depth("requests")
        && requests.consumers == 0
    {
        let what = format!("No worker takes invites; {} wait.", number(requests.messages));
        all.push(OpenProblem::new(what, "start a worker, or look at the log of one that should run"));
    }
    for (queue, what, remedy) in [
        ("dead", "Dead letters wait for a decision", "see why, then replay or drop them"),
        (
            "unreadable",
            "Messages that the AMQP client cannot decode wait",
            "session-invite doctor names the queue, and the command that shows who publishes them",
        ),
    ] {
        if let Some(depth) = facts.depth(queue).filter(|depth| depth.messages > 0) {
            let problem = OpenProblem::new(format!("{what}: {}.", number(depth.messages)), remedy);
            all.push(if queue == "dead" { problem.on("/dead", "The dead letters") } else { problem });
        }
    }
    all
}

fn of_outbox(facts: &Facts) -> Option<OpenProblem> {
    let outbox = facts.outbox.as_ref().ok().filter(|outbox| outbox.oldest > OUTBOX_STUCK_AFTER)?;
    let what = format!(
        "Events are not published: {} wait, the first for {}.",
        number(outbox.events),
        span(outbox.oldest)
    );
    let remedy = "see whether a worker runs and may publish to the exchange of events: session-invite doctor";
    Some(OpenProblem::new(what, remedy))
}

fn paused(groups: &[(GroupId, OffsetDateTime)]) -> Vec<OpenProblem> {
    let one = |(group, since): &(GroupId, OffsetDateTime)| {
        let what = format!("Group {group} is paused since {}: its texts wait.", to_the_second(*since));
        let remedy = "see in the audit who paused it, and resume it once their cause is gone";
        OpenProblem::new(what, remedy).on(format!("/groups/{group}"), "The group")
    };
    let mut all: Vec<_> = groups.iter().take(PAUSED_ONE_BY_ONE).map(one).collect();
    if groups.len() > PAUSED_ONE_BY_ONE {
        let what = format!("{} more groups are paused.", number(groups.len() - PAUSED_ONE_BY_ONE));
        all.push(OpenProblem::new(what, "resume them once the cause is gone").on("/groups", "Groups"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_of_the_groups_that_it_names_first() {
        let of = |what: &str| groups_named(what).iter().map(|group| group.get()).collect::<Vec<_>>();
        assert_eq!(of("group 72 (group 7) has no active key"), [72]);
        assert_eq!(of("all credentials of group 72: 5 in a row"), [72]);
        for sender in ["+12015550100", "acmegroup", "my group 80", "group24"] {
            let refused = format!("{OF_SENDER}{sender} of groups 7, 72 and 3 more (its code 21606)");
            assert_eq!(of(&refused), [7, 72], "{sender}");
        }
        for of_none in [
            "the groups cannot be read",
            "group72 is a host",
            "groups",
            "group 0",
            "the worker 5 on group 72 has not reported",
            "there is no queue group7.requests",
            "a lock is held by group 72",
        ] {
            assert_eq!(of(of_none), [0; 0], "{of_none}");
        }
        assert_eq!(page_of("group 7, which is off"), Some(("/groups/7".to_owned(), "The group")));
        assert_eq!(page_of("of groups 7, 72"), None);
    }
}
