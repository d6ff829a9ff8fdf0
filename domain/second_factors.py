"""A member's second factor, switched on by the member, and taken away by who manages members."""

from uuid import UUID

from domain import governing, granting, step_ups
from domain.errors import Forbidden, NotFound, Refused, UserError
from tenants import members, rights
from tenants.access import Permission
from tenants.errors import PasswordMissing
from tenants.signing_in import member_passwords, second_factors
from tenants.unit import Unit
from tenants.viewers import MemberId

NOT_SET = UserError("NOT_SET", (), "There is no second factor to take away.")


async def begin(unit: Unit) -> str:
    """The ``otpauth://`` URI of a new secret. Raises `Refused`: NO_PASSWORD, STEP_UP_REQUIRED, SECOND_FACTOR_EXISTS."""
    member = _person(unit)
    if await member_passwords.find(unit, member) is None:
        message = "You sign in by a provider, without a password here: that provider asks for the second factor."
        raise Refused([UserError(PasswordMissing.code, (), message)])
    await step_ups.require(unit)  # else whoever finds an open session locks the member out of it
    own = (await members.identities(unit, [member], "to name the account in the authenticator"))[member]
    uri = await second_factors.begin(unit, member, own.email or "")
    if uri is None:
        raise Refused([UserError("SECOND_FACTOR_EXISTS", (), "Remove the present second factor first.")])
    return uri


async def confirm(unit: Unit, code: str) -> list[str]:
    """Ten recovery codes. Raises `ProofRefused`."""
    return await second_factors.confirm(unit, _person(unit), code)


async def reset(unit: Unit, member: UUID) -> None:
    """Of somebody else, who has lost it. Raises `NotFound`; `Forbidden` for one's own, and for that of a member who
    governs and has more than the viewer; `Refused`: NOT_SET.
    """
    if member == unit.viewer.principal:
        raise Forbidden("Remove your own second factor by removeSecondFactor, with your password.")
    giver = await granting.lock(unit, Permission.MEMBERS_MANAGE)
    target = (await rights.held(unit, [member])).get(member)
    if target is None:
        raise NotFound
    await governing.check_opening(unit, giver, target)
    if not await second_factors.remove(unit, MemberId(member)):
        raise Refused([NOT_SET])


def _person(unit: Unit) -> MemberId:
    if unit.viewer.principal is None or unit.viewer.is_service:
        raise Forbidden("A service has no second factor.")
    return unit.viewer.principal
