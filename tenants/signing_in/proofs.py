"""How a viewer proves anew who sits there: one sentence of advice, for whatever asks for it."""

from tenants.signing_in import member_passwords
from tenants.unit import Unit

_SERVICE = "A service can't confirm who it is; a member must do this."
_BY_PROVIDER = "Confirm who you are: begin again with beginSignOn(fresh: true); that counts for five minutes."
_BY_PASSWORD = "Confirm who you are with confirmIdentity; that counts for five minutes."  # noqa: S105  # a sentence


async def advice(unit: Unit) -> str:
    """By what this viewer has to prove it with."""
    if unit.viewer.is_service or unit.viewer.principal is None:
        return _SERVICE
    has_password = await member_passwords.find(unit, unit.viewer.principal) is not None
    return _BY_PASSWORD if has_password else _BY_PROVIDER
