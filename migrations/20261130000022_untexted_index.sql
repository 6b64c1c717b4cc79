-- The sessions of a number that have no text, for `session-invite sessions list --phone`. Those that have one are in
-- sessions_texts. An invite that begins enters none of its rows here: only a refused one does, without an update later.

create index sessions_untexted on sessions (phone, id) where token is null and phone is not null;
