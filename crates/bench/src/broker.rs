//! The broker, as the benchmark's own upstream system meets it.

use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long whoever consumes may take to be there.
const CONSUMED_WITHIN: Duration = Duration::from_secs(30);
/// In milliseconds: what a run that was killed leaves behind goes by itself.
const UNUSED_FOR: i32 = 600_000;

#[expect(clippy::disallowed_methods, reason = "what is measured reads only what this wrote itself")]
pub async fn connect(url: &str, name: &str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(format!("bench {name}").into());
    Connection::connect(url, properties).await
}

/// The floor's queue: of the kind that the worker's are.
pub async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(UNUSED_FOR));
    channel.queue_declare(queue.into(), durable, arguments).await.map(drop)
}

pub async fn delete(channel: &Channel, queue: &str) -> lapin::Result<()> {
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop)
}

/// Waits until so many consume from a queue, which need not be there yet.
pub async fn consumed_by(connection: &Connection, queue: &str, consumers: u32) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        // A channel of its own: asking for a queue that is not there closes it.
        let channel = connection.create_channel().await.map_err(|error| error.to_string())?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        if let Ok(found) = channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            if found.consumer_count() >= consumers {
                return Ok(());
            }
            let _ = channel.close(200, "done".into()).await;
        }
        if begun.elapsed() > CONSUMED_WITHIN {
            return Err(format!("{consumers} do not consume from {queue} after {CONSUMED_WITHIN:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The version that a broker gives before any login: `Connection.Start` has it, as a long string of that name.
pub fn version(host: &str, port: u16) -> Option<String> {
    let mut line = TcpStream::connect((host, port)).ok()?;
    line.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    line.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
    let mut greeting = Vec::new();
    let mut part = [0; 4_096];
    while !greeting.ends_with(&[0xce]) {
        let read = line.read(&mut part).ok().filter(|read| *read > 0)?;
        greeting.extend(&part[..read]);
    }
    let name = b"\x07versionS";
    let at = greeting.windows(name.len()).position(|window| window == name)? + name.len();
    let size = u32::from_be_bytes(greeting.get(at..at + 4)?.try_into().ok()?);
    let text = greeting.get(at + 4..at + 4 + usize::try_from(size).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}
