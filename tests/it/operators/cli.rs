//! The contract's section 12: help, exit codes, tables for people and JSON for programs.

use crate::support::{Setup, World, program, run, until};
use serde_json::Value;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["worker"],
    &["gateway"],
    &["migrate"],
    &["groups"],
    &["groups", "add"],
    &["groups", "list"],
    &["groups", "show"],
    &["groups", "set"],
    &["groups", "disable"],
    &["groups", "enable"],
    &["groups", "pause"],
    &["groups", "resume"],
    &["groups", "rotate-key"],
    &["groups", "remove"],
    &["addresses"],
    &["addresses", "add"],
    &["addresses", "list"],
    &["addresses", "remove"],
    &["tokens", "issue", "gkey"],
    &["tokens", "issue", "gjwt"],
    &["tokens", "issue", "gssnid"],
    &["tokens", "hash"],
    &["send"],
    &["sessions"],
    &["sessions", "list"],
    &["sessions", "count"],
    &["sessions", "show"],
    &["sessions", "lookup"],
    &["sessions", "export"],
    &["sessions", "forget"],
    &["audit"],
    &["audit", "list"],
    &["doctor"],
    &["dead"],
    &["dead", "list"],
    &["dead", "summary"],
    &["dead", "show"],
    &["dead", "replay"],
    &["dead", "drop"],
    &["optouts"],
    &["optouts", "list"],
    &["optouts", "check"],
    &["optouts", "add"],
    &["optouts", "remove"],
    &["optouts", "import"],
    &["secrets"],
    &["secrets", "reseal"],
    &["sms-sandbox"],
    &["topology"],
    &["topology", "declare"],
    &["topology", "delete"],
    &["ready"],
    &["config"],
    &["config", "show"],
    &["retention"],
];

#[test]
fn the_help_of_every_command_matches_its_snapshot() {
    let width = [("COLUMNS".to_owned(), "100".to_owned())];
    for command in COMMANDS {
        let args: Vec<_> = command.iter().copied().chain(["--help"]).collect();
        let name = if command.is_empty() { "session-invite".to_owned() } else { command.join("_") };
        insta::assert_snapshot!(format!("help_{name}"), run(&width, &args).ok());
    }
}

#[test]
fn wrong_usage_exits_with_2_and_a_hint() {
    for wrong in [
        &["wroker"][..],
        &["send"],
        &["groups", "add", "seventy"],
        &["groups", "add", "0"],
        &["groups", "set", "72"],
        &["groups", "set", "72", "--key-length", "3"],
        &["groups", "set", "72", "--per-number", "many"],
        &["groups", "set", "72", "--template", "nothing"],
        &["groups", "set", "72", "--template", "{key}{foo}"],
        &["groups", "set", "72", "--link", "ftp://x/{token}"],
        &["sessions", "list", "--status", "closed"],
        &["sessions", "show", "no-uuid"],
        &["tokens", "issue", "gkey", "--group", "72", "--ttl", "2days"],
        &["dead", "drop", "--all"],
        &["dead", "show", "no-hex"],
        &["optouts", "list", "--sender", "not a number"],
        &["send", "--group", "72", "--phone", "111-000-0000", "--user", ""],
        &["optouts", "add"],
        &["optouts", "add", "111-000-0000", "--region", "USA"],
        &["sms-sandbox", "--cut", "2"],
    ] {
        let complaint = run(&[], wrong).fails(2);
        assert!(complaint.starts_with("error: "), "{wrong:?}: {complaint}");
    }
    assert!(run(&[], &["wroker"]).fails(2).contains("worker"), "the error suggests the command");
    for needs_database in [&["groups", "list"][..], &["sessions", "list"], &["migrate"]] {
        assert!(run(&[], needs_database).fails(2).contains("DATABASE_URL"), "{needs_database:?}");
    }
    assert!(run(&[], &["dead", "list"]).fails(2).contains("AMQP_URL"));
}

#[tokio::test]
async fn a_wrong_value_that_only_the_command_can_read_exits_with_2() {
    let world = World::start().await;
    let missing = "@/there/is/no/such/file";
    for (wrong, words) in [
        (&["groups", "add", "90", "--api-key", ""][..], "--api-key: the secret is empty"),
        (&["groups", "add", "90", "--api-key", " 5ECRET "], "--api-key: the secret has white space"),
        (&["groups", "add", "90", "--api-key", missing], "--api-key: cannot read"),
        (&["groups", "add", "90", "--api-key", "-", "--jwt-secret", "-"], "standard input"),
        (&["groups", "rotate-key", "72", "--jwt-secret", ""], "--jwt-secret: the secret is empty"),
        (&["groups", "add", "90", "--template", "{link}", "--link", "http://x/"], "nor --link holds"),
        (&["groups", "set", "72", "--template", "{link}", "--link", "http://x/"], "nor --link holds"),
        (&["tokens", "issue", "gssnid", "--group", "72", "--user", "ab cd"], "--user"),
        (&["sessions", "show", "nope"], "a session's id is a UUID"),
    ] {
        let complaint = world.run(wrong).fails(2);
        assert!(complaint.contains(words) && !complaint.contains("5ECRET"), "{wrong:?}: {complaint}");
    }
    // What the group has already is not the command line's fault.
    world.run(&["groups", "set", "72", "--template", "{link}"]).ok();
    let complaint = world.run(&["groups", "set", "72", "--link", "http://x/"]).fails(1);
    assert!(complaint.contains("nor --link holds"), "{complaint}");
    world.run(&["tokens", "issue", "gssnid", "--group", "90"]).fails(1);
}

#[tokio::test]
async fn no_command_panics_when_nobody_reads_its_output() {
    let world = World::start().await;
    for (args, code) in [
        (&["completions", "bash"][..], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["groups", "list"], 0),
        (&["groups", "list", "--json"], 0),
        (&["groups", "rotate-key", "72", "--jwt-secret", "short"], 0),
        (&["groups", "show", "99"], 1),
        (&["groups", "show", "x"], 2),
    ] {
        // With a filter that is warned of, the log is written to as well.
        for log in
            [&[][..], &[("RUST_LOG", "lapin=trace")], &[("RUST_LOG", "lapin=trace"), ("LOG_FORMAT", "json")]]
        {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = program(&world.environment(log));
            let mut child =
                command.args(args).stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?} {log:?}");
        }
    }
}

#[test]
fn completions_are_printed_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&[], &["completions", shell]).ok();
        assert!(script.contains("session-invite") && script.contains("sms-sandbox"), "{shell}");
    }
}

/// The text with placeholders, of the same width, for values that differ from run to run.
fn with_placeholders(printed: &str) -> String {
    let line = |line: &str| line.split(' ').map(placeholder_for).collect::<Vec<_>>().join(" ");
    printed.lines().map(|text| line(text).trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn placeholder_for(word: &str) -> String {
    let core = word.trim_matches(|c: char| matches!(c, '"' | ',' | '(' | ')'));
    let all_digits = core.bytes().all(|b| b.is_ascii_digit());
    let name = if uuid::Uuid::parse_str(core).is_ok() {
        "<uuid>".to_owned()
    } else if core.len() >= 20 && core.contains('T') && core.ends_with('Z') {
        "<time>".to_owned()
    } else if core.len() == 34 && core.starts_with("SM") {
        "<sid>".to_owned()
    } else if core.len() == 6 && all_digits {
        "######".to_owned()
    } else if let Some((base, _)) = core.split_once("/s/").filter(|(base, _)| base.starts_with("http")) {
        format!("{base}/s/<token>")
    } else {
        return word.to_owned();
    };
    word.replace(core, &format!("{name:<width$}", width = core.len()))
}

#[tokio::test]
async fn the_output_of_commands_matches_its_snapshots() {
    let world = Setup::default().group(&["--per-number", "10/1h"]).start().await;
    world.run(&["addresses", "add", "Joe.Example", "--group", "72", "--user", "12345"]).ok();
    let send =
        ["send", "--group", "72", "--phone", "111-000-0000", "--camera", "back", "--message-id", "order-17"];
    insta::assert_snapshot!("send", with_placeholders(&world.run(&send).ok()));
    let refused = world.run(&["send", "--group", "72", "--phone", "12", "--json"]);
    assert_eq!(refused.code, Some(1));
    insta::assert_snapshot!("send_refused", refused.stdout);
    insta::assert_snapshot!("send_refused_says", refused.stderr);

    insta::assert_snapshot!("groups_list", with_placeholders(&world.run(&["groups", "list"]).ok()));
    let shown = until("the use of the key is written", || async {
        Some(world.run(&["groups", "show", "72"]).ok()).filter(|shown| shown.contains("last used"))
    })
    .await;
    insta::assert_snapshot!("groups_show", with_placeholders(&shown));
    insta::assert_snapshot!("addresses_list", with_placeholders(&world.run(&["addresses", "list"]).ok()));
    insta::assert_snapshot!("sessions_list", with_placeholders(&world.run(&["sessions", "list"]).ok()));
    let row = world.run(&["sessions", "list", "--message-id", "order-17", "--json"]).json();
    let id = row[0]["id"].as_str().unwrap();
    insta::assert_snapshot!("sessions_show", with_placeholders(&world.run(&["sessions", "show", id]).ok()));
}

#[tokio::test]
async fn every_listing_can_be_json() {
    let world = World::start().await;
    let sent = world.run(&["send", "--group", "72", "--phone", "111-000-0000", "--json"]).json();
    assert_eq!(sent["status"], "sent");
    let (id, key) = (sent["sessionId"].as_str().unwrap(), sent["sessionKey"].as_str().unwrap());
    for (args, expected) in [
        (&["groups", "list", "--json"][..], "/0/groupid"),
        (&["groups", "show", "72", "--json"], "/groupid"),
        (&["sessions", "list", "--group", "72", "--status", "sent", "--json"], "/0/id"),
        (&["sessions", "show", id, "--json"], "/id"),
        (&["sessions", "lookup", "--group", "72", "--key", key, "--json"], "/id"),
        (&["tokens", "issue", "gkey", "--group", "72", "--json"], "/token"),
        (&["tokens", "issue", "gjwt", "--group", "72", "--json"], "/token"),
        (&["tokens", "issue", "gssnid", "--group", "72", "--json"], "/token"),
        (&["groups", "add", "73", "--json"], "/apiKey"),
        (&["groups", "rotate-key", "73", "--jwt", "--json"], "/jwtSecret"),
        (&["groups", "disable", "73", "--json"], "/enabled"),
        (&["addresses", "add", "a.b", "--group", "72", "--user", "1", "--json"], "/address"),
        (&["addresses", "list", "--json"], "/0/address"),
        (&["addresses", "remove", "a.b", "--json"], "/removed"),
        (&["optouts", "add", "111-000-0000", "--json"], "/added"),
        (&["optouts", "list", "--json"], "/0/lastDigits"),
        (&["optouts", "remove", "111-000-0000", "--json"], "/removed"),
    ] {
        let printed = world.run(args).json();
        assert!(printed.pointer(expected).is_some_and(|value| *value != Value::Null), "{args:?}: {printed}");
    }
    assert_eq!(world.run(&["sessions", "list", "--status", "joined", "--json"]).json(), Value::Array(vec![]));
    world.run(&["sessions", "show", "00000000-0000-7000-8000-000000000000"]).fails(1);
    world.run(&["addresses", "remove", "not.there"]).fails(1);
    let unknown = world.run(&["send", "--group", "99", "--phone", "111-000-0000"]).fails(1);
    assert!(unknown.contains("99"), "{unknown}");
}

#[tokio::test]
async fn send_without_a_worker_ends_with_a_hint() {
    let mut world = World::start().await;
    world.stop_worker();
    let complaint =
        world.run(&["send", "--group", "72", "--phone", "111-000-0000", "--wait", "200ms"]).fails(1);
    assert!(complaint.contains("is a worker running?"), "{complaint}");
    assert_eq!(world.broker.take("requests").await.json()["groupid"], 72, "the invite stays in the queue");
}
