"""What is wrong with an answer: values above the viewer's level, rows out of reach, canaries anywhere in its bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tenants.access import Level
from tests.canaries import Canaries
from tests.leaks.documents import Branch, Document
from tests.leaks.graph import kinds_of, leaves, object_type, personal
from tests.leaks.people import Truth
from tests.leaks.viewers import LEAVES, Nearness, Viewer, is_kept, shown

# What a request may be refused with. All else is a fault of the test, or of the house.
REFUSALS = {"FORBIDDEN", "NOT_FOUND", "UNAUTHENTICATED"}
_ONESELF = ("Member.name", "Member.email")
# Whoever makes API keys names the services; a service is nobody.
_NAMES_SERVICES = "API_KEYS_MANAGE"


@dataclass
class Seen:
    """Coordinates: of fields that were asked of an object that was there, and of those that had a value."""

    asked: set[str] = field(default_factory=set)
    filled: set[str] = field(default_factory=set)
    customers: set[str] = field(default_factory=set)  # ids

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(self.asked | other.asked, self.filled | other.filled, self.customers | other.customers)


@dataclass
class Look:
    """At answers to one viewer; `truth` is of the viewer's tenant."""

    viewer: Viewer
    truth: Truth
    elsewhere: Truth
    seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        self._forbidden: dict[int, Canaries] = {}

    def problems(self, document: Document, raw: bytes, answer: dict[str, Any]) -> Iterator[str]:
        who = f"{self.viewer.name}, {document.spelling}"
        for code in {each["extensions"].get("code") for each in answer.get("errors") or ()} - REFUSALS:
            yield f"{who}: answered {code}: {document}"
        for name, (call, branch) in document.calls.items():
            value = (answer.get("data") or {}).get(name)
            yield from (f"{who}: {call.name}: {each}" for each in self._objects(document, branch, value, ""))
        yield from (f"{who}: {each}" for each in self.canaries(raw))

    def canaries(self, raw: bytes) -> list[str]:
        """Of all that this viewer may not see plain, and of all of the other tenant, what stands in the bytes."""
        known = len(self.truth.cores) + len(self.elsewhere.cores)
        if known not in self._forbidden:  # rows come while we look
            self._forbidden = {known: self._hidden()}
        return self._forbidden[known].found("the bytes", raw)

    def _hidden(self) -> Canaries:
        mine = {
            f"{coordinate} of {row} #{n}": core
            for (row, coordinate), cores in self.truth.cores.items()
            if not self._may_hold(row, coordinate)
            for n, core in enumerate(cores)
        }
        theirs = {
            f"{at} elsewhere #{n}": core for at, cores in self.elsewhere.cores.items() for n, core in enumerate(cores)
        }
        return Canaries(mine | theirs)

    def _may_hold(self, row: str, coordinate: str) -> bool:
        if row == self.viewer.member and coordinate in _ONESELF:
            return True
        if coordinate.startswith("Device.") and self._is_own(row):
            return True
        if row in self.truth.services and self.viewer.may(_NAMES_SERVICES):
            return True
        level = self.level(row, coordinate)
        return level is Level.PLAIN or (level is Level.MASKED and is_kept(coordinate))

    def _is_own(self, session: str) -> bool:
        return self.truth.owners.get(session) == self.viewer.member

    def level(self, row: str, coordinate: str) -> Level:
        near = self.near(row, coordinate)
        reads = near is Nearness.NONE or self.reaches(row)
        return self.viewer.level(coordinate, near) if reads else Level.HIDDEN

    def reaches(self, customer: str) -> bool:
        return self.viewer.may("CUSTOMERS_READ", self.near(customer, "Customer.id"))

    def near(self, row: str, coordinate: str) -> Nearness:
        is_customer = coordinate.startswith(("Customer.", "Address.", "LegalHold."))
        return self.viewer.near(self.truth.owners[row]) if is_customer else Nearness.NONE

    def _objects(self, document: Document, branch: Branch, value: Any, row: str) -> Iterator[str]:
        """`row` is the id of the nearest object around that has one."""
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield from self._object(document, branch, each, str(each.get("id", row)))

    def _object(self, document: Document, branch: Branch, value: dict[str, Any], row: str) -> Iterator[str]:
        if branch.kind == "Customer":
            yield from self._reach(row)
        if branch.kind == "OwnDevice":
            yield from self._own_device(document, branch, value, row)
        if branch.asks:
            for name in leaves(branch.kind):
                self._note(branch.kind, name, value[document.key(branch.kind, name)])
            for name in personal(branch.kind):
                yield from self._leaf(f"{branch.kind}.{name}", row, value[document.key(branch.kind, name)])
        for (name, _), below in branch.below.items():
            self._note(branch.kind, name, value[name])
            yield from self._objects(document, below, value[name], row)

    def _own_device(self, document: Document, branch: Branch, value: dict[str, Any], row: str) -> Iterator[str]:
        if not self._is_own(row):
            yield f"the session {row} is not the viewer's own"
        elif branch.asks:
            for name in leaves("OwnDevice"):
                if value[document.key("OwnDevice", name)] != self.truth.values[row][f"Device.{name}"]:
                    yield f"OwnDevice.{name} of {row} is not what its device is"

    def _note(self, kind: str, name: str, value: Any) -> None:
        self.seen.asked.add(f"{kind}.{name}")
        if value is not None and (value != [] or not kinds_of(object_type(kind).fields[name])):
            self.seen.filled.add(f"{kind}.{name}")

    def _reach(self, row: str) -> Iterator[str]:
        self.seen.customers.add(row)
        if row not in self.truth.values:
            yield f"the customer {row} is not of this tenant"
        elif not self.reaches(row):
            yield f"the customer {row} is out of reach"

    def _leaf(self, coordinate: str, row: str, value: Any) -> Iterator[str]:
        if coordinate not in LEAVES or row not in self.truth.values:
            yield f"{coordinate} of {row} is not known to this test"
            return
        plain, level = self.truth.values[row].get(coordinate), self.level(row, coordinate)
        if value != shown(coordinate, level, plain):
            yield f"{coordinate} of {row} is not what {level.name} shows"
        if level is Level.MASKED and value and value == plain and not is_kept(coordinate):
            yield f"{coordinate} of {row} has a mask that hides nothing"
