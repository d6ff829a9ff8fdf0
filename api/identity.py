"""From an Authorization header to a credential: what it proves, and nothing of rights."""

import math
from collections.abc import Sequence

import jwt
from starlette.requests import Request

from api.bearers import Bearers
from api.tokens import AccessTokens
from tenants.errors import Unauthenticated
from tenants.signing_in import api_keys
from tenants.signing_in.live_keys import LiveKeys
from tenants.viewers import Credential


class Identities:
    def __init__(self, tokens: AccessTokens, keys: LiveKeys | None = None, bearers: Bearers | None = None) -> None:
        """Without `keys` no API key is taken, without `bearers` no token of a tenant's own provider."""
        self._tokens = tokens
        self._keys = keys
        self._bearers = bearers

    async def identify(self, request: Request) -> Credential | None:
        """None without an Authorization header. Raises `Unauthenticated` for one that is not a valid bearer token."""
        token = _bearer(request.headers.getlist("authorization"))
        if token is not None and token.startswith(api_keys.MARK):
            return await self._key(token)
        return None if token is None else await self._verified(token)

    async def prove(self, authorizations: Sequence[str]) -> tuple[Credential, float] | None:
        """As `identify`, from the values of the header; the number is when the token ends, in Unix seconds."""
        token = _bearer(authorizations)
        if token is None:
            return None
        if token.startswith(api_keys.MARK):
            return await self._key(token), math.inf  # what goes on under it is looked after
        credential = await self._verified(token)
        # This very text was verified just now, so its claims hold; verify keeps the credential of them only.
        return credential, float(jwt.decode(token, options={"verify_signature": False})["exp"])

    async def _verified(self, token: str) -> Credential:
        """Ours first: most are, and what is not ours fails there before any key is looked at."""
        try:
            return await self._tokens.verify(token)
        except Unauthenticated:
            if self._bearers is None:
                raise
        return await self._bearers.verify(token)

    async def _key(self, text: str) -> Credential:
        credential = api_keys.read(text)
        if credential is None or self._keys is None:
            raise Unauthenticated
        await self._keys.prove(credential)
        return credential


def _bearer(authorizations: Sequence[str]) -> str | None:
    if not authorizations:
        return None
    scheme, _, token = authorizations[0].partition(" ")
    if len(authorizations) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated
    return token.strip()
