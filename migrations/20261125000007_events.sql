-- Joining, receipts, and the events of what becomes of a session (contract, section 13).
--
-- Each statement here only changes the catalogue, or makes a new table. Old workers go on: they write no events.

alter table sessions add column undelivered_at timestamptz;
comment on column sessions.undelivered_at is 'When the provider said that the text would not arrive.';
comment on column sessions.error_code is 'Why there was no session, or what is not known of its text: a code of docs/INTEGRATION.md. Of an undelivered text: the provider''s own code, if it gave one.';

-- An agent may join while the worker is still recording what the provider answered: then it is live as a joined one is.
create or replace view live_sessions as
    select id, group_id, session_key, status, session_type, session_params, phone, requested_by,
           created_at, sent_at, delivered_at, joined_at, expires_at
      from sessions
     where key_held
       and (status = 'joined'
            or (status in ('sending', 'sent', 'delivered', 'undelivered', 'unknown')
                and (expires_at > now() or joined_at is not null)));

-- The outbox: written by the statement that moves a session on, emptied by a worker once the broker has confirmed.
create table events (
    id          bigint generated always as identity primary key,
    session_id  uuid not null,
    group_id    bigint not null,
    session_key text,
    event       text not null check (event in ('sent', 'delivered', 'undelivered', 'joined', 'expired', 'ended')),
    at          timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_insert_threshold = 100000, autovacuum_analyze_threshold = 10000);

comment on table events is 'What became of sessions and is not published yet: the outbox of the exchange QUEUE_PREFIX.events.';
comment on column events.id is 'In the order in which a session moved on; the message_id of what is published.';
comment on column events.session_id is 'The session''s id.';
comment on column events.group_id is 'The session''s group.';
comment on column events.session_key is 'The session''s key.';
comment on column events.event is 'The status that the session came to: sent, delivered, undelivered, joined, expired, ended.';
comment on column events.at is 'When.';
