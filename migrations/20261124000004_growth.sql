-- What keeps invites as fast with many old sessions as with none (docs/GROWTH.md).
--
-- Each statement here only changes the catalogue: it takes its lock for a moment, whatever the size of the table.

-- An invite is inserted and then updated, and both versions must find room on one page: else the update enters every
-- index again. With 80, three updates in four did, and the table was as large. Pages that are there stay as they are.
alter table sessions set (fillfactor = 50);

-- The same rule as before, without a regular expression. Rows that are there were checked by the old one.
alter table sessions drop constraint sessions_session_key_check;
alter table sessions add constraint sessions_session_key_check
    check (length(session_key) between 4 and 12 and ltrim(session_key, '0123456789') = '') not valid;

alter table sessions add column blanked boolean not null default false;
comment on column sessions.blanked is 'Whether what names a person was taken out of this row, as it got old (RETENTION).';
comment on column sessions.phone is 'The number to text, in E.164; null when it could not be read, or is blanked.';
comment on column sessions.invitation_text is 'The text as it was handed to the provider; null when there was none, or is blanked.';
comment on column sessions.session_params is 'The request''s sessionParams, without its nulls; {} when blanked.';
comment on column sessions.token is 'The 16 characters of the visitor''s link; null when there is none, or is blanked.';
comment on column sessions.correlation_id is 'The request''s AMQP correlation_id; null when it had none, or is blanked.';
comment on column sessions.requested_by is 'Who asked: the credential''s type and user, such as gkey:12345; only the type when blanked.';
