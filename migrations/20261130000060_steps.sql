-- The steps of invites that left the plain path, for `session-invite trace`. An invite whose first try is accepted has none.
--
-- Old workers and gateways go on: they write no steps. What they delete is older than this table, and has none.

create table steps (
    id         bigint generated always as identity primary key,
    session_id uuid not null,
    at         timestamptz not null default now(),
    kind       text not null check (kind in ('try_waits', 'try_refused', 'try_unknown', 'try_withheld', 'looked', 'held',
                                             'taken_over', 'redelivered', 'resumed', 'replayed', 'receipt', 'closed')),
    detail     jsonb not null default '{}' check (jsonb_typeof(detail) = 'object')
);

-- A session's steps, in order. The statements count them by it: about 200 are kept for a session.
create index steps_session on steps (session_id, id);

comment on table steps is 'What happened to invites that left the plain path, in order: tries that were not accepted, looks, redeliveries, receipts and the like (`session-invite trace`). Deleted with their session.';
comment on column steps.id is 'In the order in which a session''s steps were written.';
comment on column steps.session_id is 'The session''s id.';
comment on column steps.at is 'When.';
comment on column steps.kind is 'What happened: try_waits (surely not taken), try_refused, try_unknown, try_withheld (not written: the claim was over), looked, held (by a pause), taken_over, redelivered, resumed, replayed, receipt, closed (without a further try).';
comment on column steps.detail is 'What is known of it, such as attempt, status, code, nextIn (seconds), found, was, sid. No phone number, no text and no secret.';
