//! Connections and queues of the benchmark itself, and the broker's version.

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long consumers may take to start.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30);
/// When the broker removes an unused queue, in milliseconds. So a killed run leaves no queue for long.
const EXPIRES: i32 = 600_000;

#[expect(clippy::disallowed_methods, reason = "the benchmark reads only its own messages")]
pub(crate) async fn connect(url: &str, name: &str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(format!("bench {name}").into());
    Connection::connect(url, properties).await
}

/// Declares the floor's queue, of the same type as the worker's queues.
pub(crate) async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(EXPIRES));
    channel.queue_declare(queue.into(), durable, arguments).await.map(drop)
}

pub(crate) async fn delete(channel: &Channel, queue: &str) -> lapin::Result<()> {
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.map(drop)
}

/// Declares the exchange that spreads invites over queues by their `message_id`, each with the same weight.
pub(crate) async fn bind_shards(channel: &Channel, exchange: &str, queues: &[String]) -> lapin::Result<()> {
    let kind = ExchangeKind::Custom("x-consistent-hash".to_owned());
    let mut arguments = FieldTable::default();
    arguments.insert("hash-property".into(), AMQPValue::LongString("message_id".into()));
    channel.exchange_declare(exchange.into(), kind, ExchangeDeclareOptions::default(), arguments).await?;
    for queue in queues {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.as_str().into(), exchange.into(), "1".into(), options, arguments).await?;
    }
    Ok(())
}

pub(crate) async fn delete_exchange(channel: &Channel, exchange: &str) -> lapin::Result<()> {
    channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await
}

/// Waits until a queue has this many consumers. The queue need not exist yet.
pub(crate) async fn wait_for_consumers(
    connection: &Connection,
    queue: &str,
    consumers: u32,
) -> Result<(), String> {
    let start = Instant::now();
    loop {
        // A channel for each try: the broker closes the channel when the queue does not exist.
        let channel = connection.create_channel().await.map_err(|error| error.to_string())?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        if let Ok(queue) = channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            if queue.consumer_count() >= consumers {
                return Ok(());
            }
            let _ = channel.close(200, "done".into()).await;
        }
        if start.elapsed() > CONSUMER_TIMEOUT {
            return Err(format!("{queue} does not have {consumers} consumers after {CONSUMER_TIMEOUT:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The broker's version. `Connection.Start`, which comes before any login, has it as a long string with the name `version`.
pub(crate) fn version(host: &str, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
    let mut frame = Vec::new();
    let mut buffer = [0; 4_096];
    while !frame.ends_with(&[0xce]) {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        frame.extend(&buffer[..read]);
    }
    let name = b"\x07versionS";
    let at = frame.windows(name.len()).position(|window| window == name)? + name.len();
    let size = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?);
    let text = frame.get(at + 4..at + 4 + usize::try_from(size).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}
