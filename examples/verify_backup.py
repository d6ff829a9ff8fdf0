"""Verify a backup of Coffer by hand, without Coffer: this file, Python 3.11, `cryptography` and `zstandard` suffice.

    python verify_backup.py FOLDER [FOLDER …] --public-key KEY [--tenant UUID] [--backup UUID] [--key-file FILE]

FOLDER     where the objects of a backup lie, as they were downloaded from ``<tenant>/<backup>/`` of a store: its
           ``manifest-000001.json`` and shards such as ``00-000000``. Give the folders of several stores, or one into
           which all were downloaded. Which backup a folder holds is what its manifest says, whatever its name; one
           named as another backup is told as misplaced.
--public-key  the public half of the Transit key `coffer-backup`, in base64 as ``bao read transit/keys/coffer-backup``
              prints it, or in hex; again for each version, oldest first
--tenant      whose backup it must be
--backup      which one; else the one of the highest number
--key-file    a file with the backup's key, 32 bytes in base64 or hex: opens every chunk and counts the records. Without
              it the command that unwraps the key is printed; what it lacks is the answer of Coffer's database to
              ``SELECT wrapped_key FROM backups WHERE id = '…'``. Who runs it needs ``update`` on that path.

It ends with 0 if everything is whole, 1 if some of it is damaged or misplaced but all can be read, 2 if it can't be
trusted or read. The format is that of `jobs/backups/__init__.py`; nothing here is taken from the product.
"""

import argparse
import hashlib
import hmac
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHECK = 36
TAG = 16
MOST = 18 << 20  # bytes of a block, compressed or not


class Refused(Exception):
    """The backup can't be trusted, or not be read; the text says why."""


# --- the manifest


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def found(folders: list[Path], keys: list[bytes], tenant: str | None, backup: str | None) -> "Backup":
    """That backup, or the tenant's newest, by the newest of its generations, and the folders that hold it."""
    held: dict[Path, list[dict[str, Any]]] = {folder: [] for folder in sorted(set(folders))}
    refused = []
    for file in (file for folder in held for file in sorted(folder.glob("manifest-*.json"), reverse=True)):
        try:
            held[file.parent].append(proven(file.read_bytes(), keys))
        except Refused as why:
            refused.append(f"{file.name}: {why}")
    every = [(folder, said) for folder, manifests in held.items() for said in manifests]
    if not every:
        raise Refused(refused[0] if refused else "there is no manifest")
    wanted = [each for each in every if tenant in (None, each[1]["tenant"]) and backup in (None, each[1]["backup"])]
    placed = [said for folder, said in wanted if not is_elsewhere(folder, said)] or [said for _, said in wanted]
    if len({said["tenant"] for said in placed}) != 1:
        raise Refused("of several tenants; name one by --tenant" if placed else "another backup, or another tenant's")
    newest = max(placed, key=lambda said: (said["number"], said["created"], said["backup"]))["backup"]
    said = max((said for _, said in wanted if said["backup"] == newest), key=lambda said: int(said["generation"]))
    damage = [f"misplaced: {folder} holds backup {it['backup']}" for folder, it in every if is_elsewhere(folder, it)]
    return Backup(said, [folder for folder in held if is_held(folder, held[folder], said)], damage=damage)


def is_elsewhere(folder: Path, said: dict[str, Any]) -> bool:
    """Whether the folder is named as another backup."""
    try:
        return UUID(folder.resolve().name) != UUID(said["backup"])
    except ValueError:
        return False


def is_held(folder: Path, manifests: list[dict[str, Any]], said: dict[str, Any]) -> bool:
    """By a manifest in it; where it has none that is good, by its name."""
    return any(each["backup"] == said["backup"] for each in manifests) or not (manifests or is_elsewhere(folder, said))


def proven(raw: bytes, keys: list[bytes]) -> dict[str, Any]:
    lines = raw.split(b"\n")
    if len(lines) != 3 or lines[2]:
        raise Refused("cut off, or not signed")
    try:
        said, signed = json.loads(lines[0]), json.loads(lines[1])
        signature, version = b64decode(signed["signature"], validate=True), int(signed["keyVersion"])
        whose = UUID(said["tenant"]).bytes, UUID(said["backup"]).bytes
        message = joined(b"coffer.backup.manifest.v1", *whose, hashlib.sha256(lines[0]).digest())
    except (ValueError, LookupError, TypeError) as error:
        raise Refused("not a manifest") from error
    if not 1 <= version <= len(keys):
        raise Refused("signed by an unknown key")
    try:
        Ed25519PublicKey.from_public_bytes(keys[version - 1]).verify(signature, message)
    except InvalidSignature as error:
        raise Refused("changed after it was signed") from error
    if said["format"] != "coffer.backup.v1":
        raise Refused("another format")
    return dict(said)


# --- where what lies


@dataclass
class Backup:
    said: dict[str, Any]
    folders: list[Path]
    k: int = 1
    m: int = 0
    damage: list[str] = field(default_factory=list)
    unreadable: int = 0

    def __post_init__(self) -> None:
        word, _, numbers = self.said["coding"].partition(":")
        if word == "rs":
            self.k, self.m = (int(number) for number in numbers.split("+"))
        elif word == "mirror":
            self.m = int(numbers) - 1

    @property
    def shards(self) -> int:
        return self.k + self.m

    def chunk_bytes(self, stripe: int) -> int:
        full, chunks = self.said["chunkBytes"], self.said["chunks"]
        return int(full if stripe < chunks - 1 else self.said["sealedBytes"] - (chunks - 1) * full)

    def piece_bytes(self, stripe: int) -> int:
        return -(-self.chunk_bytes(stripe) // self.k)

    def stripes(self) -> Iterator[tuple[int, range]]:
        """Each segment and the stripes in it."""
        for segment, first in enumerate(range(0, self.said["chunks"], self.said["stripes"])):
            yield segment, range(first, min(first + self.said["stripes"], self.said["chunks"]))

    def object(self, shard: int, segment: int) -> Path | None:
        paths = (folder / f"{shard:02}-{segment:06}" for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)


def part(path: Path | None, start: int, length: int) -> bytes:
    if path is None:
        return b""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def is_whole(content: bytes, check: bytes) -> bool:
    return hashlib.sha256(content).digest() == check[:32]


# --- the shards, without any key


def sealed_chunks(backup: Backup) -> Iterator[bytes | None]:
    """Every sealed chunk in its order, None where too little of it is whole; what is damaged is noted meanwhile."""
    for segment, stripes in backup.stripes():
        paths = [backup.object(shard, segment) for shard in range(backup.shards)]
        note_objects(backup, segment, stripes, paths)
        checks = segment_checks(backup, segment, stripes, paths)
        for stripe in stripes:
            chunk = None if checks is None else stripe_chunk(backup, stripe, stripes, paths, checks)
            backup.unreadable += chunk is None
            yield chunk


def note_objects(backup: Backup, segment: int, stripes: range, paths: list[Path | None]) -> None:
    start, length = checks_place(backup, stripes)
    for shard, path in enumerate(paths):
        if path is None:
            backup.damage.append(f"shard {shard} segment {segment}: lost")
        elif path.stat().st_size != start + length:
            backup.damage.append(f"shard {shard} segment {segment}: of the wrong length")


def checks_place(backup: Backup, stripes: range) -> tuple[int, int]:
    last = stripes[-1]
    start = (len(stripes) - 1) * backup.piece_bytes(0) + backup.piece_bytes(last)
    return start, len(stripes) * backup.shards * CHECK


def segment_checks(backup: Backup, segment: int, stripes: range, paths: list[Path | None]) -> bytes | None:
    proof = bytes.fromhex(backup.said["checks"][segment])
    copies = [part(path, *checks_place(backup, stripes)) for path in paths]
    whole = next((copy for copy in copies if is_whole(copy, proof)), None)
    for shard, copy in enumerate(copies):
        if paths[shard] is not None and not is_whole(copy, proof):
            backup.damage.append(f"shard {shard} segment {segment}: checks damaged")
    return whole


def stripe_chunk(backup: Backup, stripe: int, stripes: range, paths: list[Path | None], checks: bytes) -> bytes | None:
    row, whole = stripe - stripes[0], {}
    for shard, path in enumerate(paths):
        piece = part(path, row * backup.piece_bytes(0), backup.piece_bytes(stripe))
        start = (row * backup.shards + shard) * CHECK
        if is_whole(piece, checks[start : start + CHECK]):
            whole[shard] = piece
        elif path is not None:
            backup.damage.append(f"shard {shard} stripe {stripe}: damaged")
    if len(whole) < backup.k:
        return None
    data = whole_data(backup.k, whole)
    for shard in set(whole) - set(range(backup.k)):
        if backup.k > 1 and combined([inverse(shard ^ column) for column in range(backup.k)], data) != whole[shard]:
            backup.damage.append(f"shard {shard} stripe {stripe}: parity does not fit the data")
    return b"".join(data)[: backup.chunk_bytes(stripe)]


# --- Reed and Solomon over GF(2^8), x^8 + x^4 + x^3 + x^2 + 1


def _powers() -> tuple[list[int], list[int]]:
    exponentials, logarithms, value = [0] * 510, [0] * 256, 1
    for power in range(255):
        exponentials[power] = exponentials[power + 255] = value
        logarithms[value] = power
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return exponentials, logarithms


_EXP, _LOG = _powers()


def times(one: int, other: int) -> int:
    return _EXP[_LOG[one] + _LOG[other]] if one and other else 0


def inverse(value: int) -> int:
    return _EXP[255 - _LOG[value]]


def whole_data(k: int, pieces: dict[int, bytes]) -> list[bytes]:
    """The k data pieces from any k pieces."""
    if all(shard in pieces for shard in range(k)):
        return [pieces[shard] for shard in range(k)]
    if k == 1:
        return [next(iter(pieces.values()))]
    chosen = sorted(pieces)[:k]
    matrix = inverted([coefficients(k, shard) for shard in chosen])
    return [combined(row, [pieces[shard] for shard in chosen]) for row in matrix]


def coefficients(k: int, shard: int) -> list[int]:
    if shard < k:
        return [int(column == shard) for column in range(k)]
    return [inverse(shard ^ column) for column in range(k)]


def combined(row: list[int], pieces: list[bytes]) -> bytes:
    total = 0
    for factor, piece in zip(row, pieces, strict=True):
        table = bytes(times(factor, value) for value in range(256))
        total ^= int.from_bytes(piece.translate(table), "big")
    return total.to_bytes(len(pieces[0]), "big")


def inverted(matrix: list[list[int]]) -> list[list[int]]:
    size = len(matrix)
    rows = [row + [int(column == place) for column in range(size)] for place, row in enumerate(matrix)]
    for place in range(size):
        pivot = next(row for row in range(place, size) if rows[row][place])
        rows[place], rows[pivot] = rows[pivot], rows[place]
        factor = inverse(rows[place][place])
        rows[place] = [times(factor, value) for value in rows[place]]
        for row in range(size):
            if row != place and rows[row][place]:
                factor = rows[row][place]
                rows[row] = [a ^ times(factor, b) for a, b in zip(rows[row], rows[place], strict=True)]
    return [row[size:] for row in rows]


# --- the chunks, with the key


def derived(key: bytes, *info: bytes) -> bytes:
    """HKDF-Expand (RFC 5869) to 32 bytes."""
    return hmac.digest(key, joined(*info) + b"\x01", "sha256")


def opener(said: dict[str, Any], key: bytes) -> Callable[[int, bytes], bytes]:
    opening, backup = bytes.fromhex(said["opening"]), UUID(said["backup"]).bytes
    salted, check = opening[:38], opening[38:]
    if not hmac.compare_digest(derived(key, b"coffer.chunk.check.v1", backup, salted), check):
        raise Refused("this is not the backup's key")
    cipher = AESGCM(derived(key, b"coffer.chunk.key.v1", backup, salted))

    def opened(stripe: int, sealed: bytes) -> bytes:
        last = bytes([stripe == said["chunks"] - 1])
        bound = joined(b"coffer.chunk.v1", backup, stripe.to_bytes(8, "big"), last, opening)
        try:
            return cipher.decrypt(stripe.to_bytes(11, "big") + last, sealed, bound)
        except InvalidTag as error:
            raise Refused(f"chunk {stripe} does not open") from error

    return opened


class Counting:
    def __init__(self) -> None:
        self.records = self.record_bytes = 0
        self._left = bytearray()

    def take(self, content: bytes) -> None:
        self._left += content
        while len(self._left) >= 4 and len(self._left) >= 4 + (length := int.from_bytes(self._left[:4], "big")):
            self._count(bytes(self._left[4 : 4 + length]))
            del self._left[: 4 + length]

    def _count(self, frame: bytes) -> None:
        if not 0 < zstandard.frame_content_size(frame) <= MOST:
            raise Refused("a block is no block")
        block, start = zstandard.ZstdDecompressor().decompress(frame), 0
        while start < len(block):
            length = int.from_bytes(block[start : start + 4], "big")
            start += 4 + length
            self.records += 1
            self.record_bytes += length
        if start != len(block):
            raise Refused("a block is no block")

    def is_over(self, said: dict[str, Any]) -> bool:
        return not self._left and (self.records, self.record_bytes) == (said["records"], said["recordBytes"])


# --- what is asked for


def verified(backup: Backup, key: bytes | None) -> int:
    said = backup.said
    opened, counting = None if key is None else opener(said, key), Counting()
    for stripe, sealed in enumerate(sealed_chunks(backup)):
        if opened is not None and sealed is not None:
            content = opened(stripe, sealed)
            if not backup.unreadable:
                counting.take(content)
    if opened is not None and not backup.unreadable and not counting.is_over(said):
        raise Refused("the records are not those that the manifest counts")
    print_found(backup, counting if opened is not None else None)
    return 2 if backup.unreadable else int(bool(backup.damage))


def print_found(backup: Backup, counting: Counting | None) -> None:
    said = backup.said
    print(f"backup {said['backup']} number {said['number']} of tenant {said['tenant']}, {said['created']}: signed")
    print(f"generation {said['generation']}, {said['coding']}, {said['chunks']} chunks, key file {said['keyFile']}")
    for line in backup.damage:
        print(line)
    print(f"chunks that can be read: {said['chunks'] - backup.unreadable} of {said['chunks']}")
    if counting is not None:
        print(f"opened: {counting.records} records, {counting.record_bytes} bytes")
    for table, rows in sorted(said["tables"].items()):
        print(f"table {table}: {rows} rows")
    if counting is None:
        print(f"key: bao write -field=plaintext {unwrapping(said)} ciphertext=…")


def unwrapping(said: dict[str, Any]) -> str:
    """Path and context by which the key store unwraps the backup's key."""
    tenant, backup = UUID(said["tenant"]), UUID(said["backup"])
    context = joined(b"coffer.backup.key.v1", tenant.bytes, backup.bytes)
    return f"transit/decrypt/t_{tenant.hex} context={b64encode(context).decode()}"


def key_bytes(text: str) -> bytes:
    """32 bytes, of hex or base64."""
    key = bytes.fromhex(text) if len(text) == 64 else b64decode(text, validate=True)
    if len(key) != 32:
        raise ValueError
    return key


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--public-key", action="append", required=True, type=key_bytes, metavar="KEY")
    parser.add_argument("--tenant", type=lambda text: str(UUID(text)))
    parser.add_argument("--backup", type=lambda text: str(UUID(text)))
    parser.add_argument("--key-file", type=lambda name: key_bytes(Path(name).read_text().strip()), metavar="FILE")
    asked = parser.parse_args()
    try:
        return verified(found(asked.folders, asked.public_key, asked.tenant, asked.backup), asked.key_file)
    except Refused as why:
        print(f"refused: {why}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
