-- Events have an id that no other event ever has, not even one that is written after a restore of the database.
--
-- Old workers go on: the rows that they write get an id, and they publish those of others under their number.

alter table events add column uid uuid;
-- In two steps, so that adding the column needs no new copy of the table.
alter table events alter column uid set default gen_random_uuid();
update events set uid = gen_random_uuid() where uid is null;
alter table events alter column uid set not null;

comment on column events.uid is 'Random, made when the event is written: the message_id of each copy that is published.';
comment on column events.id is 'In the order in which a session moved on.';
