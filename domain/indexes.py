"""All tables of tokens there are: what an index key turns over. A table that is missing here fails a test."""

from domain.customers.tokens import TOKENS
from tenants.member_tokens import EMAILS, LINKS
from tenants.token_tables import TokenTable

INDEXES: tuple[TokenTable, ...] = (EMAILS, LINKS, TOKENS)
