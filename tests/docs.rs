//! The documents agree with the code: schemas, codes, queues, settings, commands, metrics, links.

use clap::CommandFactory;
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};
use session_invite::internals::{
    Cli, Code, Envelope, Group, GroupId, GroupOptions, Outcome, PhoneNumber, QueueNames, Refusal, Reply,
    Request, RequestRecord, SentSession, SessionKey, Wording, document,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use time::macros::datetime;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn schema(name: &str) -> Validator {
    let schema = read_json(&format!("docs/schemas/{name}.schema.json"));
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema of 2020-12")
}

fn assert_valid(validator: &Validator, instance: &Value) {
    let errors: Vec<String> = validator.iter_errors(instance).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{instance}: {errors:?}");
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).expect("a reply is JSON")
}

#[test]
fn the_reply_to_a_sent_invite_matches_its_schema() {
    let sent = SentSession {
        session_id: uuid::Uuid::now_v7(),
        group: GroupId::new(72).unwrap(),
        session_key: SessionKey::parse("000456").unwrap(),
        invitation_text: "Join your session: http://127.0.0.1:8080/s/x (code 000456)".to_owned().into(),
        phone: PhoneNumber::from_e164("+11110000000").unwrap(),
        expires_at: datetime!(2026-11-23 20:00 UTC),
        provider_message_id: "SM0123456789abcdef0123456789abcdef".to_owned(),
    };
    let body = body(&Reply::to(&Outcome::Sent(sent)));
    assert_valid(&schema("reply"), &body);
    let named = &read_json("docs/schemas/reply.schema.json")["$defs"]["sent"]["required"];
    let named: BTreeSet<_> = named.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(body.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), named);
}

#[test]
fn the_reply_of_every_code_matches_its_schema() {
    let replies = schema("reply");
    for &code in Code::ALL {
        let mut refusal = Refusal::new(code, "why").field("sessionParams.camera").provider_code(Some(21_211));
        refusal.retry_after_seconds = Some(30);
        for refusal in [refusal, Refusal::new(code, "why")] {
            let body = body(&Reply::to(&Outcome::Refused(refusal)));
            assert_valid(&replies, &body);
            let mut turned = body.clone();
            turned["status"] = if code.is_failure() { "rejected" } else { "failed" }.into();
            assert!(!replies.is_valid(&turned), "{turned}");
        }
    }
}

#[test]
fn the_schema_lists_the_codes_and_no_others() {
    let reply = read_json("docs/schemas/reply.schema.json");
    for (status, failure) in [("rejected", false), ("failed", true)] {
        let listed = &reply["$defs"][status]["properties"]["error"]["properties"]["code"]["enum"];
        let codes = Code::ALL.iter().copied().filter(|code| code.is_failure() == failure).map(Code::as_str);
        assert_eq!(*listed, json!(codes.collect::<Vec<_>>()), "{status}");
    }
}

#[test]
fn the_guide_lists_every_code_with_its_status() {
    let guide = read("docs/INTEGRATION.md");
    for &code in Code::ALL {
        let outcome = if code.is_failure() { "failed" } else { "rejected" };
        let again = if code.is_retryable() { "yes" } else { "no" };
        let row = format!("| `{}` | {} | {outcome} | {again} |", code.as_str(), code.http_status());
        assert!(guide.contains(&row), "docs/INTEGRATION.md has no row that begins with {row}");
    }
}

fn group() -> Group {
    Group {
        id: GroupId::new(72).expect("a group's id"),
        enabled: true,
        paused_at: None,
        options: GroupOptions::default(),
        wording: Wording::check("{key}", None, "http://127.0.0.1:8080").expect("a template"),
        join: None,
        api_keys: Vec::new(),
        jwt_secrets: Vec::new(),
        keys_missing: false,
    }
}

/// The worker's checks of a body that need no database.
fn check(body: &str) -> Result<(), Refusal> {
    let envelope = Envelope { body: body.as_bytes().to_vec(), ..Envelope::default() };
    let request = Request::parse(&envelope)?;
    request.credential(&envelope)?;
    request.groupid.clone()?;
    let mut record = RequestRecord::new(group().id, "gkey:12345".to_owned());
    request.fields(&group(), &mut record).map(drop)
}

/// The contract's request, with these fields instead of its own; a field that is `Value::Null` is left out.
fn request_with(fields: Value) -> Value {
    let mut request = read_json("docs/schemas/request.schema.json")["examples"][0].take();
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    for (name, value) in fields {
        if value.is_null() {
            request.as_object_mut().expect("an object").remove(&name);
        } else {
            request[&name] = value;
        }
    }
    request
}

#[test]
fn the_schema_accepts_the_requests_that_the_worker_accepts() {
    let requests = schema("request");
    for good in [
        json!({}),
        json!({"groupid": "72", "sessiontype": 0}),
        json!({"groupid": 9_007_199_254_740_991_u64, "sessiontype": 32_767}),
        json!({"smsPhone": 1_110_000_000}),
        json!({"smsPhone": "tel:+44 20 7946 0958"}),
        json!({"smsPhone": format!("\u{202d}\"+1 (415) 555-2671\"\u{202c}{}", " ".repeat(300))}),
        json!({"sessionParams": null}),
        json!({"sessionParams": {"camera": null, "resolution": "16x7680", "x": 1.5, "y": true, "": "z"}}),
        json!({"authorization": "bearer  gkey  72&12345&$1$1589912963$z5H7IXHSBEkxbAnDO5wlkuNno4ZgkFcqhAyJnJ577iU"}),
        json!({"authorization": "", "gssnid": "joe.1589912963.0123456789abcdef"}),
        json!({"unknown": {"deep": [null]}}),
    ] {
        let body = request_with(good);
        assert_eq!(check(&body.to_string()), Ok(()), "{body}");
        assert_valid(&requests, &body);
    }
}

#[test]
fn the_schema_refuses_the_fields_that_the_worker_refuses() {
    let requests = schema("request");
    for (bad, field) in [
        (json!({"groupid": 0}), "groupid"),
        (json!({"groupid": 9_007_199_254_740_992_u64}), "groupid"),
        (json!({"groupid": "-72"}), "groupid"),
        (json!({"groupid": "72.0"}), "groupid"),
        (json!({"groupid": true}), "groupid"),
        (json!({"sessiontype": null}), "sessiontype"),
        (json!({"sessiontype": 32_768}), "sessiontype"),
        (json!({"sessiontype": -1}), "sessiontype"),
        (json!({"sessiontype": "1"}), "sessiontype"),
        (json!({"smsPhone": null}), "smsPhone"),
        (json!({"smsPhone": ""}), "smsPhone"),
        (json!({"smsPhone": ["111-000-0000"]}), "smsPhone"),
        (json!({"smsPhone": 111.5}), "smsPhone"),
        (json!({"sessionParams": []}), "sessionParams"),
        (json!({"sessionParams": {"camera": "side"}}), "sessionParams.camera"),
        (json!({"sessionParams": {"resolution": "15x288"}}), "sessionParams.resolution"),
        (json!({"sessionParams": {"resolution": "352x7681"}}), "sessionParams.resolution"),
        (json!({"sessionParams": {"resolution": "0352x288"}}), "sessionParams.resolution"),
        (json!({"sessionParams": {"resolution": 352}}), "sessionParams.resolution"),
        (json!({"sessionParams": {"zoom": {"x": 2}}}), "sessionParams.zoom"),
    ] {
        let body = request_with(bad);
        assert!(!requests.is_valid(&body), "{body}");
        assert_eq!(check(&body.to_string()).unwrap_err().field.as_deref(), Some(field), "{body}");
    }
    for bad in
        [json!({"authorization": "72&12345"}), json!({"authorization": "Bearer X y"}), json!({"gssnid": 7})]
    {
        let body = request_with(bad);
        assert!(!requests.is_valid(&body), "{body}");
        assert!(check(&body.to_string()).is_err(), "{body}");
    }
}

/// The narrower rules that `./dev api` gives schemathesis for values that a schema cannot describe.
fn narrowed(name: &str) -> Value {
    read_json("tests/api/narrowed.json")[name].take()
}

/// The rules of the published document's request body.
fn published(name: &str) -> Value {
    document()["components"]["schemas"]["Invite"]["properties"][name].clone()
}

/// Texts that match a pattern. proptest does not know anchors, so they are removed.
fn texts(pattern: &Value) -> impl Strategy<Value = String> {
    let pattern = pattern.as_str().and_then(|pattern| pattern.strip_prefix('^')?.strip_suffix('$'));
    proptest::string::string_regex(pattern.expect("a pattern of the whole")).expect("a regular expression")
}

/// Integers near the bounds of what schemathesis draws, within them, of every number of digits, and any.
fn integers() -> impl Strategy<Value = u64> {
    let ranges = narrowed("smsPhone")["anyOf"].take();
    let ranges = ranges.as_array().into_iter().flatten();
    let ranges: Vec<_> =
        ranges.filter_map(|range| Some((range["minimum"].as_u64()?, range["maximum"].as_u64()?))).collect();
    let bounds = ranges.iter().flat_map(|(least, most)| [*least, *most]).collect::<Vec<_>>();
    let near_a_bound =
        (proptest::sample::select(bounds), 0..5_u64).prop_map(|(bound, more)| bound - 2 + more);
    let within = proptest::sample::select(ranges).prop_flat_map(|(least, most)| least..=most);
    let of_digits = (1..19_u32).prop_flat_map(|digits| 10_u64.pow(digits - 1)..10_u64.pow(digits));
    prop_oneof![near_a_bound, within, of_digits, any::<u64>()]
}

proptest! {
    #[test]
    fn each_text_that_schemathesis_draws_for_a_phone_is_accepted(text in texts(&narrowed("smsPhone")["anyOf"][0]["pattern"])) {
        let body = request_with(json!({"smsPhone": text}));
        prop_assert_eq!(check(&body.to_string()), Ok(()));
        prop_assert!(jsonschema::is_valid(&published("smsPhone"), &body["smsPhone"]));
    }

    #[test]
    fn schemathesis_knows_which_integers_are_phones_in_the_us(integer in integers()) {
        let body = request_with(json!({"smsPhone": integer}));
        let is_taken = check(&body.to_string()).is_ok();
        prop_assert_eq!(jsonschema::is_valid(&narrowed("smsPhone"), &body["smsPhone"]), is_taken);
        prop_assert!(jsonschema::is_valid(&published("smsPhone"), &body["smsPhone"]));
    }
}

/// Asserts that an example is valid by its schema.
fn assert_example(schema: &Value, example: &Value) {
    let document = document();
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
    assert_valid(&validator, example);
}

#[test]
fn each_object_of_the_published_document_has_an_example_that_is_valid() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if schema["type"] == "object" {
            assert!(schema["example"].is_object(), "{name} has no example");
            assert_example(schema, &schema["example"]);
        }
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap());
    let parameters =
        operations.flat_map(|(_, operation)| operation["parameters"].as_array().into_iter().flatten());
    for parameter in parameters.filter(|parameter| !parameter["example"].is_null()) {
        assert_example(&parameter["schema"], &parameter["example"]);
    }
}

#[test]
fn the_examples_of_the_schemas_are_valid() {
    for name in ["request", "reply", "event"] {
        let examples = read_json(&format!("docs/schemas/{name}.schema.json"))["examples"].take();
        let examples = examples.as_array().unwrap_or_else(|| panic!("{name} has no examples"));
        for example in examples {
            assert_valid(&schema(name), example);
        }
    }
}

#[test]
fn the_published_document_shows_a_valid_login_key() {
    let vector = &read_json("tests/vectors/login_keys.json")["good"][3];
    let shown = document()["info"]["description"].as_str().unwrap();
    for part in ["api_key", "partneruserid", "sig"] {
        let part = vector[part].as_str().unwrap();
        assert!(shown.contains(&format!("`{part}`")), "{part} is not shown");
    }
    assert!(shown.contains(&vector["exp"].to_string()));
}

#[test]
fn the_published_document_accepts_every_form_of_a_phone() {
    for phone in [
        json!("(415) 555-2671"),
        json!("\u{202d}\"+1 (415) 555-2671\"\u{202c}"),
        json!("+44 20 7946 0958"),
        json!("tel:+44-20-7946-0958"),
        json!("٤١٥٥٥٥٢٦٧١"),
        json!(442_079_460_958_u64),
    ] {
        assert!(jsonschema::is_valid(&published("smsPhone"), &phone), "{phone}");
    }
}

fn all(names: &QueueNames) -> BTreeSet<String> {
    let fixed =
        [&names.requests, &names.replies, &names.dropped, &names.dead, &names.unreadable, &names.events];
    fixed.into_iter().chain(names.retries.iter().map(|(_, name)| name)).cloned().collect()
}

#[test]
fn the_asyncapi_document_has_every_queue_and_the_exchange_and_its_references_exist() {
    let document = read_json("docs/asyncapi.json");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let channels = document["channels"].as_object().unwrap().values();
    let addresses = channels.filter_map(|channel| channel["address"].as_str()).map(str::to_owned);
    assert_eq!(addresses.collect::<BTreeSet<_>>(), all(&QueueNames::new("session-invite")));
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        match reference.strip_prefix('#') {
            Some(pointer) => assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere"),
            None => drop(read_json(&format!("docs/{reference}"))),
        }
    }
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

#[test]
fn the_guide_for_operators_names_every_queue_and_the_exchange() {
    let guide = read("docs/OPERATING.md");
    for name in all(&QueueNames::new("")) {
        assert!(guide.contains(&format!("`{name}`")), "docs/OPERATING.md does not name {name}");
    }
}

/// The settings in the table of docs/CONFIGURATION.md, each with the cell of its default.
fn documented() -> BTreeMap<String, String> {
    let page = read("docs/CONFIGURATION.md");
    let table = page.split("\n## What can be set?").nth(1).expect("a chapter with the table");
    let table = table.split("\n## ").next().expect("its end");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells
        .map(|(name, rest)| (name.to_owned(), rest.split(" | ").next().unwrap_or_default().to_owned()))
        .collect()
}

#[test]
fn the_page_on_configuration_has_every_setting_and_its_default() {
    let mut documented = documented();
    let cli = Cli::command();
    let commands = ["worker", "gateway"].map(|name| cli.find_subcommand(name).unwrap());
    let mut seen = BTreeSet::new();
    for setting in cli.get_arguments().chain(commands.into_iter().flat_map(clap::Command::get_arguments)) {
        let Some(name) = setting.get_env().and_then(|name| name.to_str()) else { continue };
        let flag = name.to_ascii_lowercase().replace('_', "-");
        assert_eq!(setting.get_long(), Some(flag.as_str()), "{name} has another flag");
        let shown =
            documented.get(name).unwrap_or_else(|| panic!("docs/CONFIGURATION.md does not have {name}"));
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some(default) = help.split("[default: ").nth(1).and_then(|rest| rest.split(']').next()) {
            assert_eq!(*shown, format!("`{default}`"), "{name}");
        }
        seen.insert(name.to_owned());
    }
    documented.retain(|name, _| !seen.contains(name));
    assert!(
        documented.is_empty(),
        "docs/CONFIGURATION.md has settings that no command knows: {documented:?}"
    );
}

#[test]
fn the_units_give_a_process_longer_to_stop_than_it_takes() {
    let documented = documented();
    let seconds = |text: &str| text.trim_matches('`').strip_suffix('s').and_then(|n| n.parse::<u32>().ok());
    let grace = seconds(&documented["SHUTDOWN_GRACE"]).expect("its default in seconds");
    for process in ["worker", "gateway", "console"] {
        let unit = read(&format!("deploy/systemd/session-invite-{process}.service"));
        let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.parse::<u32>().ok());
        assert!(stop.expect("a limit in seconds") >= grace + 5, "{process}");
    }
}

#[test]
fn the_guide_for_operators_names_every_command() {
    let guide = read("docs/OPERATING.md");
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        assert!(
            guide.contains(&format!("session-invite {name}")),
            "docs/OPERATING.md does not name `{name}`"
        );
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The text of all Rust files below a folder.
fn sources(folder: &str) -> String {
    let whole = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(whole).expect("a folder of sources");
    let names =
        entries.map(|entry| entry.expect("a file").file_name().into_string().expect("a name in UTF-8"));
    names
        .map(|name| format!("{folder}/{name}"))
        .map(|path| match has_extension(&path, "rs") {
            true => read(&path),
            false if PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&path).is_dir() => sources(&path),
            false => String::new(),
        })
        .collect()
}

/// Every word that has the form of our metrics' names.
fn metrics_in(text: &str) -> BTreeSet<String> {
    const PREFIX: &str = "session_invite_";
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_metric = |word: &&str| {
        word.len() > PREFIX.len()
            && word.starts_with(PREFIX)
            && !word.ends_with('_')
            && !word.contains(|c: char| c.is_ascii_digit())
    };
    text.split(|c: char| !is_part(c)).filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn the_page_of_metrics_has_every_metric_and_no_page_has_an_unknown_one() {
    let code = metrics_in(&sources("src"));
    assert!(code.len() > 20, "{code:?}");
    assert_eq!(metrics_in(&read("docs/METRICS.md")), code);
    for page in ["DELIVERY.md", "GATEWAY.md", "GROWTH.md", "LIMITS.md", "OPERATING.md", "RUNBOOK.md"] {
        let page = &format!("docs/{page}");
        let named = metrics_in(&read(page));
        assert!(named.is_subset(&code), "{page}: {:?}", named.difference(&code));
    }
}

/// The Markdown files of the project, by their paths from its root.
fn pages() -> Vec<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let pages = ["", "docs/", "migrations/"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8"));
        names.map(move |name| format!("{folder}{name}")).filter(|path| has_extension(path, "md"))
    });
    pages.collect()
}

/// The anchors that GitHub makes of a page's headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let prose = page.split("```").step_by(2);
    let headings = prose.flat_map(str::lines).filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim())
        .map(|words| words.chars().filter(is_kept).collect::<String>().to_lowercase().replace(' ', "-"))
        .collect()
}

/// The targets of a page's links, without those to other sites.
fn links(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    let targets = prose.flat_map(|text| text.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_in_the_documents_leads_to_an_existing_file_and_heading() {
    for path in pages() {
        let page = read(&path);
        for link in links(&page) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = PathBuf::from(&path).parent().expect("a folder").to_owned();
            let target = if file.is_empty() { PathBuf::from(&path) } else { folder.join(file) };
            let whole = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&target);
            assert!(whole.exists(), "{path} links {link}, which does not exist");
            if !anchor.is_empty() {
                let headings = anchors(&fs::read_to_string(&whole).expect("a page"));
                assert!(headings.contains(anchor), "{path} links {link}, and that page has {headings:#?}");
            }
        }
    }
}

#[test]
fn the_readme_links_every_page() {
    let readme = read("README.md");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = fs::read_dir(folder).expect("the folder of the documents");
    let names = pages.map(|page| page.expect("a file").file_name().into_string().expect("a name in UTF-8"));
    for name in names.filter(|name| has_extension(name, "md")) {
        assert!(readme.contains(&format!("(docs/{name})")), "README.md does not lead to docs/{name}");
    }
}

/// The parts of a text between two markers.
fn between<'a>(text: &'a str, before: &str, after: &str) -> BTreeSet<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
}

#[test]
fn every_fuzzing_target_has_its_code_its_seeds_its_dictionary_and_its_row() {
    let manifest = read("fuzz/Cargo.toml");
    let targets = between(&manifest, "[[bin]]\nname = \"", "\"");
    assert!(targets.len() > 8, "{targets:?}");
    for folder in ["fuzz/targets", "fuzz/seeds", "fuzz/dictionaries"] {
        let entries = fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        let stems: BTreeSet<_> =
            names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        assert!(stems.iter().map(String::as_str).eq(targets.iter().copied()), "{folder} has {stems:?}");
    }
    let page = read("docs/FUZZING.md");
    let table = page.split("## ").find(|chapter| chapter.starts_with("What is fuzzed?")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let listed: BTreeSet<_> =
        rows.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|name| !name.is_empty()).collect();
    assert_eq!(listed, targets, "docs/FUZZING.md");
}

/// The name and version of each package in a lock file.
fn locked(path: &str) -> BTreeSet<(String, String)> {
    let lock = read(path);
    let packages = lock.split("[[package]]\n").skip(1).map(|package| {
        let member = |name: &str| {
            let value = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            value
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or_else(|| panic!("{path}: {package}"))
                .to_owned()
        };
        (member("name"), member("version"))
    });
    packages.collect()
}

#[test]
fn the_fuzzing_targets_use_the_programs_versions_of_its_dependencies() {
    let own = locked("Cargo.lock");
    let is_another = |name: &str| !own.iter().any(|(known, _)| known == name);
    let differing: Vec<_> = locked("fuzz/Cargo.lock")
        .into_iter()
        .filter(|package| !own.contains(package) && !is_another(&package.0))
        .collect();
    assert!(differing.is_empty(), "fuzz/Cargo.lock has other versions than Cargo.lock of {differing:?}");
}

#[test]
fn the_guide_shows_a_valid_login_key() {
    let vectors = read_json("tests/vectors/login_keys.json");
    let shown = vectors["good"][3]["authorization"].as_str().unwrap();
    assert!(read("docs/INTEGRATION.md").contains(shown), "docs/INTEGRATION.md does not show {shown}");
}
