-- The workers and gateways that run, so that one that is stopped or hangs is noticed by the others.
--
-- Old workers go on: they do not know the table. A row is some hundred bytes, and one process updates one row.

create table processes (
    id          uuid primary key,
    kind        text not null,
    host        text not null,
    machine     text not null,
    pid         integer not null,
    start_ticks bigint not null,
    version     text not null,
    state       text not null,
    problems    text[] not null,
    settings    jsonb not null,
    started_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now()
) with (fillfactor = 50);

comment on table processes is 'The workers and gateways that run. Each updates its row every two seconds, and deletes it when it ends; a row that is an hour old is deleted by the others.';
comment on column processes.id is 'Random, for each run of a process.';
comment on column processes.kind is 'worker or gateway.';
comment on column processes.host is 'The name of its host or container.';
comment on column processes.machine is 'The boot of the kernel and the process namespace that it runs in: processes with the same one see each other''s ids.';
comment on column processes.pid is 'Its process id there.';
comment on column processes.start_ticks is 'When it started, as the kernel counts: a later process with the same id has another.';
comment on column processes.version is 'Of the program.';
comment on column processes.state is 'ready, not ready or stopping.';
comment on column processes.problems is 'The problems of its /readyz.';
comment on column processes.settings is 'Settings that concern other processes. Of a secret it is a keyed hash of 8 hex digits.';
comment on column processes.started_at is 'When it reported first.';
comment on column processes.seen_at is 'When it reported last.';
