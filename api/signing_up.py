"""Signing up, as far as it is the edge's affair: how often, by whose e-mail, and which token goes into the letter."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from api.buckets import Buckets, Draw, Quota
from api.sign_up_tokens import SignUpTokens
from mail import Letter, letters
from tenants.errors import SignUpClosed, SignUpsLimited
from tenants.origins import Origin
from tenants.signing_in.sign_up import SignUp, SignUps

# An hour's worth, of letters. Of this process: addresses are nowhere else.
PER_ADDRESS = Quota("sign-ups of an address", 5, 5 / 3600)
PER_EMAIL = Quota("sign-ups of an e-mail", 3, 3 / 3600)
ALL = Quota("sign-ups", 100, 100 / 3600)


@dataclass(slots=True)
class SigningUp:
    """`send` gives a letter up; `portal` is the origin that its link leads to; `hashed` makes an address a name."""

    sign_ups: SignUps
    tokens: SignUpTokens
    send: Callable[[Letter], Awaitable[None]]
    portal: str
    hashed: Callable[[Sequence[Any] | None], str]
    is_open: bool
    percent: int = 100  # of the quotas; 0 means no limit
    buckets: Buckets = field(default_factory=Buckets)
    _salt: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    async def begin(self, wanted: SignUp, address: str | None) -> None:
        """Raises `SignUpClosed`, `SlugRefused`, `SlugTaken`,
        `SignUpsLimited`, `KeyUnavailable`, `MailUnavailable`, `MailRefused`.
        """
        self._refuse_closed()
        await self.sign_ups.check_free(wanted.slug)
        self._count(wanted.email, self.hashed(address and (address, 0)))
        await self.send(letters.sign_up(wanted.email, wanted.slug, self.portal, await self.tokens.issue(wanted)))

    async def complete(self, token: str, owner_name: str, password: str, origin: Origin) -> SignUp:
        """Raises `SignUpClosed`, `TokenRefused`, and what `SignUps.complete` raises."""
        self._refuse_closed()
        wanted = await self.tokens.read(token)
        await self.sign_ups.complete(wanted, owner_name, password, origin)
        return wanted

    def _refuse_closed(self) -> None:
        if not self.is_open:
            raise SignUpClosed

    def _count(self, email: str, client: str) -> None:
        if self.percent == 0:
            return
        whose = hashlib.blake2b(email.casefold().encode(), key=self._salt, digest_size=16).hexdigest()
        drawn = ((PER_ADDRESS, client), (PER_EMAIL, whose), (ALL, ""))
        left = self.buckets.take([Draw(quota.scaled(self.percent), name, 1) for quota, name in drawn])
        if wait := max(each.wait for each in left):
            raise SignUpsLimited(ceil(wait))
