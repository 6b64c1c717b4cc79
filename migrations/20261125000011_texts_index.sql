-- Texts to a number, by group and newest first: the limit by number, and whose a text in the provider's list is. Only rows
-- that may have a text are in it, so that a flood of refused invites to one number costs the others nothing.

create index sessions_texts on sessions (phone, group_id, id) where token is not null;
