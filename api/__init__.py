"""HTTP and GraphQL in and out; never SQL, ciphers, Vault or the broker."""
