//! One dead letter: why it was set aside, the original message, and its replay. Pure.

use crate::{
    config::ReplyToAllow,
    group_id::GroupId,
    invite::{
        Envelope, Request,
        request::{self, LARGEST_BODY},
    },
    json, phone,
    queue::{
        QueueNames,
        delivery::{self, FIRST_AT, GROUP, ROUTING, SESSION, TICKET},
        reply_to::{DIRECT_REPLY_TO, may_reply_to},
        wire::is_unreadable,
    },
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Hex digits of an id.
pub(crate) const ID_DIGITS: usize = 12;

/// The headers that a worker adds when it sets a message aside.
const WORKER_HEADERS: [&str; 10] = [
    "x-kind",
    "x-reason",
    "x-code",
    "x-attempts",
    FIRST_AT,
    "x-last-at",
    "x-queue",
    "x-publish-id",
    "x-message-id",
    GROUP,
];
/// The headers that the broker adds, and counts up with each delivery.
const BROKER_HEADERS: [&str; 3] = ["x-death", "x-delivery-count", "x-acquired-count"];
const BROKER_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Whether a header was added by the broker, or by the worker that set the message aside.
pub(crate) fn is_added(header: &str) -> bool {
    WORKER_HEADERS.contains(&header) || is_added_by_broker(header)
}

fn is_added_by_broker(header: &str) -> bool {
    BROKER_HEADERS.contains(&header) || BROKER_PREFIXES.iter().any(|prefix| header.starts_with(prefix))
}

/// The kind of a message that was set aside.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    clap::ValueEnum,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub(crate) enum LetterKind {
    Request,
    Reply,
}

impl LetterKind {
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The message that is published instead of a dead letter.
#[derive(Clone, PartialEq)]
pub(crate) struct Replay {
    pub queue: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// A message of the dead-letter queue, from a worker or from another publisher.
#[derive(Clone)]
pub(crate) struct Letter {
    /// The first hex digits of a SHA-256, the same each time the letter is read.
    pub id: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    /// Whether its properties could be decoded. If not, it has none here, and no worker published it.
    pub is_decoded: bool,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letter").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Letter {
    pub(crate) fn new(properties: BasicProperties, body: Vec<u8>) -> Self {
        let is_decoded = !is_unreadable(&properties);
        let properties = if is_decoded { properties } else { BasicProperties::default() };
        let mut letter = Self { id: String::new(), body, properties, is_decoded };
        for byte in letter.identity().finalize().iter().take(ID_DIGITS / 2) {
            let _ = write!(letter.id, "{byte:02x}");
        }
        letter
    }

    /// The hash of its publisher's uuid; without one, of all that stays the same while the message is in the queue.
    fn identity(&self) -> Sha256 {
        self.publish_id().map_or_else(|| self.content(), |id| Sha256::new().chain_update(id))
    }

    /// The hash of all that stays the same while the message is in the queue.
    fn content(&self) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(self.body.len().to_be_bytes());
        hash.update(&self.body);
        for (name, value) in
            self.headers().filter(|(name, _)| !is_added_by_broker(name) && !ROUTING.contains(name))
        {
            hash.update(format!("{name:?}: {value:?}\n"));
        }
        hash.update(format!("{:?}", without_headers(&self.properties)));
        hash.update(if self.is_decoded { "" } else { "not decoded" });
        hash
    }

    /// Equal for copies of one publish, which a lost connection or a killed command leaves behind. `None` if equal messages
    /// may be separate publishes.
    pub(crate) fn copy_of(&self) -> Option<[u8; 32]> {
        let id = Sha256::digest(self.publish_id()?);
        Some(Sha256::new().chain_update(id).chain_update(&self.body).finalize().into())
    }

    /// Distinguishes messages whose ids are equal, by chance or because a sender chose them so.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.content().finalize().into()
    }

    fn publish_id(&self) -> Option<String> {
        self.text("x-publish-id").filter(|id| !id.is_empty())
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &AMQPValue)> {
        let table = self.properties.headers().as_ref();
        table.into_iter().flat_map(FieldTable::inner).map(|(name, value)| (name.as_str(), value))
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// A header's value, if it is text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    /// A header's value, if it is a number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        match *self.header(name)? {
            AMQPValue::ShortShortInt(number) => Some(number.into()),
            AMQPValue::ShortShortUInt(number) => Some(number.into()),
            AMQPValue::ShortInt(number) => Some(number.into()),
            AMQPValue::ShortUInt(number) => Some(number.into()),
            AMQPValue::LongInt(number) => Some(number.into()),
            AMQPValue::LongUInt(number) => Some(number.into()),
            AMQPValue::LongLongInt(number) => Some(number),
            AMQPValue::Timestamp(number) => i64::try_from(number).ok(),
            _ => None,
        }
    }

    /// `None` for a message that no worker set aside.
    pub(crate) fn kind(&self) -> Option<LetterKind> {
        self.text("x-kind")?.parse().ok()
    }

    /// The group that the request names; nobody has checked it. A reply that a worker of the release before has set aside
    /// names one only if it is of a sent text.
    pub(crate) fn group(&self) -> Option<GroupId> {
        let written = self.text(GROUP).and_then(|group| GroupId::new(group.parse().ok()?));
        written.or_else(|| row_key(&self.request()).0)
    }

    /// The number that the body names, if it is one; masked. A body that is no request for its size is not parsed: its values
    /// take many times its bytes.
    pub(crate) fn masked_phone(&self) -> Option<String> {
        if self.body.len() > LARGEST_BODY {
            return None;
        }
        let fields = request::object(std::str::from_utf8(&self.body).ok()?).ok()?;
        let (_, written) = fields.iter().find(|(name, _)| name == "smsPhone")?;
        let text = json::string(written).or_else(|| json::integer(written.get()))?;
        let number = phone::parse_either_form(&text, "US").ok()?;
        Some(format!("{number:?}"))
    }

    /// The session that a retry copy names.
    pub(crate) fn session(&self) -> Option<Uuid> {
        Uuid::parse_str(&self.text(SESSION)?).ok()
    }

    /// When it was set aside.
    pub(crate) fn last_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(&self.text("x-last-at")?, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)
    }

    /// Whether it is of this session, or names one of these ids as its message or correlation id, and no other group.
    pub(crate) fn is_of(&self, session: Option<Uuid>, group: Option<GroupId>, ids: &[&str]) -> bool {
        let continues = self.text(SESSION).and_then(|id| Uuid::try_parse(&id).ok());
        if let (Some(continues), Some(session)) = (continues, session) {
            return continues == session;
        }
        let correlation_id = self.properties.correlation_id().clone();
        let is_named =
            [self.message_id(), correlation_id].into_iter().flatten().any(|id| ids.contains(&id.as_str()))
                || continues.is_some_and(|id| ids.contains(&id.to_string().as_str()))
                || ids.contains(&self.id.as_str());
        is_named && (group.is_none() || self.group().is_none_or(|named| Some(named) == group))
    }

    /// Deliveries before this one, by the broker's count.
    pub(crate) fn deliveries(&self) -> i64 {
        self.number("x-delivery-count").unwrap_or_default()
    }

    /// The message id as its sender set it. An older worker, which sends no x-publish-id, has replaced it by a uuid, and has
    /// put the sender's, or an empty text for none, into x-message-id. Otherwise that header may be the sender's.
    pub(crate) fn message_id(&self) -> Option<ShortString> {
        let property = self.properties.message_id().clone();
        match self.text("x-message-id").filter(|_| self.publish_id().is_none()) {
            Some(id) if id.is_empty() => None,
            Some(id) => ShortString::try_new(id).ok().or(property),
            None => property,
        }
    }

    /// The properties of a fresh copy for the dead-letter queue, whose deliveries the broker counts from zero: all but those
    /// that would let it expire, be refused or be routed to other queues as well.
    pub(crate) fn properties_of_a_copy(&self) -> BasicProperties {
        let headers = self
            .headers()
            .filter(|(name, _)| !is_counter(name) && !ROUTING.contains(name))
            .collect::<Vec<_>>();
        with_headers(without_headers(&self.properties), headers)
    }

    /// The properties as they were before the message was set aside.
    fn restored(&self) -> BasicProperties {
        let mut properties = without_headers(&self.properties);
        // lapin has no way to unset it.
        if properties.message_id().is_some() && self.message_id().is_none() {
            properties = without_message_id(&properties);
        } else if let Some(id) = self.message_id() {
            properties = properties.with_message_id(id);
        }
        let is_retry_copy = self.is_retry_copy();
        let is_original = |name: &str| !is_added(name) || (is_retry_copy && name == FIRST_AT);
        let headers = self
            .headers()
            .filter(|(name, _)| is_original(name) && !ROUTING.contains(name))
            .collect::<Vec<_>>();
        with_headers(properties, headers)
    }

    /// The request as the worker received it.
    pub(crate) fn request(&self) -> Envelope {
        delivery::read(&self.restored(), self.body.clone())
    }

    /// Whether it is a retry copy, which has no credential, but the ticket of a row.
    pub(crate) fn is_retry_copy(&self) -> bool {
        [SESSION, TICKET].iter().all(|name| self.text(name).is_some_and(|id| Uuid::parse_str(&id).is_ok()))
    }

    /// The request once more, with the time of now. A retry copy is published as it is.
    pub(crate) fn as_request(&self, names: &QueueNames) -> Replay {
        let mut properties = self.restored();
        if !self.is_retry_copy() {
            properties = properties.with_timestamp(now());
        }
        Replay { queue: names.requests.clone(), body: self.body.clone(), properties }
    }

    /// A retry copy, without the credential, for the row of a request that was authenticated.
    pub(crate) fn as_retry_copy(&self, names: &QueueNames, session: Uuid, ticket: Uuid) -> Replay {
        let original = self.restored();
        let mut headers = FieldTable::default();
        let mut insert = |name: &str, value: String| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        insert(SESSION, session.to_string());
        insert(TICKET, ticket.to_string());
        if let Some(first_at) = self.text(FIRST_AT) {
            insert(FIRST_AT, first_at);
        }
        if let Some(trace) = self.request().traceparent() {
            insert("traceparent", trace.to_string());
        }
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_timestamp(now())
            .with_headers(headers);
        if let Some(queue) = original.reply_to() {
            properties = properties.with_reply_to(queue.clone());
        }
        if let Some(id) = original.correlation_id() {
            properties = properties.with_correlation_id(id.clone());
        }
        if let Some(id) = original.message_id() {
            properties = properties.with_message_id(id.clone());
        }
        Replay { queue: names.requests.clone(), body: b"{}".to_vec(), properties }
    }

    /// The reply, for its original queue; or why it cannot go there. Any user of the broker may have published the letter, so
    /// the queue must be one that a request's `reply_to` may name.
    pub(crate) fn as_reply(&self, names: &QueueNames, allow: &ReplyToAllow) -> Result<Replay, String> {
        let queue = self.text("x-queue").filter(|queue| ShortString::try_new(queue.as_str()).is_ok());
        match queue.filter(|queue| !queue.is_empty()) {
            None => Err("its x-queue names no queue".to_owned()),
            Some(queue) if queue.starts_with(DIRECT_REPLY_TO) => {
                Err("it is a direct reply, which only its requester's open connection could take".to_owned())
            }
            Some(queue) if names.is_reserved(&queue) => {
                Err(format!("its x-queue is {queue}, where no reply may go"))
            }
            Some(queue) if queue != names.replies && !may_reply_to(&queue, names, allow) => {
                Err(format!("its x-queue is {queue}, which REPLY_TO_ALLOW does not match"))
            }
            Some(queue) => Ok(Replay { queue, body: self.body.clone(), properties: self.restored() }),
        }
    }
}

/// The group and the message id of a request, by which its row is found.
pub(crate) fn row_key(envelope: &Envelope) -> (Option<GroupId>, Option<&str>) {
    let group = Request::parse(envelope).ok().and_then(|request| request.groupid.ok());
    (group, envelope.idempotency_key().ok().flatten())
}

fn is_counter(header: &str) -> bool {
    matches!(header, "x-delivery-count" | "x-acquired-count")
}

/// Unix seconds.
fn now() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}

fn with_headers(properties: BasicProperties, headers: Vec<(&str, &AMQPValue)>) -> BasicProperties {
    if headers.is_empty() {
        return properties;
    }
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), value.clone());
    }
    properties.with_headers(table)
}

/// A copy of the properties without headers, expiration and user id. The broker would refuse a user id that is not ours.
fn without_headers(properties: &BasicProperties) -> BasicProperties {
    let copy = without_message_id(properties);
    match properties.message_id().clone() {
        Some(id) => copy.with_message_id(id),
        None => copy,
    }
}

fn without_message_id(properties: &BasicProperties) -> BasicProperties {
    let mut copy = BasicProperties::default().with_delivery_mode(2);
    macro_rules! copy {
        ($($get:ident => $with:ident),+) => { $(if let Some(value) = properties.$get().clone() { copy = copy.$with(value); })+ };
    }
    copy!(content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
          correlation_id => with_correlation_id, reply_to => with_reply_to, timestamp => with_timestamp,
          kind => with_type, app_id => with_app_id);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with(headers: &[(&str, &str)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for &(name, value) in headers {
            table.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        BasicProperties::default().with_headers(table)
    }

    fn letter(properties: BasicProperties) -> Letter {
        Letter::new(properties, br#"{"groupid": "72"}"#.to_vec())
    }

    #[test]
    fn an_id_is_the_same_each_time_a_letter_or_its_copy_is_read() {
        let named = letter(with(&[("x-publish-id", "a")]));
        assert_eq!(named.id.len(), ID_DIGITS);
        assert_eq!(named.id, Letter::new(with(&[("x-publish-id", "a"), ("other", "x")]), b"?".to_vec()).id);
        assert_ne!(named.id, letter(with(&[("x-publish-id", "b")])).id);

        let mut seen = with(&[("a", "b"), ("CC", "elsewhere")]).headers().clone().unwrap();
        seen.insert("x-delivery-count".into(), AMQPValue::LongLongInt(9));
        let seen = letter(BasicProperties::default().with_headers(seen).with_expiration("5".into()));
        let copy = Letter::new(seen.properties_of_a_copy(), seen.body.clone());
        assert_eq!((seen.deliveries(), copy.deliveries()), (9, 0));
        assert_eq!((&seen.id, seen.digest()), (&copy.id, copy.digest()));
        assert_eq!(copy.text("CC"), None);
        assert_ne!(seen.id, letter(with(&[("a", "c")])).id);
        assert_ne!(seen.id, letter(with(&[("a", "b")]).with_message_id("m".into())).id);
        assert_eq!((seen.copy_of(), named.copy_of().is_some()), (None, true));
        // Another message under the same id is not the same letter.
        let other = letter(with(&[("x-publish-id", "a"), ("group", "73")]));
        assert!(named.id == other.id && named.digest() != other.digest());
        let split = |id: &str, body: &str| Letter::new(with(&[("x-publish-id", id)]), body.into()).copy_of();
        assert_ne!(split("a", "b{}"), split("ab", "{}"));
    }

    #[test]
    fn the_senders_message_id_is_found_in_the_property_or_the_header() {
        let id = |headers: &[(&str, &str)], property: Option<&str>| {
            let properties = with(headers);
            let given = property.map(|id| properties.clone().with_message_id(id.into()));
            letter(given.unwrap_or(properties)).message_id().map(|id| id.to_string())
        };
        assert_eq!(id(&[], None), None);
        assert_eq!(id(&[], Some("m")).as_deref(), Some("m"));
        assert_eq!(id(&[("x-message-id", "m"), ("x-publish-id", "u")], Some("m")).as_deref(), Some("m"));
        assert_eq!(id(&[("x-message-id", ""), ("x-publish-id", "u")], None), None);
        assert_eq!(id(&[("x-message-id", "theirs"), ("x-publish-id", "u")], Some("m")).as_deref(), Some("m"));
        // Set aside by an older worker, which puts its own id into the property.
        assert_eq!(id(&[("x-message-id", "m")], Some("u")).as_deref(), Some("m"));
        assert_eq!(id(&[("x-message-id", "")], Some("u")), None);
        assert_eq!(id(&[("x-message-id", &"m".repeat(300))], Some("u")).as_deref(), Some("u"), "too long");
    }

    #[test]
    fn a_request_is_restored_to_what_it_was() {
        let original = with(&[("Authorization", "Bearer x"), ("groupid", "72"), ("traceparent", TRACE)])
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_timestamp(5)
            .with_content_type("application/json".into());
        let body = br#"{"smsPhone": "1"}"#.to_vec();
        let request = delivery::read(&original, body.clone());
        let mut headers = original.headers().clone().unwrap();
        for name in WORKER_HEADERS {
            headers.insert(name.into(), AMQPValue::LongString("x".into()));
        }
        headers.insert("x-message-id".into(), AMQPValue::LongString("".into()));
        headers.insert("x-last-death-queue".into(), AMQPValue::LongString("q".into()));
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        let dead = Letter::new(original.with_headers(headers), body);
        assert_eq!(dead.request().sha256(), request.sha256());
        assert_eq!(row_key(&dead.request()).0.map(GroupId::get), Some(72));

        let names = QueueNames::new("p");
        let again = dead.as_request(&names);
        assert_eq!((again.queue.as_str(), &again.body), ("p.requests", &dead.body));
        assert!(again.properties.timestamp().unwrap() > 1_000_000_000);
        let kept: Vec<_> =
            again.properties.headers().as_ref().unwrap().inner().keys().map(ShortString::as_str).collect();
        assert_eq!(kept, ["Authorization", "groupid", "traceparent"]);

        let copy = dead.as_retry_copy(&names, Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(copy.body, b"{}");
        let copy = Letter::new(copy.properties, copy.body);
        assert!(copy.is_retry_copy() && copy.text("Authorization").is_none());
        assert_eq!(copy.text("traceparent").as_deref(), Some(TRACE));
        assert_eq!(copy.properties.reply_to().as_ref().map(ShortString::as_str), Some("r"));
        assert_eq!(copy.properties.correlation_id().as_ref().map(ShortString::as_str), Some("c"));
    }

    #[test]
    fn a_retry_copy_is_replayed_as_it_is() {
        let id = Uuid::from_u128(7).to_string();
        let copy = letter(
            with(&[("x-kind", "request"), ("x-session-id", &id), ("x-ticket", &id)]).with_timestamp(5),
        );
        let again = copy.as_request(&QueueNames::new("p"));
        assert_eq!(again.properties.timestamp(), &Some(5));
        assert!(Letter::new(again.properties, again.body).is_retry_copy());
        assert!(!letter(with(&[("x-session-id", &id)])).is_retry_copy());
        assert!(!letter(with(&[("x-session-id", &id), ("x-ticket", "guess")])).is_retry_copy());
    }

    #[test]
    fn a_reply_is_replayed_to_its_queue_but_not_to_the_workers_own() {
        let names = QueueNames::new("p");
        let within = |allow: &str, queue: &str| {
            let allow = ReplyToAllow::parse(allow).unwrap();
            letter(with(&[("x-kind", "reply"), ("x-queue", queue)])).as_reply(&names, &allow)
        };
        let to = |queue: &str| within("*", queue);
        assert_eq!(to("crm.replies").unwrap().queue, "crm.replies");
        assert_eq!(to("p.replies").unwrap().queue, "p.replies");
        for wrong in ["", "p.requests", "p.dead", "amq.rabbitmq.reply-to.g1h2", &"q".repeat(300)] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
        assert!(within("crm.*", "other").unwrap_err().contains("REPLY_TO_ALLOW"));
        assert!(within("crm.*", "crm.replies").is_ok() && within("crm.*", "p.replies").is_ok());
    }

    #[test]
    fn a_letter_that_cannot_be_decoded_has_an_id_and_a_body_only() {
        let marked = || BasicProperties::default().with_cluster_id(crate::queue::wire::mark().into());
        let letter = Letter::new(marked(), b"{}".to_vec());
        assert!(
            !letter.is_decoded && letter.kind().is_none() && letter.properties == BasicProperties::default()
        );
        assert_eq!(letter.id, Letter::new(marked(), b"{}".to_vec()).id);
        assert_ne!(letter.id, Letter::new(BasicProperties::default(), b"{}".to_vec()).id);
    }
}
