"""CSV from outside, read strictly: rows by their place in the file. A refusal names rows, never what stands in them."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from domain.errors import Path, Refused, UserError

MOST_ROWS = 10_000
_MOST_ERRORS = 20
_DELIMITERS = (",", ";", "\t")
_BYTE_ORDER_MARK = "\ufeff"
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_PATH: Path = ("csv",)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of cells as they stand in the file; `number` is its place after the header, from 1."""

    number: int
    cells: list[str]


def read(text: str, headers: Collection[str]) -> tuple[list[str], list[Row]]:
    """The header and the rows of a file (RFC 4180, or with semicolons or tabs); empty lines are passed over.

    `headers` are those that the file should have, which tells its delimiter. Raises `Refused`.
    """
    text = text.removeprefix(_BYTE_ORDER_MARK)
    header, *rows = _records(text, _delimiter(text, headers))
    errors = [error for row in rows if (error := _error(row, len(header.cells)))]
    if not rows:
        errors = [UserError("REQUIRED", _PATH, "The file has no rows below its header.")]
    if errors:
        raise Refused(errors[:_MOST_ERRORS])
    return [cell.strip() for cell in header.cells], rows


def _delimiter(text: str, headers: Collection[str]) -> str:
    """That by which the first line holds most of the headers; of equals, the one that makes most cells."""

    def found(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(_records(text, delimiter)).cells
        except Refused:  # quotes that end before another delimiter
            return 0, 0
        return len({cell.strip() for cell in cells} & set(headers)), len(cells)

    return max(_DELIMITERS, key=found)


def _records(text: str, delimiter: str) -> Iterator[Row]:
    """The header, as row 0, then each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number, kept = -1, 0
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error:  # says nothing of the place that a reader of the file could use
            raise Refused([UserError("NOT_CSV", _PATH, f"{_called(number)} is not CSV; check its quotes.")]) from None
        if cells is None and number:
            return
        if cells or not number:
            kept += 1
            yield Row(number, cells or [])
        if kept > MOST_ROWS + 1:
            sentence = f"The file has more than {MOST_ROWS} rows; split it and import the parts."
            raise Refused([UserError("TOO_MANY_ROWS", _PATH, sentence)])


def _error(row: Row, width: int) -> UserError | None:
    if len(row.cells) != width:
        sentence = f"Row {row.number} has {len(row.cells)} cells where the header has {width}."
        return UserError("RAGGED_ROW", _PATH, sentence)
    for place, cell in enumerate(row.cells, start=1):
        if _CONTROLS.search(cell):
            sentence = f"Row {row.number} holds a control character in column {place}; save the file as text in UTF-8."
            return UserError("CONTROL_CHARACTER", _PATH, sentence)
    return None


def _called(number: int) -> str:
    return f"Row {number}" if number else "The header"
