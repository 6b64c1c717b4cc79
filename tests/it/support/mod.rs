//! What each test stands on: a world of its own, entered by the front door only.

mod broker;
mod command;
mod database;
mod gateway;
mod message;
mod phone_home;
mod provider;
mod tls;
mod tunnel;
mod worker;
mod world;

pub use broker::{Broker, command as broker_command, connect as connect_broker, server as broker_server};
pub use command::{Ran, program, run};
pub use database::server as database_server;
pub use gateway::{Answer, Gateway, Http, SMS_INVITE, invite as http_invite, send, try_send};
pub use message::{Message, Reply};
pub use phone_home::{
    at_home, at_home_quietly, at_home_under, receipt, status_path, webhook, webhook_request, webhook_signed,
};
pub use test_support::{
    credentials::{claims, gjwt, gkey, gkey_until, now},
    raw_amqp::{nested, publish_raw, publish_undecodable},
};
pub use tls::TlsFront;
pub use tunnel::Tunnel;
pub use worker::Worker;
pub use world::{GROUP, Setup, World};

use std::time::{Duration, Instant};

/// How long a condition may take to come true before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until there is an answer; `what` says in the failure what was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    until_within(DEADLINE, what, ask).await
}

/// The same with a deadline of its own.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < deadline, "{what}: not within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Runs a future to its end from where nothing can be awaited, such as a `drop`.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the cleanup").block_on(future)
        });
        alone.join().expect("the cleanup does not panic")
    })
}
