"""Webhooks on their way: from events to deliveries, from deliveries to receivers. Postgres is the truth about both."""
