//! Settings: `.env`, URLs, addresses, log filters, links and the sealing key. None of their values is printed.

use crate::support::{
    CommandResult, GROUP, Setup, Tunnel, World, broker_server, doctor, free_address, program, run, send,
    until,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A temporary folder. It is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("session-invite-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(path.join("below")).expect("a folder can be made");
        Self(path)
    }

    /// With a `.env` file of this mode.
    fn with_dotenv(env: impl AsRef<[u8]>, mode: u32) -> Self {
        let folder = Self::new();
        let file = folder.0.join(".env");
        fs::write(&file, env).expect("a file can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode can be set");
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn result_of(mut command: Command) -> CommandResult {
    let output = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 is printed");
    CommandResult { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `worker` in this folder, with these variables only. It fails, as settings are missing; returns its errors.
fn errors_in(folder: &Path, environment: &[(&str, &str)]) -> String {
    let environment: Vec<_> = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut command = program(&environment);
    command.current_dir(folder).arg("worker");
    result_of(command).fails(2)
}

#[test]
fn a_dotenv_file_is_read_literally_and_the_environment_wins() {
    let text = "\u{feff}# settings\r\nexport TWILIO_ACCOUNT_SID='AC$HOME'\r\nPREFETCH=\"0\" # none\r\nSMS_CONCURRENCY=0\r\n";
    let folder = Folder::with_dotenv(text, 0o600);
    let printed = errors_in(&folder.0, &[("HOME", ""), ("SMS_CONCURRENCY", "7"), ("RUST_LOG", "warn")]);
    // With $HOME replaced, the account would be valid.
    assert!(
        printed.contains("TWILIO_ACCOUNT_SID: must be letters") && printed.contains("PREFETCH: "),
        "{printed}"
    );
    assert!(!printed.contains("SMS_CONCURRENCY") && !printed.contains("everybody"), "{printed}");

    let below = errors_in(&folder.0.join("below"), &[]);
    assert!(!below.contains("PREFETCH") && below.contains("AMQP_URL: is not set"), "{below}");
}

#[test]
fn a_dotenv_file_that_others_may_read_is_warned_of() {
    for (mode, warned) in [(0o644, true), (0o604, true), (0o600, false), (0o640, false)] {
        let folder = Folder::with_dotenv("PREFETCH=1\n", mode);
        let printed = errors_in(&folder.0, &[]);
        assert_eq!(printed.contains("chmod 600 .env"), warned, "{mode:o}: {printed}");
    }
}

#[test]
fn a_wrong_line_of_a_dotenv_file_is_named_and_not_shown() {
    let cases: [(&[u8], &str); 10] = [
        (b"A=1\nTOKEN='5ECRET\n5ECRET2='5ECRET3'\n", ".env, line 2, TOKEN: "),
        (b"TOKEN=\"5ECRET\n5ECRET\"\n", ".env, line 1, TOKEN: "),
        (b"TOKEN=5ECRET 5ECRET\n", ".env, line 1, TOKEN: "),
        (b"export TOKEN=5EC\\RET\n", ".env, line 1, TOKEN: "),
        (b"TOKEN=\"5EC\\$RET\"\n", ".env, line 1, TOKEN: "),
        (b"TOKEN='5ECRET'5ECRET\n", ".env, line 1, TOKEN: "),
        (b"\n\nTOKEN=5ECRET\xff\n", ".env, line 3, TOKEN: "),
        (b"5ECRET\n", ".env, line 1: "),
        (b"TOKEN = 5ECRET\n", ".env, line 1, TOKEN: "),
        (b"export TOKEN\n", ".env, line 1, TOKEN: "),
    ];
    for (text, place) in cases {
        let folder = Folder::with_dotenv(text, 0o600);
        let printed = errors_in(&folder.0, &[]);
        assert!(printed.contains(place) && !printed.contains("ECRET"), "{place} {printed}");
    }
}

#[test]
fn help_version_and_completions_ignore_a_wrong_dotenv_file() {
    let folder = Folder::with_dotenv("TOKEN='5ECRET\n", 0o600);
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["--version"],
        &["worker", "--help"],
        &["help", "groups"],
        &["completions", "bash"],
    ] {
        let mut command = program(&[]);
        command.current_dir(&folder.0).args(args);
        let printed = result_of(command).ok();
        assert!(printed.contains("session-invite"), "{args:?}: {printed}");
    }
    let mut command = program(&[]);
    command.current_dir(&folder.0).args(["groups", "list"]);
    assert!(result_of(command).fails(2).contains(".env, line 1, TOKEN: "));
}

#[test]
fn the_log_filter_cannot_turn_lapins_own_log_on() {
    for filter in ["lapin", "off,lapin=trace", "info,lapin::channel=debug"] {
        let printed = run(&[("RUST_LOG".to_owned(), filter.to_owned())], &["worker"]).fails(2);
        assert!(printed.contains("RUST_LOG names lapin"), "{filter}: {printed}");
    }
}

#[test]
fn a_wrong_libpq_variable_is_named_instead_of_database_url() {
    for (variable, value) in [
        ("PGPORT", "5ECRET"),
        ("PGSSLMODE", "5ECRET"),
        ("PGSSLCERT", "/5ECRET"),
        ("PGOPTIONS", "5ECRET"),
        ("PGCONNECT_TIMEOUT", "5ECRET"),
    ] {
        let environment = [("DATABASE_URL", "postgres://u@h/d"), (variable, value)]
            .map(|(n, v)| (n.to_owned(), v.to_owned()));
        let printed = run(&environment, &["worker"]).fails(2);
        let named = printed.contains(&format!("{variable}: ")) && !printed.contains("DATABASE_URL");
        assert!(named && !printed.contains("5ECRET"), "{variable}: {printed}");
    }
}

/// libpq's variables as another program on the same machine may have set them.
fn variables_of_another_program(database: &str) -> Vec<(&'static str, String)> {
    let values = [
        ("PGHOST", "nowhere.invalid"),
        ("PGHOSTADDR", "127.0.0.9"),
        ("PGPORT", "1"),
        ("PGUSER", "5ECRET-user"),
        ("PGPASSWORD", "5ECRET-password"),
        ("PGDATABASE", database),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/5ECRET/root.crt"),
        ("PGSSLCERT", "/5ECRET/client.crt"),
        ("PGSSLKEY", "/5ECRET/client.key"),
        ("PGAPPNAME", "theirs"),
        ("PGOPTIONS", "-c no_such_setting=5ECRET"),
        ("PGCONNECT_TIMEOUT", "1"),
        ("PGTARGETSESSIONATTRS", "read-only"),
        ("PGSERVICE", "theirs"),
    ];
    values.map(|(name, value)| (name, value.to_owned())).into()
}

/// The database's URL with a password and a query, so that libpq's variables have nothing to add.
fn complete_url(url: &str, query: &str) -> String {
    let mut url = url::Url::parse(url).expect("a service has a URL");
    if url.password().is_none() {
        url.set_password(Some("anything")).expect("a password can be set");
    }
    url.set_query(Some(query));
    url.into()
}

#[tokio::test]
async fn libpq_variables_do_not_override_the_url() {
    let world = Setup::default().without_worker().await;
    world.is_secret("5ECRET");
    let query = "sslmode=disable&application_name=mine&options=-c%20geqo%3Doff&connect_timeout=5&target_session_attrs=any";
    let url = complete_url(&world.database.url, query);
    let mut changes = variables_of_another_program("none");
    changes.push(("DATABASE_URL", url));
    let changes: Vec<_> = changes.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut worker = world.spawn(&changes);
    worker.ready().await;
    let mut gateway = world.start_gateway(&changes).await;
    let ours = "select count(distinct pid) from pg_stat_activity
                 where application_name = 'mine' and datname = current_database() and usename = current_user";
    assert!(world.database.value::<i64>(ours).await >= 2);
    world.run(&["groups", "list"]).ok();
    run(&world.environment(&changes), &["groups", "list"]).ok();
    assert!(gateway.process.stop().success() && worker.stop().success());
    assert!(!worker.log().contains("theirs"), "{}", worker.log());
}

#[tokio::test]
async fn libpq_variables_complete_the_url_and_empty_ones_are_ignored() {
    let world = Setup::default().without_worker().await;
    let url = url::Url::parse(&world.database.url).unwrap();
    let port = url.port().unwrap_or(5432).to_string();
    let (host, database) = (url.host_str().unwrap(), &url.path()[1..]);
    let options = "-c application_name=by_options";
    let variables = [
        ("DATABASE_URL", "postgres://"),
        ("PGHOST", host),
        ("PGPORT", &port),
        ("PGUSER", url.username()),
        ("PGPASSWORD", url.password().unwrap_or("anything")),
        ("PGDATABASE", database),
        ("PGSSLMODE", "disable"),
        ("PGOPTIONS", options),
    ];
    let mut worker = world.spawn(&variables);
    worker.ready().await;
    let ours = "select count(*) from pg_stat_activity where application_name = 'by_options' and datname = current_database()";
    assert!(world.database.value::<i64>(ours).await > 0, "PGOPTIONS are obeyed");
    assert!(worker.stop().success());

    let query = "sslmode=prefer";
    let url = complete_url(&world.database.url, query);
    let mut empty: Vec<_> =
        variables_of_another_program("").into_iter().map(|(name, _)| (name, "")).collect();
    empty.push(("DATABASE_URL", &url));
    let mut worker = world.spawn(&empty);
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn an_option_that_the_server_does_not_take_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let wrong =
        ["-c 5ECRET=1", "-c statement_timeout=5ECRET", "-c shared_buffers=5", "--enable-seqscan=5ECRET"];
    for options in wrong {
        let mut url = url::Url::parse(&world.database.url).unwrap();
        url.query_pairs_mut().append_pair("options", options);
        // PostgreSQL URLs do not decode a plus as a space.
        let url = url.as_str().replace('+', "%20");
        for command in ["worker", "gateway", "migrate"] {
            let environment = world.environment(&[("DATABASE_URL", &url), ("GATEWAY_ADDR", "127.0.0.1:0")]);
            let printed = run(&environment, &[command]).fails(1);
            let expected = "DATABASE_URL: the server refuses a setting in its options";
            assert!(
                printed.contains(expected) && !printed.contains("5ECRET"),
                "{command} {options}: {printed}"
            );
        }
    }
    let printed =
        run(&world.environment(&[("PGOPTIONS", "-c statement_timeout=5ECRET")]), &["worker"]).fails(1);
    assert!(printed.contains("PGOPTIONS: the server refuses") && !printed.contains("5ECRET"), "{printed}");
}

#[tokio::test]
async fn one_address_for_visitors_and_operators_ends_the_gateways_start() {
    let world = Setup::default().without_worker().await;
    let port = closed_port();
    for (visitors, operators) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("[::]", "127.0.0.1"),
    ] {
        let (visitors, operators) = (format!("{visitors}:{port}"), format!("{operators}:{port}"));
        let environment = world.environment(&[("GATEWAY_ADDR", &visitors), ("HTTP_ADDR", &operators)]);
        let printed = run(&environment, &["gateway"]).fails(2);
        assert!(printed.contains("GATEWAY_ADDR: ") && printed.contains("HTTP_ADDR"), "{printed}");
    }
}

#[test]
fn an_unknown_word_in_the_log_filter_ends_the_start() {
    let complaint = |filter: &str| run(&[("RUST_LOG".to_owned(), filter.to_owned())], &["worker"]).fails(2);
    for bad in ["erorr", "info,5ECRET", "session-invite", "warning", "debug info", "proptest", "windows_sys"]
    {
        let printed = complaint(bad);
        assert!(printed.contains("RUST_LOG: ") && !printed.contains("5ECRET"), "{bad}: {printed}");
    }
    for good in ["", "OFF", "session_invite", "sqlx,warn", "warn,session_invite::queue=debug"] {
        let printed = complaint(good);
        assert!(
            !printed.contains("RUST_LOG") && printed.contains("AMQP_URL: is not set"),
            "{good}: {printed}"
        );
    }
}

#[test]
fn a_wrong_url_is_reported_by_its_variable_and_without_its_value() {
    let cases = [
        ("DATABASE_URL", "postgres://u:5EC#R3T@h/d", "percent-encode"),
        ("DATABASE_URL", "postgres://u:5EC/R3T@h/d", "percent-encode"),
        ("DATABASE_URL", "postgres://u:5EC?R3T@h/d", "percent-encode"),
        ("DATABASE_URL", "postgres://u:p@h/d?sslpasswort=5ECRET", "sslpasswort"),
        ("DATABASE_URL", "postgres://u:p@h/d?sslmode=5ECRET", "sslmode"),
        ("DATABASE_URL", "postgres://u:p@h/d?sslrootcert=/5ECRET", "sslrootcert"),
        ("DATABASE_URL", "postgres://u:p@::1:5432/d", "brackets"),
        ("DATABASE_URL", "host=h password=5ECRET", "postgres://"),
        ("AMQP_URL", "amqp://u:5EC#R3T@h/", "percent-encode"),
        ("AMQP_URL", "amqp://u:5EC/R3T@h/", "percent-encode"),
        ("AMQP_URL", "amqp://u:p@h/?hartbeat=5ECRET", "hartbeat"),
        ("AMQP_URL", "amqp://u:p@h/,amqps://u:p@h2/?heartbeat=5ECRET", "heartbeat"),
        ("AMQP_URL", "amqp://u:p@h1,h2/", "URL of its own"),
        ("DATABASE_URL", "postgres://u@h:5433/db,postgres://u:5ECRET@h:5432/db", "h1:5432,h2:5432"),
        ("DATABASE_URL", "postgres://u@h/db postgres://u:5ECRET@h/db", "h1:5432,h2:5432"),
        ("DATABASE_URL", "postgres://u@h/db;u:5ECRET@h/db", "h1:5432,h2:5432"),
        ("DATABASE_URL", "postgres://u@h/db?application_name=a,u:5ECRET@h/db", "h1:5432,h2:5432"),
        ("AMQP_URL", "amqp://u:p@h:5672/%2f,ampq://u:5ECRET@h:5673/%2f", "amqp://…@h1/vhost,"),
        ("AMQP_URL", "amqp://u:p@h/%2f amqp://u:5ECRET@h/%2f", "amqp://…@h1/vhost,"),
        ("AMQP_URL", "amqp://u:p@h/%2f;amqp://u:5ECRET@h/%2f", "amqp://…@h1/vhost,"),
        ("AMQP_URL", "amqp://u:p@h/%2f,u:5ECRET@h2:5672/%2f", "amqp://…@h1/vhost,"),
        ("DATABASE_URL", "postgres://u%3A5ECRET@h/d", "user:password@host"),
        ("DATABASE_URL", "postgres://u%3A5ECRET%40h/d", "user:password@host"),
        ("DATABASE_URL", "postgres://h/d%3Fpassword=5ECRET", "user:password@host"),
        ("AMQP_URL", "amqp://u%3A5ECRET%40h%2Fv", "user:password@host"),
        ("AMQP_URL", "amqp://h/v%2Camqp%3A%2F%2Fu%3A5ECRET%40h2", "user:password@host"),
        ("AMQP_URL", ",amqp://u:5ECRET@h1/", "empty entry in its list, beside h1:5672"),
        ("AMQP_URL", "amqp://u:5ECRET@h1/,,amqp://u:5ECRET@h2/", "beside h1:5672"),
        ("AMQP_URL", "amqp://u:5ECRET@h1/,", "beside h1:5672"),
        ("AMQP_URL", "amqp://u:5ECRET@h1/,amqp://u:5ECRET@H1:5672/", "names the node H1:5672 twice"),
        ("AMQP_URL", "amqp://u:5ECRET@h1/v,amqp://u:5ECRET@h2/w", "have one vhost"),
        ("DATABASE_URL", "postgres://u:5ECRET@h1,,h2/d", "empty host in its list, beside h1"),
        ("DATABASE_URL", "postgres://u:5ECRET@h1,h2:5433,h1:5432/d", "names the host h1:5432 twice"),
        ("PUBLIC_URL", "https://x.example/a b", "white space"),
        ("PUBLIC_URL", "https://5ECRET@x.example", "credentials"),
    ];
    for (name, value, part) in cases {
        let printed = run(&[(name.to_owned(), value.to_owned())], &["worker"]).fails(2);
        let line = printed
            .lines()
            .find(|line| line.contains(&format!("{name}: ")))
            .unwrap_or_else(|| panic!("{printed}"));
        let shown = ["5EC", "R3T"].into_iter().any(|part| printed.contains(part));
        assert!(line.contains(part) && !shown, "{value}: {printed}");
    }
}

#[tokio::test]
async fn url_parameters_that_are_not_obeyed_are_warned_of_once_and_without_their_values() {
    let world = Setup::default().without_worker().await;
    let database = format!("{}?sslpassword=5ECRET&keepalives=1&application_name=mine", world.database.url);
    let broker = format!("{}?cacertfile=5ECRET&heartbeat=30", broker_server());
    let mut worker = world.spawn(&[("DATABASE_URL", &database), ("AMQP_URL", &broker)]);
    worker.ready().await;
    let ours: i64 = world
        .database
        .value("select count(*) from pg_stat_activity where application_name = 'mine' and datname = current_database()")
        .await;
    assert!(ours > 0, "application_name is obeyed");
    assert!(worker.stop().success());
    let log = worker.log();
    for names in ["sslpassword, keepalives", "cacertfile"] {
        assert_eq!(log.matches(names).count(), 1, "{names}: {log}");
    }
    assert!(!log.contains("5ECRET"), "{log}");
}

/// A port of this machine on which nothing listens.
fn closed_port() -> u16 {
    let address: std::net::SocketAddr = free_address().parse().expect("an address");
    address.port()
}

#[tokio::test]
async fn of_several_nodes_a_working_one_is_used() {
    let world = Setup::default().without_worker().await;
    let mut url = url::Url::parse(&world.database.url).unwrap();
    let working = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    url.set_host(Some("nodes.invalid")).unwrap();
    let _ = url.set_port(None);
    let hosts = format!("127.0.0.1:{},{working},[::1]:{}", closed_port(), closed_port());
    let database = url.as_str().replace("nodes.invalid", &hosts);
    let broker = format!(
        "amqp://guest:guest@127.0.0.1:{}/,{},amqp://[::1]:{}/",
        closed_port(),
        broker_server(),
        closed_port()
    );
    let mut worker = world.spawn(&[("DATABASE_URL", &database), ("AMQP_URL", &broker)]);
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_node_that_takes_no_writes_is_not_used() {
    let world = Setup::default().without_worker().await;
    let name = world.database.value::<String>("select current_database()::text").await;
    world.database.execute(&format!("alter database {name} set default_transaction_read_only = on")).await;
    let wanted = format!("{}?target_session_attrs=read-write", world.database.url);
    let mut worker = world.spawn(&[("DATABASE_URL", &wanted)]);
    worker.logs("it is read-only").await;
    let writes = "set default_transaction_read_only = off";
    world.database.execute(&format!("{writes}; alter database {name} {writes}")).await;
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_public_url_may_have_its_scheme_in_capitals() {
    let world = Setup::default().group(&[]).without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(GROUP, &[]);
    let mut worker = world.spawn(&[("PUBLIC_URL", "HTTPS://x.example/Path/")]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    let text = world.database.session().await.invitation_text.unwrap();
    assert!(text.contains("https://x.example/Path/s/"), "{text}");
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_group_with_a_bad_template_does_not_affect_other_groups() {
    let world = World::start().await;
    for column in ["template = '{bad'", "template = '{link}', link = 'no url'"] {
        world.expect_error("templates are unusable");
        world.database.execute(&format!("update groups set {column}")).await;
        let mut worker = world.spawn(&[]);
        worker.ready().await;
        worker.logs("templates are unusable").await;
        assert!(worker.stop().success());
        assert!(!worker.log().contains("SECRETS_KEY"), "{}", worker.log());
    }
    // A later release may write such an option.
    world.expect_error("an option of group 73 that cannot be read");
    world.add_group(73, &[]);
    let other = "alter table groups drop constraint groups_phone_check_check; update groups set phone_check = 'other' where id = 73;
                 update groups set template = '{key}', link = null where id = 72";
    world.database.execute(other).await;
    world.invite(&world.request()).await.sent();
}

#[tokio::test]
async fn secrets_reseal_moves_everything_to_the_new_key_while_a_worker_runs() {
    let mut world = World::start().await;
    world.run(&["groups", "rotate-key", "72", "--jwt-secret", "a second secret, long enough to be one"]).ok();
    world.stop_worker();
    let (old, new) = (world.secrets_key(), BASE64_STANDARD.encode([7_u8; 32]));
    let both = world.environment(&[("SECRETS_KEY", &format!("{new},{old}"))]);
    let mut worker = world.spawn(&[("SECRETS_KEY", &format!("{new},{old}"))]);
    worker.ready().await;

    let planned = run(&both, &["secrets", "reseal", "--dry-run"]).ok();
    assert!(planned.contains("must stay"), "{planned}");
    until("doctor names the command", || async {
        run(&both, &["doctor"]).stdout.contains("session-invite secrets reseal").then_some(())
    })
    .await;
    let done = run(&both, &["secrets", "reseal", "--json"]).json();
    assert_eq!((&done["older"], &done["lost"]), (&0.into(), &0.into()), "{done}");
    assert!(done["sealed"].as_u64() >= Some(3), "{done}");
    let again = run(&both, &["secrets", "reseal"]).ok();
    assert!(again.contains("may go"), "{again}");
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    // With the new key alone.
    let mut worker = world.spawn(&[("SECRETS_KEY", &new)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
    // The old key alone opens nothing any more, and the command reports it.
    let lost = run(&world.environment(&[("SECRETS_KEY", &old)]), &["secrets", "reseal"]);
    let first = lost.stdout.lines().next().unwrap_or_default();
    assert_eq!(lost.code, Some(1), "{lost:?}");
    for text in [first, &lost.stderr] {
        assert!(text.contains("are opened by no key of SECRETS_KEY"), "{lost:?}");
        assert!(text.contains("groups 72") && text.contains("the key of the opt-outs"), "{lost:?}");
    }
    assert!(!lost.stdout.contains("All") && !lost.stdout.contains("may go"), "{lost:?}");
}

#[tokio::test]
async fn a_key_in_use_is_refused_in_every_form() {
    use sha2::Digest as _;
    let world = World::start().await;
    let folder = Folder::new();
    let long = "k".repeat(65);
    world.run(&["groups", "add", "73", "--api-key", &long]).ok();
    let hashed = sha2::Sha256::digest(long.as_bytes());
    let padded = format!("{}\0", world.api_key);
    let file = folder.0.join("key");
    for key in [padded.as_bytes(), hashed.as_slice()] {
        fs::write(&file, key).unwrap();
        let refused = world.run(&["groups", "add", "74", "--api-key", &format!("@{}", file.display())]);
        assert_ne!(refused.code, Some(0), "{refused:?}");
    }
    for (command, flag) in [
        (["groups", "add", "74"], "--api-key"),
        (["groups", "add", "74"], "--jwt-secret"),
        (["groups", "rotate-key", "73"], "--api-key"),
        (["groups", "rotate-key", "73"], "--jwt-secret"),
    ] {
        for key in ["\u{feff}a new key", "a new key \n", "a new\u{200b} key"] {
            fs::write(&file, key).unwrap();
            let value = format!("@{}", file.display());
            let args: Vec<_> = command.into_iter().chain([flag, &value]).collect();
            let refused = world.run(&args).fails(2);
            assert!(
                refused.contains(&format!("{flag}: the secret has ")) && !refused.contains("new"),
                "{refused}"
            );
        }
    }
    let refused = world.run(&["groups", "add", "74", "--api-key", &world.api_key]).fails(1);
    assert!(refused.contains("in use by group 72"), "{refused}");
}

#[tokio::test]
async fn no_setting_is_logged_at_any_level() {
    let mut world = World::start().await;
    world.stop_worker();
    for secret in ["5ECRET-of-the-database", "5ECRET-of-the-broker", "5ECRET-of-a-parameter"] {
        world.is_secret(secret);
    }
    let mut database = url::Url::parse(&world.database.url).unwrap();
    database.set_password(Some("5ECRET-of-the-database")).unwrap();
    let database = format!("{database}?sslpassword=5ECRET-of-a-parameter");
    let mut worker = world.spawn(&[("DATABASE_URL", &database), ("RUST_LOG", "trace")]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    let mut worker = world.start_worker().await;
    let mut gateway = world.start_gateway(&[("DATABASE_URL", &database), ("RUST_LOG", "trace")]).await;
    send(gateway.invite(&world)).await.ok();
    let row = world.database.sessions().await.pop().unwrap();
    let page = send(gateway.request("GET", &format!("/s/{}", row.token()))).await;
    assert_eq!(page.status, 200);
    assert!(gateway.process.stop().success() && worker.stop().success());

    let tunnel = Tunnel::closed(&broker_server());
    let mut broker = url::Url::parse(&tunnel.url).unwrap();
    broker.set_password(Some("5ECRET-of-the-broker")).unwrap();
    broker.set_query(Some("cacertfile=5ECRET-of-a-parameter"));
    let mut worker = world.spawn(&[("AMQP_URL", broker.as_str()), ("RUST_LOG", "trace")]);
    worker.logs("the broker is away").await;
    assert!(worker.stop().success());
    tunnel.open();
    let refused =
        run(&world.environment(&[("AMQP_URL", broker.as_str()), ("RUST_LOG", "trace")]), &["worker"])
            .fails(1);
    assert!(!refused.contains("5ECRET"), "{refused}");
}

/// The URL of a service with another login and another database or virtual host.
fn with_login(url: &str, login: &str, name: &str) -> String {
    let url = url::Url::parse(url).expect("a service has a URL");
    let host = url.host_str().expect("a service has a host");
    format!("{}://{login}@{host}:{}/{name}", url.scheme(), url.port().unwrap_or(5672))
}

#[tokio::test]
async fn a_password_is_not_printed_in_any_encoding() {
    let world = Setup::default().without_worker().await;
    let user = url::Url::parse(&world.database.url).unwrap().username().to_owned();
    for spelled in ["5ECRET", "%35ECRET", "5%45CRET%2f", "5ECRET%40h%3A1", "%35%45%43%52%45%54"] {
        let broker = with_login(&broker_server(), &format!("guest:{spelled}"), "%2f");
        let database = with_login(&world.database.url, &format!("{user}:{spelled}"), "no%20such");
        for (variable, url, part) in
            [("AMQP_URL", &broker, "ACCESS_REFUSED"), ("DATABASE_URL", &database, "DATABASE_URL")]
        {
            let ran = run(&world.environment(&[(variable, url), ("RUST_LOG", "trace")]), &["worker"]);
            let stdout = ran.stdout.clone();
            let printed = format!("{stdout}{}", ran.fails(1));
            assert!(printed.contains(part), "{url}: {printed}");
            assert!(!printed.contains("5ECRET") && !printed.contains(spelled), "{url}: {printed}");
        }
    }
}

#[tokio::test]
async fn masking_a_password_does_not_change_the_rest_of_an_error() {
    let world = Setup::default().without_worker().await;
    let user = url::Url::parse(&world.database.url).unwrap().username().to_owned();
    let cases = [
        ("AMQP_URL", with_login(&broker_server(), "guest:", "%2f"), "ACCESS_REFUSED"),
        ("AMQP_URL", with_login(&broker_server(), "unknown:unknown", "%2f"), "ACCESS_REFUSED"),
        ("AMQP_URL", with_login(&broker_server(), "guest:guest", "guest"), "vhost guest not found"),
        ("DATABASE_URL", with_login(&world.database.url, &format!("{user}:"), "nothing"), "\"nothing\""),
        (
            "DATABASE_URL",
            with_login(&world.database.url, &format!("{user}:nothing"), "nothing"),
            "\"nothing\"",
        ),
        (
            "DATABASE_URL",
            with_login(&world.database.url, &format!("{user}:{user}"), "nothing"),
            "\"nothing\"",
        ),
    ];
    for (variable, url, part) in cases {
        let printed =
            run(&world.environment(&[(variable, &url), ("RUST_LOG", "trace")]), &["worker"]).fails(1);
        let login = &url[url.find("://").unwrap()..=url.find('@').unwrap()];
        assert!(printed.contains(part) && !printed.contains(login), "{url}: {printed}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let mut command = program(&[]);
    command.arg("worker").env("TWILIO_AUTH_TOKEN", OsStr::from_bytes(b"5ECRET\xff"));
    let printed = result_of(command).fails(2);
    assert!(printed.contains("TWILIO_AUTH_TOKEN: is not UTF-8") && !printed.contains("5ECRET"), "{printed}");
    let mut command = program(&[("DATABASE_URL".to_owned(), "postgres://u@h/d".to_owned())]);
    command.arg("worker").env("PGPASSWORD", OsStr::from_bytes(b"5ECRET\xff"));
    let printed = result_of(command).fails(2);
    assert!(printed.contains("PGPASSWORD: is not UTF-8") && !printed.contains("5ECRET"), "{printed}");
    let printed = run(&[("TOKIO_WORKER_THREADS".to_owned(), "5ECRET".to_owned())], &["worker"]).fails(2);
    assert!(printed.contains("TOKIO_WORKER_THREADS: ") && !printed.contains("5ECRET"), "{printed}");
}

#[test]
fn a_wrong_command_line_shows_no_value_of_a_secret_flag() {
    for args in [
        &["worker", "--databse-url=postgres://u:5ECRET@h/d"][..],
        &["worker", "--twilio-auth-token", "a", "5ECRET"],
        &["worker", "--twilio-auth-token=a", "5ECRET"],
        &["worker", "--database-url", "postgres://u:a", "5ECRET@h/d"],
        &["worker", "--secrets-key", "a", "--secrets-key", "5ECRET"],
        &["groups", "add", "72", "--api-key", "a", "5ECRET"],
        &["groups", "add", "72", "--api-key", "-5ECRET"],
        &["groups", "add", "72", "--jwt-secret", "-5ECRET"],
    ] {
        let ran = run(&[], args);
        assert_eq!(ran.code, Some(2), "{args:?} {ran:?}");
        assert!(!ran.stderr.contains("5ECRET") && !ran.stdout.contains("5ECRET"), "{args:?} {ran:?}");
    }
}

/// `config show` in this folder, with these variables only; each setting's value and source, by its name.
fn shown_in(
    folder: &Path,
    environment: &[(&str, &str)],
    args: &[&str],
) -> (CommandResult, BTreeMap<String, (Value, Value)>) {
    let environment: Vec<_> = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut command = program(&environment);
    command.current_dir(folder).args(["config", "show", "--json"]).args(args);
    let result = result_of(command);
    let views: Value =
        serde_json::from_str(&result.stdout).unwrap_or_else(|error| panic!("{error}: {result:?}"));
    let settings = views[0]["settings"].as_array().expect("settings").iter();
    let by_name = settings.map(|setting| {
        let name = setting["name"].as_str().expect("a name").to_owned();
        (name, (setting["value"].clone(), setting["from"].clone()))
    });
    (result, by_name.collect())
}

/// Settings with a secret in each place that may have one.
const SECRETS: [(&str, &str); 10] = [
    ("DATABASE_URL", "postgres://app:hunter2@[::1]:5433,db2/invites?sslmode=require"),
    ("PGPASSWORD", "hunter2"),
    ("AMQP_URL", "amqp://app:hunter2@mq1/%2f,amqp://app:hunter2@mq2:5673/%2f"),
    ("SECRETS_KEY", "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ="),
    ("TWILIO_ACCOUNT_SID", "AC1"),
    ("TWILIO_API_KEY", "SKhunter2"),
    ("TWILIO_API_SECRET", "hunter2"),
    ("SMS_FROM", "+15550001111"),
    ("PUBLIC_URL", "https://invite.example/"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2"),
];

#[test]
fn config_show_has_each_setting_its_value_and_its_source_and_no_secret() {
    let folder = Folder::with_dotenv("SMS_TIMEOUT=7s\nPREFETCH=5\n", 0o600);
    let environment = [&SECRETS[..], &[("PREFETCH", "40"), ("SMS_PER_SECOND", "")]].concat();
    let (result, worker) = shown_in(&folder.0, &environment, &["worker", "--sms-concurrency", "9"]);
    assert_eq!(result.code, Some(0), "{result:?}");
    for (name, value, from) in [
        ("SMS_CONCURRENCY", json!("9"), json!("flag")),
        ("PREFETCH", json!("40"), json!("environment")),
        ("SMS_TIMEOUT", json!("7s"), json!("file")),
        ("RETENTION", json!("2y"), json!("default")),
        ("LOG_FORMAT", json!("text"), json!("default")),
        ("SMS_PER_SECOND", Value::Null, Value::Null),
        ("SMS_FROM", json!("+15550001111"), json!("environment")),
        (
            "DATABASE_URL",
            json!("postgres://app@[::1]:5433,db2:5432/invites?sslmode=require"),
            json!("environment"),
        ),
        ("AMQP_URL", json!("amqp://app@mq1:5672/%2f,amqp://app@mq2:5673/%2f"), json!("environment")),
        ("PGPASSWORD", json!("[masked]"), json!("environment")),
        ("SECRETS_KEY", json!("[masked]"), json!("environment")),
        ("TWILIO_API_SECRET", json!("[masked]"), json!("environment")),
    ] {
        assert_eq!(worker[name], (value, from), "{name}");
    }
    let (all, gateway) = shown_in(&folder.0, &environment, &["gateway"]);
    assert_eq!(gateway["GATEWAY_TIMEOUT"], (json!("30s"), json!("default")));
    assert!(!gateway.contains_key("PREFETCH"), "{gateway:?}");
    // A default that follows another setting. An empty variable counts as unset, and hides that of the file.
    let follows = [&SECRETS[..], &[("SMS_CONCURRENCY", "900"), ("PREFETCH", "")]].concat();
    let (_, follows) = shown_in(&folder.0, &follows, &["worker"]);
    assert_eq!(follows["PREFETCH"], (json!("1800"), json!("default")));

    let both = run(
        &environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>(),
        &["config", "show"],
    );
    for printed in [result, all, both] {
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let text = format!("{}{}", printed.stdout, printed.stderr);
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVy"), "{text}");
    }
}

#[test]
fn config_show_lists_all_faults_and_shows_no_wrong_value() {
    let folder = Folder::new();
    let wrong =
        [&SECRETS[3..], &[("PREFETCH", "hunter2"), ("AMQP_URL", "hunter2"), ("RETENTION", "1h")]].concat();
    let (result, shown) = shown_in(&folder.0, &wrong, &["worker"]);
    assert_eq!(result.code, Some(2), "{result:?}");
    let faults: Value = serde_json::from_str(&result.stdout).unwrap();
    let faults: Vec<_> =
        faults[0]["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect();
    for name in ["DATABASE_URL", "AMQP_URL", "PREFETCH", "RETENTION"] {
        assert!(faults.iter().any(|fault| fault.starts_with(name)), "{name}: {faults:?}");
    }
    assert_eq!(shown["PREFETCH"].0, json!("[masked]: it is wrong"));
    assert_eq!(shown["DATABASE_URL"], (Value::Null, Value::Null));
    let text = format!("{}{}", result.stdout, result.stderr);
    assert!(!text.contains("hunter2"), "{text}");
}

/// A folder with a file for each of these secrets, and the variables that name the files.
fn secrets_in_files(folder: &Folder, secrets: &[(&str, &str)]) -> Vec<(String, String)> {
    let in_file = |(name, secret): &(&str, &str)| {
        let path = folder.0.join(name);
        std::fs::write(&path, format!("{secret}\n")).expect("the file is written");
        (format!("{name}_FILE"), path.display().to_string())
    };
    secrets.iter().map(in_file).collect()
}

#[tokio::test]
async fn a_worker_a_gateway_and_commands_take_their_secrets_from_files() {
    let world = Setup::default().without_worker().await;
    let folder = Folder::new();
    let own = world.environment(&[]);
    let value = |name: &str| own.iter().find(|(own, _)| own == name).expect("it is set").1.clone();
    let names = ["DATABASE_URL", "AMQP_URL", "SECRETS_KEY", "TWILIO_AUTH_TOKEN"];
    let values = names.map(|name| (name, value(name)));
    let files = secrets_in_files(&folder, &values.each_ref().map(|(name, value)| (*name, value.as_str())));
    let emptied = names.map(|name| (name.to_owned(), String::new()));
    let changes: Vec<_> = files.iter().chain(&emptied).map(|(n, v)| (n.as_str(), v.as_str())).collect();

    let environment = world.environment(&changes);
    run(&environment, &["migrate"]).ok();
    run(&environment, &["groups", "add", "72", "--api-key", "a-key-of-the-group"]).ok();
    let mut worker = world.spawn(&changes);
    worker.ready().await;
    let mut gateway = world.spawn_gateway(&changes).await;
    gateway.process.ready().await;
    doctor(&environment, Some(0), &[]).await;
    assert!(worker.stop().success() && gateway.process.stop().success());

    let shown = run(&environment, &["config", "show", "worker", "--json"]);
    let views: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let settings = views[0]["settings"].as_array().expect("settings");
    let from = |name: &str| settings.iter().find(|setting| setting["name"] == name).expect("it is shown");
    assert_eq!(from("SECRETS_KEY")["from"], "secret_file");
    assert_eq!(from("SECRETS_KEY")["value"], "[masked]");
    assert_eq!(from("SECRETS_KEY_FILE")["value"], files[2].1.as_str());
    assert_eq!(from("SECRETS_KEY_FILE")["from"], "environment");
    assert!(!format!("{shown:?}").contains(&value("SECRETS_KEY")), "{shown:?}");
}

#[test]
fn each_fault_of_a_secrets_file_is_listed_and_shows_nothing_of_it() {
    const NAMES: [&str; 8] = [
        "DATABASE_URL",
        "AMQP_URL",
        "SECRETS_KEY",
        "TWILIO_AUTH_TOKEN",
        "TWILIO_API_KEY",
        "TWILIO_API_SECRET",
        "CONSOLE_TOKEN",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ];
    let folder = Folder::new();
    let missing = NAMES.map(|name| (format!("{name}_FILE"), format!("/no-such-folder/{name}")));
    let complaint = run(&missing, &["worker"]).fails(2);
    // Only the gateway has a console.
    for (variable, path) in missing.iter().filter(|(variable, _)| variable != "CONSOLE_TOKEN_FILE") {
        let line = format!("{variable}: {path} cannot be read: No such file");
        assert_eq!(complaint.matches(&line).count(), 1, "{line}:\n{complaint}");
    }
    assert!(!complaint.contains("DATABASE_URL: is not set"), "{complaint}");
    let complaint = run(&missing, &["gateway"]).fails(2);
    for name in NAMES[..4].iter().chain(&["CONSOLE_TOKEN"]) {
        assert!(complaint.contains(&format!("{name}_FILE: /no-such-folder")), "{name}:\n{complaint}");
    }

    // Both, and a path that is the secret. A command that does not need them runs.
    let mut both = secrets_in_files(&folder, &[("SECRETS_KEY", "hunter2")]);
    both.push(("SECRETS_KEY".to_owned(), "hunter2".to_owned()));
    both.push(("AMQP_URL_FILE".to_owned(), "amqp://u:hunter2@h/".to_owned()));
    let shown = run(&both, &["config", "show"]);
    for line in ["SECRETS_KEY: is set, and SECRETS_KEY_FILE too", "AMQP_URL_FILE: must be the absolute path"]
    {
        assert!(shown.stderr.contains(line) && shown.stdout.contains(line), "{line}: {shown:?}");
    }
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
    run(&both, &["completions", "bash"]).ok();
    let mut database = secrets_in_files(&folder, &[("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d")]);
    database.extend(both);
    let complaint = run(&database, &["sessions", "list"]).fails(1);
    assert!(complaint.contains("127.0.0.1:1") && !complaint.contains("hunter2"), "{complaint}");
}
