-- The open invites whose message the broker may have lost. Few rows have the value, and no invite changes it on its way.

create index sessions_resume on sessions (resume_at) where resume_at is not null;
