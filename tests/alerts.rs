//! The alerts and the dashboard in `deploy/` against the metrics that exist, the runbook, and each other.

use clap::CommandFactory;
use serde_json::Value;
use session_invite::internals::{Cli, Code};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use test_support::metrics_page::{Described, documented};

const RULES: &str = "deploy/prometheus/rules.yml";
const DASHBOARD: &str = "deploy/grafana/session-invite.json";
/// Labels that Prometheus or its histograms add.
const ADDED: [&str; 3] = ["job", "instance", "le"];
/// Metrics that neither the dashboard nor an alert shows.
const NOT_SHOWN: [&str; 1] = ["process_virtual_memory_bytes"];

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("JSON")
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// The panels, without the titles of rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    list(dashboard, "/panels").filter(|panel| panel["type"] != "row").collect()
}

/// Every expression of the dashboard.
fn shown(dashboard: &Value) -> Vec<String> {
    let panels = panels(dashboard).into_iter().flat_map(|panel| list(panel, "/targets"));
    let panels = panels.map(|target| text(target, "expr"));
    let variables =
        list(dashboard, "/templating/list").filter_map(|variable| variable["query"]["query"].as_str());
    let notes = list(dashboard, "/annotations/list").map(|note| text(note, "expr"));
    panels.chain(variables).chain(notes).map(str::to_owned).collect()
}

/// A rule of the file: the lines of an alert, by the member's name.
struct Alert {
    name: String,
    lines: String,
}

impl Alert {
    /// A member of one line.
    fn member(&self, name: &str) -> Option<&str> {
        let line = self.lines.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        line.map(|value| value.trim_matches('"'))
    }

    /// The expression, which may have several lines.
    fn expression(&self) -> String {
        let lines = self.lines.lines().skip_while(|line| !line.trim().starts_with("expr:"));
        let own =
            lines.take_while(|line| !["for:", "labels:"].iter().any(|end| line.trim().starts_with(end)));
        let own: Vec<_> = own.map(str::trim).collect();
        own.join(" ").trim_start_matches("expr:").trim().trim_start_matches(">-").trim().to_owned()
    }
}

fn alerts() -> Vec<Alert> {
    let rules = read(RULES);
    let alerts = rules.split("- alert: ").skip(1).map(|rule| {
        let (name, lines) = rule.split_once('\n').expect("an alert has members");
        Alert { name: name.to_owned(), lines: lines.to_owned() }
    });
    alerts.collect()
}

fn names() -> BTreeSet<String> {
    alerts().into_iter().map(|alert| alert.name).collect()
}

/// One use of a metric in an expression.
#[derive(Debug)]
struct Selector<'a> {
    metric: &'a str,
    /// What stands before it.
    before: &'a str,
    /// Its labels, each with what it is compared with.
    labels: Vec<(&'a str, &'a str)>,
}

/// The metrics that an expression selects.
fn selectors(expression: &str) -> Vec<Selector<'_>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_word) {
        let length = rest[start..].find(|c| !is_word(c)).unwrap_or(rest.len() - start);
        let (word, after) = rest[start..].split_at(length);
        let at = expression.len() - rest.len() + start;
        rest = after;
        if word.starts_with("session_invite_") || word.starts_with("process_") {
            let inside = after.strip_prefix('{').map(|inside| inside.split('}').next().unwrap_or_default());
            let parts = inside.into_iter().flat_map(|inside| inside.split(',')).map(str::trim);
            let pairs = parts.filter_map(|part| {
                let (label, value) = part.split_once(['=', '!'])?;
                Some((label, value.trim_start_matches(['=', '~', '!']).trim_matches('"')))
            });
            found.push(Selector { metric: word, before: &expression[..at], labels: pairs.collect() });
        }
    }
    found
}

type Page = BTreeMap<String, (String, Described)>;

/// The metric of the page: of a histogram's series, the histogram.
fn find<'a>(page: &'a Page, metric: &str) -> Option<(&'a str, &'a Described)> {
    let endings = ["", "_bucket", "_sum", "_count"];
    let names = endings.iter().filter_map(|ending| metric.strip_suffix(ending));
    names
        .filter_map(|name| page.get_key_value(name))
        .map(|(name, (_, metric))| (name.as_str(), metric))
        .next()
}

/// Asserts that all that an expression selects exists.
fn assert_exists(page: &Page, expression: &str) {
    let mut labels_of_all: BTreeSet<&str> = ADDED.into();
    for selector in selectors(expression) {
        let metric = selector.metric;
        let (_, described) =
            find(page, metric).unwrap_or_else(|| panic!("docs/METRICS.md has no {metric}: {expression}"));
        labels_of_all.extend(described.labels.keys().map(String::as_str));
        for (label, value) in &selector.labels {
            let Some(known) = described.labels.get(*label) else {
                assert!(ADDED.contains(label), "{metric} has no label {label}: {expression}");
                continue;
            };
            let is_free = |value: &&str| !value.starts_with('$') && !value.contains(['.', '*']);
            for value in value.split('|').filter(is_free) {
                let is_code = *label == "code"
                    && (value == "sent" || Code::ALL.iter().any(|code| code.as_str() == value));
                let is_known = known.contains(value) || is_code || known.is_empty() && *label != "code";
                assert!(is_known, "{metric} has no {label}={value}: {expression}");
            }
        }
        let is_counted = described.kind != "gauge";
        let function =
            selector.before.trim_end_matches('(').rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let function = function.into_iter().next().unwrap_or_default();
        if ["rate", "increase"].contains(&function) {
            assert!(is_counted, "{metric} is a gauge: {expression}");
        } else if ["deriv", "delta", "changes", "min_over_time"].contains(&function) {
            assert!(!is_counted, "{metric} is no gauge: {expression}");
        }
    }
    for by in expression.split(" by (").skip(1).chain(expression.split("group_left (").skip(1)) {
        let labels = by.split(')').next().unwrap_or_default().split(',').map(str::trim);
        for label in labels.filter(|label| !label.is_empty()) {
            assert!(labels_of_all.contains(label), "no metric has the label {label}: {expression}");
        }
    }
}

#[test]
fn the_dashboard_and_the_alerts_select_metrics_and_labels_that_exist() {
    let page = documented(&read("docs/METRICS.md"));
    assert!(page.len() > 50, "{page:?}");
    let alerts = alerts().into_iter().map(|alert| alert.expression());
    let expressions: Vec<String> = shown(&dashboard()).into_iter().chain(alerts).collect();
    assert!(expressions.len() > 80, "{expressions:?}");
    for expression in &expressions {
        assert_exists(&page, expression);
    }
}

#[test]
#[should_panic(expected = "has no label kind")]
fn a_label_that_does_not_exist_is_noticed() {
    let page = documented(&read("docs/METRICS.md"));
    assert_exists(&page, r#"sum(rate(session_invite_replies_total{job=~"$job", kind="x"}[5m]))"#);
}

#[test]
fn every_metric_is_on_the_dashboard_or_in_an_alert() {
    let page = documented(&read("docs/METRICS.md"));
    let expressions =
        shown(&dashboard()).into_iter().chain(alerts().into_iter().map(|alert| alert.expression()));
    let expressions: Vec<String> = expressions.collect();
    let selected = expressions.iter().flat_map(|expression| selectors(expression));
    let used: BTreeSet<&str> =
        selected.filter_map(|selector| Some(find(&page, selector.metric)?.0)).collect();
    let unused: Vec<_> = page.keys().map(String::as_str).filter(|name| !used.contains(name)).collect();
    assert_eq!(unused, NOT_SHOWN);
}

#[test]
fn each_alert_has_its_members_its_chapter_of_the_runbook_and_its_test() {
    let (runbook, tests) = (read("docs/RUNBOOK.md"), read("deploy/prometheus/tests.yml"));
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.map(str::to_owned).collect::<BTreeSet<_>>(), names(), "docs/RUNBOOK.md");
    for alert in alerts() {
        let name = &alert.name;
        for member in ["summary", "description"] {
            assert!(alert.member(member).is_some_and(|text| text.len() > 15), "{name} has no {member}");
        }
        let address = format!("docs/RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(alert.member("runbook_url"), Some(address.as_str()), "{name}");
        let severity = alert.member("labels").and_then(|labels| labels.strip_prefix("{severity: "));
        let severity = severity.and_then(|severity| severity.strip_suffix('}'));
        let severity = severity.unwrap_or_else(|| panic!("{name} has no severity"));
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        let chapter =
            runbook.split("\n## ").find(|chapter| chapter.lines().next() == Some(name)).expect(name);
        assert!(
            chapter.contains(&format!("\n`{severity}`. ")),
            "docs/RUNBOOK.md has another severity of {name}"
        );
        for part in ["**Who is hit:**", "**Confirm", "o:**"] {
            assert!(chapter.contains(part), "docs/RUNBOOK.md has no {part} of {name}");
        }
        let fires = format!(r#"- {{labels: 'ALERTS{{alertname="{name}", alertstate="firing""#);
        assert!(tests.contains(&fires), "deploy/prometheus/tests.yml does not make {name} fire");
    }
}

#[test]
fn the_commands_of_the_runbook_exist() {
    let runbook = read("docs/RUNBOOK.md");
    let blocks = runbook.split("```").skip(1).step_by(2).flat_map(str::lines);
    let inline = runbook.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let mut seen = 0;
    for command in blocks.chain(inline).filter(|line| line.starts_with("session-invite ")) {
        let words = command.split_whitespace().map(|word| match word {
            "SESSION" => "0198f3a0-0000-7000-8000-000000000000",
            "DEAD" => "5f1c09ab12cd",
            "N" => "9",
            word => word,
        });
        // Without `--yes` and the like, a command may want more; but it must not be unknown.
        if let Err(error) = Cli::command().try_get_matches_from(words) {
            panic!("{command}: {error}");
        }
        seen += 1;
    }
    assert!(seen > 50, "{seen} commands");
}

/// The words of the commands that a page or a story names, and whether they are named with the program.
fn named_commands(source: &str) -> Vec<(bool, Vec<&str>)> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let parts = code.flat_map(|line| {
        let whole = line.split("session-invite ").skip(1).map(|part| (true, part));
        whole.chain(line.split("code { \"").skip(1).map(|part| (false, part)))
    });
    let words = parts.map(|(is_whole, part)| {
        (is_whole, part.split(['"', '`', ';']).next().unwrap_or_default().split_whitespace().collect())
    });
    words.filter(|(_, words): &(bool, Vec<_>)| !words.is_empty()).collect()
}

#[test]
fn the_commands_that_the_console_names_exist() {
    let mut seen = 0;
    for file in ["src/console", "src/story"].into_iter().flat_map(|folder| sources(Path::new(folder))) {
        for (is_whole, words) in named_commands(&read(&file)) {
            let mut command = Cli::command();
            // Which hands the arguments of all commands down.
            command.build();
            let Some(first) = command.find_subcommand(words[0]) else {
                assert!(!is_whole, "{}: there is no command {words:?}", file.display());
                continue;
            };
            command = first.clone();
            for word in &words[1..] {
                if let Some(next) = command.find_subcommand(word) {
                    command = next.clone();
                } else if let Some(flag) = word.strip_prefix("--") {
                    let is_known = command.get_arguments().any(|known| known.get_long() == Some(flag));
                    assert!(is_known, "{}: {words:?} has no {word}", file.display());
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} commands");
}

/// The Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder");
    let paths = entries.map(|entry| folder.join(entry.expect("an entry").file_name()));
    paths
        .flat_map(|path| match path.extension() {
            Some(extension) if extension == "rs" => vec![path],
            None => sources(&path),
            Some(_) => Vec::new(),
        })
        .collect()
}

#[test]
fn each_panel_says_what_it_shows_and_has_its_own_place() {
    let dashboard = dashboard();
    let all: Vec<&Value> = list(&dashboard, "/panels").collect();
    let mut taken = BTreeSet::new();
    let ids: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), all.len(), "ids repeat");
    for panel in &all {
        let title = text(panel, "title");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().expect(title));
        assert!(x + w <= 24, "{title} is wider than the dashboard");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies over another panel");
        }
    }
    let panels = panels(&dashboard);
    assert!(panels.len() > 40, "{} panels", panels.len());
    for panel in panels {
        let title = text(panel, "title");
        assert!(text(panel, "description").len() > 30, "{title} has no description");
        for source in [panel].into_iter().chain(list(panel, "/targets")) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let rows = all.iter().filter(|panel| panel["type"] == "row").map(|panel| text(panel, "title"));
    let expected = [
        "Is it well?",
        "Invites and outcomes",
        "Latency: from the queue to the phone",
        "Provider",
        "Queues and outbox",
        "Database and connections",
        "Processes",
        "Business: groups",
    ];
    assert!(rows.eq(expected), "other rows");
    let variables = list(&dashboard, "/templating/list").map(|variable| text(variable, "name"));
    assert!(variables.eq(["datasource", "job", "group"]), "other variables");
}
