//! The least rights: all processes and commands work under the roles of deploy/postgres and the users of deploy/rabbitmq.

use crate::{
    console::{Browser, TOKEN},
    support::{Gateway, Message, Setup, World, broker_command, broker_server, doctor, run, send, until},
};
use serde_json::json;
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

const PASSWORD: &str = "of-a-test";

fn deploy(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// The roles and users of a world. Those of the database are named `{roles}_worker` and so on.
struct LeastRights<'a> {
    world: &'a World,
    roles: String,
}

impl<'a> LeastRights<'a> {
    /// With a schema that the migrator made, and queues that the operator declared.
    async fn new(world: &'a World) -> Self {
        let own = Self { world, roles: format!("r_{}", uuid::Uuid::new_v4().simple()) };
        let password = |role| format!("alter role {}_{role} password '{PASSWORD}';\n", own.roles);
        let passwords = ["migrator", "worker", "gateway", "operator"].map(password).concat();
        let sql = own.script("roles.sql") + &passwords;
        // The second run changes nothing.
        world.database.execute(&sql).await;
        world.database.execute(&sql).await;
        run(&own.environment("migrator", "operator"), &["migrate"]).ok();
        own.grant("rights.sql").await;
        for role in ["worker", "gateway", "operator"] {
            own.add_user(role, &[]);
            own.add_user(role, &[]);
        }
        run(&own.environment("operator", "operator"), &["topology", "declare"]).ok();
        own
    }

    /// A file of deploy/postgres for roles of this test alone: roles belong to the whole server.
    fn script(&self, name: &str) -> String {
        let path = deploy("postgres").join(name);
        let sql =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        sql.replace("session_invite_", &format!("{}_", self.roles))
    }

    /// Runs a file of rights as the role that owns the tables.
    async fn grant(&self, name: &str) {
        let rights = format!("set role {}_migrator; {} reset role", self.roles, self.script(name));
        self.world.database.execute(&rights).await;
    }

    fn add_user(&self, role: &str, environment: &[(&str, &str)]) {
        let mut command = Command::new(deploy("rabbitmq/users"));
        command.arg(role).env("QUEUE_PREFIX", &self.world.broker.prefix).stdin(Stdio::piped());
        command.envs(environment.iter().copied());
        command.env("RABBITMQCTL", broker_command().get_program());
        let mut child = command.spawn().expect("the script runs");
        writeln!(child.stdin.take().expect("a pipe"), "{PASSWORD}").expect("it reads the password");
        assert!(child.wait().expect("it ends").success());
    }

    /// The changes to the environment of a process with this role and this user.
    fn changes(&self, role: &str, user: &str) -> [(&'static str, String); 2] {
        let with = |server: &str, name: String| {
            let mut url = url::Url::parse(server).expect("a server has a URL");
            url.set_username(&name).expect("a user");
            url.set_password(Some(PASSWORD)).expect("a password");
            url.to_string()
        };
        [
            ("DATABASE_URL", with(&self.world.database.url, format!("{}_{role}", self.roles))),
            ("AMQP_URL", with(&broker_server(), format!("{}-{user}", self.world.broker.prefix))),
        ]
    }

    fn environment(&self, role: &str, user: &str) -> Vec<(String, String)> {
        let changes = self.changes(role, user);
        self.world.environment(&changes.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    /// Whether the server refuses the statement to the role for a missing right.
    async fn is_denied(&self, role: &str, statement: &str) -> bool {
        let sql = format!("set role {}_{role}; {statement}", self.roles);
        let ran = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.world.database.pool).await;
        let error = ran.expect_err(statement);
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42501"))
    }

    /// The server refuses what no role may do.
    async fn assert_no_more_rights(&self) {
        for (role, statement) in [
            ("worker", "update groups set enabled = true"),
            ("worker", "create table t (x int)"),
            ("gateway", "delete from sessions"),
            ("gateway", "delete from groups"),
            ("gateway", "update audit_log set action = ''"),
            ("operator", "update audit_log set action = ''"),
            ("operator", "drop table sessions"),
            ("operator", "delete from _sqlx_migrations"),
        ] {
            assert!(self.is_denied(role, statement).await, "{role}: {statement}");
        }
    }

    /// Without rights of its own, the console of the visitors' gateway says what it did not read.
    async fn give_rights_to_the_console(&self, gateway: &Gateway) {
        let browser = Browser::logged_in(gateway, "Ann").await;
        assert!(browser.open("/console/audit").await.body.contains("may not read this"));
        let dead = browser.open("/console/dead").await.body;
        assert!(dead.contains("Not read"), "{dead}");
        self.grant("rights.sql").await;
        self.grant("console-rights.sql").await;
        self.add_user("gateway", &[("CONSOLE", "yes")]);
    }

    /// Each page reads what it shows, and each change of a group is made.
    async fn use_the_console(&self, gateway: &Gateway) {
        let browser = Browser::logged_in(gateway, "Ann").await;
        for verb in ["pause", "resume", "disable", "enable"] {
            let path = format!("/console/groups/72/{verb}");
            let page = browser.open(&path).await;
            let done = browser.send_form(&page, &path).await;
            assert_eq!(done.status, 303, "{verb}: {done:?}");
        }
        for (path, part) in
            [("/console/audit", "groups resume 72"), ("/console", ".requests"), ("/console/dead", "")]
        {
            until("the page is read with the new rights", || async {
                let page = browser.open(path).await.body;
                let is_read = !["Not read", "There are none"].iter().any(|words| page.contains(words));
                (page.contains(part) && is_read).then_some(())
            })
            .await;
        }
    }

    async fn drop(self) {
        for role in ["worker", "gateway", "operator", "migrator"] {
            let user = format!("{}-{role}", self.world.broker.prefix);
            let _ = broker_command().args(["--quiet", "delete_user", &user]).output();
            let sql = format!("drop owned by {0}_{role} cascade; drop role {0}_{role}", self.roles);
            self.world.database.execute(&sql).await;
        }
    }
}

#[tokio::test]
async fn worker_gateway_and_commands_work_with_the_least_rights() {
    let world = Setup::default().without_worker().await;
    let rights = LeastRights::new(&world).await;
    let operator = rights.environment("operator", "operator");
    let keys = ["--api-key", &world.api_key, "--jwt-secret", &world.jwt_secret];
    run(&operator, &[&["groups", "add", "72", "--per-number", "0"], &keys[..]].concat()).ok();

    let changes = rights.changes("worker", "worker");
    let mut worker = world.spawn(&changes.each_ref().map(|(name, value)| (*name, value.as_str())));
    worker.ready().await;
    let changes = rights.changes("gateway", "gateway");
    let [database, broker] = changes.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut gateway = world.spawn_gateway(&[database, broker, ("CONSOLE_TOKEN", TOKEN)]).await;
    gateway.process.ready().await;

    world.invite(&world.request()).await.sent();
    let key = gateway.invited(&world).await;
    send(gateway.look_up(&world, &key)).await.ok();
    send(gateway.join(&world, &key)).await.ok();
    send(gateway.end(&world, &key)).await.ok();
    world.database.until_outbox_is_empty().await;
    for command in [
        &["groups", "set", "72", "--region", "US"][..],
        &["groups", "list"],
        &["groups", "pause", "72"],
        &["groups", "resume", "72"],
        &["sessions", "list"],
        &["sessions", "count", "--by", "group,code"],
        &["trace", "111-000-0000"],
        &["reconcile", "--since", "1d"],
        &["dead", "list"],
        &["dead", "summary"],
        &["dead", "replay", "--all"],
        &["optouts", "add", "111-000-0000"],
        &["optouts", "list"],
        &["secrets", "reseal"],
        &["sessions", "forget", "--phone", "111-000-0000", "--end", "--rest", "0s", "--wait", "0s", "--yes"],
        &["retention", "--dry-run"],
        &["audit", "list"],
    ] {
        run(&operator, command).ok();
    }
    doctor(&operator, Some(0), &[]).await;
    let empty = Browser::logged_in(&gateway, "Ann").await.open("/console/dead").await;
    assert!(empty.body.contains("Not read"), "an empty queue that it may not read: {}", empty.body);
    world.broker.publish_to(&world.broker.queue("dead"), Message::json(&json!({"a": "letter"}))).await;
    // A gateway of its own for the console, with the operators' rights; then the visitors' gateway with rights for it.
    let changes = rights.changes("operator", "operator");
    let [database, broker] = changes.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut console = world.spawn_gateway(&[database, broker, ("CONSOLE_TOKEN", TOKEN)]).await;
    console.process.ready().await;
    rights.use_the_console(&console).await;
    rights.give_rights_to_the_console(&gateway).await;
    rights.use_the_console(&gateway).await;
    run(&operator, &["dead", "drop", "--all", "--yes"]).ok();
    // The processes check the rights of statements that have not run lately.
    worker.ready().await;
    gateway.process.ready().await;
    for process in [&worker, &console.process] {
        let log = process.log();
        assert!(!log.contains("no right") && !log.contains("permission"), "{log}");
    }

    rights.assert_no_more_rights().await;
    assert!(worker.stop().success() && gateway.process.stop().success() && console.process.stop().success());
    rights.drop().await;
}
