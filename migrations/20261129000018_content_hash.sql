-- What a repeat of a message id is compared with, once its session is blanked. Only changes the catalogue.
--
-- Old workers go on: they blank without it, and answer repeats of blanked sessions as they did.

alter table sessions add column content_hash bytea;
comment on column sessions.content_hash is 'HMAC-SHA256 of session type, phone and session_params, under the key in optout_key, of a row that is blanked; null before that, and in rows that an older release has blanked.';
