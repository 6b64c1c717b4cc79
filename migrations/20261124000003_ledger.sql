-- The ledger of a session's text: what is known of it, who may act on it, and when (docs/DELIVERY.md).
--
-- Old workers go on inserting rows without these columns: such a row in `sending` is one that was begun, and whose
-- try has surely ended at its `lease_until`.

alter table sessions
    add column text_state  text check (text_state in ('begun', 'waiting', 'unknown', 'accepted', 'refused')),
    add column fence       bigint not null default 0,
    add column ticket      uuid not null default gen_random_uuid(),
    add column unsure_from timestamptz,
    add column looks       integer not null default 0,
    add column looked_at   timestamptz,
    add column unsettled   boolean not null default false,
    add column abandoned   integer not null default 0,
    add column deadline_at timestamptz,
    add column valid_until timestamptz;

comment on column sessions.text_state is 'What is known of the text: begun (a try is under way, or its worker died), waiting (surely not taken, to be tried again), unknown (a try may have been taken; being looked up, or never settled), accepted, refused; null when none was begun.';
comment on column sessions.fence is 'Names the newest claim on this row (0: the worker that wrote it): only that one may record what came of its try.';
comment on column sessions.ticket is 'Random; proves that a message about this row, in a retry queue, comes from a worker.';
comment on column sessions.unsure_from is 'When the last try has surely ended: from then on the provider''s list is looked at, if its outcome is not known.';
comment on column sessions.looks is 'Looks at the provider''s list that missed the text of the last try.';
comment on column sessions.looked_at is 'When the last of those looks was.';
comment on column sessions.unsettled is 'Whether an earlier try may have been taken and was never looked up (SMS_WHEN_UNSURE=resend).';
comment on column sessions.abandoned is 'Times that a worker took this row over from one that had died with it.';
comment on column sessions.deadline_at is 'After this the invite is too old to be texted; null when only the session''s end bounds it.';
comment on column sessions.valid_until is 'The request''s own expiration: no text may arrive after it; null when it has none.';
comment on column sessions.lease_until is 'Until then nobody but the worker that holds the fence may hand the text over: a try and the time that the provider''s list may lag, or the wait for the next try.';
comment on column sessions.attempts is 'Tries to hand the text to the provider that were begun; each is counted before it is made.';

-- Whose is a text in the provider's list: looked up by number. Neither column is ever updated.
create index sessions_phone on sessions (phone, id);

create table suspects (
    request_sha256 bytea primary key check (octet_length(request_sha256) = 32),
    tries          integer not null default 1,
    first_at       timestamptz not null default now(),
    last_at        timestamptz not null default now()
);

comment on table suspects is 'Requests that were delivered a third time and are worked alone: what they were tried, by our own count.';
comment on column suspects.request_sha256 is 'SHA-256 of the request as it was published.';
comment on column suspects.tries is 'Times that a worker began to work on it; at 20 it is set aside.';
comment on column suspects.first_at is 'When it was first worked alone.';
comment on column suspects.last_at is 'When it was last worked alone.';
