-- What sessions_live_key and sessions_live_token stand for now. In a file of its own: one that builds indexes and then asks
-- for this lock would end in a deadlock with a sweep that waits for it, and lose what it has built.

drop index sessions_held_key;
drop index sessions_token;
