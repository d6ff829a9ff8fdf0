"""Kinds of jobs for tests, in a register of their own so that no product's worker is asked for their handlers."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tenants.jobs import JobKind, NoArguments, Priority

KINDS: dict[str, JobKind[Any]] = {}


@dataclass(frozen=True, slots=True)
class Counted:
    """How many steps the job takes."""

    steps: int = 3
    label: UUID | None = None


COUNT = JobKind("test_count", Counted, "Count.", declared_in=KINDS)
POISON = JobKind("test_poison", NoArguments, "Kill the worker.", declared_in=KINDS)
URGENT = JobKind("test_urgent", Counted, "Count at once.", priority=Priority.URGENT, declared_in=KINDS)
FRAGILE = JobKind("test_fragile", NoArguments, "Fail.", most_attempts=3, declared_in=KINDS)
