"""All tables of tokens there are: what an index key turns over. A table that is missing here fails a test."""

from domain.customers.tokens import TOKENS
from tenants.keys.token_tables import TokenTable
from tenants.member_tokens import EMAILS, LINKS

INDEXES: tuple[TokenTable, ...] = (EMAILS, LINKS, TOKENS)
