"""Which handler leads which kind of job. A new kind is declared beside its noun, and gets its line here."""

from collections.abc import Mapping
from typing import Any

from crypto.transit import TransitKeys
from domain.backups import BACK_UP, CHECK_BACKUPS, MAKE_BACKUP, REPAIR_BACKUP, RETIRE_BACKUPS, VERIFY_BACKUP
from domain.erasures import FINISH_ERASURE
from domain.hand_overs import HAND_OVER
from domain.imports import IMPORT
from domain.restores import DRILL, DRILL_BACKUP, RESTORE
from domain.rotations import TURN_KEYS
from domain.tidying import TIDY
from jobs.backing_up import back_up_by
from jobs.checking_backups import check_backups_by, repair_backup_by, retire_backups_by, verify_backup_by
from jobs.depots import Depot
from jobs.erasures import finish_erasure_by
from jobs.hand_overs import hand_over_customers
from jobs.handling import Handler
from jobs.imports import import_customers
from jobs.key_files.files import KeyFiles
from jobs.key_files.handling import publish_key_file_by
from jobs.mails import send_by
from jobs.provisioning import provision_by
from jobs.restoring.drilling import drill_by
from jobs.restoring.restoring import restore_by
from jobs.rotations.bik import rotate_bik_by
from jobs.rotations.dek import rotate_dek_by
from jobs.rotations.kek import rotate_kek_by
from jobs.rotations.turning import turn_keys
from jobs.tidying import tidy
from mail import Post
from tenants.jobs import KINDS, JobKind
from tenants.keys.key_files import PUBLISH_KEY_FILE
from tenants.keys.rotating import ROTATE
from tenants.keys.rotations import KeyPurpose
from tenants.mails import SEND_MAIL
from tenants.provisioning import PROVISION, Provisioning
from tenants.units import Units


def all_handlers(
    provisioning: Provisioning | None,
    post: Post | None = None,
    portal: str = "",
    *,
    keys: TransitKeys | None = None,
    maker: TransitKeys | None = None,
    rotator: TransitKeys | None = None,
    key_files: KeyFiles | None = None,
    depot: Depot | None = None,
    units: Units | None = None,
) -> dict[JobKind[Any], Handler]:
    """`portal` is the origin that the links of letters lead to; `keys`, `maker` and `rotator` are roles at OpenBao."""
    return {
        BACK_UP: back_up_by(depot),
        CHECK_BACKUPS: check_backups_by(depot),
        DRILL: drill_by(depot, units),
        DRILL_BACKUP: drill_by(depot, units),
        FINISH_ERASURE: finish_erasure_by(key_files, keys),
        HAND_OVER: hand_over_customers,
        IMPORT: import_customers,
        MAKE_BACKUP: back_up_by(depot),
        PROVISION: provision_by(provisioning),
        PUBLISH_KEY_FILE: publish_key_file_by(key_files),
        REPAIR_BACKUP: repair_backup_by(depot),
        RESTORE: restore_by(depot, units),
        RETIRE_BACKUPS: retire_backups_by(depot),
        ROTATE[KeyPurpose.KEK]: rotate_kek_by(keys, rotator, key_files),
        ROTATE[KeyPurpose.DEK]: rotate_dek_by(keys, maker),
        ROTATE[KeyPurpose.BIK]: rotate_bik_by(keys, maker),
        SEND_MAIL: send_by(post, portal),
        TIDY: tidy,
        VERIFY_BACKUP: verify_backup_by(depot),
        TURN_KEYS: turn_keys,
    }


def refuse_incomplete(handlers: Mapping[JobKind[Any], Handler], kinds: Mapping[str, JobKind[Any]] = KINDS) -> None:
    """Raises TypeError naming every declared kind that nobody handles: its jobs would wait for ever."""
    if missing := sorted(set(kinds) - {kind.name for kind in handlers}):
        raise TypeError(f"no handler in jobs/handlers.py for: {', '.join(missing)}")
