//! One dead letter: why it is dead, what it was, and what of it is published again. Pure.

use crate::{
    config::ReplyToAllow,
    group_id::GroupId,
    invite::{Envelope, Request},
    queue::{
        Names,
        delivery::{self, FIRST_AT, ROUTING, SESSION, TICKET},
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
use time::OffsetDateTime;
use uuid::Uuid;

/// Hex digits of an id.
pub const ID_DIGITS: usize = 12;

/// The headers that a worker sets when it sets a message aside.
const OURS: [&str; 9] = [
    "x-kind",
    "x-reason",
    "x-code",
    "x-attempts",
    FIRST_AT,
    "x-last-at",
    "x-queue",
    "x-publish-id",
    "x-message-id",
];
/// The headers that the broker adds, and counts up with each look.
const BROKERS: [&str; 3] = ["x-death", "x-delivery-count", "x-acquired-count"];
const BROKERS_BEGIN: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Whether a header was added by a worker of ours, as it set the message aside, or by the broker.
pub fn is_added(header: &str) -> bool {
    OURS.contains(&header) || is_brokers(header)
}

fn is_brokers(header: &str) -> bool {
    BROKERS.contains(&header) || BROKERS_BEGIN.iter().any(|begin| header.starts_with(begin))
}

/// What was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Request,
    Reply,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Reply => "reply",
        }
    }
}

/// A message to publish in the place of a dead letter.
#[derive(Clone, PartialEq)]
pub struct Replay {
    pub queue: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// A message of the dead-letter queue, whoever put it there.
#[derive(Clone)]
pub struct Letter {
    /// The same for each look: the first hex digits of a SHA-256.
    pub id: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    /// Whether its properties could be decoded; without, it has none here, and no worker of ours put it there.
    pub is_decoded: bool,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letter").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Letter {
    pub fn new(properties: BasicProperties, body: Vec<u8>) -> Self {
        let is_decoded = !is_unreadable(&properties);
        let properties = if is_decoded { properties } else { BasicProperties::default() };
        let mut letter = Self { id: String::new(), body, properties, is_decoded };
        for byte in letter.identity().finalize().iter().take(ID_DIGITS / 2) {
            let _ = write!(letter.id, "{byte:02x}");
        }
        letter
    }

    /// Its publisher's uuid. Without one, of all that stays the same while the message lies in the queue.
    fn identity(&self) -> Sha256 {
        let mut hash = Sha256::new();
        if let Some(id) = self.publish_id() {
            hash.update(id);
            return hash;
        }
        hash.update(self.body.len().to_be_bytes());
        hash.update(&self.body);
        for (name, value) in self.headers().filter(|(name, _)| !is_brokers(name) && !ROUTING.contains(name)) {
            hash.update(format!("{name:?}: {value:?}\n"));
        }
        hash.update(format!("{:?}", without_headers(&self.properties)));
        hash.update(if self.is_decoded { "" } else { "not decoded" });
        hash
    }

    /// Equal for copies of one publish, which a lost connection or a killed command leaves behind. `None` where equal
    /// messages may have been published apart.
    pub fn copy_of(&self) -> Option<[u8; 32]> {
        self.publish_id()?;
        Some(self.digest())
    }

    /// Tells messages apart whose ids are equal by chance.
    pub fn digest(&self) -> [u8; 32] {
        self.identity().chain_update(&self.body).finalize().into()
    }

    fn publish_id(&self) -> Option<String> {
        self.text("x-publish-id").filter(|id| !id.is_empty())
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &AMQPValue)> {
        let table = self.properties.headers().as_ref();
        table.into_iter().flat_map(FieldTable::inner).map(|(name, value)| (name.as_str(), value))
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// A header that is text.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    /// A header that is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
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

    /// `None` for what no worker of ours put there.
    pub fn kind(&self) -> Option<Kind> {
        let named = self.text("x-kind")?;
        [Kind::Request, Kind::Reply].into_iter().find(|kind| kind.as_str() == named)
    }

    /// Deliveries before this one, by the broker's count.
    pub fn deliveries(&self) -> i64 {
        self.number("x-delivery-count").unwrap_or_default()
    }

    /// The message id as its sender set it. A worker that sends no x-publish-id has put a uuid of its own there, and
    /// the sender's, or an empty text for none, into x-message-id; else that header may be the sender's.
    pub fn message_id(&self) -> Option<ShortString> {
        let property = self.properties.message_id().clone();
        match self.text("x-message-id").filter(|_| self.publish_id().is_none()) {
            Some(id) if id.is_empty() => None,
            Some(id) => ShortString::try_new(id).ok().or(property),
            None => property,
        }
    }

    /// What a fresh copy for the dead-letter queue has, whose deliveries the broker counts anew: all that made it what
    /// it is, and nothing that could let it expire, be refused or go elsewhere as well.
    pub fn properties_of_a_copy(&self) -> BasicProperties {
        let headers = self
            .headers()
            .filter(|(name, _)| !is_counter(name) && !ROUTING.contains(name))
            .collect::<Vec<_>>();
        with_headers(without_headers(&self.properties), headers)
    }

    /// The properties as they were before the message was set aside.
    fn restored(&self) -> BasicProperties {
        let mut properties = without_headers(&self.properties);
        // There is no way to unset it.
        if properties.message_id().is_some() && self.message_id().is_none() {
            properties = without_message_id(&properties);
        } else if let Some(id) = self.message_id() {
            properties = properties.with_message_id(id);
        }
        let copy = self.is_of_a_session();
        let was_there = |name: &str| !is_added(name) || (copy && name == FIRST_AT);
        let headers =
            self.headers().filter(|(name, _)| was_there(name) && !ROUTING.contains(name)).collect::<Vec<_>>();
        with_headers(properties, headers)
    }

    /// The request as the worker had it.
    pub fn request(&self) -> Envelope {
        delivery::read(&self.restored(), self.body.clone())
    }

    /// Whether it is a copy from a retry queue: without a credential, for a row that is there.
    pub fn is_of_a_session(&self) -> bool {
        [SESSION, TICKET].iter().all(|name| self.text(name).is_some_and(|id| Uuid::parse_str(&id).is_ok()))
    }

    /// The request once more, as of now. A copy from a retry queue goes as it is.
    pub fn as_request(&self, names: &Names) -> Replay {
        let mut properties = self.restored();
        if !self.is_of_a_session() {
            properties = properties.with_timestamp(now());
        }
        Replay { queue: names.requests.clone(), body: self.body.clone(), properties }
    }

    /// A copy without the credential, for the row of a request that was authenticated.
    pub fn as_session(&self, names: &Names, session: Uuid, ticket: Uuid) -> Replay {
        let was = self.restored();
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
        if let Some(queue) = was.reply_to() {
            properties = properties.with_reply_to(queue.clone());
        }
        if let Some(id) = was.correlation_id() {
            properties = properties.with_correlation_id(id.clone());
        }
        if let Some(id) = was.message_id() {
            properties = properties.with_message_id(id.clone());
        }
        Replay { queue: names.requests.clone(), body: b"{}".to_vec(), properties }
    }

    /// The reply, for the queue that it was meant for; or why there is no such. Anybody may have published the letter, so
    /// its queue has to be one that a request's `reply_to` may name.
    pub fn as_reply(&self, names: &Names, allow: &ReplyToAllow) -> Result<Replay, String> {
        let queue = self.text("x-queue").filter(|queue| ShortString::try_new(queue.as_str()).is_ok());
        match queue.filter(|queue| !queue.is_empty()) {
            None => Err("its x-queue does not say where it belongs".to_owned()),
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

/// How to find the row of a request: the group and the message id that it names.
pub fn named(envelope: &Envelope) -> (Option<GroupId>, Option<&str>) {
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

/// What is kept of the properties, beside headers: not the expiration, and not a user id, which the broker would hold
/// against ours.
fn without_headers(properties: &BasicProperties) -> BasicProperties {
    let kept = without_message_id(properties);
    match properties.message_id().clone() {
        Some(id) => kept.with_message_id(id),
        None => kept,
    }
}

fn without_message_id(properties: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default().with_delivery_mode(2);
    macro_rules! keep {
        ($($get:ident => $with:ident),+) => { $(if let Some(value) = properties.$get().clone() { kept = kept.$with(value); })+ };
    }
    keep!(content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
          correlation_id => with_correlation_id, reply_to => with_reply_to, timestamp => with_timestamp,
          kind => with_type, app_id => with_app_id);
    kept
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
    fn an_id_is_the_same_for_each_look_and_copy() {
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
    }

    #[test]
    fn the_senders_message_id_is_found_wherever_it_was_kept() {
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
        // Set aside by a worker that puts its own id into the property.
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
        let was = delivery::read(&original, body.clone());
        let mut headers = original.headers().clone().unwrap();
        for name in OURS {
            headers.insert(name.into(), AMQPValue::LongString("x".into()));
        }
        headers.insert("x-message-id".into(), AMQPValue::LongString("".into()));
        headers.insert("x-last-death-queue".into(), AMQPValue::LongString("q".into()));
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        let dead = Letter::new(original.with_headers(headers), body);
        assert_eq!(dead.request().sha256(), was.sha256());
        assert_eq!(named(&dead.request()).0.map(GroupId::get), Some(72));

        let names = Names::new("p");
        let again = dead.as_request(&names);
        assert_eq!((again.queue.as_str(), &again.body), ("p.requests", &dead.body));
        assert!(again.properties.timestamp().unwrap() > 1_000_000_000);
        let kept: Vec<_> =
            again.properties.headers().as_ref().unwrap().inner().keys().map(ShortString::as_str).collect();
        assert_eq!(kept, ["Authorization", "groupid", "traceparent"]);

        let copy = dead.as_session(&names, Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(copy.body, b"{}");
        let copy = Letter::new(copy.properties, copy.body);
        assert!(copy.is_of_a_session() && copy.text("Authorization").is_none());
        assert_eq!(copy.text("traceparent").as_deref(), Some(TRACE));
        assert_eq!(copy.properties.reply_to().as_ref().map(ShortString::as_str), Some("r"));
        assert_eq!(copy.properties.correlation_id().as_ref().map(ShortString::as_str), Some("c"));
    }

    #[test]
    fn a_copy_from_a_retry_queue_goes_as_it_is() {
        let id = Uuid::from_u128(7).to_string();
        let copy = letter(
            with(&[("x-kind", "request"), ("x-session-id", &id), ("x-ticket", &id)]).with_timestamp(5),
        );
        let again = copy.as_request(&Names::new("p"));
        assert_eq!(again.properties.timestamp(), &Some(5));
        assert!(Letter::new(again.properties, again.body).is_of_a_session());
        assert!(!letter(with(&[("x-session-id", &id)])).is_of_a_session());
        assert!(!letter(with(&[("x-session-id", &id), ("x-ticket", "guess")])).is_of_a_session());
    }

    #[test]
    fn a_reply_goes_to_its_queue_and_to_none_of_the_workers_own() {
        let names = Names::new("p");
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
    fn what_cannot_be_decoded_has_an_id_and_nothing_else() {
        let marked = || BasicProperties::default().with_cluster_id(crate::queue::wire::mark().into());
        let letter = Letter::new(marked(), b"{}".to_vec());
        assert!(
            !letter.is_decoded && letter.kind().is_none() && letter.properties == BasicProperties::default()
        );
        assert_eq!(letter.id, Letter::new(marked(), b"{}".to_vec()).id);
        assert_ne!(letter.id, Letter::new(BasicProperties::default(), b"{}".to_vec()).id);
    }
}
