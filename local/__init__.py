"""Real Postgres and OpenBao from wheels, for development and tests; production imports none of it."""
