-- What operators change by commands: who, from where, what, before and after. Rows are only ever added.
--
-- Old commands go on, and leave no row.

create table audit_log (
    id        bigint generated always as identity primary key,
    at        timestamptz not null default now(),
    os_user   text not null,
    acting_as text,
    host      text not null,
    db_role   text not null default session_user,
    action    text not null,
    command   text not null,
    group_id  bigint,
    before    jsonb,
    after     jsonb
);
create index audit_log_at on audit_log (at);

create function refuse_change_of_audit_log() returns trigger language plpgsql as $$
begin
    raise exception 'audit_log is append-only: % is refused', tg_op;
end
$$;

create trigger audit_log_is_append_only before update or delete or truncate on audit_log
    for each statement execute function refuse_change_of_audit_log();

comment on function refuse_change_of_audit_log() is 'Keeps the rows of audit_log as they were written.';

comment on table audit_log is 'What operators changed by commands (`session-invite audit list`). Rows are only ever added.';
comment on column audit_log.id is 'In the order in which the changes began to be written.';
comment on column audit_log.at is 'When the change was made.';
comment on column audit_log.os_user is 'The operating-system user who ran the command; with sudo, also who ran sudo.';
comment on column audit_log.acting_as is 'The person whom the command was run for, as --acting-as or ACTING_AS named them; null if neither did.';
comment on column audit_log.host is 'The machine that the command ran on.';
comment on column audit_log.db_role is 'The role that was logged in at the database.';
comment on column audit_log.action is 'The command without its arguments, such as `groups disable`.';
comment on column audit_log.command is 'The command as it was typed, without secrets and phone numbers.';
comment on column audit_log.group_id is 'The group that was changed; null for what belongs to no one group.';
comment on column audit_log.before is 'What was changed, as it was before; null if it was not there. Never a secret; a phone number only as the keyed hash of the opt-outs, in base64url.';
comment on column audit_log.after is 'The same after the change; null if it is not there any more.';
