//! The floor: the least that any worker of this queue does. It takes a message, publishes a reply of the usual size,
//! waits for the confirm, and acknowledges. It checks no credential, and has no database and no provider.

use crate::broker;
use futures::StreamExt;
use lapin::{
    Acker, BasicProperties, PublisherConfirm,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    },
    types::FieldTable,
};
use std::process::ExitCode;
use tokio::sync::mpsc;

/// The worker's default.
const PREFETCH: u16 = 1_000;
const REPLY: &str = r#"{"status": "sent", "sessionKey": "123456789", "invitationText": "Join your session: http://127.0.0.1:8080/s/0123456789abcdef (code 123456789)", "sessionId": "01a20b80-29bb-75db-be48-b9bc3223500c", "groupid": 72, "smsPhone": "+14155550000", "expiresAt": "2026-11-23T20:00:00Z", "providerMessageId": "SM8778fb1ebca9c66acd0f545a0ca60464"}"#;

/// Runs until it is killed, or its connection ends.
pub(crate) async fn run(amqp_url: &str, queue: &str) -> ExitCode {
    match serve(amqp_url, queue).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the floor: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(amqp_url: &str, queue: &str) -> lapin::Result<()> {
    let connection = broker::connect(amqp_url, "floor").await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut requests = consuming.await?;
    let (published, mut unconfirmed) = mpsc::unbounded_channel::<(PublisherConfirm, Acker)>();
    // In order: a confirm that is there already loses nothing by waiting for the one before it.
    tokio::spawn(async move {
        while let Some((confirm, acker)) = unconfirmed.recv().await {
            if confirm.await.is_ok_and(|confirmed| confirmed.is_ack()) {
                let _ = acker.ack(BasicAckOptions::default()).await;
            }
        }
    });
    while let Some(request) = requests.next().await {
        let request = request?;
        let correlation = request.properties.correlation_id().clone().unwrap_or_default();
        let properties = BasicProperties::default().with_correlation_id(correlation).with_delivery_mode(2);
        let to = request.properties.reply_to().clone().unwrap_or_default();
        let options = BasicPublishOptions::default();
        let confirm = channel.basic_publish("".into(), to, options, REPLY.as_bytes(), properties).await?;
        let _ = published.send((confirm, request.acker));
    }
    Ok(())
}
