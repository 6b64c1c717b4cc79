//! Whether RabbitMQ throws away what is returned to a queue too often (<https://www.rabbitmq.com/docs/quorum-queues>).
//! No client can read a queue's policy, so it is tried: by one message, in a queue that is empty, for a moment.

use super::connection::Unusable;
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

/// RabbitMQ 4 keeps a message for twenty returns, where neither the queue nor a policy says otherwise.
const RETURNS: u32 = 21;
/// Milliseconds after which the message goes by itself, if the connection is lost meanwhile.
const EXPIRES: &str = "10000";

/// Whether a message is thrown away at its 21st return to the queue; `None` where it cannot be tried, as others use it.
pub async fn is_limited(connection: &Connection, queue: &str) -> Result<Option<bool>, Unusable> {
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
