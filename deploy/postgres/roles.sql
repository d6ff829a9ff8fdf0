-- The four roles Coffer uses. Run it as a superuser, as often as you like: psql -f deploy/postgres/roles.sql
--   coffer_owner     owns the schema and migrates it; never serves a request
--   coffer_app       serves requests and jobs; owns nothing, row security binds it
--   coffer_platform  sees tenants and issuers, and of jobs and events only ids, kind, state and lease
--   coffer_recorder  adds entries to the audit log and can neither read nor change one
-- Those that serve may keep a transaction open for a minute in which they ask nothing: while one that wrote is open, no
-- event behind it is told to anybody. (`coffer_enter` allows more to readers, who hold up nobody, and to restores.)
-- No password is set here: `\password coffer_app` in psql does that, or pg_hba.conf admits them by certificate.
-- Rights on tables and schemas are the migrations' affair.

DO $$
DECLARE
    name text;
    granted record;
BEGIN
    -- roles belong to the whole server: two databases being set up at once would fail on the same catalogue row
    PERFORM pg_advisory_xact_lock(hashtext('coffer roles'));

    FOREACH name IN ARRAY ARRAY['coffer_owner', 'coffer_app', 'coffer_platform', 'coffer_recorder'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', name);  -- every other attribute is off by default
        END IF;

        -- asked first, because a managed server without superuser refuses to touch some of these at all
        IF EXISTS (
            SELECT FROM pg_roles
            WHERE rolname = name
              AND (NOT rolcanlogin OR rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls OR rolreplication OR rolinherit)
        ) THEN
            EXECUTE format(
                'ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION NOINHERIT', name
            );
        END IF;

        IF name <> 'coffer_owner' THEN
            EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', name, '60s');
        END IF;

        FOR granted IN
            SELECT roleid::regrole AS role, grantor::regrole AS grantor
            FROM pg_auth_members WHERE member = name::regrole
        LOOP
            EXECUTE format('REVOKE %s FROM %I GRANTED BY %s', granted.role, name, granted.grantor);
        END LOOP;
    END LOOP;
END
$$;
