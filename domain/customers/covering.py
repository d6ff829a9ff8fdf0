"""What of some rights is beyond others: the one comparison that giving, handing over and teams decide by."""

from collections.abc import Iterator

from domain.customers.fields import FIELDS
from tenants.access import Grants, Level, Sensitivity


def covers(mine: Grants, theirs: Grants) -> bool:
    """Nothing of theirs is beyond mine."""
    return next(beyond(mine, theirs), None) is None


def beyond(mine: Grants, theirs: Grants) -> Iterator[str]:
    """Names of what is granted there and not here. A class covers its fields, and never the other way round."""
    yield from theirs.permissions - mine.permissions
    yield from (f"search by {each}" for each in theirs.searches - mine.searches)
    yield from (f"write {each}" for each in theirs.writes - mine.writes)
    yield from (f"write {_spelled(each)}" for each in theirs.field_writes if not _writes(mine, each))
    for each, level in theirs.levels.items():
        if mine.levels.get(each, Level.HIDDEN) < level:
            yield f"{each} {level.name}"
    for name, level in theirs.fields.items():
        if _level(mine, name) < level:
            yield f"{_spelled(name)} {level.name}"


def _writes(mine: Grants, name: str) -> bool:
    return name in mine.field_writes or mine.writes.issuperset(_classes(name))


def _level(mine: Grants, name: str) -> Level:
    return max(mine.fields.get(name, Level.HIDDEN), min(mine.level(each) for each in _classes(name)))


def _classes(name: str) -> list[Sensitivity]:
    """Any, where there is no such field any more: it may come back."""
    return [FIELDS[name].sensitivity] if name in FIELDS else list(Sensitivity)


def _spelled(name: str) -> str:
    """As clients spell it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
