"""What has been seen of a backup while it is read, in 8 bytes of a hash each, however many rows it has."""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

from domain import restored_holds, restored_pages
from domain.restored_holds import Taken
from domain.restored_pages import Opened
from jobs.restoring.errors import BackupHasDuplicates, HeldClash
from tenants.backups.loading import Reference, Row, Target
from tenants.errors import Unrestorable

Tokens = Sequence[Mapping[str, Any]]


class Seen:
    """Hashes by their first byte, 8 bytes each; no more than one part of 256 is ever anything but an array."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(256)]
        self._unsorted: set[int] = set()

    def add(self, seen: int) -> None:
        part = seen >> 56
        self._parts[part].append(seen)
        self._unsorted.add(part)

    def __contains__(self, wanted: int) -> bool:
        seen = self._sorted(wanted >> 56)
        at = bisect_left(seen, wanted)
        return at < len(seen) and seen[at] == wanted

    def has_twice(self) -> bool:
        """Whether anything was added again; dear, and so asked once."""
        for part in range(256):
            seen = self._sorted(part)
            if any(seen[at] == seen[at + 1] for at in range(len(seen) - 1)):
                return True
        return False

    def _sorted(self, part: int) -> "array[int]":
        if part in self._unsorted:
            self._parts[part] = array("Q", sorted(self._parts[part]))
            self._unsorted.remove(part)
        return self._parts[part]


class Known:
    """Which rows have been seen, of the tables that others refer to."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._targets = {target.name for target in targets}
        self._seen: dict[tuple[str, tuple[str, ...]], Seen] = {}
        for target in targets:
            for each in target.references:
                if each.parent in self._targets:
                    self._seen[each.parent, each.theirs] = Seen()

    def take(self, target: Target, rows: list[Row]) -> None:
        """Raises `Unrestorable` for a row that refers to what the backup does not have. Parents come first."""
        for (table, columns), seen in self._seen.items():
            if table == target.name:
                for row in rows:
                    seen.add(_hash(row, columns))
        for each in target.references:
            if each.parent in self._targets:
                self._refuse_orphans(target, each, rows)

    def _refuse_orphans(self, target: Target, each: Reference, rows: list[Row]) -> None:
        seen = self._seen[each.parent, each.theirs]
        for row in rows:
            if all(row[column] is not None for column in each.columns) and _hash(row, each.columns) not in seen:
                raise Unrestorable(f"A row of {target.name} refers to a row of {each.parent} that is not there.")


class Uniques:
    """Unique tokens of a whole backup, and whether somebody who was kept has one of them, or the name of a tag."""

    def __init__(self, taken: Taken | None = None) -> None:
        self._taken = taken or Taken()
        self._seen = Seen()
        self._clashing: set[UUID] = set()

    def take(self, opened: Opened, tokens: Tokens) -> None:
        for token in filter(restored_holds.is_unique, tokens):
            self._seen.add(int.from_bytes(token["token"][:8], "big"))  # a keyed hash already
        self._clashing |= clashing(self._taken, opened, tokens)

    def refuse(self) -> None:
        """Raises `HeldClash`, `BackupHasDuplicates`: once all of the backup was taken."""
        refuse(self._clashing)
        if self._seen.has_twice():
            raise BackupHasDuplicates


def clashing(taken: Taken, opened: Opened, tokens: Tokens) -> set[UUID]:
    """Who was kept and has what that page, without rows of theirs, would give to others."""
    found = {taken.tokens.get(token["token"]) for token in tokens} if taken.tokens else set()
    if taken.names:
        found |= {taken.names.get(name) for name in restored_pages.tags_of_page(opened)}
    return {customer for customer in found if customer is not None}


def refuse(customers: Collection[UUID]) -> None:
    """Raises `HeldClash` where there are any."""
    if customers:
        raise HeldClash(customers)


def _hash(row: Row, columns: tuple[str, ...]) -> int:
    named = "\0".join(str(row[column]) for column in columns)
    return int.from_bytes(blake2b(named.encode(), digest_size=8).digest(), "big")
