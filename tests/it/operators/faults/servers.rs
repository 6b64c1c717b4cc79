//! Servers that are away, for worker and gateway.

use super::{
    SeededFault,
    SeenIn::{GatewayReadiness, WorkerReadiness},
    problems, seeded_faults,
};
use crate::support::{Setup, Tunnel, broker_server};

/// A worker behind tunnels, one of which is closed and opened again.
async fn away_from_worker(fault: SeededFault, is_database: bool) -> u8 {
    let mut world = Setup::default().start().await;
    let tunnels = [Tunnel::opened(&world.database.url), Tunnel::opened(&broker_server())];
    let urls = [("DATABASE_URL", tunnels[0].url.as_str()), ("AMQP_URL", tunnels[1].url.as_str())];
    let mut worker = world.replace_worker(&urls).await;
    let tunnel = &tunnels[usize::from(!is_database)];
    tunnel.close();
    let points = fault.with(&[]).score(async || problems(&worker).await, async |_| tunnel.open()).await;
    worker.ready().await;
    assert!(worker.stop().success());
    points
}

async fn away_from_gateway(fault: SeededFault, is_database: bool) -> u8 {
    let world = Setup::default().start().await;
    let tunnels = [Tunnel::opened(&world.database.url), Tunnel::opened(&broker_server())];
    let urls = [("DATABASE_URL", tunnels[0].url.as_str()), ("AMQP_URL", tunnels[1].url.as_str())];
    let mut gateway = world.start_gateway(&urls).await;
    let tunnel = &tunnels[usize::from(!is_database)];
    tunnel.close();
    let look = async || problems(&gateway.process).await;
    let points = fault.with(&[]).score(look, async |_| tunnel.open()).await;
    gateway.process.ready().await;
    assert!(gateway.process.stop().success());
    points
}

seeded_faults! {
    the_database_is_away_from_the_worker:
        SeededFault::new(WorkerReadiness, &["the database is away", "127.0.0.1:"], "is it running there?", "the server started again"),
        |fault| away_from_worker(fault, true);
    the_broker_is_away_from_the_worker:
        SeededFault::new(WorkerReadiness, &["no invites can be received", "the broker is away"], "is it running where AMQP_URL points?", "the server started again"),
        |fault| away_from_worker(fault, false);
    the_database_is_away_from_the_gateway:
        SeededFault::new(GatewayReadiness, &["the database is away", "127.0.0.1:"], "is it running there?", "the server started again"),
        |fault| away_from_gateway(fault, true);
    the_broker_is_away_from_the_gateway:
        SeededFault::new(GatewayReadiness, &["invites cannot be published", "the broker is away"], "is it running where AMQP_URL points?", "the server started again"),
        |fault| away_from_gateway(fault, false);
}
