//! Servers that refuse a process at its start, and addresses that are taken.

use super::{NAMED_WITHIN, SeededFault, SeenIn::FatalLine, seeded_faults};
use crate::support::{CommandResult, Setup, World, broker_server, database_server, run};
use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use std::{net::TcpListener, time::Instant};

/// The points of a worker that ended as `ran` says, and that is started again with changes.
async fn started_again(
    fault: SeededFault,
    values: &[(&str, &str)],
    world: &World,
    ran: &CommandResult,
    changes: &[(&str, &str)],
) -> u8 {
    let looked_for = fault.with(values);
    if ran.code != Some(1) || !looked_for.is_named_in(&ran.stderr) {
        eprintln!("the cause is not named: {ran:#?}\n{looked_for:#?}");
        return 0;
    }
    if !ran.stderr.contains(&looked_for.remedy) {
        eprintln!("the remedy is not shown: {ran:#?}\n{looked_for:#?}");
        return 1;
    }
    let mut worker = world.spawn(changes);
    worker.ready().await;
    assert!(worker.stop().success());
    2
}

/// Starts a worker that ends in time.
fn ended(world: &World, changes: &[(&str, &str)]) -> CommandResult {
    let begun = Instant::now();
    let ran = run(&world.environment(changes), &["worker"]);
    assert!(begun.elapsed() < NAMED_WITHIN, "{:?}", begun.elapsed());
    ran
}

async fn with_a_wrong_url(fault: SeededFault, name: &str, url: String) -> u8 {
    let world = Setup::default().without_worker().await;
    let ran = ended(&world, &[(name, &url)]);
    started_again(fault, &[], &world, &ran, &[]).await
}

/// A URL with a login that the server does not know.
fn with_another_login(server: &str) -> String {
    let mut url = url::Url::parse(server).expect("a server has a URL");
    url.set_username("unknown-user").expect("a user can be set");
    url.set_password(Some("wrong-password")).expect("a password can be set");
    url.into()
}

/// A URL with another path: a database, or a vhost.
fn with_another_path(server: &str, path: &str) -> String {
    let mut url = url::Url::parse(server).expect("a server has a URL");
    url.set_path(path);
    url.into()
}

async fn with_another_queue(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    let queue = world.broker.queue("requests");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(7));
    world.broker.channel.queue_declare(queue.as_str().into(), durable, arguments).await.expect("a queue");
    let ran = ended(&world, &[]);
    let other = format!("{}-2", world.broker.prefix);
    let points = started_again(fault, &[("queue", &queue)], &world, &ran, &[("QUEUE_PREFIX", &other)]).await;
    drop(crate::support::Broker::connect(&other).await);
    points
}

async fn on_a_taken_address(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let ran = ended(&world, &[("HTTP_ADDR", &address)]);
    started_again(fault, &[("address", &address)], &world, &ran, &[]).await
}

async fn of_gateway_on_a_taken_address(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let ran = run(&world.environment(&[("GATEWAY_ADDR", &address)]), &["gateway"]);
    let points = started_again(fault, &[("address", &address)], &world, &ran, &[]).await;
    let mut gateway = world.spawn_gateway(&[]).await;
    gateway.process.logs("answering /healthz").await;
    assert!(gateway.process.stop().success());
    points
}

async fn with_another_key(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    world.run(&["migrate"]).ok();
    world.add_group(72, &[]);
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let ran = ended(&world, &[("SECRETS_KEY", other)]);
    let both = format!("{other},{}", world.secrets_key());
    started_again(fault, &[], &world, &ran, &[("SECRETS_KEY", &both)]).await
}

seeded_faults! {
    the_database_refuses_the_password:
        SeededFault::new(FatalLine, &["the database refuses the login", "unknown-user"],
            "check the user, password and database of DATABASE_URL", "the right login, and a start"),
        |fault| with_a_wrong_url(fault, "DATABASE_URL", with_another_login(&database_server()));
    the_database_does_not_exist:
        SeededFault::new(FatalLine, &["the database refuses the login", "no_such_database_is_here"],
            "check the user, password and database of DATABASE_URL", "the right name, and a start"),
        |fault| with_a_wrong_url(fault, "DATABASE_URL", with_another_path(&database_server(), "no_such_database_is_here"));
    the_broker_refuses_the_password:
        SeededFault::new(FatalLine, &["the broker refuses", "ACCESS_REFUSED"],
            "check the user, password and vhost of AMQP_URL", "the right login, and a start"),
        |fault| with_a_wrong_url(fault, "AMQP_URL", with_another_login(&broker_server()));
    the_vhost_does_not_exist:
        SeededFault::new(FatalLine, &["the broker refuses", "no-such-vhost"],
            "check the user, password and vhost of AMQP_URL", "the right vhost, and a start"),
        |fault| with_a_wrong_url(fault, "AMQP_URL", with_another_path(&broker_server(), "/no-such-vhost"));
    a_queue_was_declared_with_other_arguments:
        SeededFault::new(FatalLine, &["{queue} cannot be declared"], "set another QUEUE_PREFIX", "another prefix, and a start"),
        with_another_queue;
    the_operators_address_is_taken:
        SeededFault::new(FatalLine, &["HTTP_ADDR", "{address}", "in use"], "set HTTP_ADDR to another address or port", "another port, and a start"),
        on_a_taken_address;
    the_gateways_address_is_taken:
        SeededFault::new(FatalLine, &["GATEWAY_ADDR", "{address}", "in use"], "set another address or port", "another port, and a start"),
        of_gateway_on_a_taken_address;
    the_key_of_secrets_is_another_one:
        SeededFault::new(FatalLine, &["SECRETS_KEY"], "after a comma", "both keys, and a start"),
        with_another_key;
}
