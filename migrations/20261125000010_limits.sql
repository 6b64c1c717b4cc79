-- Limits that hold across workers, and the visitors who want no texts (docs/LIMITS.md).
--
-- Old workers go on: they read none of this, and keep no limit.

-- A bucket is its name and when it is full again. What it holds and how fast it fills is the asker's to say, so that a
-- changed limit counts at once. No index but the key's, so that taking from it is a heap-only update.
create table rate_buckets (
    name    text primary key,
    full_at timestamptz not null,
    granted integer not null default 0
) with (fillfactor = 50);

comment on table rate_buckets is 'Token buckets that all workers and gateways share; a full one is deleted.';
comment on column rate_buckets.name is 'What is limited, such as minute/72, country/72/US, sender/+15550001111 or guesses/72.';
comment on column rate_buckets.full_at is 'When the bucket is full again, if nothing more is taken: the later, the emptier it is.';
comment on column rate_buckets.granted is 'What the last statement that took from it got; it answers that statement.';

alter table groups
    add column per_country_count  integer not null default 0 check (per_country_count >= 0),
    add column per_country_window integer not null default 3600 check (per_country_window between 1 and 2592000);
comment on column groups.per_country_count is 'Texts to any one country in per_country_window; 0 for no limit.';
comment on column groups.per_country_window is 'The window of per_country_count, in seconds.';

create table optout_key (
    only_row   boolean primary key default true check (only_row),
    sealed     bytea not null,
    created_at timestamptz not null default now()
);
comment on table optout_key is 'One row: the key under which opted-out numbers are hashed, sealed with SECRETS_KEY.';
comment on column optout_key.only_row is 'Always true: there is one row.';
comment on column optout_key.sealed is 'As in group_api_keys.';
comment on column optout_key.created_at is 'When the key was made.';

create table optouts (
    phone_hash          bytea not null check (octet_length(phone_hash) = 32),
    sender              text not null check (sender <> ''),
    last_digits         text not null check (length(last_digits) <= 2),
    source              text not null check (source in ('inbound', 'provider', 'command', 'import')),
    provider_message_id text,
    created_at          timestamptz not null default now(),
    primary key (phone_hash, sender)
);
-- By nothing else: the look-up by hash must have no second index to choose.
create index optouts_newest on optouts (created_at);

comment on table optouts is 'Who wants no texts, by whom they would come from. The numbers themselves stand nowhere here.';
comment on column optouts.phone_hash is 'HMAC-SHA256 of the number in E.164, under optout_key.';
comment on column optouts.sender is 'The number or messaging service whose texts are not wanted; * for any.';
comment on column optouts.last_digits is 'The last two digits of the number, for people.';
comment on column optouts.source is 'How it is known: inbound (a STOP), provider (it refused a text), command or import (session-invite optouts).';
comment on column optouts.provider_message_id is 'The provider''s id of the STOP, if it was one.';
comment on column optouts.created_at is 'Since when it stands here.';
