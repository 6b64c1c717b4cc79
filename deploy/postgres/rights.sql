-- What each role of roles.sql may do with the tables: what the process needs, and nothing else. Run it as the role that owns
-- the tables or as a superuser, after each `session-invite migrate` and before the new workers and gateways start:
--     psql --dbname session_invite --file rights.sql
-- A test holds the rights of the worker and the gateway against the statements that these run (src/db/kinds.rs).
begin;
revoke all on all tables in schema public
    from session_invite_worker, session_invite_gateway, session_invite_operator;
grant select on _sqlx_migrations to session_invite_worker, session_invite_gateway, session_invite_operator;

-- The worker.
grant select on addresses to session_invite_worker;
grant select, update on database_marker to session_invite_worker;
grant select, insert on database_marker_copies to session_invite_worker;
grant select, insert on database_rewinds to session_invite_worker;
grant select, insert, delete on events to session_invite_worker;
grant select on group_api_keys to session_invite_worker;
grant select on group_jwt_secrets to session_invite_worker;
grant select on groups to session_invite_worker;
grant select, insert, update, delete on inbound_texts to session_invite_worker;
grant select, insert, update on key_uses to session_invite_worker;
grant select, insert on optout_key to session_invite_worker;
grant select, insert on optouts to session_invite_worker;
grant select, insert, update, delete on processes to session_invite_worker;
grant select, insert, update, delete on rate_buckets to session_invite_worker;
grant select, insert, update, delete on sessions to session_invite_worker;
grant select on settings_version to session_invite_worker;
grant select, insert, delete on steps to session_invite_worker;
grant select, insert, update, delete on suspects to session_invite_worker;
grant select on website_sessions to session_invite_worker;

-- The gateway.
grant select on addresses to session_invite_gateway;
grant insert on events to session_invite_gateway;
grant select on group_api_keys to session_invite_gateway;
grant select on group_jwt_secrets to session_invite_gateway;
grant select on groups to session_invite_gateway;
grant select, insert, update on inbound_texts to session_invite_gateway;
grant select, insert, update on key_uses to session_invite_gateway;
grant select, insert on optout_key to session_invite_gateway;
grant select, insert, delete on optouts to session_invite_gateway;
grant select, insert, update, delete on processes to session_invite_gateway;
grant select, insert, update on rate_buckets to session_invite_gateway;
grant select, update on sessions to session_invite_gateway;
grant select on settings_version to session_invite_gateway;
grant select, insert on steps to session_invite_gateway;
grant select on website_sessions to session_invite_gateway;

-- The commands of operators. The audit is append-only.
grant select, insert, update, delete on all tables in schema public to session_invite_operator;
revoke insert, update, delete on _sqlx_migrations from session_invite_operator;
revoke update, delete on audit_log from session_invite_operator;
commit;
