//! Accounts for each invite, by what its publisher heard and what the provider has. The worker's word, its rows, only
//! has to agree.

use crate::{
    agree::{Rows, holds_its_id, name, row, told, unexpected},
    book::{DeadLetter, Entry},
    events::{Event, were_told},
    invite::{Invite, Kind},
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::OffsetDateTime;

#[cfg(test)]
mod tests;

/// A text that the provider accepted.
#[derive(Debug, Clone, Deserialize)]
pub struct Accepted {
    pub sid: String,
    pub to: String,
    pub body: String,
    #[serde(with = "time::serde::rfc3339")]
    pub received: OffsetDateTime,
}

/// What the run has left behind.
pub struct Evidence {
    pub invites: Vec<Invite>,
    pub entries: Vec<Entry>,
    pub strays: Vec<String>,
    pub dead: Vec<DeadLetter>,
    pub texts: Vec<Accepted>,
    pub rows: Vec<Value>,
    /// In the order in which they came.
    pub events: Vec<Event>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Confirmed by the broker, and never answered.
    Lost,
    /// More than one text for one invite.
    Doubled,
    /// Two answers to one request, or two outcomes of one id.
    Conflict,
    /// A text that its sender was told does not exist, or the other way round.
    Untrue,
    /// An answer that this invite cannot have.
    Unexpected,
    /// A dead letter that is not poison.
    Dead,
    /// A row that does not agree.
    Row,
    /// A refusal that has two rows. Its answers are equal, so that this does not count against the run.
    Surplus,
    /// Without an id, and begun by two workers: one had lost the message and did not know it yet (docs/DELIVERY.md).
    BegunTwice,
    /// A reply or a text of nobody's.
    Stray,
    /// A step of a session without its event, or events in another order.
    Untold,
}

impl Wrong {
    pub const ALL: [Self; 11] = [
        Self::Lost,
        Self::Doubled,
        Self::Conflict,
        Self::Untrue,
        Self::Unexpected,
        Self::Dead,
        Self::Row,
        Self::Surplus,
        Self::BegunTwice,
        Self::Stray,
        Self::Untold,
    ];

    /// Whether it breaks a promise.
    pub fn counts(self) -> bool {
        !matches!(self, Self::Surplus | Self::BegunTwice)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "texted twice",
            Self::Conflict => "conflicting replies",
            Self::Untrue => "told otherwise than texted",
            Self::Unexpected => "unexpected outcomes",
            Self::Dead => "dead letters, not poison",
            Self::Row => "rows that disagree",
            Self::Surplus => "refusals with two rows",
            Self::BegunTwice => "without an id, begun twice",
            Self::Stray => "strays",
            Self::Untold => "events that were not told",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Anomaly {
    pub wrong: Wrong,
    /// The index of its invite.
    pub invite: Option<usize>,
    pub what: String,
}

/// The account.
#[derive(Debug, Default)]
pub struct Account {
    pub published: usize,
    pub answered: usize,
    /// Those of them that were asked for over HTTP.
    pub over_http: usize,
    /// Messages under which invites were published, and the replies to them.
    pub messages: usize,
    pub replies: usize,
    /// Published, without a confirm and without an answer: the broker never had them, as far as anybody knows.
    pub unconfirmed: usize,
    /// Invites by their outcome.
    pub outcomes: BTreeMap<String, usize>,
    pub texts: usize,
    pub dead_expected: usize,
    /// Events that came, and those of them that had come before.
    pub events: usize,
    pub events_repeated: usize,
    pub anomalies: Vec<Anomaly>,
}

impl Account {
    pub fn count(&self, wrong: Wrong) -> usize {
        self.anomalies.iter().filter(|anomaly| anomaly.wrong == wrong).count()
    }

    pub fn add(&mut self, wrong: Wrong, invite: impl Into<Option<usize>>, what: impl Into<String>) {
        self.anomalies.push(Anomaly { wrong, invite: invite.into(), what: what.into() });
    }
}

pub fn account(evidence: &Evidence) -> Account {
    let mut account = Account { texts: evidence.texts.len(), ..Account::default() };
    let mut texts: HashMap<&str, Vec<&Accepted>> = HashMap::new();
    for text in &evidence.texts {
        texts.entry(&text.to).or_default().push(text);
    }
    let rows = Rows::new(&evidence.rows);
    for (invite, entry) in evidence.invites.iter().zip(&evidence.entries) {
        if !entry.publishes.is_empty() {
            let before = account.anomalies.len();
            invite_is(&mut account, invite, entry, &texts, &rows);
            let own = texts.get(invite.phone.as_str()).map_or(0, Vec::len);
            if invite.kind == Kind::Anonymous && rows.of(invite).len() == 2 && own <= 2 {
                begun_twice(&mut account, before, invite);
            }
        }
    }
    strays(&mut account, evidence);
    were_told(&mut account, &evidence.rows, &evidence.events);
    account
}

/// What follows of a second row is one thing, and not promised against.
fn begun_twice(account: &mut Account, before: usize, invite: &Invite) {
    let follows = |wrong| {
        matches!(wrong, Wrong::Doubled | Wrong::Conflict | Wrong::Untrue | Wrong::Row | Wrong::Surplus)
    };
    let new = account.anomalies.split_off(before);
    let (follow, other): (Vec<_>, Vec<_>) = new.into_iter().partition(|anomaly| follows(anomaly.wrong));
    account.anomalies.extend(other);
    let what: Vec<_> = follow.into_iter().map(|anomaly| anomaly.what).collect();
    account.add(Wrong::BegunTwice, invite.index, what.join("; "));
}

/// One invite.
fn invite_is(
    account: &mut Account,
    invite: &Invite,
    entry: &Entry,
    texts: &HashMap<&str, Vec<&Accepted>>,
    rows: &Rows<'_>,
) {
    account.published += 1;
    account.messages += entry.publishes.len();
    account.replies += entry.heard.len();
    let replies = by_publish(account, invite, entry);
    let none = Vec::new();
    let own = texts.get(invite.phone.as_str()).filter(|_| invite.kind != Kind::OptedOut).unwrap_or(&none);
    if replies.is_empty() {
        // Perhaps the broker never had it. If the provider had, it did.
        if !own.is_empty() {
            account.add(Wrong::Lost, invite.index, format!("a text, {}, and no reply", own[0].sid));
        }
        return;
    }
    account.answered += 1;
    account.over_http += usize::from(invite.over_http);
    let mut held = BTreeSet::new();
    for (publish, body) in &replies {
        let other = entry.publishes[*publish].phone != invite.phone;
        if let Some(what) = unexpected(invite, other, body) {
            account.add(Wrong::Unexpected, invite.index, what);
        }
        if holds_its_id(body) {
            held.insert(*body);
        }
    }
    if held.len() > 1 {
        account.add(Wrong::Conflict, invite.index, format!("{} outcomes of one id", held.len()));
    }
    let last = held.first().copied().unwrap_or_else(|| replies[0].1);
    let outcome: Value = serde_json::from_slice(last).unwrap_or_default();
    *account.outcomes.entry(name(&outcome)).or_default() += 1;
    if invite.kind != Kind::OptedOut {
        told(account, invite, &outcome, own);
        if let Some(text) = texts.get(invite.other_phone.as_str()).and_then(|all| all.first()) {
            let what = format!("{} to the number of a refused use of its id", text.sid);
            account.add(Wrong::Untrue, invite.index, what);
        }
    }
    row(account, invite, entry, &outcome, rows);
}

/// Its replies by publish. Each confirmed message has to have one, and each message one at most.
fn by_publish<'a>(account: &mut Account, invite: &Invite, entry: &'a Entry) -> Vec<(usize, &'a [u8])> {
    let mut replies = Vec::new();
    for (place, publish) in entry.publishes.iter().enumerate() {
        let heard = entry.heard.iter().filter(|heard| heard.publish == place);
        let bodies: BTreeSet<&[u8]> = heard.clone().map(|heard| heard.body.as_slice()).collect();
        match bodies.len() {
            0 if publish.confirmed.is_some() => {
                account.add(Wrong::Lost, invite.index, format!("no reply to publish {place}"));
            }
            0 => account.unconfirmed += 1,
            1 => {}
            several => {
                account.add(Wrong::Conflict, invite.index, format!("{several} replies to publish {place}"));
            }
        }
        if invite.kind != Kind::Orphan && heard.clone().any(|heard| heard.dead) {
            account.add(Wrong::Dead, invite.index, "a reply among the dead letters");
        }
        replies.extend(bodies.into_iter().map(|body| (place, body)));
    }
    replies
}

/// What belongs to no invite.
fn strays(account: &mut Account, evidence: &Evidence) {
    for stray in &evidence.strays {
        account.add(Wrong::Stray, None, format!("a reply to nothing: {stray}"));
    }
    let numbers: BTreeSet<&str> = (evidence.invites.iter())
        .flat_map(|invite| [invite.phone.as_str(), invite.other_phone.as_str()])
        .collect();
    for text in evidence.texts.iter().filter(|text| !numbers.contains(text.to.as_str())) {
        account.add(Wrong::Stray, None, format!("a text to a number of nobody's: {}", text.sid));
    }
    let orphans: BTreeSet<String> = (evidence.invites.iter())
        .filter(|invite| invite.kind == Kind::Orphan)
        .map(|invite| invite.index.to_string())
        .collect();
    for letter in &evidence.dead {
        let of_orphan = letter.correlation.split('.').next().is_some_and(|index| orphans.contains(index));
        if letter.kind == "reply" && of_orphan {
            account.dead_expected += 1;
        } else if letter.kind != "reply" {
            let what = format!("a {} of {:?}: {}", letter.kind, letter.correlation, letter.reason);
            let invite = letter.correlation.split('.').next().and_then(|index| index.parse().ok());
            account.add(Wrong::Dead, invite, what);
        }
    }
}
