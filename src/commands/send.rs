//! `session-invite send`: publishes an invite as an upstream system would, and waits for its reply.

use super::{addresses::user, groups::group_id, tokens::newest_api_key};
use crate::masked::debug_shows;
use crate::{
    config::{BrokerArgs, DatabaseArgs, SecretsArgs},
    credential::gkey,
    group_id::GroupId,
    output,
    queue::{self, BrokerConnection, BrokerError, QueueNames},
};
use anyhow::{Context, anyhow, bail};
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  session-invite send --group 72 --user 12345 --phone 111-000-0000 --camera back --resolution 352x288
  session-invite send --group 72 --phone '+44 20 7946 0958' --message-id order-17 --json

The login key is signed with the group's API key, from the database. The exit code is 0 when the text was sent.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SendArgs {
    /// The sender's group
    #[arg(long, value_parser = group_id)]
    group: GroupId,
    /// The sender's user
    #[arg(long, default_value = "12345", value_parser = user)]
    user: String,
    /// The number to text: with + and country code, or as dialled within the group's region
    #[arg(long)]
    phone: String,
    /// The session's type; 1 is the visitor's mobile camera
    #[arg(long, default_value_t = 1, value_name = "N")]
    session_type: u16,
    /// Which camera to begin with: front or back
    #[arg(long)]
    camera: Option<String>,
    /// The video's size, such as 352x288
    #[arg(long)]
    resolution: Option<String>,
    /// The idempotency key [default: a new one]
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// How long to wait for the reply
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    wait: Duration,
    /// Print the reply as it came, on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
}

debug_shows!(SendArgs { group });

/// RabbitMQ's name for the replies to this channel.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

pub(crate) async fn run(args: SendArgs) -> anyhow::Result<()> {
    let authorization = login_key(&args).await?;
    let config = super::broker(&args.broker)?;
    let opening = async |open: &BrokerConnection| {
        let channel = open.connection.create_channel().await?;
        let direct = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let replies =
            channel.basic_consume(DIRECT_REPLY_TO.into(), "".into(), direct, FieldTable::default()).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok::<_, BrokerError>((channel, replies))
    };
    let (BrokerConnection { connection, .. }, (channel, replies)) =
        queue::on_answering_node(&config, "send", opening).await?;
    let mut params = Map::new();
    for (name, value) in [("camera", &args.camera), ("resolution", &args.resolution)] {
        if let Some(value) = value {
            params.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    let body = json!({
        "authorization": authorization,
        "groupid": args.group.get(),
        "sessiontype": args.session_type,
        "smsPhone": args.phone,
        "sessionParams": params,
    });
    let id = args.message_id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let requests = QueueNames::new(&config.queue_prefix).requests;
    let reply = ask(&channel, replies, &requests, &body, &id, args.wait).await?;
    queue::close_connection(&connection).await;
    print(&reply, args.json)
}

/// A login key for an hour, signed with the group's newest API key.
async fn login_key(args: &SendArgs) -> anyhow::Result<String> {
    let secrets = args.secrets.key()?;
    let pool = super::database(&args.database).await?;
    let key = newest_api_key(&pool, &secrets, args.group).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let expiry = i64::try_from(now)? + 3_600;
    let token = gkey::mint(args.group, &args.user, key.expose_secret().as_bytes(), expiry);
    Ok(format!("Bearer GKEY {token}"))
}

/// Publishes the request with RabbitMQ's direct reply-to, and waits for the reply.
async fn ask(
    channel: &Channel,
    mut replies: Consumer,
    queue: &str,
    body: &Value,
    id: &str,
    wait: Duration,
) -> anyhow::Result<String> {
    let properties = BasicProperties::default()
        .with_message_id(id.into())
        .with_correlation_id(id.into())
        .with_reply_to(DIRECT_REPLY_TO.into())
        .with_delivery_mode(2)
        .with_timestamp(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
        .with_content_type("application/json".into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let payload = serde_json::to_vec(body)?;
    let publishing =
        async { channel.basic_publish("".into(), queue.into(), options, &payload, properties).await?.await };
    let confirm = tokio::time::timeout(wait, publishing).await.map_err(|_| {
        anyhow!(
            "the broker did not confirm within {}: is it short of memory or disk, or has its cluster lost its majority? \
             The invite may be in the queue",
            humantime::format_duration(wait)
        )
    })?;
    let confirm = confirm.map_err(BrokerError::of_publishing)?;
    if confirm.take_message().is_some() {
        bail!("there is no queue {queue}; start a worker, which declares it, or check QUEUE_PREFIX");
    }
    // Any client can publish to a direct reply's name.
    let own =
        |reply: &Delivery| reply.properties.correlation_id().as_ref().is_some_and(|of| of.as_str() == id);
    let receiving = async {
        while let Some(received) = replies.next().await {
            match received {
                Ok(reply) if !own(&reply) => {}
                received => return Some(received),
            }
        }
        None
    };
    let reply = tokio::time::timeout(wait, receiving).await.map_err(|_| {
        let waited = humantime::format_duration(wait);
        anyhow!(
            "no reply within {waited}; is a worker running? The invite waits in the queue, or is being processed; \
             `sessions list` shows it once a worker has taken it"
        )
    })?;
    let reply = reply.context("the broker closed the channel before the reply came")??;
    String::from_utf8(reply.data).context("the reply is not UTF-8")
}

fn print(body: &str, json: bool) -> anyhow::Result<()> {
    let reply: Value = serde_json::from_str(body).context("the reply is not JSON")?;
    if json {
        output::print(body)?;
    } else {
        output::print(&serde_json::to_string_pretty(&reply)?)?;
    }
    let code = reply["error"]["code"].as_str().unwrap_or("no code");
    match reply["status"].as_str() {
        Some("sent") => Ok(()),
        Some("rejected") => bail!("the invite was rejected: {code}"),
        Some("failed") => bail!("the invite failed: {code}"),
        _ => bail!("the reply's status is unknown"),
    }
}
