"""How somebody brings a tenant to life without an operator: nothing is stored before the e-mail was proved.

What is wanted travels in a signed token; whoever sends it back goes on where it stands, however often and from where.
"""

from dataclasses import dataclass, field

from sqlalchemy import exists, select

from tenants import members, provisioning, tenants
from tenants.access import Role
from tenants.database import Database
from tenants.errors import SignUpDone, SlugTaken, TenantNotReady
from tenants.jobs.fair_queues import Asking
from tenants.members import Member
from tenants.origins import UNKNOWN, Origin
from tenants.signing_in import member_passwords
from tenants.signing_in.passwords import Passwords
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import TenantId


@dataclass(frozen=True, slots=True)
class SignUp:
    """The tenant that is wanted, by the id it is going to have, and the e-mail of who owns it."""

    tenant: TenantId
    slug: str
    name: str
    email: str = field(repr=False)
    region: str
    language: str


class SignUps:
    def __init__(self, units: Units, platform: Database, passwords: Passwords) -> None:
        self._units = units
        self._platform = platform
        self._passwords = passwords

    async def check_free(self, slug: str) -> None:
        """Raises `SlugRefused`, `SlugTaken`."""
        tenants.check_slug(slug)
        if await tenants.find(self._platform, slug) is not None:
            raise SlugTaken

    async def complete(self, wanted: SignUp, owner_name: str, password: str, origin: Origin = UNKNOWN) -> None:
        """One step further: the tenant and the job that makes its keys; then, once they are made, its owner.

        Raises `TenantNotReady` until then, `SlugTaken`, `MemberRefused` for the password, `SignUpDone` ever after.
        """
        self._passwords.check(password)
        tenant = await provisioning.create(
            self._platform,
            wanted.slug,
            wanted.name,
            region=wanted.region,
            language=wanted.language,
            id=wanted.tenant,
        )
        if tenant.id != wanted.tenant:
            raise SlugTaken
        if tenant.status == "PENDING":
            raise TenantNotReady
        async with self._units.enter(tenant.id, None, write=False) as unit:
            await _refuse_done(unit)  # before the work of hashing
        await self._add_owner(wanted, owner_name, password, origin)

    async def _add_owner(self, wanted: SignUp, name: str, password: str, origin: Origin) -> None:
        asking = Asking(wanted.tenant.hex, wanted.tenant.hex)
        password_hash = await self._passwords.hash(password, asking)
        async with self._units.enter(wanted.tenant, None, write=True, origin=origin) as unit:
            await unit.rows(select(tenants.tenants.c.id).where(tenants.tenants.c.id == wanted.tenant).with_for_update())
            await _refuse_done(unit)
            owner = await members.add(
                unit, email=wanted.email, name=name, password_hash=password_hash, roles=[Role.OWNER]
            )
            await member_passwords.refuse_obvious(unit, owner, password)


async def _refuse_done(unit: Unit) -> None:
    if (await unit.scalars(select(exists().where(Member.tenant_id == unit.tenant.id))))[0]:
        raise SignUpDone
