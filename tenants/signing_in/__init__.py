"""How members and services prove who they are: passwords, codes, links, keys, providers and sessions."""
