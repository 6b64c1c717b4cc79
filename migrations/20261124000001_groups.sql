-- Groups, their sealed keys, the addresses that stand for their users, and the website sessions that another
-- service writes. What only the groups' commands change bumps `settings_version`, which the workers poll.

create table groups (
    id                bigint primary key check (id between 1 and 9007199254740991),
    enabled           boolean not null default true,
    region            text not null default 'US' check (region ~ '^[A-Z]{2}$'),
    phone_check       text not null default 'possible' check (phone_check in ('possible', 'valid')),
    countries         text[] not null default '{}',
    key_length        smallint not null default 6 check (key_length between 4 and 9),
    template          text not null check (template <> ''),
    link              text check (link <> ''),
    sms_from          text check (sms_from <> ''),
    session_ttl       integer not null default 600 check (session_ttl between 1 and 86400),
    session_max       integer not null default 43200 check (session_max between 1 and 2592000),
    key_rest          integer not null default 86400 check (key_rest between 0 and 31536000),
    per_number_count  integer not null default 10 check (per_number_count >= 0),
    per_number_window integer not null default 3600 check (per_number_window between 1 and 2592000),
    per_minute        integer check (per_minute > 0),
    join_url          text check (join_url <> ''),
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now()
);

create table group_api_keys (
    id         bigint generated always as identity primary key,
    group_id   bigint not null references groups,
    sealed     bytea not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
create index group_api_keys_active on group_api_keys (group_id) where revoked_at is null;

create table group_jwt_secrets (
    id         bigint generated always as identity primary key,
    group_id   bigint not null references groups,
    kid        text check (kid <> ''),
    sealed     bytea not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
-- A `kid` picks one secret and none else. Secrets without one may be several.
create unique index group_jwt_secrets_active_kid on group_jwt_secrets (group_id, kid) where revoked_at is null;

create table addresses (
    address         text primary key check (address = lower(address) and address <> ''),
    group_id        bigint not null references groups,
    partner_user_id text not null check (char_length(partner_user_id) between 1 and 255),
    created_at      timestamptz not null default now()
);
create index addresses_group on addresses (group_id);

-- Without a foreign key: the Authorization Service writes it, and knows groups before we do.
create table website_sessions (
    token_sha256 bytea primary key check (octet_length(token_sha256) = 32),
    group_id     bigint not null,
    person_id    text not null,
    expires_at   timestamptz not null,
    revoked_at   timestamptz
);

-- A row and not a sequence: it is locked until its writer commits, and nobody sees it before the writer's data.
create table settings_version (
    only_row boolean primary key default true check (only_row),
    version  bigint not null
);
insert into settings_version (version) values (1);

create function bump_settings_version() returns trigger language plpgsql as $$
begin
    update settings_version set version = version + 1;
    return null;
end
$$;

create trigger groups_bump_version after insert or update or delete or truncate on groups
    for each statement execute function bump_settings_version();
create trigger group_api_keys_bump_version after insert or update or delete or truncate on group_api_keys
    for each statement execute function bump_settings_version();
create trigger group_jwt_secrets_bump_version after insert or update or delete or truncate on group_jwt_secrets
    for each statement execute function bump_settings_version();
create trigger addresses_bump_version after insert or update or delete or truncate on addresses
    for each statement execute function bump_settings_version();

comment on function bump_settings_version() is 'Tells the workers that the groups, their keys or their addresses changed.';

comment on table groups is 'Tenants: who may ask for sessions, and how theirs are made. Written by `session-invite groups`.';
comment on column groups.id is 'The group''s id, 1 to 2^53-1; a login key calls it partnerid.';
comment on column groups.enabled is 'Whether invites are taken; false answers `group_disabled`.';
comment on column groups.region is 'The region that a number without a country code is read in (CLDR, such as US).';
comment on column groups.phone_check is 'libphonenumber''s `possible` or `valid`: how much of a number is checked.';
comment on column groups.countries is 'The regions that the group texts; empty for any.';
comment on column groups.key_length is 'Digits in a session key, 4 to 9.';
comment on column groups.template is 'The text''s template, with {link}, {key}, {token} and {group}.';
comment on column groups.link is 'The link''s template, with {key}, {token} and {group}; null for {PUBLIC_URL}/s/{token}.';
comment on column groups.sms_from is 'The sender of the group''s texts; null for the worker''s own.';
comment on column groups.session_ttl is 'Seconds until a session expires that nobody has joined.';
comment on column groups.session_max is 'Seconds until a joined session ends at the latest.';
comment on column groups.key_rest is 'Seconds for which the key of an ended session is not given out again.';
comment on column groups.per_number_count is 'Texts to one number in per_number_window; 0 for no limit.';
comment on column groups.per_number_window is 'The window of per_number_count, in seconds.';
comment on column groups.per_minute is 'Invites of the group in a minute; null for no limit.';
comment on column groups.join_url is 'Where the visitor''s page leads; null for nowhere.';
comment on column groups.created_at is 'When the group was added.';
comment on column groups.updated_at is 'When an option of the group last changed.';

comment on table group_api_keys is 'The keys that sign login keys (GKEY), sealed with SECRETS_KEY. Several may be active, for rotation.';
comment on column group_api_keys.id is 'What `groups show` calls the key.';
comment on column group_api_keys.group_id is 'Whose key it is.';
comment on column group_api_keys.sealed is 'Version 1: a byte 0x01, a nonce of 24 bytes, and XChaCha20-Poly1305''s ciphertext and tag.';
comment on column group_api_keys.created_at is 'When the key was added.';
comment on column group_api_keys.revoked_at is 'Since when it signs nothing; null while it is active.';

comment on table group_jwt_secrets is 'The secrets that sign tokens (GJWT), sealed with SECRETS_KEY.';
comment on column group_jwt_secrets.id is 'What `groups show` calls the secret.';
comment on column group_jwt_secrets.group_id is 'Whose secret it is.';
comment on column group_jwt_secrets.kid is 'The `kid` by which a token picks this secret; null for one that only tokens without a kid use.';
comment on column group_jwt_secrets.sealed is 'As in group_api_keys.';
comment on column group_jwt_secrets.created_at is 'When the secret was added.';
comment on column group_jwt_secrets.revoked_at is 'Since when it signs nothing; null while it is active.';

comment on table addresses is 'Addresses that name a group and a user in a login key (`address~loginkey`).';
comment on column addresses.address is 'The address, in lower case.';
comment on column addresses.group_id is 'The group that it names.';
comment on column addresses.partner_user_id is 'The user that it names, as the signature holds it: decoded.';
comment on column addresses.created_at is 'When the address was added.';

comment on table website_sessions is 'Website sessions (GSSNID). Written by the Authorization Service.';
comment on column website_sessions.token_sha256 is 'The SHA-256 of the whole token; the token itself is stored nowhere.';
comment on column website_sessions.group_id is 'The group that the person belongs to.';
comment on column website_sessions.person_id is 'The person who is logged in.';
comment on column website_sessions.expires_at is 'When the session ends.';
comment on column website_sessions.revoked_at is 'When it was revoked; null while it is good.';

comment on table settings_version is 'One row: a number that grows with each change to groups, keys and addresses.';
comment on column settings_version.only_row is 'Always true: there is one row.';
comment on column settings_version.version is 'Grows with each change; the workers poll it.';
