#!/bin/sh
# Starts the Postgres image with a TLS key that it accepts: its own, and readable by nobody else.
# A secret is mounted with the owner and mode that its file has on the host, so root copies it first.
set -eu
install -d -o postgres -g postgres -m 700 /run/coffer
install -o postgres -g postgres -m 600 /run/secrets/postgres_key /run/coffer/postgres.key
exec docker-entrypoint.sh "$@"
