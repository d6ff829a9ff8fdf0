"""Passwords over GraphQL: changed, or set anew by the link of a letter; and invitations, which end in the same."""

from typing import Annotated

import strawberry
from strawberry import Info

from api.directives import Input, argument, public
from api.operation import Operation
from api.paging import UserError
from api.sign_in import CODE, CREDENTIAL, alone, signed_in, told
from domain import normalise
from domain.normalise import Invalid
from tenants.errors import MemberRefused, ProofRefused, SecondFactorRequired, TokenRefused, TooManyAttempts

_SHAPE = "the shape of a payload"
_TOKEN = Annotated[str, argument(CREDENTIAL, "Of the letter's link, behind `#token=`.")]
_NEW = Annotated[
    str,
    argument(
        CREDENTIAL,
        "12 to 256 characters, without the e-mail's first part and the tenant's slug (where those have 4 or more).",
    ),
]


@strawberry.type
class PasswordPayload:
    is_changed: bool = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class PasswordResetPayload:
    is_requested: bool = public(_SHAPE, description="Always true: it does not tell whether there is such a member.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class AcceptInvitationPayload:
    tenant: str | None = public(_SHAPE, description="The slug to sign in at.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class PasswordMutations:
    @public("of whoever is signed in, by the old password", description="Ends all other sessions of the member.")
    async def change_password(
        self, info: Info[Operation], old: Annotated[str, argument(CREDENTIAL, "The present one.")], new: _NEW
    ) -> PasswordPayload | None:
        operation, credential = signed_in(info)
        try:
            await operation.services.new_passwords.change(credential, old, new, operation.request.origin)
        except MemberRefused as refused:
            return _unchanged(told(refused, "new"))
        except (ProofRefused, TooManyAttempts) as refused:
            return _unchanged(told(refused, "old"))
        return PasswordPayload(is_changed=True, user_errors=[])

    @public(
        "says the same for everybody",
        description="Sends a link to the member of that e-mail, if there is one. It works for one hour, and once.",
    )
    async def request_password_reset(
        self,
        info: Info[Operation],
        tenant: Annotated[str, argument(CREDENTIAL, "The tenant's slug.")],
        email: Annotated[str, argument(CREDENTIAL, "The member's.")],
    ) -> PasswordResetPayload | None:
        operation = alone(info)
        services = operation.services
        services.errands.start(services.new_passwords.request(tenant, email, operation.request.origin))
        return PasswordResetPayload(is_requested=True, user_errors=[])

    @public("whoever has the token read the member's mail", description="Ends all sessions of the member.")
    async def reset_password(
        self, info: Info[Operation], token: _TOKEN, new_password: _NEW, code: Annotated[str | None, CODE] = None
    ) -> PasswordPayload | None:
        operation = alone(info)
        origin = operation.request.origin
        try:
            await operation.services.new_passwords.reset(token, new_password, code, origin)
        except TokenRefused as refused:
            return _unchanged(told(refused, "token"))
        except MemberRefused as refused:
            return _unchanged(told(refused, "newPassword"))
        except (ProofRefused, SecondFactorRequired, TooManyAttempts) as refused:
            return _unchanged(told(refused, "code"))
        return PasswordPayload(is_changed=True, user_errors=[])

    @public("whoever has the token was invited", description="Makes a member of who was invited; then sign in.")
    async def accept_invitation(
        self,
        info: Info[Operation],
        token: _TOKEN,
        password: _NEW,
        name: Annotated[str | None, argument(Input(why="one's own name"), "Else it stays as it was invited.")] = None,
    ) -> AcceptInvitationPayload | None:
        operation = alone(info)
        accepting = operation.services.new_passwords.accept
        try:
            kept = None if name is None else normalise.name(name)
            slug = await accepting(token, password, kept, operation.request.origin)
        except Invalid as invalid:
            error = UserError(code="INVALID", path=["name"], message=f"name {invalid.reason}.")
            return AcceptInvitationPayload(tenant=None, user_errors=[error])
        except TokenRefused as refused:
            return AcceptInvitationPayload(tenant=None, user_errors=told(refused, "token"))
        except MemberRefused as refused:
            return AcceptInvitationPayload(tenant=None, user_errors=told(refused, "password"))
        return AcceptInvitationPayload(tenant=slug, user_errors=[])


def _unchanged(errors: list[UserError]) -> PasswordPayload:
    return PasswordPayload(is_changed=False, user_errors=errors)
