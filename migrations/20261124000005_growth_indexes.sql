-- The indexes of docs/GROWTH.md. Reads go on meanwhile; what writes waits, and is tried again when its lock_timeout is
-- over: nothing is lost. Not `concurrently`: that waits for whoever waits for the migrator's own lock.

-- What retention takes next: old rows whose key is released, in their order of age. The insert of an invite does not
-- touch it, as its key is held.
create index sessions_over on sessions (blanked, created_at) where not key_held;

-- The same rule as sessions_held_key. What the sweep asks for does not imply the second condition: so it never reads all
-- live sessions by this, whatever the planner thinks of their number, but only what is due (sessions_due).
create unique index sessions_live_key on sessions (group_id, session_key) where key_held and session_key is not null;

-- The visitor's link, while its session holds a key: nobody opens it later.
create unique index sessions_live_token on sessions (token) where key_held and token is not null;
