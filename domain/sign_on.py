"""A tenant's sign-on providers, set and removed within the rights of who does it: a map of roles gives roles."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import delete

from crypto.values import Secret
from domain import granting, roles
from domain.errors import Path, Refused, UserError
from tenants.access import SPECS, Permission, RoleSpec
from tenants.errors import IssuerTaken
from tenants.events import EventKind
from tenants.ids import new_id
from tenants.signing_in import issuers, sign_on, vouching
from tenants.signing_in.sign_on import ClientSecret, Roles, SignOnProvider
from tenants.unit import Unit

MOST_PROVIDERS, _MOST_ENTRIES, _MOST_SCOPES = 5, 200, 20
_LONGEST = 255
_PARTS = re.compile(r"[./:]")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749, section 3.3
# What people may write themselves at many providers, or what was never verified, and so gives nobody a role.
_OF_PEOPLE = frozenset(
    {
        *("email", "emails", "sub", "name", "preferred_username", "nickname", "given_name", "family_name"),
        *("phone_number", "upn", "unique_name"),
    }
)
_NAMES = ("name", "issuer", "client_id", "audience", "access_tokens", "scopes", "role_claim", "role_map")
_FIELDS = frozenset({*_NAMES, "default_roles", "is_enabled", "client_secret"})
SET = EventKind("sign_on.set", "SignOnProvider", "A sign-on provider was added or changed.", _FIELDS)
REMOVED = EventKind("sign_on.removed", "SignOnProvider", "A sign-on provider was removed; sessions by it ended.")
_MANAGE = Permission.SIGN_ON_MANAGE


@dataclass(frozen=True, slots=True)
class Entry:
    """Who has `value` in the role claim has these roles."""

    value: str
    roles: Roles


@dataclass(frozen=True, slots=True)
class Wanted:
    """`audience` None: the client's id. `changes_secret` tells whether `secret` (None: a public client) is given."""

    name: str
    issuer: str
    client_id: str
    secret: str | None = field(repr=False)
    changes_secret: bool
    audience: str | None
    access_tokens: str
    scopes: Sequence[str]
    role_claim: str | None
    role_map: Sequence[Entry]
    default_roles: Roles
    is_enabled: bool


async def set_(unit: Unit, provider: UUID | None, wanted: Wanted) -> SignOnProvider:
    """A new provider, or that one as wanted; where it or its client is another now, sessions by it end.

    Raises `Refused`: NOT_FOUND, INVALID, AUDIENCE_NEEDED, SECRET_NEEDED, TOO_MANY, BEYOND_YOUR_RIGHTS, ISSUER_TAKEN.
    """
    giver = await granting.lock(unit, _MANAGE)
    present = await sign_on.providers(unit)
    row = next((each for each in present if each.id == provider), None)
    if provider is not None and row is None:
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no provider of that id.")])
    if row is None and len(present) >= MOST_PROVIDERS:
        raise Refused([UserError("TOO_MANY", (), f"A tenant has at most {MOST_PROVIDERS} providers.")])
    if errors := list(_errors(wanted)):
        raise Refused(errors)
    granting.refuse_beyond(giver, await _specs(unit, wanted), ("roleMap",))
    if row is not None:  # what it gives already must be the giver's own, too, as with a role that is changed
        granting.refuse_beyond(giver, await _specs_of(unit, sign_on.all_roles(row)), ("id",))
        _refuse_to_give_away(row, wanted)
        if _points_elsewhere(row, wanted) and await vouching.has_links(unit, row.id):
            granting.refuse_but_owners(giver, "change issuer, client or audience of a provider that members sign in by")
    return await _put(unit, row, wanted)


async def remove(unit: Unit, provider: UUID) -> None:
    """Sessions and links by it end; whom it vouched for stay members.

    Raises `Refused`: NOT_FOUND, BEYOND_YOUR_RIGHTS.
    """
    giver = await granting.lock(unit, _MANAGE)
    row = await sign_on.find_provider(unit, provider)
    if row is None:
        raise Refused([UserError("NOT_FOUND", ("id",), "There is no provider of that id.")])
    granting.refuse_beyond(giver, await _specs_of(unit, sign_on.all_roles(row)), ("id",))
    await vouching.end_sessions(unit, provider)
    await issuers.give_back(unit, provider)
    mine = (SignOnProvider.tenant_id == unit.tenant.id, SignOnProvider.id == provider)
    await unit.run(delete(SignOnProvider).where(*mine).execution_options(synchronize_session=False))
    unit.publish(REMOVED, [provider])


async def _put(unit: Unit, row: SignOnProvider | None, wanted: Wanted) -> SignOnProvider:
    audience = _audience(wanted)
    values = _values(wanted, audience)
    changed = {name for name, value in values.items() if row is None or getattr(row, name) != value}
    is_new = row is None
    if row is None:
        row = SignOnProvider(tenant_id=unit.tenant.id, id=new_id(), created_at=unit.now)
        unit.add(row)
    is_cut = bool(changed & {"issuer", "client_id", "audience", "access_tokens"}) or not wanted.is_enabled
    for name, value in values.items():
        setattr(row, name, value)
    row.updated_at = unit.now
    await _keep_secret(unit, row, wanted)
    await unit.flush()
    try:
        client = wanted.client_id
        await issuers.claim(unit, row.id, wanted.issuer, client=client, audience=audience)
    except IssuerTaken as taken:
        is_ours = await issuers.is_ours(unit, wanted.issuer, {client, audience or client})
        message = "You have this provider already: change that one." if is_ours else taken.message
        raise Refused([UserError(taken.code, ("issuer",), message)]) from None
    if is_cut and not is_new:
        await vouching.end_sessions(unit, row.id)
    names = (changed - {"default_own_roles"}) | ({"client_secret"} if wanted.changes_secret else set())
    unit.publish(SET, [row.id], names & _FIELDS)
    return row


def _refuse_to_give_away(row: SignOnProvider, wanted: Wanted) -> None:
    """Whoever points a provider at a house of their own must not be sent the secret that stands here."""
    if row.secret is not None and wanted.issuer != row.issuer and not wanted.changes_secret:
        message = "Another issuer needs a secret of its own; send one, or null for a public client."
        raise Refused([UserError("SECRET_NEEDED", ("clientSecret",), message)])


def _points_elsewhere(row: SignOnProvider, wanted: Wanted) -> bool:
    """Whoever has tokens made for a client or audience of their own could come as any member that is linked."""
    is_same = (row.issuer, row.client_id) == (wanted.issuer, wanted.client_id)
    return not is_same or _audience(wanted) not in (row.audience, None)


def _audience(wanted: Wanted) -> str | None:
    return None if wanted.access_tokens == "NONE" else wanted.audience or wanted.client_id


def _values(wanted: Wanted, audience: str | None) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "issuer": wanted.issuer,
        "client_id": wanted.client_id,
        "audience": audience,
        "access_tokens": wanted.access_tokens,
        "scopes": list(wanted.scopes),
        "role_claim": wanted.role_claim,
        "role_map": [_stored(entry) for entry in wanted.role_map],
        "default_roles": sorted(wanted.default_roles.built_in),
        "default_own_roles": sorted(wanted.default_roles.own),
        "is_enabled": wanted.is_enabled,
    }


def _stored(entry: Entry) -> dict[str, Any]:
    return {
        "value": entry.value,
        "roles": sorted(entry.roles.built_in),
        "ownRoles": sorted(map(str, entry.roles.own)),
    }


async def _keep_secret(unit: Unit, row: SignOnProvider, wanted: Wanted) -> None:
    if not wanted.changes_secret:
        return
    await unit.load_subjects([unit.tenant.id])
    row.secret = None if wanted.secret is None else Secret(ClientSecret(secret=wanted.secret))


def _errors(wanted: Wanted) -> Iterator[UserError]:
    texts: Mapping[str, str | None] = {
        "name": wanted.name,
        "clientId": wanted.client_id,
        "audience": wanted.audience,
        "roleClaim": wanted.role_claim,
        "clientSecret": wanted.secret,
    }
    for name, text in texts.items():
        if text is not None and not _is_line(text):
            yield _invalid((name,), f"is 1 to {_LONGEST} characters that can be printed")
    if "openid" not in wanted.scopes or not _are_scopes(wanted.scopes):
        yield _invalid(("scopes",), f"has openid and at most {_MOST_SCOPES} codes in all")
    if wanted.access_tokens == "JWT" and wanted.audience in (None, wanted.client_id):
        message = "Tokens without a type of their own need an audience that is not the client's id."
        yield UserError("AUDIENCE_NEEDED", ("audience",), message)
    values = [entry.value for entry in wanted.role_map]
    if len(values) > _MOST_ENTRIES or len(set(values)) < len(values) or not all(map(_is_line, values)):
        yield _invalid(("roleMap",), f"has at most {_MOST_ENTRIES} values, each once")
    if wanted.role_map and wanted.role_claim is None:
        yield UserError("INVALID", ("roleClaim",), "A map of roles needs the claim that it reads.")
    if wanted.role_claim is not None and _PARTS.split(wanted.role_claim)[-1].strip().casefold() in _OF_PEOPLE:
        yield _invalid(("roleClaim",), "names a claim of groups or roles, not what people may write of themselves")


def _is_line(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable() and not text.isspace()


def _are_scopes(scopes: Sequence[str]) -> bool:
    return len(scopes) <= _MOST_SCOPES and all(map(_SCOPE.fullmatch, scopes))


def _invalid(path: Path, rule: str) -> UserError:
    return UserError("INVALID", path, f"{path[0]} {rule}.")


async def _specs(unit: Unit, wanted: Wanted) -> list[RoleSpec]:
    """Raises `Refused`, NOT_FOUND, for a role that is not there, or another tenant's."""
    found = wanted.default_roles
    for entry in wanted.role_map:
        found = found | entry.roles
    specs = await _specs_of(unit, found)
    if len(specs) < len(found.built_in) + len(found.own):
        raise Refused([UserError("NOT_FOUND", ("roleMap",), "There is no role of that id.")])
    return specs


async def _specs_of(unit: Unit, given: Roles) -> list[RoleSpec]:
    own = [view for view in await roles.get_many(unit, _list(given.own)) if view is not None]
    return [*(SPECS[role] for role in given.built_in), *(view.spec for view in own)]


def _list(ids: Collection[UUID]) -> list[UUID]:
    return sorted(ids)
