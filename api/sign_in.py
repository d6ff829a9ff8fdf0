"""Signing in over GraphQL: a session and its tokens, renewed until it ends, and proving again who sits there."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import Info

from api.directives import Input, argument, public
from api.operation import Operation
from api.paging import UserError
from crypto.errors import CofferError
from domain.errors import BadInput
from tenants.errors import (
    ProofRefused,
    SecondFactorRefused,
    SecondFactorRequired,
    SessionEnded,
    SignInRefused,
    TooManyAttempts,
    Unauthenticated,
)
from tenants.signing_in import sessions
from tenants.viewers import Credential

_SHAPE = "the shape of a payload"
_TOKEN_TYPE = "Bearer"  # noqa: S105  # the name of a kind of token
_OWN = "for whoever is signed in, and of that member alone"
CREDENTIAL = Input(why="part of a credential")
CODE = argument(CREDENTIAL, "Of the authenticator, or a recovery code; for members who have a second factor.")


@strawberry.type
class SignInPayload:
    access_token: str | None = public(_SHAPE, description="Send it as `Authorization: Bearer …`.")
    refresh_token: str | None = public(_SHAPE, description="Give it to refreshSession, once, for the next two.")
    token_type: str = public(_SHAPE)
    expires_in: int = public(_SHAPE, description="Seconds until the access token ends.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class IdentityPayload:
    confirmed_at: datetime | None = public(_SHAPE, description="It counts as fresh for five minutes from then.")
    user_errors: list[UserError] = public(_SHAPE)


def alone(info: Info[Operation]) -> Operation:
    """Raises `BadInput` beside fields that have a unit: it would hold a connection while a password is looked at."""
    if info.context.viewer is not None:
        raise BadInput(f"Send {info.field_name} in a request of its own.")
    return info.context


def signed_in(info: Info[Operation]) -> tuple[Operation, Credential]:
    """As `alone`, of whoever sent a token. What it opens by now, a unit says. Raises `Unauthenticated`."""
    operation = alone(info)
    if operation.credential is None:
        raise Unauthenticated
    return operation, operation.credential


def told(refused: CofferError, *path: str) -> list[UserError]:
    return [UserError(code=refused.code, path=list(path), message=refused.message, retry_after=refused.retry_after)]


async def tokens_of(operation: Operation, credential: Credential, refresh_token: str) -> SignInPayload:
    tokens = operation.services.tokens
    return SignInPayload(
        access_token=await tokens.issue(credential),
        refresh_token=refresh_token,
        token_type=_TOKEN_TYPE,
        expires_in=tokens.lifetime,
        user_errors=[],
    )


def no_tokens(refused: CofferError) -> SignInPayload:
    return SignInPayload(
        access_token=None, refresh_token=None, token_type=_TOKEN_TYPE, expires_in=0, user_errors=told(refused)
    )


@strawberry.type
class SignInMutations:
    @public("how one becomes a viewer", description="Opens a session. Slows down after failures.")
    async def sign_in(
        self,
        info: Info[Operation],
        tenant: Annotated[str, argument(CREDENTIAL, "The tenant's slug.")],
        email: Annotated[str, argument(CREDENTIAL, "The member's.")],
        password: Annotated[str, argument(CREDENTIAL, "The member's.")],
        code: Annotated[str | None, CODE] = None,
    ) -> SignInPayload | None:
        operation = alone(info)
        if operation.credential is not None:
            raise BadInput("Send signIn without an access token.")
        sent, sign_ins = operation.request, operation.services.sign_ins
        try:
            opened = await sign_ins.sign_in(tenant, email, password, code, device=sent.device, origin=sent.origin)
        except (SignInRefused, SecondFactorRequired, SecondFactorRefused, TooManyAttempts) as refused:
            return no_tokens(refused)
        return await tokens_of(operation, *opened)

    @public(
        "whoever has the token is its session",
        description="New tokens for a session. A refresh token works once: used again, it ends the session.",
    )
    async def refresh_session(
        self,
        info: Info[Operation],
        refresh_token: Annotated[str, argument(CREDENTIAL, "The newest one; it works once.")],
    ) -> SignInPayload | None:
        operation = alone(info)
        try:
            renewed = await operation.services.refreshing.refresh(refresh_token, operation.request.origin)
        except SessionEnded as refused:
            return no_tokens(refused)
        return await tokens_of(operation, *renewed)

    @public(_OWN, description="Proves that it is still the member who sits there, for what asks for it.")
    async def confirm_identity(
        self,
        info: Info[Operation],
        password: Annotated[str, argument(CREDENTIAL, "One's own.")],
        code: Annotated[str | None, CODE] = None,
    ) -> IdentityPayload | None:
        operation, credential = signed_in(info)
        origin = operation.request.origin
        proving = operation.services.sign_ins.proven(
            credential, password, code, action="identity.confirmed", origin=origin
        )
        try:
            async with proving as unit:
                if not await sessions.confirm(unit):
                    raise ProofRefused("Only a session can be confirmed.")
                unit.audit("identity.confirmed", subject_type="Member", subjects=[credential.principal])
                confirmed_at = unit.now
        except (ProofRefused, SecondFactorRequired, TooManyAttempts) as refused:
            return IdentityPayload(confirmed_at=None, user_errors=told(refused))
        return IdentityPayload(confirmed_at=confirmed_at, user_errors=[])
