"""How a data key comes to be: made by one role that can't open it, opened by another to be checked in."""

from uuid import UUID

from crypto.keys import KeyState, Purpose, WrappedKey, check_value, wrapping_context
from crypto.transit import TransitKeys
from tenants.ids import new_id


async def make(
    maker: TransitKeys, opener: TransitKeys, tenant: UUID, purpose: Purpose, version: int, state: KeyState
) -> WrappedKey:
    """A key that nobody has used, and that is nowhere yet. Raises `KeyUnavailable`, `KeyRefused`."""
    key_id = new_id()
    context = wrapping_context(tenant, key_id, purpose)
    wrapped = await maker.make_data_key(tenant, context)
    (secret,) = await opener.unwrap(tenant, [(wrapped, context)])
    checked = check_value(tenant, key_id, purpose, secret)
    return WrappedKey(tenant, key_id, purpose, version, wrapped, checked, state)
