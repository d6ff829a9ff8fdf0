"""Under which derivation context the key store wraps a backup's key and a key file's key."""

from uuid import UUID

from crypto.encoding import join


def backup_key_context(tenant: UUID, backup: UUID) -> bytes:
    return join(b"coffer.backup.key.v1", tenant.bytes, backup.bytes)


def file_key_context(tenant: UUID, key: UUID) -> bytes:
    return join(b"coffer.file.key.v1", tenant.bytes, key.bytes)
