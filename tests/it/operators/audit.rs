//! `audit list`: who changed what, from where, before and after.

use crate::support::{Message, TextState, World, run};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs};

/// The commands that change nothing, or that leave their trace elsewhere: an invite in `sessions`, a process in its log, and
/// the queues of a test nowhere.
const OTHERS: [&str; 29] = [
    "worker",
    "gateway",
    "migrate",
    "send",
    "sms-sandbox",
    "completions",
    "ready",
    "doctor",
    "topology declare",
    "topology delete",
    "groups list",
    "groups show",
    "addresses list",
    "sessions list",
    "sessions show",
    "sessions lookup",
    "sessions export",
    "dead list",
    "dead show",
    "optouts list",
    "audit list",
    "sessions count",
    "dead summary",
    "optouts check",
    "config show worker",
    "config show gateway",
    "retention",
    "tokens hash",
    "trace",
];

const PHONE: &str = "201-555-0123";

/// A command that changes something.
struct ChangingCommand {
    /// Its name, and its arguments. FILE and LETTER stand for a file of numbers and a dead letter.
    line: &'static [&'static str],
    words: usize,
    /// A member of `before` and of `after`.
    member: &'static str,
    before: Value,
    after: Value,
}

fn changing() -> Vec<ChangingCommand> {
    let row = |words, line: &'static [&'static str], member, before: Value, after: Value| ChangingCommand {
        line,
        words,
        member,
        before,
        after,
    };
    let none = Value::Null;
    vec![
        row(
            2,
            &["groups", "add", "99", "--template", "Hi {key}"],
            "template",
            none.clone(),
            json!("Hi {key}"),
        ),
        row(2, &["groups", "set", "99", "--key-length", "8"], "key_length", json!(6), json!(8)),
        row(2, &["groups", "disable", "99"], "enabled", json!(true), json!(false)),
        row(2, &["groups", "enable", "99"], "enabled", json!(false), json!(true)),
        row(2, &["groups", "pause", "99"], "resumed_at", none.clone(), none.clone()),
        row(2, &["groups", "resume", "99"], "id", json!(99), json!(99)),
        row(2, &["groups", "rotate-key", "99", "--revoke-old"], "id", json!(99), json!(99)),
        row(
            2,
            &["addresses", "add", "joe.example", "--group", "99", "--user", "12"],
            "user",
            none.clone(),
            json!("12"),
        ),
        row(2, &["addresses", "remove", "joe.example"], "user", json!("12"), none.clone()),
        row(3, &["tokens", "issue", "gkey", "--group", "99"], "type", none.clone(), json!("GKEY")),
        row(3, &["tokens", "issue", "gjwt", "--group", "99"], "type", none.clone(), json!("GJWT")),
        row(3, &["tokens", "issue", "gssnid", "--group", "99"], "type", none.clone(), json!("GSSNID")),
        row(2, &["optouts", "add", PHONE], "sender", none.clone(), json!("+15005550006")),
        row(2, &["optouts", "remove", PHONE], "sender", json!("+15005550006"), none.clone()),
        row(2, &["optouts", "import", "FILE"], "new", none.clone(), json!(1)),
        row(2, &["dead", "replay", "LETTER"], "state", none.clone(), json!("ended")),
        row(
            2,
            &["dead", "drop", "--group", "72", "--since", "1d", "--yes"],
            "state",
            none.clone(),
            json!("ended"),
        ),
        row(
            2,
            &["sessions", "forget", "--phone", PHONE, "--yes", "--rest", "0s"],
            "state",
            none.clone(),
            json!("ended"),
        ),
        row(1, &["reconcile"], "noted", none.clone(), json!(0)),
        row(2, &["groups", "remove", "99", "--yes", "--rest", "0s"], "id", json!(99), none.clone()),
        // The last, as the world's worker has not the new key.
        row(2, &["secrets", "reseal"], "sealed", none, json!(3)),
    ]
}

/// The names of all commands without subcommands.
fn all_commands(above: &str) -> BTreeSet<String> {
    let args: Vec<_> = above.split_whitespace().chain(["--help"]).collect();
    let help = run(&[("COLUMNS".to_owned(), "100".to_owned())], &args).ok();
    let Some((_, below)) = help.split_once("\nCommands:\n") else { return [above.to_owned()].into() };
    let lines = below.lines().take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.flat_map(|name| all_commands(format!("{above} {name}").trim())).collect()
}

impl World {
    /// The newest row of the audit.
    fn last_change(&self) -> Value {
        self.run(&["audit", "list", "--limit", "1", "--json"]).json()[0].clone()
    }
}

#[test]
fn each_command_is_known_to_change_something_or_not() {
    let changing: Vec<_> = changing().iter().map(|command| command.line[..command.words].join(" ")).collect();
    let known: BTreeSet<_> = OTHERS.into_iter().map(str::to_owned).chain(changing).collect();
    assert_eq!(all_commands(""), known, "a command that changes something has to leave a row in the audit");
}

#[tokio::test]
async fn each_command_that_changes_something_leaves_a_row_with_before_and_after_and_no_secret() {
    let mut world = World::start().await;
    let file = std::env::temp_dir().join(format!("{}.csv", world.broker.prefix));
    fs::write(&file, "2015550124\n").unwrap();
    let requests = world.broker.queue("requests");
    let dead = Message::json(&world.request()).id("dead").text_header("x-kind", "request");
    let dead = dead.text_header("x-queue", &requests).text_header("x-reason", "a test");
    world.broker.publish_to(&world.broker.queue("dead"), dead).await;
    let letter = world.run(&["dead", "list", "--json"]).json()[0]["id"].as_str().unwrap().to_owned();
    world
        .database
        .execute(
            "insert into sessions (id, group_id, status, requested_by, phone)
             values (gen_random_uuid(), 72, 'rejected', 'gkey:12345', '+12015550123')",
        )
        .await;
    let both = format!("{},{}", BASE64_STANDARD.encode([7_u8; 32]), world.secrets_key());
    for ChangingCommand { line, words, member, before, after } in changing() {
        let line: Vec<_> = line
            .iter()
            .map(|word| match *word {
                "FILE" => file.to_str().unwrap(),
                "LETTER" => &letter,
                other => other,
            })
            .collect();
        let rows: i64 = world.database.value("select count(*) from audit_log").await;
        let secrets_key = if line[0] == "secrets" {
            world.database.until_texts_are(1, TextState::Accepted).await;
            world.stop_worker();
            both.clone()
        } else {
            world.secrets_key()
        };
        run(&world.environment(&[("ACTING_AS", "Ann"), ("SECRETS_KEY", &secrets_key)]), &line).ok();
        let row = world.last_change();
        assert!(world.database.value::<i64>("select count(*) from audit_log").await > rows, "{line:?}");
        assert_eq!(row["action"], line[..words].join(" "), "{row}");
        assert_eq!(
            (&row["actingAs"], &row["before"][member], &row["after"][member]),
            (&json!("Ann"), &before, &after),
            "{row}"
        );
        for of_process in ["osUser", "host", "dbRole"] {
            assert!(row[of_process].as_str().is_some_and(|name| name.len() > 1), "{row}");
        }
        let command = row["command"].as_str().unwrap();
        let typed = format!(
            "session-invite {}",
            line.join(" ").replace(PHONE, "PHONE").replace("Hi {key}", "'Hi {key}'")
        );
        assert_eq!(command, typed);
        assert!(!row.to_string().contains("0123") && !row.to_string().contains("sealed\":\""), "{row}");
    }
    fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn rows_are_filtered_and_can_be_neither_changed_nor_deleted() {
    let world = World::start().await;
    world.run(&["groups", "disable", "72"]).ok();
    world.run(&["groups", "enable", "72"]).ok();
    world.run(&["optouts", "add", PHONE]).ok();
    let count = |args: &[&str]| {
        let args = [&["audit", "list", "--json"], args].concat();
        world.run(&args).json().as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--group", "72"]), 3);
    assert_eq!(
        (
            count(&["--action", "groups"]),
            count(&["--action", "groups disable"]),
            count(&["--action", "group"])
        ),
        (3, 1, 0)
    );
    assert_eq!(
        (count(&["--since", "1h"]), count(&["--since", "2099-01-01T00:00:00Z"]), count(&["--limit", "2"])),
        (4, 0, 2)
    );
    assert!(world.run(&["audit", "list", "--since", "yesterday"]).fails(2).contains("RFC 3339"));
    let listed = world.run(&["audit", "list", "--action", "groups disable"]).ok();
    assert!(
        listed.contains("session-invite groups disable 72") && listed.contains("enabled: true → false"),
        "{listed}"
    );
    // An opt-out that is there already changes nothing.
    world.run(&["optouts", "add", PHONE]).ok();
    assert_eq!(count(&[]), 4);
    // A command that fails leaves none.
    world.run(&["groups", "disable", "98"]).fails(1);
    assert_eq!(count(&[]), 4);
    for refused in ["update audit_log set os_user = 'x'", "delete from audit_log", "truncate audit_log"] {
        let error = sqlx::query(refused).execute(&world.database.pool).await.unwrap_err().to_string();
        assert!(error.contains("audit_log is append-only"), "{error}");
    }
}

#[tokio::test]
async fn a_change_whose_record_cannot_be_written_is_not_made() {
    let world = World::start().await;
    world
        .database
        .execute("alter table audit_log add constraint none check (action <> 'groups disable')")
        .await;
    world.run(&["groups", "disable", "72"]).fails(1);
    assert!(world.database.value::<bool>("select enabled from groups where id = 72").await);
    world.invite(&world.request()).await.sent();
}
