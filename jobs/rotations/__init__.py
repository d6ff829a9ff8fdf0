"""The jobs that turn over keys, one file for each purpose; what they share is in `tenants.keys.rotating`."""
