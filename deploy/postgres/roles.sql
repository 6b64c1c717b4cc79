-- The four roles of session-invite, and what they may do with this database. Run it in the new database, as a superuser; a
-- second run changes nothing:
--     createdb --encoding UTF8 --template template0 session_invite
--     psql --dbname session_invite --file roles.sql
-- Then give each role its password: \password session_invite_worker
--
-- rights.sql is for the tables, after each `session-invite migrate`.
do $$
declare
    role text;
begin
    foreach role in array array[
        'session_invite_migrator', 'session_invite_worker', 'session_invite_gateway', 'session_invite_operator'
    ] loop
        if not exists (select from pg_roles where rolname = role) then
            execute format('create role %I login', role);
        end if;
        execute format('grant connect on database %I to %I', current_database(), role);
    end loop;
    execute format('revoke all on database %I from public', current_database());
end
$$;
-- Before PostgreSQL 15 everybody may create tables here.
revoke all on schema public from public;
grant usage, create on schema public to session_invite_migrator;
grant usage on schema public to session_invite_worker, session_invite_gateway, session_invite_operator;
-- So that `doctor` names who holds a lock.
grant pg_read_all_stats to session_invite_operator;
