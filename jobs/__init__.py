"""Background work, of the rank of api: takes jobs from the ledger and leads them; knows no HTTP, GraphQL or SQL."""
