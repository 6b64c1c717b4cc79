//! Whether RabbitMQ drops a message that is returned to a queue too often (<https://www.rabbitmq.com/docs/quorum-queues>).
//! A client cannot read a queue's policy, so it is tried with one message, for a moment, in a queue that is empty.

use super::connection::BrokerError;
use lapin::{
    BasicProperties, Channel, Connection,
    message::BasicGetMessage,
    options::{
        BasicAckOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use uuid::Uuid;

/// RabbitMQ 4 keeps a message for 20 returns, unless the queue's arguments or a policy set another limit.
const RETURNS: u32 = 21;
/// Milliseconds after which the message expires, if the connection is lost meanwhile.
const EXPIRES: &str = "10000";

/// Whether the broker drops a message at its 21st return to the queue; `None` if that cannot be tried, as the queue is in
/// use.
pub(crate) async fn is_limited(connection: &Connection, queue: &str) -> Result<Option<bool>, BrokerError> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let there = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
    if there.message_count() > 0 || there.consumer_count() > 0 {
        return Ok(None);
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let id = format!("session-invite doctor {}", Uuid::now_v7());
    let properties =
        BasicProperties::default().with_message_id(id.as_str().into()).with_expiration(EXPIRES.into());
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, b"", properties).await?.await?;
    for _ in 0..RETURNS {
        let Some(got) = get(&channel, queue).await? else { return Ok(Some(true)) };
        let is_ours = got.delivery.properties.message_id().as_ref().is_some_and(|of| of.as_str() == id);
        got.delivery.acker.reject(BasicRejectOptions { requeue: true }).await?;
        if !is_ours {
            return Ok(None);
        }
    }
    let Some(got) = get(&channel, queue).await? else { return Ok(Some(true)) };
    got.delivery.acker.ack(BasicAckOptions::default()).await?;
    Ok(Some(false))
}

async fn get(channel: &Channel, queue: &str) -> lapin::Result<Option<BasicGetMessage>> {
    channel.basic_get(queue.into(), BasicGetOptions::default()).await
}
