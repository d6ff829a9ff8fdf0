"""A customer's fields as a file has them: texts, of which dates, stages and ids are made; empty ones name nothing."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from uuid import UUID

from domain.customers.fields import Stage
from domain.customers.inputs import edge, input_path, parse
from domain.errors import Refused, UserError
from domain.normalise import Invalid
from tenants.unit import Unit


def read(unit: Unit, cells: Mapping[str, Any]) -> dict[str, Any] | Refused:
    """As `create_many` takes it, of texts and lists of texts by field; every error at once where one can't be read."""
    sent: dict[str, Any] = {}
    errors: list[UserError] = []
    for target, text in cells.items():
        try:
            if text:
                sent[target] = _READS.get(target, _as_it_is)(text)
        except Invalid as invalid:
            path = input_path(target)
            errors.append(UserError("INVALID", path, f"{'.'.join(map(str, path))} {invalid.reason}."))
    if not errors:
        return sent
    try:
        parse(sent, edge(unit))
    except Refused as refused:
        errors += refused.errors
    return Refused(errors)


def _as_it_is(text: Any) -> Any:
    return text


def _date(text: str) -> date:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip(), re.ASCII):
        try:
            return date.fromisoformat(text.strip())
        except ValueError:
            pass  # the 31st of February is refused below, where no library's error quotes it
    raise Invalid("is not a date; write it as 1958-10-13")


def _stage(text: str) -> Stage:
    if text.strip().upper() not in Stage.__members__:
        raise Invalid(f"is not a stage; write one of {', '.join(Stage)}")
    return Stage[text.strip().upper()]


_READS: Mapping[str, Callable[[Any], Any]] = {
    "birth_date": _date,
    "stage": _stage,
    "owner_id": UUID,
    "tag_ids": lambda texts: [UUID(text) for text in texts],
}
