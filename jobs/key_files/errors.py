"""Why a key file can't be trusted, or is not there."""

from enum import StrEnum
from typing import ClassVar

from crypto.errors import CofferError


class Refusal(StrEnum):
    """What is wrong with a key file."""

    TRUNCATED = "TRUNCATED"  # the file is cut off, or is none at all
    UNSIGNED = "UNSIGNED"
    UNKNOWN_KEY = "UNKNOWN_KEY"  # signed by a key that is not ours
    EDITED = "EDITED"  # it does not say, or does not hold, what was signed
    FOREIGN = "FOREIGN"  # another tenant's
    OLD = "OLD"  # a newer generation is known
    UNCOMMITTED = "UNCOMMITTED"  # it was written, and given up before it counted
    AHEAD = "AHEAD"  # the database knows only older ones: it is a copy of the past


class KeyFileRefused(CofferError):
    code = "KEY_FILE_REFUSED"
    _SENTENCES: ClassVar[dict[Refusal, str]] = {
        Refusal.TRUNCATED: "The tenant's key file is cut off or is none.",
        Refusal.UNSIGNED: "The tenant's key file bears no signature.",
        Refusal.UNKNOWN_KEY: "The tenant's key file is signed by an unknown key.",
        Refusal.EDITED: "The tenant's key file was changed after it was signed.",
        Refusal.FOREIGN: "The key file belongs to another tenant.",
        Refusal.OLD: "A newer key file of the tenant is known.",
        Refusal.UNCOMMITTED: "The tenant's key file was given up before it counted.",
        Refusal.AHEAD: "The tenant's key file is newer than the database; bring that forward with `coffer recover`.",
    }

    def __init__(self, why: Refusal) -> None:
        super().__init__(self._SENTENCES[why])
        self.why = why


class KeyFileUnknown(CofferError):
    code = "NOT_FOUND"
    message = "No store has a key file of that tenant."


class BackupKeyUnknown(CofferError):
    """It has expired, or was never made."""

    code = "NOT_FOUND"
    message = "The tenant's key file has no key of that backup."


class NotForBackups(CofferError):
    code = "BACKUPS_OFF"
    message = "This process may not make keys for backups; give it COFFER_VAULT_BACKUP_ROLE_ID and its secret."
