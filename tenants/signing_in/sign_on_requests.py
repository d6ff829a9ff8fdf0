"""Sign-ins under way: kept here and not in the browser, so that what comes back is taken up once, by who began."""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, delete, select

from crypto.keyring import SealedCell
from crypto.values import Secret
from tenants.ids import new_id
from tenants.owned import places
from tenants.signing_in.sign_on import FlowSecret, SignOnProvider, SignOnRequest
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId, SessionId

LIFETIME = timedelta(minutes=10)
_MOST, _MOST_OF_ADDRESS = 10_000, 200  # at a time, of one tenant; beginning needs no credential
_TIDIED = 500
_COLUMNS = (
    SignOnRequest.id,
    SignOnRequest.secret,
    SignOnRequest.provider_id,
    SignOnRequest.member_id,
    SignOnRequest.session_id,
    SignOnRequest.is_fresh,
    SignOnRequest.created_at,
)


@dataclass(frozen=True, slots=True)
class Begun:
    """`state` goes to the provider and back, `handle` stays with the browser: with either alone nobody gets in."""

    state: bytes = field(repr=False)
    handle: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taken:
    provider: UUID
    verifier: str = field(repr=False)
    nonce: str = field(repr=False)
    redirect_uri: str
    link_to: Credential | None
    is_fresh: bool
    begun_at: datetime


async def begin(
    unit: Unit,
    provider: SignOnProvider,
    flow: FlowSecret,
    *,
    address: bytes,
    link_to: Credential | None,
    is_fresh: bool,
) -> Begun:
    """`address` is a hash of where it comes from: who begins many loses its own oldest first."""
    await _make_room(unit, address)
    await unit.load_subjects([unit.tenant.id])
    begun = Begun(secrets.token_bytes(32), secrets.token_bytes(32))
    unit.add(
        SignOnRequest(
            tenant_id=unit.tenant.id,
            id=new_id(),
            state=_hash(begun.state),
            handle=_hash(begun.handle),
            secret=Secret(flow),
            provider_id=provider.id,
            member_id=None if link_to is None else link_to.principal,
            session_id=None if link_to is None else link_to.session,
            address=address,
            is_fresh=is_fresh,
            created_at=unit.now,
            expires_at=unit.now + LIFETIME,
        )
    )
    await unit.flush()
    return begun


async def take(unit: Unit, state: bytes, handle: bytes) -> Taken | None:
    """Once: it is gone with this unit. A wrong handle leaves it, or a stranger could end other people's sign-ins."""
    taking = (
        delete(SignOnRequest)
        .where(
            SignOnRequest.tenant_id == unit.tenant.id,
            SignOnRequest.state == _hash(state),
            SignOnRequest.handle == _hash(handle),
            SignOnRequest.expires_at > unit.now,
        )
        .returning(*_COLUMNS)
    )
    found = await unit.rows(taking.execution_options(synchronize_session=False))
    if not found:
        return None
    (request,) = found
    await unit.load_subjects([unit.tenant.id])
    cell = SealedCell(request.secret, unit.subject_secret(unit.tenant.id), unit.tenant.id, request.id)
    (flow,) = unit.open(places(SignOnRequest)["secret"], [cell], "to take up a sign-in")
    return Taken(
        provider=request.provider_id,
        verifier=flow.verifier or "",
        nonce=flow.nonce or "",
        redirect_uri=flow.redirect_uri or "",
        link_to=_asker(unit, request),
        is_fresh=request.is_fresh,
        begun_at=request.created_at,
    )


def _asker(unit: Unit, request: Row[Any]) -> Credential | None:
    if request.member_id is None:
        return None
    session = None if request.session_id is None else SessionId(request.session_id)
    return Credential(unit.tenant.id, MemberId(request.member_id), session)


async def _make_room(unit: Unit, address: bytes) -> None:
    """The oldest go, so that strangers who begin many close the way to nobody else."""
    mine = select(SignOnRequest.id).where(SignOnRequest.tenant_id == unit.tenant.id)
    newest = SignOnRequest.expires_at.desc()
    await _forget(unit, mine.where(SignOnRequest.expires_at <= unit.now).limit(_TIDIED))
    await _forget(unit, mine.where(SignOnRequest.address == address).order_by(newest).offset(_MOST_OF_ADDRESS - 1))
    await _forget(unit, mine.order_by(newest).offset(_MOST - 1))


async def _forget(unit: Unit, ids: Select[Any]) -> None:
    """But for those that somebody else takes up or forgets at this moment, whom this would wait for."""
    chosen = ids.with_for_update(skip_locked=True)
    forgetting = delete(SignOnRequest).where(SignOnRequest.tenant_id == unit.tenant.id, SignOnRequest.id.in_(chosen))
    await unit.run(forgetting.execution_options(synchronize_session=False))


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
