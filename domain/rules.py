"""The policy: what a viewer gets of a field, may search by and may write; the same for API, jobs and webhooks.

A rule decides once per operation; applying its decision to a value is a cheap pure function.
"""

from collections.abc import Mapping
from typing import Any

from domain import masks
from domain.errors import Path, UserError
from tenants.access import Level, Relation
from tenants.documents import MOST_VALUES, Document, Mask, PersonalField
from tenants.viewers import Viewer


def shown(at: Level, mask: Mask, value: Any) -> Any:
    """What a viewer at that level gets of the value; of a list, each of its values."""
    if at is Level.PLAIN or value is None:
        return value
    if at is Level.HIDDEN:
        return None
    if isinstance(value, tuple):
        return [masks.apply(mask, each) for each in value]
    return masks.apply(mask, value)


def may_write(viewer: Viewer, field: PersonalField, relation: Relation) -> bool:
    """Of a customer in that relation to the viewer.

    A unique index confirms values of anybody when it refuses them, so its field wants the right to search all as well.
    """
    everywhere = viewer.on(Relation.OTHER).searches
    searchable = field.index is None or not field.index.is_unique or field.index.right in everywhere
    return searchable and viewer.on(relation).may_write(field.sensitivity, field.name)


def masked_inputs(
    viewer: Viewer, relation: Relation, current: Document, names: Mapping[str, str], changes: Mapping[str, Any]
) -> list[UserError]:
    """Errors for every change that would write back what the viewer was shown in place of the value.

    A client that saves what it read destroys nothing: the mask of the current value is refused, and from a viewer who
    sees null where a value may be, so is null, whether or not there is a value. `names` maps fields to input names.
    """
    return [
        _masked(names[name])
        for name, value in changes.items()
        if (field := current.fields.get(name)) is not None
        and _writes_back(viewer.levels(field)[relation], field, value, getattr(current, field.shown_as))
    ]


def _writes_back(at: Level, field: PersonalField, value: Any, current: Any) -> bool:
    if at is Level.PLAIN:
        return False
    if _is_empty(value):
        return at is Level.HIDDEN or field.mask is Mask.NOTHING
    if at is Level.HIDDEN or not current:
        return False
    if isinstance(current, tuple):
        # No more than can be stored: a longer list is refused when it is parsed, and each pair costs a comparison.
        return any(masks.is_mask_of(field.mask, each, one) for each in value[:MOST_VALUES] for one in current)
    return masks.is_mask_of(field.mask, value, current)


def _is_empty(value: Any) -> bool:
    """What clears a field: null, no values, or the empty text that forms send for null."""
    return value is None or value in ((), []) or (isinstance(value, str) and not value.strip())


def _masked(name: str) -> UserError:
    path: Path = tuple(name.split("."))
    return UserError("MASKED_INPUT", path, f"{name} is the masked form of the stored value; leave it out to keep that.")
