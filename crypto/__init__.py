"""Keys and bytes: sealing, blind indexes, keyrings and Transit; imports nothing else of ours, reads no environment."""
