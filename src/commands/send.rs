//! `session-invite send`: publishes an invite as an upstream system would, and waits for its reply.

use super::{groups::group_id, tokens::newest_api_key};
use crate::masked::debug_shows;
use crate::{
    config::{BrokerArgs, DatabaseArgs, SecretsArgs},
    credential::gkey,
    group_id::GroupId,
    output,
    queue::{self, Names, Unusable},
};
use anyhow::{Context, anyhow, bail};
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel,
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
pub struct Args {
    /// The group that asks
    #[arg(long, value_parser = group_id)]
    group: GroupId,
    /// The user that asks
    #[arg(long, default_value = "12345")]
    user: String,
    /// Whom to text: with + and country code, or as dialled within the group's region
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

debug_shows!(Args { group });

pub async fn run(args: Args) -> anyhow::Result<()> {
    let authorization = login_key(&args).await?;
    let config = super::broker(&args.broker)?;
    let connection = queue::connect(&config, "send").await?;
    let channel = connection.create_channel().await?;
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
    let requests = Names::new(&config.queue_prefix).requests;
    let reply = ask(&channel, &requests, &body, &id, args.wait).await?;
    connection.close(200, "done".into()).await?;
    print(&reply, args.json)
}

/// A login key of an hour, signed with the group's newest API key.
async fn login_key(args: &Args) -> anyhow::Result<String> {
    let secrets = args.secrets.key()?;
    let pool = super::database(&args.database).await?;
    let key = newest_api_key(&pool, &secrets, args.group).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let expiry = i64::try_from(now)? + 3_600;
    let token = gkey::mint(args.group, &args.user, key.expose_secret().as_bytes(), expiry);
    Ok(format!("Bearer GKEY {token}"))
}

/// Publishes the request with RabbitMQ's direct reply-to, and waits.
async fn ask(
    channel: &Channel,
    queue: &str,
    body: &Value,
    id: &str,
    wait: Duration,
) -> anyhow::Result<String> {
    let direct = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let reply_to = "amq.rabbitmq.reply-to";
    let mut replies =
        channel.basic_consume(reply_to.into(), "".into(), direct, FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default()
        .with_message_id(id.into())
        .with_correlation_id(id.into())
        .with_reply_to(reply_to.into())
        .with_delivery_mode(2)
        .with_timestamp(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
        .with_content_type("application/json".into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let payload = serde_json::to_vec(body)?;
    let publishing =
        async { channel.basic_publish("".into(), queue.into(), options, &payload, properties).await?.await };
    let confirm = publishing.await.map_err(Unusable::of_publishing)?;
    if confirm.take_message().is_some() {
        bail!("there is no queue {queue}; start a worker, which declares it, or check QUEUE_PREFIX");
    }
    // Anybody can publish to the name of a direct reply.
    let own =
        |reply: &Delivery| reply.properties.correlation_id().as_ref().is_some_and(|of| of.as_str() == id);
    let coming = async {
        while let Some(came) = replies.next().await {
            match came {
                Ok(reply) if !own(&reply) => {}
                came => return Some(came),
            }
        }
        None
    };
    let reply = tokio::time::timeout(wait, coming).await.map_err(|_| {
        let waited = humantime::format_duration(wait);
        anyhow!(
            "no reply within {waited}; is a worker running? The invite waits in the queue, or goes on; \
             `sessions list` shows it once a worker has taken it"
        )
    })?;
    let reply = reply.context("the broker closed the line before the reply came")??;
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
        _ => bail!("the reply has no status that is known here"),
    }
}
