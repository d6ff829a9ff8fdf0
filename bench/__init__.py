"""What Coffer costs: the real API against a floor of asyncpg, AES-GCM and orjson; nothing of the product imports it."""
