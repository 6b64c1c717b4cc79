//! Looks at every node of the database: what each is, and what is wrong between them. It changes nothing.

use super::{
    cluster::NodeFacts,
    nodes::{self, DatabaseNodes},
};
use crate::{
    masked::debug_shows,
    nodes::{NodeReport, NodeServer, NodeState},
};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;

/// Seconds by which a node's clock may differ from this machine's before a warning.
pub(crate) const CLOCK_WARNING: f64 = 2.0;

/// What one look at a node has found.
#[derive(Clone)]
pub(crate) struct NodeLook {
    pub name: String,
    /// Why the node cannot be reached, or what it says of itself.
    pub facts: Result<NodeFacts, String>,
    /// Why it would not be used, although it answers.
    pub objection: Option<String>,
    /// How the node was reached, perhaps without TLS.
    pub(super) options: Option<PgConnectOptions>,
}

debug_shows!(NodeLook { name, facts, objection });

/// Looks at all nodes at the same time. Each has the time limit of a connection.
pub(super) async fn look_at_all(nodes: &DatabaseNodes) -> Vec<NodeLook> {
    let mut looks = join_all(nodes.nodes.iter().map(|node| look(nodes, node))).await;
    for NodeLook { name, facts, .. } in &looks {
        if let Ok(facts) = facts {
            nodes.cluster.learn(name, facts);
        }
    }
    for look in &mut looks {
        look.objection = look.facts.as_ref().ok().and_then(|facts| nodes.cluster.objection(facts));
    }
    looks
}

async fn look(nodes: &DatabaseNodes, node: &PgConnectOptions) -> NodeLook {
    let name = nodes::name(node);
    let (facts, options) = match Box::pin(nodes.facts(node)).await {
        Ok((facts, options)) => (Ok(facts), Some(options)),
        Err(error) => (Err(error.reason()), None),
    };
    NodeLook { name, facts, objection: None, options }
}

impl NodeLook {
    pub(crate) fn report(&self) -> NodeReport {
        let (state, reason) = match &self.facts {
            Ok(facts) => (facts.state, self.objection.clone()),
            Err(why) => (NodeState::Away, Some(why.clone())),
        };
        NodeReport { name: self.name.clone(), of: NodeServer::Database, state, reason }
    }

    fn takes_writes(&self) -> bool {
        self.facts.as_ref().is_ok_and(|facts| facts.state == NodeState::TakesWrites)
    }

    /// The warning about its clock, if it is off.
    pub(crate) fn clock_problem(&self) -> Option<String> {
        let ahead = self.facts.as_ref().ok()?.clock_ahead;
        let word = if ahead > 0.0 { "ahead of" } else { "behind" };
        (ahead.abs() > CLOCK_WARNING)
            .then(|| format!("the clock of {} is {:.1} s {word} this machine's", self.name, ahead.abs()))
    }
}

/// The node that has taken over from the one in use: it takes writes too, on a higher timeline of the same cluster.
pub(super) fn successor<'a>(looks: &'a [NodeLook], used: &str) -> Option<&'a NodeLook> {
    let used = looks.iter().find(|look| look.name == used)?.facts.as_ref().ok()?;
    let (system, timeline) = (used.system.as_ref()?, used.timeline?);
    let newer = looks.iter().filter(|look| look.takes_writes()).filter_map(|look| {
        let facts = look.facts.as_ref().ok()?;
        let newer = facts.timeline.filter(|newer| *newer > timeline)?;
        (facts.system.as_ref() == Some(system)).then_some((newer, look))
    });
    newer.max_by_key(|(timeline, _)| *timeline).map(|(_, look)| look)
}

/// What an operator should look at while one node serves: nodes that are away or do not belong, several that take writes, and
/// clocks.
pub(crate) fn problems(looks: &[NodeLook]) -> Vec<String> {
    let mut problems = Vec::new();
    for look in looks {
        match (&look.facts, &look.objection) {
            (Err(why), _) => problems.push(format!("the database's node {} is away: {why}", look.name)),
            (Ok(_), Some(why)) => {
                problems.push(format!("the database's node {} is not used: {why}", look.name));
            }
            (Ok(_), None) => {}
        }
        problems.extend(look.clock_problem().map(|why| format!("{why}: synchronize both (NTP)")));
    }
    problems.extend(several_writers(looks).map(|what| format!("{what}: stop all but the right one")));
    problems
}

/// The nodes that take writes, if there are several.
pub(crate) fn several_writers(looks: &[NodeLook]) -> Option<String> {
    let writers = looks.iter().filter(|look| look.takes_writes()).map(|look| {
        let timeline = look.facts.as_ref().ok().and_then(|facts| facts.timeline);
        let timeline = timeline.map_or_else(|| "unknown".to_owned(), |timeline| timeline.to_string());
        format!("{} (timeline {timeline})", look.name)
    });
    let writers: Vec<_> = writers.collect();
    (writers.len() > 1).then(|| {
        let writers = writers.join(", ");
        format!("several nodes of the database take writes: {writers}; what is written to one is missing in the others")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(name: &str, system: &str, timeline: Option<i32>) -> NodeLook {
        let state = if timeline.is_some() { NodeState::TakesWrites } else { NodeState::Standby };
        let facts = NodeFacts { state, system: Some(system.to_owned()), timeline, clock_ahead: 0.0 };
        NodeLook { name: name.to_owned(), facts: Ok(facts), objection: None, options: None }
    }

    #[test]
    fn only_a_higher_timeline_of_the_same_cluster_takes_over() {
        let successor = |looks: &[NodeLook]| successor(looks, "a").map(|look| look.name.clone());
        assert_eq!(successor(&[look("a", "1", Some(1)), look("b", "1", Some(2))]).as_deref(), Some("b"));
        let three = [look("a", "1", Some(1)), look("b", "1", Some(2)), look("c", "1", Some(3))];
        assert_eq!(successor(&three).as_deref(), Some("c"));
        for other in
            [look("b", "1", Some(1)), look("b", "1", None), look("b", "2", Some(2)), look("x", "1", None)]
        {
            assert_eq!(successor(&[look("a", "1", Some(1)), other]), None);
        }
        assert_eq!(successor(&[look("a", "1", Some(3)), look("b", "1", Some(2))]), None);
    }

    #[test]
    fn two_writers_a_dead_node_and_a_wrong_clock_are_problems_and_a_standby_is_not() {
        assert!(problems(&[look("a", "1", Some(1)), look("b", "1", None)]).is_empty());
        let both = problems(&[look("a", "1", Some(1)), look("b", "1", Some(1))]);
        assert!(both[0].contains("a (timeline 1), b (timeline 1)"), "{both:?}");
        let mut dead = look("b", "1", None);
        dead.facts = Err("no answer within 3 s".to_owned());
        let dead = problems(&[look("a", "1", Some(1)), dead]);
        assert_eq!(dead, ["the database's node b is away: no answer within 3 s"]);
        let mut fast = look("b", "1", None);
        fast.facts.as_mut().unwrap().clock_ahead = -7.0;
        assert!(problems(&[fast])[0].contains("the clock of b is 7.0 s behind"));
    }
}
