-- What the gateway's role may do besides rights.sql, where the gateway that visitors reach has a console (docs/OPERATING.md): a
-- change by the console is made with the gateway's role. A console in a gateway of its own, with the role
-- session_invite_operator, does not need this. Run it each time after rights.sql, which takes these rights away, as the role that
-- owns the tables:
--     psql "$DATABASE_URL" --file console-rights.sql
-- A test holds these rights against the console's statements (src/db/kinds.rs).
begin;
grant select on events to session_invite_gateway;
grant update on groups to session_invite_gateway;
grant update on settings_version to session_invite_gateway;
grant select, insert on audit_log to session_invite_gateway;
commit;
