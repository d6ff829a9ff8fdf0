"""Second factors over GraphQL: begun, confirmed, removed by the member, and reset by who manages members."""

from typing import Annotated

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.operation import Operation
from api.paging import UserError, local_id, user_errors
from api.sign_in import CREDENTIAL, signed_in, told
from domain import second_factors
from domain.errors import NotFound, Refused
from tenants.access import Permission
from tenants.errors import ProofRefused, SecondFactorRequired, TooManyAttempts
from tenants.signing_in import second_factors as tables

_SHAPE = "the shape of a payload"
_OWN = "for whoever is signed in, and of that member alone"
_CODE = argument(CREDENTIAL, "Six digits of the authenticator, or a recovery code.")


@strawberry.type
class BeginSecondFactorPayload:
    uri: str | None = public(_SHAPE, description="`otpauth://…`, for a QR code; shown this once.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class ConfirmSecondFactorPayload:
    recovery_codes: list[str] | None = public(_SHAPE, description="Each works once in place of a code; shown once.")
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class SecondFactorPayload:
    is_removed: bool = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class SecondFactorMutations:
    @public(_OWN, description="A new secret, which counts once it is confirmed. Takes a sign-in of the last 5 minutes.")
    async def begin_second_factor(self, info: Info[Operation]) -> BeginSecondFactorPayload | None:
        try:
            return BeginSecondFactorPayload(uri=await second_factors.begin(info.context.unit), user_errors=[])
        except Refused as refused:
            return BeginSecondFactorPayload(uri=None, user_errors=user_errors(refused))

    @public(_OWN, description="From now on a sign-in takes a code as well.")
    async def confirm_second_factor(
        self, info: Info[Operation], code: Annotated[str, argument(CREDENTIAL, "Six digits of the authenticator.")]
    ) -> ConfirmSecondFactorPayload | None:
        try:
            codes = await second_factors.confirm(info.context.unit, code)
        except ProofRefused as refused:
            return ConfirmSecondFactorPayload(recovery_codes=None, user_errors=told(refused, "code"))
        return ConfirmSecondFactorPayload(recovery_codes=codes, user_errors=[])

    @public(_OWN, description="From now on a sign-in takes the password alone.")
    async def remove_second_factor(
        self,
        info: Info[Operation],
        password: Annotated[str, argument(CREDENTIAL, "One's own.")],
        code: Annotated[str, _CODE],
    ) -> SecondFactorPayload | None:
        operation, credential = signed_in(info)
        origin = operation.request.origin
        proving = operation.services.sign_ins.proven(
            credential, password, code, action=tables.REMOVED.name, origin=origin
        )
        try:
            async with proving as unit:
                is_removed = await tables.remove(unit, credential.principal)
        except (ProofRefused, SecondFactorRequired, TooManyAttempts) as refused:
            return SecondFactorPayload(is_removed=False, user_errors=told(refused))
        if not is_removed:
            return SecondFactorPayload(is_removed=False, user_errors=user_errors(Refused([second_factors.NOT_SET])))
        return SecondFactorPayload(is_removed=True, user_errors=[])

    @requires(
        Permission.MEMBERS_MANAGE,
        description="Takes the second factor of a member who has lost it. An owner's, only an owner may take.",
    )
    async def reset_second_factor(
        self,
        info: Info[Operation],
        member: Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "Whose factor it is.")],
    ) -> SecondFactorPayload | None:
        try:
            await second_factors.reset(info.context.unit, local_id("Member", member))
        except NotFound as refused:
            return SecondFactorPayload(is_removed=False, user_errors=told(refused, "member"))
        except Refused as refused:
            return SecondFactorPayload(is_removed=False, user_errors=user_errors(refused))
        return SecondFactorPayload(is_removed=True, user_errors=[])
