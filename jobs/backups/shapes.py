"""Where every byte of a backup lies: stripes, segments, pieces and checks, by arithmetic alone.

A *stripe* is one sealed chunk, coded into one *piece* per shard. A *segment* is some stripes in a row (256, so 1 GiB of
chunks): per shard one object, the pieces of those stripes in their order and behind them the *checks*, the same in each
shard of the segment: stripe by stripe, shard by shard, `jobs.backups.checks.check` of the piece.
"""

from dataclasses import dataclass
from uuid import UUID

from crypto.chunks import CHUNK_BYTES
from jobs.backups.checks import CHECK_BYTES
from jobs.backups.codings import Coding

STRIPES = 256


@dataclass(frozen=True, slots=True)
class Shape:
    coding: Coding
    chunk_bytes: int = CHUNK_BYTES  # of a sealed chunk
    stripes: int = STRIPES  # of a segment


@dataclass(frozen=True, slots=True)
class Span:
    """The stripes of one segment: from `first` to before `end`."""

    segment: int
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a finished backup: its shape, how many chunks it has, and their bytes together."""

    shape: Shape
    chunks: int
    sealed_bytes: int

    @property
    def segments(self) -> int:
        return -(-self.chunks // self.shape.stripes)

    def span(self, segment: int) -> Span:
        first = segment * self.shape.stripes
        return Span(segment, first, min(first + self.shape.stripes, self.chunks))

    def span_of(self, stripe: int) -> Span:
        return self.span(stripe // self.shape.stripes)

    def chunk_bytes(self, stripe: int) -> int:
        if stripe < self.chunks - 1:
            return self.shape.chunk_bytes
        return self.sealed_bytes - (self.chunks - 1) * self.shape.chunk_bytes

    def is_last(self, stripe: int) -> bool:
        return stripe == self.chunks - 1

    def piece_bytes(self, stripe: int) -> int:
        return self.shape.coding.piece_bytes(self.chunk_bytes(stripe))

    def piece_start(self, stripe: int) -> int:
        """Within its object; all pieces but the backup's last are of one length."""
        return (stripe % self.shape.stripes) * self.piece_bytes(0)

    def checks_start(self, span: Span) -> int:
        return self.piece_start(span.end - 1) + self.piece_bytes(span.end - 1)

    def checks_bytes(self, span: Span) -> int:
        return len(span) * self.shape.coding.shards * CHECK_BYTES

    def object_bytes(self, span: Span) -> int:
        return self.checks_start(span) + self.checks_bytes(span)


def folder(tenant: UUID, backup: UUID) -> str:
    return f"{tenant}/{backup}"


def shard_name(tenant: UUID, backup: UUID, shard: int, segment: int) -> str:
    return f"{folder(tenant, backup)}/{shard:02}-{segment:06}"


def manifest_name(tenant: UUID, backup: UUID, generation: int) -> str:
    return f"{folder(tenant, backup)}/manifest-{generation:06}.json"
