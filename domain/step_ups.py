"""Step-ups: what takes a proof of the last five minutes that it is still the member who sits there."""

from domain.errors import Refused, UserError
from tenants.signing_in import proofs, sessions
from tenants.unit import Unit


async def require(unit: Unit) -> None:
    """Raises `Refused`, STEP_UP_REQUIRED, with the way to prove it; a service has none."""
    if unit.viewer.is_service or not sessions.is_fresh(unit.viewer, unit.now):
        raise Refused([UserError("STEP_UP_REQUIRED", (), await proofs.advice(unit))])
