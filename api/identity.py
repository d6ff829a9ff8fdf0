"""From an Authorization header to a credential: what it proves, and nothing of rights."""

from collections.abc import Sequence

import jwt
from starlette.requests import Request

from api.tokens import AccessTokens
from tenants.errors import Unauthenticated
from tenants.viewers import Credential


class Identities:
    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    async def identify(self, request: Request) -> Credential | None:
        """None without an Authorization header. Raises `Unauthenticated` for one that is not a valid bearer token."""
        token = _bearer(request.headers.getlist("authorization"))
        return None if token is None else await self._tokens.verify(token)

    async def prove(self, authorizations: Sequence[str]) -> tuple[Credential, float] | None:
        """As `identify`, from the values of the header; the number is when the token ends, in Unix seconds."""
        token = _bearer(authorizations)
        if token is None:
            return None
        credential = await self._tokens.verify(token)
        # This very text was verified just now, so its claims are ours; verify keeps the credential of them only.
        return credential, float(jwt.decode(token, options={"verify_signature": False})["exp"])


def _bearer(authorizations: Sequence[str]) -> str | None:
    if not authorizations:
        return None
    scheme, _, token = authorizations[0].partition(" ")
    if len(authorizations) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated
    return token.strip()
