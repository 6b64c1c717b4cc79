//! What the tests share: each has a world of its own, and enters it by the front door only.

mod broker;
mod broker_user;
mod collector;
mod command;
mod database;
mod database_role;
mod doctor;
mod events;
mod fake_broker;
mod fixed_server;
mod gateway;
mod message;
mod provider;
mod session_row;
mod tls;
mod tunnel;
mod webhooks;
mod worker;
mod world;

pub use broker::{Broker, command as broker_command, connect as connect_broker, server as broker_server};
pub use broker_user::{ALL_PERMISSIONS, BrokerUser, all_but};
pub use collector::Collector;
pub use command::{CommandResult, program, run};
pub use database::server as database_server;
pub use database_role::DatabaseRole;
pub use doctor::doctor;
pub use events::{Event, Events};
pub use fake_broker::FakeBroker;
pub use fixed_server::fixed_server;
pub use gateway::{Answer, Gateway, Http, SMS_INVITE, invite as http_invite, send, try_send};
pub use message::{Message, Reply, SentReply};
pub use session_row::{SessionRow, SessionStatus, TextState};
pub use test_support::{
    credentials::{claims, gjwt, gkey, gkey_until, now},
    postgres::{PostgresPair, PostgresServer},
    raw_amqp::{nested, publish_raw, publish_undecodable},
};
pub use tls::TlsFront;
pub use tunnel::Tunnel;
pub use webhooks::{
    INBOUND, free_address, receipt, status_path, text_from, webhook, webhook_request, webhook_signed,
    with_gateway, with_gateway_and_callbacks, with_gateway_under_path,
};
pub use worker::Worker;
pub use world::{GROUP, Setup, World};

use std::time::{Duration, Instant};

/// How long a condition may take to come true before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Polls until there is a value; the failure names `what` was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, poll: impl FnMut() -> F) -> T {
    until_within(DEADLINE, what, poll).await
}

/// The same with a deadline of its own.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut poll: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(begun.elapsed() < deadline, "{what}: not within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Measures a time that is promised. A slow machine may hold one try up, so the first of three that keeps the promise counts.
pub async fn keeps_promise(promise: Duration, mut measure: impl AsyncFnMut() -> Duration) {
    let mut times = Vec::new();
    for _ in 0..3 {
        // Boxed, as the future of a whole test is large.
        let took = Box::pin(measure()).await;
        if took <= promise {
            return;
        }
        println!("{took:?} instead of {promise:?}; measured again");
        times.push(took);
    }
    panic!("{promise:?} is promised, and these are the times: {times:?}");
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

/// Runs a test's body for each item at the same time, on a thread of its own: a body that blocks, as the end of a process does,
/// holds no other one up. A failure of one body fails the test once all have ended.
pub fn side_by_side<T: Send, F: Future<Output = ()>>(
    items: impl IntoIterator<Item = T>,
    body: impl Fn(T) -> F + Sync,
) {
    let body = &body;
    std::thread::scope(|scope| {
        for item in items {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime for one body").block_on(body(item));
            });
        }
    });
}
