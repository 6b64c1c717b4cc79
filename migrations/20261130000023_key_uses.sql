-- When each key of a group was last used. A table of its own: a change of the keys' own tables makes all workers read the
-- groups again, and a process needs no right to change keys.
--
-- Old workers go on: they write nothing here.

create table key_uses (
    kind         text not null check (kind in ('api_key', 'jwt_secret')),
    key_id       bigint not null,
    last_used_at timestamptz not null,
    primary key (kind, key_id)
) with (fillfactor = 50);

comment on table key_uses is 'When each API key and JWT secret was last used. A process writes its uses once a minute at most.';
comment on column key_uses.kind is 'api_key for a row of group_api_keys, jwt_secret for one of group_jwt_secrets.';
comment on column key_uses.key_id is 'The key''s id there.';
comment on column key_uses.last_used_at is 'When a credential that it signed was last accepted, within about two minutes.';
