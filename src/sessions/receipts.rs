//! What the provider reports about a session's text: in its list, in a late answer, in a receipt. Reports may come in any
//! order and many times; the row is the same in the end.

use super::{
    claim_times::span,
    metrics,
    status::Status,
    steps::{ReportSource, Step},
};
use crate::{
    db::{Patience, kinds, repeat},
    group_id::GroupId,
};
use sqlx::PgPool;
use std::time::SystemTime;
use time::OffsetDateTime;
use uuid::Uuid;

/// What the provider reports about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextReport {
    Accepted,
    Delivered,
    /// It will not arrive.
    Undelivered {
        /// The provider's, if it gave one.
        code: Option<i32>,
    },
}

impl TextReport {
    /// What a status means (<https://www.twilio.com/docs/messaging/api/message-resource#message-status-values>); `None` for
    /// one that is not of a text from here.
    pub(crate) fn of_status(status: &str, code: Option<i32>) -> Option<Self> {
        match status {
            "accepted" | "scheduled" | "queued" | "sending" | "sent" => Some(Self::Accepted),
            "delivered" | "read" | "partially_delivered" => Some(Self::Delivered),
            "undelivered" | "failed" | "canceled" => Some(Self::Undelivered { code }),
            _ => None,
        }
    }
}

/// What a report means for its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReportResult {
    /// The row has it, by this report or an earlier one.
    Noted,
    /// The provider had accepted another text of this session before, under the id `first`.
    SecondText {
        first: Option<String>,
    },
    /// The reply had denied that there is a text.
    TextAfterDenial,
    NoSession,
}

/// Whether there is a session with this id.
pub(crate) async fn exists(pool: &PgPool, session: Uuid) -> Result<bool, sqlx::Error> {
    let look = || async {
        sqlx::query_scalar("select exists (select from sessions where id = $1)")
            .bind(session)
            .fetch_one(pool)
            .await
    };
    repeat(&kinds::LOOK_UP, Patience::Brief, look).await
}

/// Notes a receipt, whose status is one of [`TextReport::of_status`].
pub(crate) async fn note_receipt(
    pool: &PgPool,
    session: Uuid,
    provider_message_id: &str,
    report: TextReport,
    status: &str,
    by: ReportSource,
) -> Result<ReportResult, sqlx::Error> {
    let code = if let TextReport::Undelivered { code } = report { code } else { None };
    let (status, sid) = (status.to_owned(), provider_message_id.to_owned());
    let step = Step::Receipt { status, code, sid, by, changed: false, ours: false };
    let note = || note(pool, session, provider_message_id, report, Some(&step));
    let result = repeat(&kinds::NOTE_RECEIPT, Patience::Brief, note).await?;
    report_contradiction(session, provider_message_id, &result);
    Ok(result)
}

/// Logs and counts what must not happen: a second text, or a text after a reply that denied one.
pub(super) fn report_contradiction(session: Uuid, provider_message_id: &str, result: &ReportResult) {
    match result {
        ReportResult::Noted | ReportResult::NoSession => {}
        ReportResult::SecondText { first } => {
            metrics::duplicate_sms();
            tracing::error!(%session, first, second = provider_message_id, "a visitor was texted twice");
        }
        ReportResult::TextAfterDenial => {
            metrics::sms_after_failure_reply();
            tracing::error!(%session, text = provider_message_id, "a text went out after the reply had denied that");
        }
    }
}

/// Notes a report, with its events. It proves that there is a text, no matter which worker has a claim on the row. So it
/// settles a session that is `sending` or `unknown`; an outcome that was answered stays. `delivered` is final: an undelivered
/// text may still arrive, and one that has arrived stays delivered.
///
/// `step` is kept unless the row tells it all: by this report the text has arrived.
pub(crate) async fn note(
    pool: &PgPool,
    session: Uuid,
    provider_message_id: &str,
    report: TextReport,
    step: Option<&Step>,
) -> Result<ReportResult, sqlx::Error> {
    let status = match report {
        TextReport::Accepted => (Status::Sent, None),
        TextReport::Delivered => (Status::Delivered, None),
        TextReport::Undelivered { code } => (Status::Undelivered, code.map(|code| code.to_string())),
    };
    let step = step.map(Step::columns).unzip();
    let noted = note_in_row(pool, session, provider_message_id, status, step).await?;
    noted.count();
    if noted.is_ours { Ok(ReportResult::Noted) } else { contradiction(pool, session).await }
}

async fn note_in_row(
    pool: &PgPool,
    session: Uuid,
    provider_message_id: &str,
    (status, code): (Status, Option<String>),
    (kind, detail): (Option<String>, Option<String>),
) -> Result<NotedReport, sqlx::Error> {
    sqlx::query_as!(
        NotedReport,
        r#"
        with ours as materialized (
            select id, status from sessions
             where id = $1
               and (provider_message_id = $2
                    or (provider_message_id is null and token is not null and coalesce(text_state, 'begun') <> 'refused'))
               for update
        ),
        noted as (
            update sessions s
               set provider_message_id = $2,
                   text_state = 'accepted',
                   lease_until = null,
                   sent_at = coalesce(s.sent_at, now()),
                   delivered_at = case when $3 = 'delivered' then coalesce(s.delivered_at, now()) else s.delivered_at end,
                   undelivered_at = case when $3 = 'undelivered' then coalesce(s.undelivered_at, now()) else s.undelivered_at end,
                   error_code = case when s.error is not null then s.error_code
                                     when $3 = 'undelivered' then $4
                                     when $3 = 'delivered' then null
                                     else s.error_code end,
                   status = case when s.status not in ('sending', 'unknown', 'sent', 'delivered', 'undelivered') then s.status
                                 when s.joined_at is not null then 'joined'
                                 when $3 = 'delivered' or s.delivered_at is not null then 'delivered'
                                 when $3 = 'undelivered' or s.undelivered_at is not null then 'undelivered'
                                 else 'sent' end,
                   updated_at = now()
              from ours
             where s.id = any(array[ours.id])
               -- No update if nothing changes.
               and (s.provider_message_id is null or s.status in ('sending', 'unknown')
                    or (s.delivered_at is null and ($3 = 'delivered' or ($3 = 'undelivered' and s.undelivered_at is null))))
            returning s.id, s.group_id, s.session_key, ours.status as was, s.created_at, s.delivered_at, s.published_at
        ),
        new_events as (
            insert into events (session_id, group_id, session_key, event)
            select noted.id, noted.group_id, noted.session_key, e.event
              from noted
             cross join lateral unnest(array[case when noted.was in ('sending', 'unknown') then 'sent' end, nullif($3, 'sent')])
                   with ordinality as e (event, nth)
             where e.event is not null
             order by e.nth
        ),
        new_steps as (
            insert into steps (session_id, kind, detail)
            select s.id, $5, $6::text::jsonb || jsonb_build_object('changed', exists (select from noted), 'ours', exists (select from ours))
              from sessions s
             where s.id = $1 and $5::text is not null and not exists (select from noted where delivered_at = now())
               and (select count(*) from (select from steps k where k.session_id = s.id limit 200) kept) < 200
        )
        select exists (select from ours) as "is_ours!",
               n.group_id as "group?: GroupId",
               coalesce(n.was = 'sending', false) as "is_outcome!",
               coalesce(n.delivered_at = now(), false) as "is_delivered!",
               coalesce(extract(epoch from now() - n.created_at), 0)::float8 as "age!",
               n.published_at as "published_at?"
          from (select) one left join noted n on true
        "#,
        session,
        provider_message_id,
        status.as_str(),
        code,
        kind,
        detail,
    )
    .fetch_one(pool)
    .await
}

/// What a report has changed in its session's row.
struct NotedReport {
    /// Whether the text is this session's.
    is_ours: bool,
    group: Option<GroupId>,
    /// Whether it is the invite's outcome.
    is_outcome: bool,
    /// Whether it is the first that says that the text has arrived.
    is_delivered: bool,
    /// Since the row was created, in seconds.
    age: f64,
    published_at: Option<OffsetDateTime>,
}

impl NotedReport {
    fn count(&self) {
        let published = self.published_at.map(SystemTime::from);
        if let Some(group) = self.group.filter(|_| self.is_outcome) {
            metrics::sent(group, published, span(self.age));
        }
        if self.is_delivered {
            metrics::delivered(published);
        }
    }
}

/// Why a text cannot be noted in its session's row.
async fn contradiction(pool: &PgPool, session: Uuid) -> Result<ReportResult, sqlx::Error> {
    let row = sqlx::query!(
        r#"select provider_message_id,
                  status in ('rejected', 'failed') or coalesce(text_state = 'refused', false) as "is_denied!"
             from sessions where id = $1"#,
        session
    )
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        None => ReportResult::NoSession,
        Some(row) if row.is_denied => ReportResult::TextAfterDenial,
        Some(row) => ReportResult::SecondText { first: row.provider_message_id },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        for status in ["accepted", "scheduled", "queued", "sending", "sent"] {
            assert_eq!(TextReport::of_status(status, None), Some(TextReport::Accepted), "{status}");
        }
        assert_eq!(TextReport::of_status("delivered", None), Some(TextReport::Delivered));
        for status in ["undelivered", "failed", "canceled"] {
            assert_eq!(
                TextReport::of_status(status, Some(30_003)),
                Some(TextReport::Undelivered { code: Some(30_003) }),
                "{status}"
            );
        }
        assert_eq!(TextReport::of_status("receiving", None), None);
    }
}
