//! The statement that an invite begins with, or is refused by. Safe to repeat.

use super::{
    Lease,
    batch::Statement,
    claim::span,
    gate::{Gated, Gates},
    row::{NewRow, Written},
    statements::to_json,
};
use crate::{
    db::kinds::{self, Kind},
    supervise::Task,
};
use sqlx::PgConnection;
use std::{collections::HashMap, time::Instant};
use uuid::Uuid;

/// What became of a row.
#[derive(Debug, Clone, Copy)]
pub enum Inserted {
    Written(Written),
    /// It would have begun a session, which may not begin.
    Gated(Gated),
    /// Its key or message id is taken, or it is there already.
    Not,
}

/// Inserts rows, and decides in the same statement which sessions may begin.
///
/// What other workers' statements have not committed yet, it does not see: of several workers that begin sessions for one
/// number at the same moment, each may let as many pass as there is room for.
#[derive(Debug)]
pub struct Insert {
    pub lease: Lease,
}

impl Statement for Insert {
    type Row = NewRow;
    type Answer = Inserted;
    const TASK: Task = Task::InsertSessions;

    fn kind(&self) -> &'static Kind {
        &kinds::INSERT_SESSIONS
    }

    async fn run(&self, line: &mut PgConnection, rows: &[NewRow]) -> Result<Vec<Inserted>, sqlx::Error> {
        fn column<'a, T>(rows: &'a [NewRow], value: impl Fn(&'a NewRow) -> T) -> Vec<T> {
            rows.iter().map(value).collect()
        }
        let (gates, begun) = (Gates::of(rows), Instant::now());
        let inserted = sqlx::query!(
            r#"
            with gated as materialized (
                -- The offsets keep the planner from asking twice, and the limits from reading a whole table for a hash.
                select g.* from (
                    select n.id,
                           (select true from optouts o
                             where o.phone_hash = n.phone_hash and o.sender = any(array[n.sender, '*']) limit 1) as opted_out,
                           case when n.at_most is not null then
                               (select extract(epoch from s.created_at - now())::float8 + n.period from sessions s
                                 where s.phone = n.phone and s.group_id = n.group_id and s.token is not null
                                   and s.id > n.since and s.id <> n.id and s.created_at > now() - make_interval(secs => n.period)
                                 order by s.id desc offset n.at_most - 1 limit 1) end as after,
                           case when n.nth > n.at_most then true
                                when n.nth > 1 then
                               (select true from sessions s
                                 where s.phone = n.phone and s.group_id = n.group_id and s.token is not null
                                   and s.id > n.since and s.id <> n.id and s.created_at > now() - make_interval(secs => n.period)
                                 order by s.id desc offset n.at_most - n.nth limit 1) end as crowded
                      from (select unnest($23::uuid[]) as id, unnest($24::bigint[]) as group_id, unnest($25::text[]) as phone,
                                   unnest($26::text[]) as sender, unnest($27::bytea[]) as phone_hash,
                                   unnest($28::int[]) as at_most, unnest($29::int[]) as nth, unnest($30::float8[]) as period,
                                   unnest($31::uuid[]) as since) n
                    offset 0) g
                 where g.opted_out or g.after is not null or g.crowded
            ), written as (
            insert into sessions (id, group_id, status, session_type, session_params, phone, requested_by, message_id,
                                  correlation_id, request_sha256, owns_message_id, session_key, token, invitation_text,
                                  error_code, error, key_held, attempts, text_state, unsure_from, lease_until, expires_at,
                                  due_at, ended_at, acknowledged, deadline_at, valid_until)
            select r.id, r.group_id, r.status, r.session_type, r.session_params::jsonb, r.phone, r.requested_by, r.message_id,
                   r.correlation_id, r.request_sha256, r.owns_message_id, r.session_key, r.token, r.invitation_text,
                   r.error_code, r.error::jsonb, r.ttl is not null, (r.ttl is not null)::int, r.text_state,
                   case when r.ttl is not null then now() + make_interval(secs => $21) end,
                   case when r.ttl is not null then now() + make_interval(secs => $21 + $22) end,
                   now() + make_interval(secs => r.ttl), now() + make_interval(secs => r.ttl),
                   case when r.ttl is null then now() end, r.message_id is not null,
                   now() + make_interval(secs => r.deadline), now() + make_interval(secs => r.own_limit)
              -- Not in the from clause: there each array would be kept in a store of its own first.
              from (select unnest($1::uuid[]) as id, unnest($2::bigint[]) as group_id, unnest($3::text[]) as status,
                           unnest($4::int[]) as session_type, unnest($5::text[]) as session_params,
                           unnest($6::text[]) as phone, unnest($7::text[]) as requested_by, unnest($8::text[]) as message_id,
                           unnest($9::text[]) as correlation_id, unnest($10::bytea[]) as request_sha256,
                           unnest($11::bool[]) as owns_message_id, unnest($12::text[]) as session_key,
                           unnest($13::text[]) as token, unnest($14::text[]) as invitation_text,
                           unnest($15::text[]) as error_code, unnest($16::text[]) as error, unnest($17::float8[]) as ttl,
                           unnest($18::text[]) as text_state, unnest($19::float8[]) as deadline,
                           unnest($20::float8[]) as own_limit) r
             where r.id <> all (array(select gated.id from gated))
            on conflict do nothing
            returning id, expires_at, ticket
            )
            select id as "id!", expires_at, ticket, null::bool as opted_out, null::float8 as after from written
            union all
            select id, null, null, coalesce(opted_out, false), after from gated
            "#,
            &column(rows, |row| row.id),
            &column(rows, |row| row.about.group.get()),
            &column(rows, NewRow::status) as &[&str],
            &column(rows, |row| row.asked.session_type) as &[Option<i32>],
            &column(rows, |row| row.asked.session_params.as_str()) as &[&str],
            &column(rows, |row| row.asked.phone.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.about.requested_by.as_str()) as &[&str],
            &column(rows, |row| row.about.message_id.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.about.correlation_id.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.about.request_sha256.as_slice()) as &[&[u8]],
            &column(rows, |row| row.owns_message_id && row.about.message_id.is_some()),
            &column(rows, |row| row.begun().map(|begun| begun.key.as_str())) as &[Option<&str>],
            &column(rows, |row| row.begun().map(|begun| begun.token.as_str())) as &[Option<&str>],
            &column(rows, |row| row.begun().map(|begun| begun.text.as_str())) as &[Option<&str>],
            &column(rows, |row| row.refusal().map(|refusal| refusal.code.as_str())) as &[Option<&str>],
            &column(rows, |row| row.refusal().map(to_json)) as &[Option<String>],
            &column(rows, |row| row.begun().map(|begun| begun.ttl.as_secs_f64())) as &[Option<f64>],
            &column(rows, NewRow::text_state) as &[Option<&str>],
            &column(rows, |row| row.about.deadline.map(|left| left.as_secs_f64())) as &[Option<f64>],
            &column(rows, |row| row.about.own_limit.map(|left| left.as_secs_f64())) as &[Option<f64>],
            self.lease.ends.as_secs_f64(),
            self.lease.settle.as_secs_f64(),
            &gates.ids,
            &gates.groups,
            &gates.phones as &[&str],
            &gates.senders as &[&str],
            &gates.phone_hashes as &[&[u8]],
            &gates.at_most as &[Option<i32>],
            &gates.nth,
            &gates.window as &[Option<f64>],
            &gates.since,
        )
        .fetch_all(line)
        .await?;
        let mut answers: HashMap<Uuid, Inserted> = HashMap::with_capacity(inserted.len());
        for row in inserted {
            let answer = match (row.opted_out, row.after, row.ticket) {
                (None, _, Some(ticket)) => {
                    Inserted::Written(Written { expires_at: row.expires_at, ticket, begun })
                }
                (Some(true), ..) => Inserted::Gated(Gated::OptedOut),
                (_, Some(after), _) => Inserted::Gated(Gated::TooMany { after: span(after) }),
                _ => Inserted::Gated(Gated::Crowded),
            };
            // Of a row with two gates, the opt-out counts before the limit.
            if !matches!(answers.get(&row.id), Some(Inserted::Gated(Gated::OptedOut))) {
                answers.insert(row.id, answer);
            }
        }
        Ok(rows.iter().map(|row| answers.get(&row.id).copied().unwrap_or(Inserted::Not)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        group::tests::with_database,
        group_id::GroupId,
        optouts::Hashes,
        rate_limit::RateLimit,
        sessions::{
            About, Asked, Gate,
            row::{Begun, Content},
        },
    };
    use std::time::Duration;

    const INSERT: Insert =
        Insert { lease: Lease { ends: Duration::from_secs(20), settle: Duration::from_secs(30) } };

    fn row(n: usize, phone: &str, at_most: u32) -> NewRow {
        NewRow {
            id: Uuid::now_v7(),
            about: About {
                group: GroupId::new(72).expect("a group's id"),
                requested_by: "gkey:12345".to_owned(),
                message_id: Some(format!("m{n}")),
                correlation_id: None,
                request_sha256: [0; 32],
                redelivered: false,
                received: Instant::now(),
                deadline: None,
                own_limit: None,
            },
            asked: Asked {
                session_type: Some(1),
                phone: Some(phone.to_owned()),
                session_params: "{}".to_owned(),
            },
            owns_message_id: true,
            content: Content::Begun(Begun {
                key: format!("{n:06}"),
                token: format!("token{n}"),
                text: "a text".to_owned(),
                ttl: Duration::from_mins(10),
                gate: Gate {
                    sender: "+15005550006".into(),
                    hashes: Hashes { own: [7; 32], twin: None },
                    per_number: (at_most > 0)
                        .then_some(RateLimit { count: at_most, window: Duration::from_hours(1) }),
                },
            }),
        }
    }

    fn told(answers: &[Inserted]) -> String {
        let letter = |answer: &Inserted| match answer {
            Inserted::Written(_) => 'w',
            Inserted::Gated(Gated::Crowded) => 'c',
            Inserted::Gated(Gated::TooMany { .. }) => 't',
            Inserted::Gated(Gated::OptedOut) => 'o',
            Inserted::Not => 'n',
        };
        answers.iter().map(letter).collect()
    }

    #[tokio::test]
    async fn of_one_statement_as_many_begin_as_there_is_room_for_and_it_is_safe_to_repeat() {
        with_database(|pool| async move {
            let mut line = pool.acquire().await.unwrap();
            let rows: Vec<_> = (0..5).map(|n| row(n, "+12015550100", 3)).collect();
            assert_eq!(told(&INSERT.run(&mut line, &rows).await.unwrap()), "wwwcc");
            // As after a lost connection: each finds that it is there, as soon as it is asked about alone.
            assert_eq!(told(&INSERT.run(&mut line, &rows).await.unwrap()), "ncctt");
            for (own, expected) in rows.iter().zip(["n", "n", "n", "t", "t"]) {
                assert_eq!(told(&INSERT.run(&mut line, std::slice::from_ref(own)).await.unwrap()), expected);
            }
            // Whoever has no limit, or another number, is not counted against.
            let others = [row(10, "+12015550100", 0), row(11, "+12015550101", 3)];
            assert_eq!(told(&INSERT.run(&mut line, &others).await.unwrap()), "ww");
            let last = row(12, "+12015550100", 5);
            assert_eq!(told(&INSERT.run(&mut line, std::slice::from_ref(&last)).await.unwrap()), "w");
            let after = INSERT.run(&mut line, &[row(13, "+12015550100", 5)]).await.unwrap();
            let [Inserted::Gated(Gated::TooMany { after })] = after[..] else { panic!("{after:?}") };
            assert!(after > Duration::from_secs(3_590) && after <= Duration::from_hours(1), "{after:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn an_opt_out_counts_for_its_sender_or_for_any_and_before_the_limit() {
        with_database(|pool| async move {
            let mut line = pool.acquire().await.unwrap();
            for (sender, expected) in [("MG1", "w"), ("+15005550006", "o"), ("*", "o")] {
                sqlx::query("delete from optouts").execute(&mut *line).await.unwrap();
                sqlx::query("insert into optouts (phone_hash, sender, last_digits, source) values ($1, $2, '00', 'command')")
                    .bind([7_u8; 32].as_slice())
                    .bind(sender)
                    .execute(&mut *line)
                    .await
                    .unwrap();
                let rows = [row(0, "+12015550100", 1)];
                assert_eq!(told(&INSERT.run(&mut line, &rows).await.unwrap()), expected, "{sender}");
                // Likewise where it stands under the other way of writing the number.
                let full = if expected == "w" { "t" } else { expected };
                for (n, expected) in [(1, expected), (2, full)] {
                    let mut row = row(n, "+12015550101", 1);
                    if let Content::Begun(begun) = &mut row.content {
                        begun.gate.hashes = Hashes { own: [8; 32], twin: Some([7; 32]) };
                    }
                    assert_eq!(told(&INSERT.run(&mut line, &[row]).await.unwrap()), expected, "{sender} {n}");
                }
            }
        })
        .await;
    }
}
