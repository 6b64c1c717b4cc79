-- What shows that the database has lost rows that were committed: a standby was promoted that lagged, or an older state was
-- restored. And what a row needs to be taken up again when the broker has lost its message.
--
-- Old workers go on: they write rows without these columns, and do not advance the marker.

alter table sessions
    add column reply_to   text,
    add column look_since timestamptz,
    add column resume_at  timestamptz;

comment on column sessions.reply_to is 'The request''s reply_to; null when it had none, and in rows of older releases.';
comment on column sessions.look_since is 'The database has lost rows, and a row of this request may be among them: before the first text, any text to this number since then that no row owns counts as perhaps this request''s. Null for all other rows.';
comment on column sessions.resume_at is 'When to check whether the broker has lost the message of this open invite; null while the invite is new, and once it is not open any more.';

create table database_marker (
    only_row     boolean primary key default true check (only_row),
    lineage      uuid not null default gen_random_uuid(),
    number       bigint not null default 0,
    advanced_at  timestamptz not null default now(),
    open_checked uuid not null
);

comment on table database_marker is 'One row: a number that workers advance once a second, and keep at the broker too. A database with a lower number than the broker has lost rows that were committed.';
comment on column database_marker.only_row is 'Always true.';
comment on column database_marker.lineage is 'Random, made with the schema: a restored copy of the database has the same one, another database has not.';
comment on column database_marker.number is 'Only ever grows.';
comment on column database_marker.advanced_at is 'When it last grew.';
comment on column database_marker.open_checked is 'Sessions up to this id were checked once for invites that are still open two minutes after their beginning.';

-- Ids begin with the milliseconds of their time (UUID version 7): nothing that is older than an hour is checked.
insert into database_marker (open_checked)
values ((lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 3600000), 12, '0') || '70008000000000000000')::uuid);

create table database_marker_copies (
    queue    text primary key,
    first_at timestamptz not null default now()
);

comment on table database_marker_copies is 'The queues that have had the marker: one that has none any more shows nothing of this database.';
comment on column database_marker_copies.queue is 'The queue''s name, which begins with QUEUE_PREFIX.';
comment on column database_marker_copies.first_at is 'When the marker was published to it first.';

create table database_rewinds (
    noticed_at timestamptz primary key default clock_timestamp(),
    why        text not null
);

comment on table database_rewinds is 'Each time that the database was found to have lost rows that were committed.';
comment on column database_rewinds.noticed_at is 'When a worker noticed it. A request that was published before may have a text that no row knows of.';
comment on column database_rewinds.why is 'What showed it.';
