"""Why a backup is not restored: the reason itself is the code, so that it stands in the job."""

from collections.abc import Collection
from uuid import UUID

from crypto.errors import CofferError
from jobs.backups.errors import ManifestRefused
from jobs.key_files.errors import KeyFileRefused
from tenants.ids import global_id

_NAMED = 5


class SafetyImpossible(CofferError):
    """Nothing was replaced, and the tenant is not frozen."""

    code = "NO_SAFETY_BACKUP"
    message = (
        "What would be replaced can't be backed up: a store does not answer or is full. Retry the job when it does,"
        " or restore with `withoutSafety`."
    )


class HoldsWouldGo(CofferError):
    """A new tenant has none of the holds that the old one placed."""

    code = "LEGAL_HOLD"

    def __init__(self, count: int) -> None:
        super().__init__(f"At least {count} of the backup's customers are under a legal hold; a move would drop it.")


class HeldClash(CofferError):
    """Nothing was changed. The code names the first of those customers, as members do: ``HELD_CLASH:<id>,<id>``."""

    code = "HELD_CLASH"

    def __init__(self, customers: Collection[UUID]) -> None:
        named = [global_id("Customer", customer) for customer in sorted(customers)[:_NAMED]]
        super().__init__(
            f"The backup gives others the external id, or another tag the name of a tag, that {', '.join(named)} under"
            " a legal hold keeps. Lift the hold, or change the external id or the tags, and restore again."
        )
        self.code = f"{self.code}:{','.join(named)}"  # type: ignore[misc]  # so that it stands in the job


class BackupHasDuplicates(CofferError):
    """Nothing was changed."""

    code = "BACKUP_HAS_DUPLICATES"
    message = "Two customers of the backup have the same external id, which only one may have; use another backup."


class SourceRefused(CofferError):
    """``MANIFEST_`` or ``KEY_FILE_`` and what is wrong with it, a `Refusal` of `jobs.backups` or `jobs.key_files`."""

    def __init__(self, cause: ManifestRefused | KeyFileRefused) -> None:
        super().__init__(cause.message)
        kind = "MANIFEST" if isinstance(cause, ManifestRefused) else "KEY_FILE"
        self.code = f"{kind}_{cause.why}"  # type: ignore[misc]  # each reason is a code of its own
