//! The person behind one number, and the messages in the queues that concern them.

use crate::{
    commands::WrongUsage,
    config::BrokerConfig,
    group::store,
    json::{self, RawMembers},
    masked::debug_shows,
    phone::{self, NumberSearch, PhoneNumber},
    queue::{
        self, QueueNames, QueueReport, QueueState,
        dead::{DeadLetters, FetchedLetter, Letter},
    },
};
use anyhow::bail;
use lapin::types::AMQPValue;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};
use uuid::Uuid;

/// Objects in objects that are read one by one. What is deeper is searched as one text.
const DEEP: usize = 32;

/// What identifies a person in a message.
pub(super) struct Person {
    pub(super) number: PhoneNumber,
    pub(super) search: NumberSearch,
    sessions: HashSet<Uuid>,
    /// The region of each group, in which its requests' numbers are read.
    regions: HashMap<i64, String>,
    /// For a message that names no group.
    region: String,
}

debug_shows!(Person { number });

impl Person {
    /// Reads `--phone`.
    pub(super) async fn read(pool: &PgPool, phone: &str, region: &str) -> anyhow::Result<Self> {
        let number = phone::parse_either_form(phone, region)
            .map_err(|refusal| WrongUsage::of("--phone", &refusal.message))?;
        let groups = store::list(pool).await?;
        let regions = groups.into_iter().map(|group| (group.id.get(), group.options.region)).collect();
        let (search, region) = (NumberSearch::new(&number), region.to_owned());
        Ok(Self { number, search, sessions: HashSet::new(), regions, region })
    }

    /// Takes the person's sessions: a message that names one of them concerns the person too.
    pub(super) fn know_sessions(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        self.sessions = ids.into_iter().collect();
    }

    fn is_concerned(&self, letter: &Letter) -> bool {
        let properties = &letter.properties;
        let texts = [
            properties.message_id(),
            properties.correlation_id(),
            properties.reply_to(),
            properties.kind(),
            properties.app_id(),
            properties.content_type(),
            properties.content_encoding(),
            properties.expiration(),
            properties.user_id(),
            properties.cluster_id(),
        ];
        texts.into_iter().flatten().any(|text| self.is_in(text.as_str()))
            || letter.session().is_some_and(|id| self.sessions.contains(&id))
            || letter.headers().any(|(name, value)| self.is_in(name) || self.is_in_header(value))
            || self.is_in_body(letter)
    }

    fn is_in(&self, text: &str) -> bool {
        self.search.is_in(text) || self.has_session(text)
    }

    /// The same for a text that may have the escapes of JSON.
    fn is_in_escaped(&self, text: &str) -> bool {
        self.is_in(text) || (text.contains('\\') && self.is_in(&json::without_escapes(text)))
    }

    /// The same for bytes, which may be in UTF-8 or UTF-16.
    fn is_in_bytes(&self, bytes: &[u8]) -> bool {
        self.is_in_escaped(&String::from_utf8_lossy(bytes))
            || in_utf16(bytes).iter().any(|text| self.is_in_escaped(text))
    }

    fn has_session(&self, id: &str) -> bool {
        Uuid::parse_str(id).is_ok_and(|id| self.sessions.contains(&id))
    }

    fn is_in_header(&self, value: &AMQPValue) -> bool {
        match value {
            AMQPValue::LongString(text) => self.is_in_bytes(text.as_bytes()),
            AMQPValue::ShortString(text) => self.is_in(text.as_str()),
            AMQPValue::ByteArray(bytes) => self.is_in_bytes(bytes.as_slice()),
            AMQPValue::LongInt(number) => self.is_in(&number.to_string()),
            AMQPValue::LongUInt(number) => self.is_in(&number.to_string()),
            AMQPValue::LongLongInt(number) => self.is_in(&number.to_string()),
            AMQPValue::Timestamp(number) => self.is_in(&number.to_string()),
            AMQPValue::Double(number) => self.is_in(&number.to_string()),
            AMQPValue::DecimalValue(decimal) => self.is_in(&decimal.value.to_string()),
            AMQPValue::FieldArray(values) => values.as_slice().iter().any(|value| self.is_in_header(value)),
            AMQPValue::FieldTable(table) => {
                let mut fields = table.inner().iter();
                fields.any(|(name, value)| self.is_in(name.as_str()) || self.is_in_header(value))
            }
            // Too short for a number.
            _ => false,
        }
    }

    fn is_in_body(&self, letter: &Letter) -> bool {
        let body = String::from_utf8_lossy(&letter.body);
        // A byte order mark is no part of it (contract, section 2).
        let body = body.strip_prefix('\u{feff}').unwrap_or(&body).trim();
        let region = letter.group().and_then(|group| self.regions.get(&group.get())).unwrap_or(&self.region);
        match serde_json::from_str::<&RawValue>(body) {
            Ok(json) => self.is_in_json("", json.get(), region, DEEP),
            Err(_) => self.is_in_bytes(&letter.body),
        }
    }

    /// Whether the number is in a JSON value. The number of a request or a reply is read as a worker reads it; every other name
    /// and value is searched.
    fn is_in_json(&self, name: &str, json: &str, region: &str, depth: usize) -> bool {
        let parts = || -> Option<bool> {
            let depth = depth.checked_sub(1)?;
            if json.starts_with('{') {
                // One with repeated names is searched as a text.
                let members = json::read_object::<RawMembers<'_>>(json).ok()?;
                let is_in_value =
                    |name: &str, value: &RawValue| self.is_in_json(name, value.get(), region, depth);
                let of_broken_names = members.broken().iter().any(|value| is_in_value("", value));
                // A name that is not Unicode is searched with the text.
                let in_broken_names = !members.broken().is_empty() && self.is_in_escaped(json);
                let mut members = members.into_vec().into_iter();
                let in_others = members.any(|(name, value)| self.is_in(&name) || is_in_value(&name, value));
                return Some(of_broken_names || in_broken_names || in_others);
            }
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            Some(items.iter().any(|item| self.is_in_json("", item.get(), region, depth)))
        };
        if json.starts_with(['{', '[']) {
            return parts().unwrap_or_else(|| self.is_in_escaped(json));
        }
        let text = serde_json::from_str(json).map(Cow::Owned).ok().or_else(|| json::integer(json));
        let text = text.unwrap_or(Cow::Borrowed(json));
        let read = (name == "smsPhone").then(|| self.search.is(&text, region)).flatten();
        // A string with half of a surrogate pair is not decoded.
        read.unwrap_or_else(|| self.is_in_escaped(&text))
    }
}

/// The bytes as UTF-16 of either byte order, if they can be that: digits then have a zero byte beside them, or the text begins with
/// a byte order mark.
fn in_utf16(bytes: &[u8]) -> Vec<String> {
    if !bytes.contains(&0) && !bytes.starts_with(&[0xFE, 0xFF]) && !bytes.starts_with(&[0xFF, 0xFE]) {
        return Vec::new();
    }
    let read = |unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    vec![read(u16::from_le_bytes), read(u16::from_be_bytes)]
}

/// A queue that was searched. What concerns the person is held until it is dropped or kept.
#[derive(Debug)]
pub(super) struct SearchedQueue {
    messages: DeadLetters,
    pub(super) found: Vec<FetchedLetter>,
    headers_not_read: u32,
}

/// What was found in a queue.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueFindings {
    pub(super) queue: String,
    /// Messages that were read.
    pub(super) read: u32,
    pub(super) found: usize,
    /// Messages whose headers cannot be decoded. Their bodies were searched.
    pub(super) headers_not_read: u32,
}

/// A queue that is not searched, as its messages are invites that a worker is about to work on.
#[derive(Debug, Serialize)]
pub(super) struct UnsearchedQueue {
    pub(super) queue: String,
    /// `None` if that is not known, as the queue does not run, or is not as a worker declares it.
    pub(super) messages: Option<u32>,
}

impl SearchedQueue {
    pub(super) fn name(&self) -> &str {
        &self.messages.queue
    }

    pub(super) fn findings(&self) -> QueueFindings {
        QueueFindings {
            queue: self.name().to_owned(),
            read: self.messages.read,
            found: self.found.len(),
            headers_not_read: self.headers_not_read,
        }
    }

    /// Takes what was found out of the queue for good. All others return to it.
    pub(super) async fn drop_found(mut self) -> anyhow::Result<()> {
        for letter in &self.found {
            self.messages.drop(letter).await?;
        }
        Ok(self.messages.close().await?)
    }

    /// Returns every message.
    pub(super) async fn keep_all(mut self) -> anyhow::Result<()> {
        for letter in self.found {
            self.messages.keep(letter).await?;
        }
        Ok(self.messages.close().await?)
    }
}

/// Searches the queues whose messages stay until a person or another system takes them. All are open before any is read, so
/// that a broker that is away, or a missing permission, is noticed before anything is erased.
pub(super) async fn search(config: &BrokerConfig, person: &Person) -> anyhow::Result<Vec<SearchedQueue>> {
    let QueueNames { dead, replies, unreadable, .. } = QueueNames::new(&config.queue_prefix);
    let mut queues = Vec::new();
    for name in [dead, replies, unreadable] {
        let messages = DeadLetters::open_queue(config.clone(), name, u32::MAX).await?;
        queues.push(SearchedQueue { messages, found: Vec::new(), headers_not_read: 0 });
    }
    for queue in &mut queues {
        while let Some(letter) = queue.messages.next().await? {
            queue.headers_not_read += u32::from(!letter.letter.is_decoded);
            if person.is_concerned(&letter.letter) {
                queue.found.push(letter);
            } else {
                queue.messages.keep(letter).await?;
            }
        }
    }
    Ok(queues)
}

/// The queues of invites that wait for a worker, and have messages.
pub(super) async fn unsearched(config: &BrokerConfig) -> anyhow::Result<Vec<UnsearchedQueue>> {
    let names = QueueNames::new(&config.queue_prefix);
    let inspecting = async |open: &queue::BrokerConnection| queue::inspect(&open.connection, &names).await;
    let (open, reports) = queue::on_answering_node(config, "personal data", inspecting).await?;
    queue::close_connection(&open.connection).await;
    let searched = [&names.dead, &names.replies, &names.unreadable, &names.marker];
    let mut queues = Vec::new();
    for QueueReport { name, state } in reports {
        let messages = match state {
            QueueState::Down(why) if searched.contains(&&name) => {
                bail!(
                    "{name} does not run, so it cannot be searched ({why}): rabbitmqctl list_queues name state shows it"
                )
            }
            _ if searched.contains(&&name) => continue,
            QueueState::Declared { messages: 0, .. } | QueueState::Missing => continue,
            QueueState::Declared { messages, .. } => Some(messages),
            QueueState::Differs(_) | QueueState::Down(_) => None,
        };
        queues.push(UnsearchedQueue { queue: name, messages });
    }
    Ok(queues)
}

/// The queues as lines of a table.
pub(super) fn lines(queues: &[QueueFindings], unsearched: &[UnsearchedQueue]) -> Vec<(String, String)> {
    let found = queues.iter().map(|queue| {
        let unread = match queue.headers_not_read {
            0 => String::new(),
            count => format!(" (the headers of {count} cannot be read)"),
        };
        (format!("messages in {}", queue.queue), format!("{} of {}{unread}", queue.found, queue.read))
    });
    let waiting = unsearched.iter().map(|queue| {
        let what = match queue.messages {
            Some(messages) => format!("{messages} invites wait there for a worker"),
            None => "it may have messages: see session-invite doctor".to_owned(),
        };
        (format!("not searched: {}", queue.queue), what)
    });
    found.chain(waiting).collect()
}
