-- The trace of the invite, so that its events continue it.

alter table sessions add column traceparent text;
comment on column sessions.traceparent is 'The W3C trace context that the events of the session continue; null without one. Written with the row';
