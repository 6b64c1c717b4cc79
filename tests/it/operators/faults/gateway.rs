//! A gateway that refuses the provider's receipts, knows no proxy, or waits for the schema.

use super::{
    SeededFault,
    SeenIn::{Doctor, GatewayReadiness},
    doctors_findings, problems, seeded_faults, type_command,
};
use crate::support::{Gateway, Setup, World, fixed_server, free_address, send};
use tokio::sync::Mutex;

/// A gateway at PUBLIC_URL that refuses all receipts because of a wrong setting, and is started again with the right one.
async fn refuses_receipts(fault: SeededFault, name: &str, wrong: &str) -> u8 {
    let address = free_address();
    let url = format!("http://{address}");
    let world = Setup::default().set("PUBLIC_URL", &url).start().await;
    let start = async |changes: &[(&str, &str)]| -> Gateway {
        let all: Vec<_> =
            [("GATEWAY_ADDR", address.as_str())].into_iter().chain(changes.iter().copied()).collect();
        world.start_gateway(&all).await
    };
    let gateway = Mutex::new(start(&[(name, wrong)]).await);
    world.invite(&world.request()).await.sent();
    let look = async || {
        let gateway = gateway.lock().await;
        problems(&gateway.process).await
    };
    let repair = async |remedy: &str| {
        assert!(gateway.lock().await.process.stop().success());
        // The remedy is the setting with its value, or says where to compare it.
        let value = remedy.split_once("PUBLIC_URL=").map(|(_, value)| ("PUBLIC_URL", value));
        let right = start(value.as_slice()).await;
        *gateway.lock().await = right;
        world.invite(&world.request()).await.sent();
        world
            .database
            .until_true("a receipt came", "select exists (select from sessions where status = 'delivered')")
            .await;
    };
    let points = fault.with(&[("url", &url)]).score(look, repair).await;
    assert!(gateway.into_inner().process.stop().success());
    points
}

/// A proxy that TRUSTED_PROXIES does not name.
async fn behind_an_unknown_proxy(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let visit = async |gateway: &Gateway| {
        let page = gateway.request("GET", "/s/aB3aB3aB3aB3aB3a").header("X-Forwarded-For", "203.0.113.7");
        send(page).await
    };
    let gateway = Mutex::new(world.start_gateway(&[]).await);
    let look = async || {
        let gateway = gateway.lock().await;
        visit(&gateway).await;
        problems(&gateway.process).await
    };
    let repair = async |_: &str| {
        assert!(gateway.lock().await.process.stop().success());
        let right = world.start_gateway(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
        *gateway.lock().await = right;
    };
    let points = fault.with(&[]).score(look, repair).await;
    assert!(gateway.into_inner().process.stop().success());
    points
}

/// Another program answers where PUBLIC_URL leads.
async fn at_a_foreign_address(fault: SeededFault) -> u8 {
    let world = World::start().await;
    let mut gateway = world.start_gateway(&[]).await;
    let wrong = fixed_server("200 OK");
    let url = Mutex::new(wrong.clone());
    let look = async || doctors_findings(&world, &[("PUBLIC_URL", &url.lock().await)]);
    let repair = async |_: &str| *url.lock().await = format!("http://{}", gateway.address);
    let points = fault.with(&[("url", &wrong)]).score(look, repair).await;
    assert!(gateway.process.stop().success());
    points
}

/// The schema is not there yet.
async fn without_a_schema(fault: SeededFault) -> u8 {
    let world = Setup::default().without_worker().await;
    let mut gateway = world.spawn_gateway(&[]).await;
    let repair = async |remedy: &str| type_command(&world, remedy);
    let points = fault.with(&[]).score(async || problems(&gateway.process).await, repair).await;
    assert!(gateway.process.stop().success());
    points
}

seeded_faults! {
    the_gateway_refuses_receipts_for_its_auth_token:
        SeededFault::new(GatewayReadiness, &["the provider's receipts are refused", "TWILIO_AUTH_TOKEN is not the token"], "session-invite doctor compares", "the right token, and the gateway started again"),
        |fault| refuses_receipts(fault, "TWILIO_AUTH_TOKEN", "not-the-accounts");
    the_gateway_refuses_receipts_for_its_public_url:
        SeededFault::new(GatewayReadiness, &["the provider's receipts are refused", "https://wrong.example/base"], "PUBLIC_URL={url}", "that setting, and the gateway started again"),
        |fault| refuses_receipts(fault, "PUBLIC_URL", "https://wrong.example/base");
    the_gateway_does_not_know_its_proxy:
        SeededFault::new(GatewayReadiness, &["TRUSTED_PROXIES seems to be missing", "127.0.0.1"], "add it", "that setting with the address, and the gateway started again"),
        behind_an_unknown_proxy;
    the_public_url_leads_to_another_program:
        SeededFault::new(Doctor, &["links: what answers at {url} is not session-invite gateway"], "set PUBLIC_URL to where the gateway is", "that setting"),
        at_a_foreign_address;
    the_gateway_waits_for_the_schema:
        SeededFault::new(GatewayReadiness, &["the schema is not up to date"], "session-invite migrate", "that command"),
        without_a_schema;
}
