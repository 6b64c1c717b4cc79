//! A database that is up, and refuses statements or connections.

use super::{
    SeededFault,
    SeenIn::{Doctor, WorkerReadiness},
    doctors_findings, problems, seeded_faults,
};
use crate::support::{DatabaseRole, Message, PostgresPair, Setup, World};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Ends the connections of the processes: some faults are met by new ones only.
const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name like 'session-invite%'";

/// SQL that brings a fault about. `repairs` is `None` where the remedy itself is SQL.
struct Refusal {
    breaks: &'static str,
    repairs: Option<&'static str>,
}

/// A refusal whose remedy is typed as SQL.
const fn sql(breaks: &'static str) -> Refusal {
    Refusal { breaks, repairs: None }
}

/// A refusal whose remedy is done by this SQL.
const fn repaired_by(breaks: &'static str, repairs: &'static str) -> Refusal {
    Refusal { breaks, repairs: Some(repairs) }
}

async fn seen_by_worker(fault: SeededFault, refusal: Refusal) -> u8 {
    let mut world = Setup::default().start().await;
    let role = DatabaseRole::create(&world).await;
    let mut worker = world.replace_worker(&[("DATABASE_URL", &role.url)]).await;
    let database: String = world.database.value("select quote_ident(current_database())").await;
    let values = [("role", role.name.as_str()), ("database", database.as_str())];
    break_it(&world, &values, refusal.breaks).await;
    let repair = async |remedy: &str| carry_out(&world, &values, &refusal, remedy).await;
    let points = fault.with(&values).score(async || problems(&worker).await, repair).await;
    worker.ready().await;
    assert!(worker.stop().success());
    role.drop(&world).await;
    points
}

async fn seen_by_doctor(fault: SeededFault, refusal: Refusal) -> u8 {
    let mut world = Setup::default().start().await;
    world.stop_worker();
    let role = DatabaseRole::create(&world).await;
    let database: String = world.database.value("select quote_ident(current_database())").await;
    let values = [("role", role.name.as_str()), ("database", database.as_str())];
    break_it(&world, &values, refusal.breaks).await;
    let repair = async |remedy: &str| carry_out(&world, &values, &refusal, remedy).await;
    let look = async || doctors_findings(&world, &[("DATABASE_URL", &role.url)]);
    let points = fault.with(&values).score(look, repair).await;
    role.drop(&world).await;
    points
}

fn filled(sql: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(&format!("{{{name}}}"), value))
}

async fn break_it(world: &World, values: &[(&str, &str)], breaks: &str) {
    world.database.execute(&filled(breaks, values)).await;
    if breaks.starts_with("alter database") || breaks.starts_with("alter role") {
        world.database.execute(CUT).await;
    }
}

async fn carry_out(world: &World, values: &[(&str, &str)], refusal: &Refusal, remedy: &str) {
    world
        .database
        .execute(&refusal.repairs.map_or_else(|| remedy.to_owned(), |repairs| filled(repairs, values)))
        .await;
}

/// A lock of another process, which `look` reports; the remedy ends that process's connection.
async fn lock(fault: SeededFault, by_doctor: bool) -> u8 {
    let world = World::start().await;
    let mut holder = PgConnection::connect(&world.database.url).await.expect("PostgreSQL is reached");
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut holder).await.expect("a process");
    for statement in
        ["set application_name = 'a migration'", "begin", "lock table sessions in access exclusive mode"]
    {
        sqlx::raw_sql(statement).execute(&mut holder).await.expect("the table is free");
    }
    let request = Message::json(&world.request());
    world.broker.request(request.correlation("x")).await;
    let look =
        async || if by_doctor { doctors_findings(&world, &[]) } else { problems(world.running()).await };
    let repair = async |remedy: &str| world.database.execute(&format!("select {remedy}")).await;
    let points = fault.with(&[("pid", &pid.to_string())]).score(look, repair).await;
    world.broker.reply("x").await.sent();
    points
}

/// A worker whose DATABASE_URL names a standby only, which is promoted.
async fn standby(fault: SeededFault) -> u8 {
    let pair = PostgresPair::start();
    let mut world = Setup::default().database_on(&pair.primary.url("postgres")).start().await;
    // Nothing is written at the primary from now on, so the standby has it all.
    world.stop_worker();
    // No commit waited for the standby.
    world.expect_error("the database has lost rows");
    let of_standby = pair.standby.url(world.database.name());
    let mut worker = world.spawn(&[("DATABASE_URL", &of_standby)]);
    let promote = async |remedy: &str| {
        let mut standby = PgConnection::connect(&of_standby).await.expect("the standby is reached");
        sqlx::raw_sql(AssertSqlSafe(remedy.to_owned())).execute(&mut standby).await.expect("it is promoted");
    };
    let points = fault.with(&[]).score(async || problems(&worker).await, promote).await;
    worker.ready().await;
    assert!(worker.stop().success());
    points
}

/// PostgreSQL's own error for a full disk, as it comes from a tablespace of 20 MB that is filled. A test can make no such disk.
const FULL_DISK: &str = "create function full_disk() returns trigger language plpgsql as $$ begin
        raise exception using errcode = '53100', hint = 'Check free disk space.',
            message = 'could not extend file \"base/16384/16999\": No space left on device'; end $$;
    create trigger full_disk before insert on sessions for each row execute function full_disk()";

async fn full_disk(fault: SeededFault) -> u8 {
    let world = World::start().await;
    world.database.execute(FULL_DISK).await;
    world.broker.request(Message::json(&world.request()).correlation("x")).await;
    let repair = async |_: &str| world.database.execute("drop trigger full_disk on sessions").await;
    let points = fault.with(&[]).score(async || problems(world.running()).await, repair).await;
    world.broker.reply("x").await.sent();
    points
}

/// The schema has a migration that this program does not know.
async fn newer_schema(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (99990101000000, 'of a newer release', true, '\\x00', 0)";
    world.database.execute(newer).await;
    let update = async |_: &str| {
        // The newer program knows it.
        world.database.execute("delete from _sqlx_migrations where version = 99990101000000").await;
    };
    fault.with(&[]).score(async || doctors_findings(&world, &[]), update).await
}

seeded_faults! {
    the_role_may_not_update_sessions:
        SeededFault::new(WorkerReadiness, &["no right to update on the table sessions"], "grant update on sessions to {role}", "that SQL"),
        |fault| seen_by_worker(fault, sql("revoke update on sessions from {role}"));
    the_role_may_not_insert_events:
        SeededFault::new(WorkerReadiness, &["no right to insert on the table events"], "grant insert on events to {role}", "that SQL"),
        |fault| seen_by_worker(fault, sql("revoke insert on events from {role}"));
    the_role_may_not_delete_suspects:
        SeededFault::new(WorkerReadiness, &["no right to delete on the table suspects"], "grant delete on suspects to {role}", "that SQL"),
        |fault| seen_by_worker(fault, sql("revoke delete on suspects from {role}"));
    the_role_may_not_use_the_schema:
        SeededFault::new(WorkerReadiness, &["no right to use the schema public"], "grant usage on schema public to {role}", "that SQL"),
        |fault| seen_by_worker(fault, sql("revoke usage on schema public from {role}, public"));
    a_table_is_missing:
        SeededFault::new(WorkerReadiness, &["the table rate_buckets is missing"], "rename it back", "the SQL that renames it"),
        |fault| seen_by_worker(fault, repaired_by("alter table rate_buckets rename to renamed",
            "alter table renamed rename to rate_buckets"));
    the_database_is_read_only:
        SeededFault::new(WorkerReadiness, &["the database is read-only"], "begin read write; alter database {database} reset default_transaction_read_only; commit", "that SQL"),
        |fault| seen_by_worker(fault, sql("alter database {database} set default_transaction_read_only = on"));
    the_role_is_read_only:
        SeededFault::new(WorkerReadiness, &["read-only (default_transaction_read_only is on)"], "begin read write; alter role {role} reset default_transaction_read_only; commit", "that SQL"),
        |fault| seen_by_worker(fault, sql("alter role {role} set default_transaction_read_only = on"));
    the_role_may_not_log_in:
        SeededFault::new(WorkerReadiness, &["{role}", "is not permitted to log in"], "alter role {role} login", "that SQL"),
        |fault| seen_by_worker(fault, sql("alter role {role} nologin"));
    the_role_may_open_no_connection:
        SeededFault::new(WorkerReadiness, &["too many connections for role", "{role}"], "alter role ... connection limit", "that SQL, with the role and -1"),
        |fault| seen_by_worker(fault, repaired_by("alter role {role} connection limit 0", "alter role {role} connection limit -1"));
    the_role_may_not_read_the_groups:
        SeededFault::new(Doctor, &["no right to select on the table groups"], "grant select on groups to {role}", "that SQL"),
        |fault| seen_by_doctor(fault, sql("revoke select on groups from {role}"));
    the_role_may_not_read_the_migrations:
        SeededFault::new(Doctor, &["schema: ", "permission denied"], "grant select on _sqlx_migrations to {role}", "that SQL"),
        |fault| seen_by_doctor(fault, sql("revoke select on _sqlx_migrations from {role}"));
    the_database_is_a_standby:
        SeededFault::new(WorkerReadiness, &["standby"], "select pg_promote()", "that SQL, at the standby"),
        standby;
    the_disk_of_the_database_is_full:
        SeededFault::new(WorkerReadiness, &["No space left on device (53100)"], "free space on the disk of the database's server", "the disk has space again"),
        full_disk;
    the_schema_is_of_a_newer_release:
        SeededFault::new(Doctor, &["schema: of a newer release", "99990101000000"], "update the program", "the newer program"),
        newer_schema;
    another_process_locks_the_sessions:
        SeededFault::new(WorkerReadiness, &["process {pid} (", "the table sessions"], "pg_terminate_backend({pid})", "that SQL"),
        |fault| lock(fault, false);
    another_process_locks_the_sessions_by_doctor:
        SeededFault::new(Doctor, &["locks: ", "for a lock of process {pid} (", "a migration"], "pg_terminate_backend({pid})", "that SQL"),
        |fault| lock(fault, true);
}
