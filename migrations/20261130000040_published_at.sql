-- When the request was published, so that the time until a receipt says delivered can be measured.

alter table sessions add column published_at timestamptz;
comment on column sessions.published_at is 'When the request was published, at the latest, by its timestamp; null without one. Written with the row';
