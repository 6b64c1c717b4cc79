-- Sessions: one row for each invite whose sender was authenticated, whatever became of it.
--
-- What the worker updates on its way (status, provider_message_id, sent_at, updated_at, ...) stands in no
-- index and in no index's predicate, so that those updates stay heap-only (HOT).

create table sessions (
    id                  uuid primary key,
    group_id            bigint not null,
    session_key         text check (session_key ~ '^[0-9]{4,12}$'),
    status              text not null check (status in ('sending', 'sent', 'delivered', 'undelivered', 'unknown',
                                                        'joined', 'expired', 'ended', 'rejected', 'failed')),
    session_type        integer check (session_type between 0 and 32767),
    session_params      jsonb not null default '{}',
    phone               text,
    invitation_text     text,
    token               text,
    requested_by        text not null,
    message_id          text,
    correlation_id      text,
    attempts            integer not null default 0,
    provider_message_id text,
    error_code          text,
    error               jsonb,
    request_sha256      bytea,
    key_held            boolean not null default false,
    owns_message_id     boolean not null default false,
    acknowledged        boolean not null default true,
    lease_until         timestamptz,
    due_at              timestamptz,
    created_at          timestamptz not null default now(),
    sent_at             timestamptz,
    delivered_at        timestamptz,
    joined_at           timestamptz,
    ended_at            timestamptz,
    expires_at          timestamptz,
    updated_at          timestamptz not null default now(),
    constraint sessions_held_key_is_there check (not key_held or session_key is not null)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
        autovacuum_analyze_scale_factor = 0.02);

-- A key is unique among its group's sessions until it is released (contract, section 5).
create unique index sessions_held_key on sessions (group_id, session_key) where key_held;
-- One row at a time answers for a (group, message_id) (contract, section 8, promise 2).
create unique index sessions_message_id on sessions (group_id, message_id) where owns_message_id;
-- The visitor's link.
create unique index sessions_token on sessions (token);
-- Requests without a message_id, until their acknowledgement is sure: a redelivery finds its row here.
create index sessions_unacknowledged on sessions (request_sha256) where not acknowledged;
-- What the sweep has to move on next; nothing but it reads this.
create index sessions_due on sessions (due_at) where key_held;

create view live_sessions as
    select id, group_id, session_key, status, session_type, session_params, phone, requested_by,
           created_at, sent_at, delivered_at, joined_at, expires_at
      from sessions
     where key_held
       and (status = 'joined' or (status in ('sending', 'sent', 'delivered', 'undelivered', 'unknown') and expires_at > now()));

comment on view live_sessions is 'Sessions that an agent can look up and join now.';
comment on table sessions is 'One row for each invite whose sender was authenticated. All times are this server''s clock.';
comment on column sessions.id is 'The session''s id (UUID version 7: ordered by creation).';
comment on column sessions.group_id is 'The group of the credential that asked for the session.';
comment on column sessions.session_key is 'The digits that an agent joins with; null when the invite was refused before a key was drawn.';
comment on column sessions.status is 'sending, sent, delivered, undelivered, unknown (a text may have gone out), joined, expired, ended; rejected and failed: surely no text.';
comment on column sessions.session_type is 'The request''s sessiontype; 1 is the visitor''s mobile camera.';
comment on column sessions.session_params is 'The request''s sessionParams, without its nulls.';
comment on column sessions.phone is 'The number to text, in E.164; null when it could not be read.';
comment on column sessions.invitation_text is 'The text as it was handed to the provider.';
comment on column sessions.token is 'The 16 characters of the visitor''s link.';
comment on column sessions.requested_by is 'Who asked: the credential''s type and user, such as gkey:12345.';
comment on column sessions.message_id is 'The request''s AMQP message_id, its idempotency key.';
comment on column sessions.correlation_id is 'The request''s AMQP correlation_id.';
comment on column sessions.attempts is 'Tries to hand the text to the provider that were begun.';
comment on column sessions.provider_message_id is 'The provider''s id of the text (SM...).';
comment on column sessions.error_code is 'Why there was no session, or what is not known of its text: a code of docs/INTEGRATION.md.';
comment on column sessions.error is 'The error object of the reply, as it was sent.';
comment on column sessions.request_sha256 is 'SHA-256 of the request as it was published; tells a redelivery from another request with the same id.';
comment on column sessions.key_held is 'Whether session_key is taken in its group; false once it is released.';
comment on column sessions.owns_message_id is 'Whether this row answers for its (group_id, message_id).';
comment on column sessions.acknowledged is 'Whether the broker has surely taken the acknowledgement; followed for requests without a message_id only.';
comment on column sessions.lease_until is 'Until when the worker that began the text is waited for; after it the outcome is unknown.';
comment on column sessions.due_at is 'When the sweep moves this session on next: expiry, the end of a joined session, the release of its key.';
comment on column sessions.created_at is 'When the row was written, just before the provider was asked.';
comment on column sessions.sent_at is 'When the provider accepted the text.';
comment on column sessions.delivered_at is 'When the provider said that the text had arrived.';
comment on column sessions.joined_at is 'When an agent first joined.';
comment on column sessions.ended_at is 'When the session expired, ended, or was refused.';
comment on column sessions.expires_at is 'When the session expires if nobody has joined.';
comment on column sessions.updated_at is 'When this row last changed.';
comment on column live_sessions.id is 'The session''s id (UUID version 7: ordered by creation).';
comment on column live_sessions.group_id is 'The group of the credential that asked for the session.';
comment on column live_sessions.session_key is 'The digits that an agent joins with; null when the invite was refused before a key was drawn.';
comment on column live_sessions.status is 'sending, sent, delivered, undelivered, unknown (a text may have gone out), joined, expired, ended; rejected and failed: surely no text.';
comment on column live_sessions.session_type is 'The request''s sessiontype; 1 is the visitor''s mobile camera.';
comment on column live_sessions.session_params is 'The request''s sessionParams, without its nulls.';
comment on column live_sessions.phone is 'The number to text, in E.164; null when it could not be read.';
comment on column live_sessions.requested_by is 'Who asked: the credential''s type and user, such as gkey:12345.';
comment on column live_sessions.created_at is 'When the row was written, just before the provider was asked.';
comment on column live_sessions.sent_at is 'When the provider accepted the text.';
comment on column live_sessions.delivered_at is 'When the provider said that the text had arrived.';
comment on column live_sessions.joined_at is 'When an agent first joined.';
comment on column live_sessions.expires_at is 'When the session expires if nobody has joined.';

-- The migrator's own table, so that whoever reads the schema knows it too. It is not there when this file is run by hand.
do $$
begin
    if to_regclass('_sqlx_migrations') is not null then
        comment on table _sqlx_migrations is 'The migrations that this schema has had; written by `session-invite migrate`.';
        comment on column _sqlx_migrations.version is 'The number that the migration''s file begins with.';
        comment on column _sqlx_migrations.description is 'The rest of the file''s name.';
        comment on column _sqlx_migrations.installed_on is 'When it was applied.';
        comment on column _sqlx_migrations.success is 'Whether it was applied whole.';
        comment on column _sqlx_migrations.checksum is 'SHA-384 of the file.';
        comment on column _sqlx_migrations.execution_time is 'Nanoseconds that it took.';
    end if;
end
$$;
