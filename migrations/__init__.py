"""The database's history: alembic revisions, and the operations that make a tenant table safe in one word."""
