-- The STOPs and STARTs that were obeyed, so that one which the provider sends again changes nothing (docs/LIMITS.md).
--
-- Old gateways go on: they know nothing of it, and obey a repeat.

create table inbound_texts (
    message_sid text primary key check (message_sid <> ''),
    received_at timestamptz not null default now()
);
-- What is older than 30 days is deleted by it.
create index inbound_texts_received on inbound_texts (received_at);

comment on table inbound_texts is 'STOPs and STARTs of the last 30 days, by the provider''s id: one that comes again changes nothing.';
comment on column inbound_texts.message_sid is 'The provider''s id of the text (MessageSid).';
comment on column inbound_texts.received_at is 'When it came first.';
