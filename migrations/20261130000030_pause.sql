-- A group can be paused: none of its texts goes out, and its invites wait.
--
-- Old workers go on, and know nothing of a pause: they text a paused group's invites.

alter table groups
    add column paused_at  timestamptz,
    add column resumed_at timestamptz;

comment on column groups.paused_at is 'Since when no text of the group goes out (`groups pause`); null while texts go out.';
comment on column groups.resumed_at is 'When the last pause ended (`groups resume`); null if there was none.';
