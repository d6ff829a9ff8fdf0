"""From an HTTP request to a credential: what the Authorization header proves, and nothing of rights."""

from starlette.requests import Request

from api.tokens import AccessTokens
from tenants.errors import Unauthenticated
from tenants.viewers import Credential


class Identities:
    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    async def identify(self, request: Request) -> Credential | None:
        """None without an Authorization header. Raises `Unauthenticated` for one that is not a valid bearer token."""
        headers = request.headers.getlist("authorization")
        if not headers:
            return None
        scheme, _, token = headers[0].partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated
        return await self._tokens.verify(token.strip())
