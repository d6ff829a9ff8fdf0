"""Why a backup can't be written, found, trusted or read; each names things, never values."""

from enum import StrEnum
from typing import ClassVar

from crypto.errors import CofferError


class StoreAway(CofferError):
    """It does not answer, or not as a store: the same call may work in a moment."""

    code = "STORE_AWAY"
    message = "A store of backups does not answer; try again shortly."
    retryable = True


class StoreFull(CofferError):
    """Nothing lies under a final name that is not whole; the work can go on once there is space again."""

    code = "STORE_FULL"
    message = "A store of backups has no space left."
    retryable = True


class BackupExists(CofferError):
    code = "BACKUP_EXISTS"
    message = "A finished backup of that id is there already."


class BackupUnknown(CofferError):
    code = "NOT_FOUND"
    message = "No store has a manifest of that backup."


class BackupBroken(CofferError):
    """Too little of it is left or proven; what was read before is exact."""

    code = "BACKUP_BROKEN"
    message = "Too many shards of this backup are lost or damaged."


class Refusal(StrEnum):
    """What is wrong with a manifest."""

    TRUNCATED = "TRUNCATED"  # the file is cut off, or is no manifest at all
    UNSIGNED = "UNSIGNED"
    UNKNOWN_KEY = "UNKNOWN_KEY"  # signed by a key that is not ours
    EDITED = "EDITED"  # it does not say what was signed
    FOREIGN = "FOREIGN"  # another tenant's, or another backup's
    OLD = "OLD"  # a newer backup, or a newer generation of this one, is known
    REORDERED = "REORDERED"  # it does not follow the backup before it


class ManifestRefused(CofferError):
    code = "MANIFEST_REFUSED"
    _SENTENCES: ClassVar[dict[Refusal, str]] = {
        Refusal.TRUNCATED: "The backup's manifest is cut off or is none.",
        Refusal.UNSIGNED: "The backup's manifest bears no signature.",
        Refusal.UNKNOWN_KEY: "The backup's manifest is signed by an unknown key.",
        Refusal.EDITED: "The backup's manifest was changed after it was signed.",
        Refusal.FOREIGN: "The manifest belongs to another tenant or another backup.",
        Refusal.OLD: "A newer backup, or a newer manifest of this one, is known.",
        Refusal.REORDERED: "The backup does not follow the one before it.",
    }

    def __init__(self, why: Refusal) -> None:
        super().__init__(self._SENTENCES[why])
        self.why = why
