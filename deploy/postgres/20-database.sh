#!/bin/sh
# Gives the database to coffer_owner, and the four roles their passwords. After 10-roles.sql (roles.sql), as superuser;
# as often as you like. The Postgres image runs it on the first start; elsewhere libpq's PGHOST and PGPORT say where:
#   POSTGRES_DB=coffer COFFER_SECRETS=./secrets sh deploy/postgres/20-database.sh
# The passwords are read from files, never from arguments, which every process of the machine may see.
# No `set -e` here: the image may read this file into its own shell, and psql's failure is the script's.

(
    cd "${COFFER_SECRETS:-/run/secrets}" &&
        psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" \
            --dbname="${POSTGRES_DB:-coffer}" <<'SQL'
\set owner `cat owner_password`
\set app `cat app_password`
\set platform `cat platform_password`
\set recorder `cat recorder_password`
SELECT '' IN (:'owner', :'app', :'platform', :'recorder') AS is_incomplete \gset
\if :is_incomplete
    DO $$ BEGIN RAISE 'A password is missing: run deploy/secrets.sh first.'; END $$;
\endif
ALTER ROLE coffer_owner PASSWORD :'owner';
ALTER ROLE coffer_app PASSWORD :'app';
ALTER ROLE coffer_platform PASSWORD :'platform';
ALTER ROLE coffer_recorder PASSWORD :'recorder';
SELECT format('ALTER DATABASE %I OWNER TO coffer_owner', current_database()) \gexec
SQL
)
