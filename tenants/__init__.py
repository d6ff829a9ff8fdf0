"""Who owns what, and the only door to data: tenants, members, access, units; knows nothing of api, domain or jobs."""
