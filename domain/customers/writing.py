"""Changing customers: create one or many, update by version, archive, restore; values and tokens in one transaction."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from crypto.values import Secret
from domain import rules
from domain.customers.changing import Documents, check_version, lock, touch, views
from domain.customers.events import ARCHIVED, HANDED_OVER, RESTORED, UPDATED, publish, publish_created
from domain.customers.fields import COLUMN_OF, DOCUMENTS, FIELDS, ExternalId, Stage
from domain.customers.inputs import Changes, edge, input_path, parse, refuse_empty
from domain.customers.reach import check, gains
from domain.customers.rights import may_write
from domain.customers.rows import Customer, CustomerToken, CustomerView
from domain.customers.tokens import tokens_of
from domain.errors import Forbidden, Refused, UserError
from domain.tags import CustomerTag, Tag
from tenants.access import Level, Permission, Relation
from tenants.documents import Document
from tenants.ids import new_id
from tenants.members import Member
from tenants.unit import Unit
from tenants.viewers import Viewer

MOST_AT_ONCE = 500
_TRIES = 3
_TAKEN = UserError("EXTERNAL_ID_TAKEN", ("externalId",), "externalId belongs to another customer already.")


async def create(unit: Unit, sent: Mapping[str, Any]) -> CustomerView:
    """`sent` holds the fields the client named. Raises `Refused` with every reason."""
    outcome = (await create_many(unit, [sent]))[0]
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


async def create_many(unit: Unit, many: Sequence[Mapping[str, Any]]) -> list[CustomerView | Refused]:
    """An outcome per row, in order: the new customer, or why that row was refused; refused rows hold up no other.

    A constant number of statements, however many rows, also where other transactions take external ids meanwhile; only
    a batch that lost `_TRIES` such races goes on row by row.
    """
    outcomes: dict[int, Any] = {row: _parsed(unit, sent) for row, sent in enumerate(many)}
    for _ in range(_TRIES):
        # Whoever made us lose has committed, so this finds all of its ids at once: READ COMMITTED sees them.
        outcomes |= await _refused(unit, _accepted(outcomes))
        try:
            outcomes |= await _insert_together(unit, _accepted(outcomes))
            break
        except IntegrityError:
            continue
    else:
        outcomes |= await _insert_each(unit, _accepted(outcomes))
    publish_created(unit, [(made.id, many[n]) for n, made in outcomes.items() if isinstance(made, CustomerView)])
    return [outcomes[row] for row in range(len(many))]


async def update(unit: Unit, customer: UUID, version: int, sent: Mapping[str, Any]) -> CustomerView:
    """Set the named fields of the version that was read; None clears, what is not named stays.

    Raises `Refused`: STALE_VERSION, MASKED_INPUT, INVALID, NOT_FOUND, EXTERNAL_ID_TAKEN.
    """
    row = await lock(unit, customer)
    relation = check(unit, row.owner_id, Permission.CUSTOMERS_WRITE)
    _check_rights(unit, relation, sent)
    check_version(row, version)
    current = {column: _opened(unit, row, column) for column in DOCUMENTS}
    names = {name: ".".join(map(str, input_path(name))) for name in sent}
    masked = [
        e for document in current.values() for e in rules.masked_inputs(unit.viewer, relation, document, names, sent)
    ]
    if masked:
        raise Refused(masked)
    changes = parse(sent, edge(unit))
    await _check(unit, changes, row, relation)
    wanted = {column: changes.applied(column, document) for column, document in current.items()}
    publish(unit, UPDATED, customer, _differing(unit.viewer, relation, row, changes, current))
    if changes.clear.get("owner_id", row.owner_id) != row.owner_id:
        publish(unit, HANDED_OVER, customer, ["owner_id"])
    _set(row, changes, {column: wanted[column] for column in DOCUMENTS if wanted[column] is not current[column]})
    touch(unit, row)
    await _write_tokens(unit, customer, changes.personal.keys(), wanted)
    if changes.tags is not None:
        await unit.run(
            delete(CustomerTag).where(CustomerTag.tenant_id == unit.tenant.id, CustomerTag.customer_id == customer)
        )
        await _add_tags(unit, {customer: changes.tags})
    return views(unit, [(row, wanted)])[0]


async def archive(unit: Unit, customer: UUID) -> CustomerView:
    """Take a customer out of the lists; asking again changes nothing."""
    row = await lock(unit, customer)
    check(unit, row.owner_id, Permission.CUSTOMERS_ARCHIVE)
    if row.archived_at is None:
        row.archived_at = unit.now
        publish(unit, ARCHIVED, customer)
        touch(unit, row)
        await unit.flush()
    return views(unit, [(row, None)])[0]


async def restore(unit: Unit, customer: UUID) -> CustomerView:
    row = await lock(unit, customer)
    check(unit, row.owner_id, Permission.CUSTOMERS_ARCHIVE)
    if row.archived_at is not None:
        row.archived_at = None
        publish(unit, RESTORED, customer)
        touch(unit, row)
        await unit.flush()
    return views(unit, [(row, None)])[0]


def _differing(
    viewer: Viewer, relation: Relation, row: Customer, changes: Changes, current: Documents
) -> Iterator[str]:
    """Names of the fields that the changes make other than they are.

    One that the viewer does not see plain is always named: that it stays as it was would confirm a guess.
    """
    for n, value in changes.personal.items():
        is_unseen = viewer.principal is not None and viewer.levels(FIELDS[n])[relation] is not Level.PLAIN
        if is_unseen or getattr(current[COLUMN_OF[n]], n) != value:
            yield n
    yield from (n for n, value in changes.clear.items() if getattr(row, n) != value)
    if changes.tags is not None:
        yield "tag_ids"


def _parsed(unit: Unit, sent: Mapping[str, Any]) -> Changes | Refused:
    try:
        changes = parse(sent, edge(unit))
        refuse_empty(changes)
    except Refused as refused:
        return refused
    return changes


def _accepted(outcomes: Mapping[int, Any]) -> dict[int, Changes]:
    return {row: changes for row, changes in outcomes.items() if isinstance(changes, Changes)}


async def _refused(unit: Unit, accepted: Mapping[int, Changes]) -> dict[int, Refused]:
    """Which rows name an owner or tag that is not there, or an external id that is taken, by others or in the rows."""
    owners, tags, taken = await _known(unit, accepted.values())
    refused: dict[int, Refused] = {}
    for row, changes in accepted.items():
        errors = _reference_errors(changes, owners, tags)
        token = _external_token(unit, changes)
        if token in taken:
            errors.append(_TAKEN)
        if errors:
            refused[row] = Refused(errors)
        elif token is not None:
            taken.add(token)
    return refused


async def _check(unit: Unit, changes: Changes, row: Customer, relation: Relation) -> None:
    owners, tags, _ = await _known(unit, [changes])
    errors = _reference_errors(changes, owners | {row.owner_id}, tags)
    if "owner_id" in changes.clear:
        errors += gains(unit, relation, changes.clear["owner_id"], ("ownerId",))
    token = _external_token(unit, changes)
    if token is not None and await _token_owners(unit, [token]) - {row.id}:
        errors.append(_TAKEN)
    if errors:
        raise Refused(errors)


async def _known(unit: Unit, many: Iterable[Changes]) -> tuple[set[UUID], set[UUID], set[bytes]]:
    """Of all owners, tags and external ids named, those that exist; no statement where none is named.

    An owner is active: nobody is given what nobody looks after.
    """
    many = list(many)
    owners = {owner for changes in many if (owner := changes.clear.get("owner_id"))}
    tags = {tag for changes in many for tag in changes.tags or ()}
    tokens = [token for changes in many if (token := _external_token(unit, changes))]
    mine = unit.tenant.id
    found_owners = select(Member.id).where(Member.tenant_id == mine, Member.id.in_(owners), Member.status == "ACTIVE")
    found_tags = select(Tag.id).where(Tag.tenant_id == mine, Tag.id.in_(tags))
    found_tokens = select(CustomerToken.token).where(
        CustomerToken.tenant_id == mine, CustomerToken.index == "external_id", CustomerToken.token.in_(tokens)
    )
    return (
        set(await unit.scalars(found_owners)) if owners else set(),
        set(await unit.scalars(found_tags)) if tags else set(),
        set(await unit.scalars(found_tokens)) if tokens else set(),
    )


async def _token_owners(unit: Unit, tokens: Sequence[bytes]) -> set[UUID]:
    statement = select(CustomerToken.customer_id).where(
        CustomerToken.tenant_id == unit.tenant.id,
        CustomerToken.index == "external_id",
        CustomerToken.token.in_(tokens),
    )
    return set(await unit.scalars(statement))


def _reference_errors(changes: Changes, owners: Collection[UUID | None], tags: set[UUID]) -> list[UserError]:
    errors = []
    owner = changes.clear.get("owner_id")
    if owner is not None and owner not in owners:
        errors.append(UserError("NOT_FOUND", ("ownerId",), "ownerId is no active member's id."))
    if (changes.tags or frozenset()) - tags:
        errors.append(UserError("NOT_FOUND", ("tagIds",), "tagIds names a tag that is not there."))
    return errors


async def _insert(unit: Unit, many: Sequence[Changes]) -> list[CustomerView]:
    pairs = [(_new(unit, changes), _documents(changes)) for changes in many]
    for (row, documents), changes in zip(pairs, many, strict=True):
        unit.new_subject(row.id)
        _set(row, changes, {column: document for column, document in documents.items() if not document.is_empty()})
        unit.add(row)
    await unit.flush()
    tokens = [token for row, documents in pairs for token in tokens_of(unit, row.id, FIELDS, documents)]
    tokens.sort(key=lambda token: (token["bik_version"], token["token"]))
    if tokens:
        await unit.run(insert(CustomerToken), tokens)
    await _add_tags(unit, {row.id: changes.tags for (row, _), changes in zip(pairs, many, strict=True) if changes.tags})
    return views(unit, pairs)


async def _insert_together(unit: Unit, accepted: Mapping[int, Changes]) -> dict[int, CustomerView]:
    async with unit.savepoint():
        return dict(zip(accepted, await _insert(unit, list(accepted.values())), strict=True))


async def _insert_each(unit: Unit, accepted: Mapping[int, Changes]) -> dict[int, CustomerView | Refused]:
    """In the order of tokens, as `_insert`: batches that want the same ids wait for each other, never in a ring."""
    ordered = sorted(accepted, key=lambda row: _external_token(unit, accepted[row]) or b"")
    return {row: await _insert_alone(unit, accepted[row]) for row in ordered}


async def _insert_alone(unit: Unit, changes: Changes) -> CustomerView | Refused:
    try:
        return (await _insert_together(unit, {0: changes}))[0]
    except IntegrityError:
        return Refused([_TAKEN])


def _new(unit: Unit, changes: Changes) -> Customer:
    owner = changes.clear.get("owner_id", unit.viewer.principal)
    return Customer(
        tenant_id=unit.tenant.id,
        id=new_id(),
        stage=changes.clear.get("stage", Stage.LEAD.value),
        owner_id=owner,
        created_at=unit.now,
        updated_at=unit.now,
        version=1,
    )


def _documents(changes: Changes) -> Documents:
    return {column: changes.applied(column, document()) for column, document in DOCUMENTS.items()}


def _set(row: Customer, changes: Changes, documents: Documents) -> None:
    for column, document in documents.items():
        setattr(row, column, None if document.is_empty() else Secret(document))
    for column, value in changes.clear.items():
        setattr(row, column, value)


def _check_rights(unit: Unit, relation: Relation, sent: Mapping[str, Any]) -> None:
    """What the guard let pass for some customer may be beyond the viewer's rights to this one."""
    beyond = [name for name in sent if unit.viewer.principal and not may_write(unit.viewer, name, relation)]
    if beyond:
        spelled = ".".join(map(str, input_path(beyond[0])))
        raise Forbidden(f"You have no right to give `input.{spelled}` of this customer.")


def _opened(unit: Unit, row: Customer, column: str) -> Document:
    document: Document | None = unit.open_row(row, column, "to change it")
    return document or DOCUMENTS[column]()


async def _write_tokens(unit: Unit, customer: UUID, names: Iterable[str], documents: Documents) -> None:
    """Replace the tokens of the indexed fields among `names` by those of their values now."""
    indexed = [name for name in names if name in FIELDS and FIELDS[name].index is not None]
    if not indexed:
        return await unit.flush()
    await unit.run(
        delete(CustomerToken).where(
            CustomerToken.tenant_id == unit.tenant.id,
            CustomerToken.customer_id == customer,
            CustomerToken.index.in_([FIELDS[name].index.name for name in indexed]),  # type: ignore[union-attr]  # filtered above
        )
    )
    tokens = tokens_of(unit, customer, indexed, documents)
    try:
        await unit.flush()
        if tokens:
            await unit.run(insert(CustomerToken), tokens)
    except IntegrityError:
        raise Refused([_TAKEN]) from None
    return None


def _external_token(unit: Unit, changes: Changes) -> bytes | None:
    value = changes.personal.get("external_id")
    documents: Documents = {"external_id": ExternalId(external_id=value)}
    return tokens_of(unit, unit.tenant.id, ["external_id"], documents)[0]["token"] if value else None


async def _add_tags(unit: Unit, tags: Mapping[UUID, Iterable[UUID] | None]) -> None:
    rows = [
        {"tenant_id": unit.tenant.id, "customer_id": customer, "tag_id": tag}
        for customer, named in tags.items()
        for tag in named or ()
    ]
    if rows:
        await unit.run(insert(CustomerTag), rows)
