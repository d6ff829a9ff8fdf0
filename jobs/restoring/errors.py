"""Why a backup is not restored: the reason itself is the code, so that it stands in the job."""

from crypto.errors import CofferError
from jobs.backups.errors import ManifestRefused
from jobs.key_files.errors import KeyFileRefused


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


class SourceRefused(CofferError):
    """``MANIFEST_`` or ``KEY_FILE_`` and what is wrong with it, a `Refusal` of `jobs.backups` or `jobs.key_files`."""

    def __init__(self, cause: ManifestRefused | KeyFileRefused) -> None:
        super().__init__(cause.message)
        kind = "MANIFEST" if isinstance(cause, ManifestRefused) else "KEY_FILE"
        self.code = f"{kind}_{cause.why}"  # type: ignore[misc]  # each reason is a code of its own
