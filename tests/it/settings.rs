//! What operators set: `.env`, addresses, log filters, links and the sealing key; and that none of it is printed.

use crate::support::{GROUP, Ran, Setup, Tunnel, World, broker_server, program, run, send};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("session-invite-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(path.join("below")).expect("a folder can be made");
        Self(path)
    }

    fn with(env: impl AsRef<[u8]>, mode: u32) -> Self {
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

fn ran(mut command: Command) -> Ran {
    let output = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 is printed");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// `worker` in this folder, with these variables only: it ends, as settings are missing.
fn worker_in(folder: &Path, environment: &[(&str, &str)]) -> String {
    let environment: Vec<_> = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut command = program(&environment);
    command.current_dir(folder).arg("worker");
    ran(command).fails(2)
}

#[test]
fn a_dotenv_file_is_read_as_it_stands_and_the_environment_wins() {
    let text = "\u{feff}# settings\r\nexport TWILIO_ACCOUNT_SID='AC$HOME'\r\nPREFETCH=\"0\" # none\r\nSMS_CONCURRENCY=0\r\n";
    let folder = Folder::with(text, 0o600);
    let said = worker_in(&folder.0, &[("HOME", ""), ("SMS_CONCURRENCY", "7"), ("RUST_LOG", "warn")]);
    // Without the literal $ the account would be a good one.
    assert!(said.contains("TWILIO_ACCOUNT_SID: must be letters") && said.contains("PREFETCH: "), "{said}");
    assert!(!said.contains("SMS_CONCURRENCY") && !said.contains("everybody"), "{said}");

    let below = worker_in(&folder.0.join("below"), &[]);
    assert!(!below.contains("PREFETCH") && below.contains("AMQP_URL: is not set"), "{below}");
}

#[test]
fn a_dotenv_file_that_everybody_may_read_is_warned_of() {
    for (mode, warned) in [(0o644, true), (0o604, true), (0o600, false), (0o640, false)] {
        let folder = Folder::with("PREFETCH=1\n", mode);
        let said = worker_in(&folder.0, &[]);
        assert_eq!(said.contains("chmod 600 .env"), warned, "{mode:o}: {said}");
    }
}

#[test]
fn a_line_of_a_dotenv_file_that_cannot_be_read_is_named_and_not_shown() {
    let cases: [(&[u8], &str); 9] = [
        (b"A=1\nTOKEN='5ECRET\n5ECRET2='5ECRET3'\n", ".env, line 2, TOKEN: "),
        (b"TOKEN=\"5ECRET\n5ECRET\"\n", ".env, line 1, TOKEN: "),
        (b"TOKEN=5ECRET 5ECRET\n", ".env, line 1, TOKEN: "),
        (b"export TOKEN=5EC\\RET\n", ".env, line 1, TOKEN: "),
        (b"TOKEN=\"5EC\\$RET\"\n", ".env, line 1, TOKEN: "),
        (b"TOKEN='5ECRET'5ECRET\n", ".env, line 1, TOKEN: "),
        (b"\n\nTOKEN=5ECRET\xff\n", ".env, line 3, TOKEN: "),
        (b"5ECRET\n", ".env, line 1: "),
        (b"TOKEN = 5ECRET\n", ".env, line 1, TOKEN: "),
    ];
    for (text, place) in cases {
        let folder = Folder::with(text, 0o600);
        let said = worker_in(&folder.0, &[]);
        assert!(said.contains(place) && !said.contains("ECRET"), "{place} {said}");
    }
}

#[test]
fn help_the_version_and_completions_need_no_dotenv_file() {
    let folder = Folder::with("TOKEN='5ECRET\n", 0o600);
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
        let said = ran(command).ok();
        assert!(said.contains("session-invite"), "{args:?}: {said}");
    }
    let mut command = program(&[]);
    command.current_dir(&folder.0).args(["groups", "list"]);
    assert!(ran(command).fails(2).contains(".env, line 1, TOKEN: "));
}

#[test]
fn the_log_of_the_broker_s_client_is_asked_for_in_vain() {
    for filter in ["lapin", "off,lapin=trace", "info,lapin::channel=debug"] {
        let said = run(&[("RUST_LOG".to_owned(), filter.to_owned())], &["worker"]).fails(2);
        assert!(said.contains("RUST_LOG names lapin"), "{filter}: {said}");
    }
}

#[test]
fn a_wrong_variable_of_libpqs_is_named_itself() {
    for (variable, value) in [
        ("PGPORT", "5ECRET"),
        ("PGSSLMODE", "5ECRET"),
        ("PGSSLCERT", "/5ECRET"),
        ("PGOPTIONS", "5ECRET"),
        ("PGCONNECT_TIMEOUT", "5ECRET"),
    ] {
        let environment = [("DATABASE_URL", "postgres://u@h/d"), (variable, value)]
            .map(|(n, v)| (n.to_owned(), v.to_owned()));
        let said = run(&environment, &["worker"]).fails(2);
        let named = said.contains(&format!("{variable}: ")) && !said.contains("DATABASE_URL");
        assert!(named && !said.contains("5ECRET"), "{variable}: {said}");
    }
}

/// What libpq's variables say in a place where they were set for something else.
fn of_something_else(database: &str) -> Vec<(&'static str, String)> {
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

/// The database's URL with a login and a query of its own, for what libpq's variables could otherwise say.
fn whole(url: &str, query: &str) -> String {
    let mut url = url::Url::parse(url).expect("a service has a URL");
    if url.password().is_none() {
        url.set_password(Some("anything")).expect("a password can be set");
    }
    url.set_query(Some(query));
    url.into()
}

#[tokio::test]
async fn libpqs_variables_change_nothing_that_the_url_says() {
    let world = Setup::default().without_worker().await;
    world.is_secret("5ECRET");
    let query = "sslmode=disable&application_name=mine&options=-c%20geqo%3Doff&connect_timeout=5&target_session_attrs=any";
    let url = whole(&world.database.url, query);
    let mut changes = of_something_else("none");
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
async fn libpqs_variables_say_what_the_url_leaves_out_and_empty_ones_nothing() {
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
    let url = whole(&world.database.url, query);
    let mut empty: Vec<_> = of_something_else("").into_iter().map(|(name, _)| (name, "")).collect();
    empty.push(("DATABASE_URL", &url));
    let mut worker = world.spawn(&empty);
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_setting_that_the_server_does_not_take_ends_the_start() {
    let world = Setup::default().without_worker().await;
    let wrong =
        ["-c 5ECRET=1", "-c statement_timeout=5ECRET", "-c shared_buffers=5", "--enable-seqscan=5ECRET"];
    for options in wrong {
        let mut url = url::Url::parse(&world.database.url).unwrap();
        url.query_pairs_mut().append_pair("options", options);
        // A plus is a plus there.
        let url = url.as_str().replace('+', "%20");
        for command in ["worker", "gateway", "migrate"] {
            let environment = world.environment(&[("DATABASE_URL", &url), ("GATEWAY_ADDR", "127.0.0.1:0")]);
            let said = run(&environment, &[command]).fails(1);
            let expected = "DATABASE_URL: the server does not take a setting in its options";
            assert!(said.contains(expected) && !said.contains("5ECRET"), "{command} {options}: {said}");
        }
    }
    let said = run(&world.environment(&[("PGOPTIONS", "-c statement_timeout=5ECRET")]), &["worker"]).fails(1);
    assert!(said.contains("PGOPTIONS: the server does not take") && !said.contains("5ECRET"), "{said}");
}

#[tokio::test]
async fn one_address_for_visitors_and_operators_ends_the_gateway_s_start() {
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
        let said = run(&environment, &["gateway"]).fails(2);
        assert!(said.contains("GATEWAY_ADDR: ") && said.contains("HTTP_ADDR"), "{said}");
    }
}

#[test]
fn a_word_in_the_log_filter_that_means_nothing_ends_the_start() {
    let complaint = |filter: &str| run(&[("RUST_LOG".to_owned(), filter.to_owned())], &["worker"]).fails(2);
    for bad in ["erorr", "info,5ECRET", "session-invite", "warning", "debug info", "proptest", "windows_sys"]
    {
        let said = complaint(bad);
        assert!(said.contains("RUST_LOG: ") && !said.contains("5ECRET"), "{bad}: {said}");
    }
    for good in ["", "OFF", "session_invite", "sqlx,warn", "warn,session_invite::queue=debug"] {
        let said = complaint(good);
        assert!(!said.contains("RUST_LOG") && said.contains("AMQP_URL: is not set"), "{good}: {said}");
    }
}

#[test]
fn a_wrong_url_is_an_error_that_names_the_parameter_and_shows_no_value() {
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
        ("PUBLIC_URL", "https://x.example/a b", "white space"),
        ("PUBLIC_URL", "https://5ECRET@x.example", "credentials"),
    ];
    for (name, value, part) in cases {
        let said = run(&[(name.to_owned(), value.to_owned())], &["worker"]).fails(2);
        let line =
            said.lines().find(|line| line.contains(&format!("{name}: "))).unwrap_or_else(|| panic!("{said}"));
        let shown = ["5EC", "R3T"].into_iter().any(|part| said.contains(part));
        assert!(line.contains(part) && !shown, "{value}: {said}");
    }
}

#[tokio::test]
async fn parameters_that_are_not_obeyed_are_named_once_and_without_their_values() {
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

/// A port of this machine on which nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

#[tokio::test]
async fn of_several_nodes_one_that_works_is_used() {
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
    worker.says("it is read-only").await;
    let writes = "set default_transaction_read_only = off";
    world.database.execute(&format!("{writes}; alter database {name} {writes}")).await;
    worker.ready().await;
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_public_url_with_a_scheme_in_capitals_is_as_good_as_another() {
    let world = Setup::default().group(&[]).without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(GROUP, &[]);
    let mut worker = world.spawn(&[("PUBLIC_URL", "HTTPS://x.example/Path/")]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    let text = world.database.session().await["invitation_text"].to_string();
    assert!(text.contains("https://x.example/Path/s/"), "{text}");
    assert!(worker.stop().success());
}

#[tokio::test]
async fn a_group_with_a_bad_template_is_its_own_problem() {
    let world = World::start().await;
    for column in ["template = '{bad'", "template = '{link}', link = 'no url'"] {
        world.expect_error("templates are unusable");
        world.database.execute(&format!("update groups set {column}")).await;
        let mut worker = world.spawn(&[]);
        worker.ready().await;
        worker.says("templates are unusable").await;
        assert!(worker.stop().success());
        assert!(!worker.log().contains("SECRETS_KEY"), "{}", worker.log());
    }
    // As a release to come may write it.
    world.expect_error("an option of group 73 that cannot be read");
    world.add_group(73, &[]);
    let other = "alter table groups drop constraint groups_phone_check_check; update groups set phone_check = 'other' where id = 73;
                 update groups set template = '{key}', link = null where id = 72";
    world.database.execute(other).await;
    world.invite(&world.request()).await.sent();
}

/// The world's key, and another.
fn keys(world: &World) -> (String, String) {
    let old = world
        .environment(&[])
        .into_iter()
        .find(|(name, _)| name == "SECRETS_KEY")
        .expect("the world has a key")
        .1;
    (old, BASE64_STANDARD.encode([7_u8; 32]))
}

#[tokio::test]
async fn everything_is_sealed_anew_while_a_worker_runs_and_then_the_old_key_may_go() {
    let mut world = World::start().await;
    world.run(&["groups", "rotate-key", "72", "--jwt-secret", "a second secret, long enough to be one"]).ok();
    assert!(world.take_worker().stop().success());
    let (old, new) = keys(&world);
    let both = world.environment(&[("SECRETS_KEY", &format!("{new},{old}"))]);
    let mut worker = world.spawn(&[("SECRETS_KEY", &format!("{new},{old}"))]);
    worker.ready().await;

    let planned = run(&both, &["secrets", "reseal", "--dry-run"]).ok();
    assert!(planned.contains("must stay"), "{planned}");
    let doctor = run(&both, &["doctor"]).stdout;
    assert!(doctor.contains("session-invite secrets reseal"), "{doctor}");
    let done = run(&both, &["secrets", "reseal", "--json"]).json();
    assert_eq!((&done["older"], &done["lost"]), (&0.into(), &0.into()), "{done}");
    assert!(done["sealed"].as_u64() >= Some(3), "{done}");
    let again = run(&both, &["secrets", "reseal"]).ok();
    assert!(again.contains("may go"), "{again}");
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());

    // The new one alone.
    let mut worker = world.spawn(&[("SECRETS_KEY", &new)]);
    worker.ready().await;
    world.invite(&world.request()).await.sent();
    assert!(worker.stop().success());
    // The old one alone opens nothing any more, and says so.
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
async fn a_key_in_use_is_refused_however_it_is_written() {
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
            let refused = world.run(&args).fails(1);
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
    assert!(world.take_worker().stop().success());
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
    let token = world.database.sessions().await.pop().unwrap()["token"].clone();
    let page = send(gateway.request("GET", &format!("/s/{}", token.as_str().unwrap()))).await;
    assert_eq!(page.status, 200);
    assert!(gateway.process.stop().success() && worker.stop().success());

    let tunnel = Tunnel::closed(&broker_server());
    let mut broker = url::Url::parse(&tunnel.url).unwrap();
    broker.set_password(Some("5ECRET-of-the-broker")).unwrap();
    broker.set_query(Some("cacertfile=5ECRET-of-a-parameter"));
    let mut worker = world.spawn(&[("AMQP_URL", broker.as_str()), ("RUST_LOG", "trace")]);
    worker.says("the broker is away").await;
    assert!(worker.stop().success());
    tunnel.open();
    let refused =
        run(&world.environment(&[("AMQP_URL", broker.as_str()), ("RUST_LOG", "trace")]), &["worker"])
            .fails(1);
    assert!(!refused.contains("5ECRET"), "{refused}");
}

/// The URL of a service with another login and name.
fn with(url: &str, login: &str, name: &str) -> String {
    let url = url::Url::parse(url).expect("a service has a URL");
    let host = url.host_str().expect("a service has a host");
    format!("{}://{login}@{host}:{}/{name}", url.scheme(), url.port().unwrap_or(5672))
}

#[tokio::test]
async fn a_password_is_shown_in_no_spelling() {
    let world = Setup::default().without_worker().await;
    let user = url::Url::parse(&world.database.url).unwrap().username().to_owned();
    for spelled in ["5ECRET", "%35ECRET", "5%45CRET%2f", "5ECRET%40h%3A1", "%35%45%43%52%45%54"] {
        let broker = with(&broker_server(), &format!("guest:{spelled}"), "%2f");
        let database = with(&world.database.url, &format!("{user}:{spelled}"), "no%20such");
        for (variable, url, part) in
            [("AMQP_URL", &broker, "ACCESS_REFUSED"), ("DATABASE_URL", &database, "DATABASE_URL")]
        {
            let ran = run(&world.environment(&[(variable, url), ("RUST_LOG", "trace")]), &["worker"]);
            let stdout = ran.stdout.clone();
            let said = format!("{stdout}{}", ran.fails(1));
            assert!(said.contains(part), "{url}: {said}");
            assert!(!said.contains("5ECRET") && !said.contains(spelled), "{url}: {said}");
        }
    }
}

#[tokio::test]
async fn a_password_that_is_empty_or_equals_another_part_leaves_the_error_as_it_is() {
    let world = Setup::default().without_worker().await;
    let user = url::Url::parse(&world.database.url).unwrap().username().to_owned();
    let cases = [
        ("AMQP_URL", with(&broker_server(), "guest:", "%2f"), "ACCESS_REFUSED"),
        ("AMQP_URL", with(&broker_server(), "nobody:nobody", "%2f"), "ACCESS_REFUSED"),
        ("AMQP_URL", with(&broker_server(), "guest:guest", "guest"), "vhost guest not found"),
        ("DATABASE_URL", with(&world.database.url, &format!("{user}:"), "nothing"), "\"nothing\""),
        ("DATABASE_URL", with(&world.database.url, &format!("{user}:nothing"), "nothing"), "\"nothing\""),
        ("DATABASE_URL", with(&world.database.url, &format!("{user}:{user}"), "nothing"), "\"nothing\""),
    ];
    for (variable, url, part) in cases {
        let said = run(&world.environment(&[(variable, &url), ("RUST_LOG", "trace")]), &["worker"]).fails(1);
        let login = &url[url.find("://").unwrap()..=url.find('@').unwrap()];
        assert!(said.contains(part) && !said.contains(login), "{url}: {said}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let mut command = program(&[]);
    command.arg("worker").env("TWILIO_AUTH_TOKEN", OsStr::from_bytes(b"5ECRET\xff"));
    let said = ran(command).fails(2);
    assert!(said.contains("TWILIO_AUTH_TOKEN: is not UTF-8") && !said.contains("5ECRET"), "{said}");
    let mut command = program(&[("DATABASE_URL".to_owned(), "postgres://u@h/d".to_owned())]);
    command.arg("worker").env("PGPASSWORD", OsStr::from_bytes(b"5ECRET\xff"));
    let said = ran(command).fails(2);
    assert!(said.contains("PGPASSWORD: is not UTF-8") && !said.contains("5ECRET"), "{said}");
    let said = run(&[("TOKIO_WORKER_THREADS".to_owned(), "5ECRET".to_owned())], &["worker"]).fails(2);
    assert!(said.contains("TOKIO_WORKER_THREADS: ") && !said.contains("5ECRET"), "{said}");
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
