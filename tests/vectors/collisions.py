"""AES-GCM ciphertexts that carry a valid tag under two keys, as an attacker who knows both can make them.

Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key Commitment", USENIX Security 2022, 3.2.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16
_POLYNOMIAL = 0xE1 << 120


def valid_under_both(keys: tuple[bytes, bytes], nonce: bytes, associated: bytes, plain: bytes) -> bytes:
    """Ciphertext and tag. Under the first key it opens as the 48 bytes `plain`, but for their second block.

    The tag is linear in each ciphertext block, so the second is solved for: what it must be for both tags to agree.
    """
    first, second = (_Key(key, nonce) for key in keys)
    start, _, end = (_xor(plain[at : at + BLOCK], first.stream[at : at + BLOCK]) for at in range(0, 48, BLOCK))
    gap = first.tag(associated, start + bytes(BLOCK) + end) ^ second.tag(associated, start + bytes(BLOCK) + end)
    weight = _power(first.hash_key, 3) ^ _power(second.hash_key, 3)
    middle = _times(gap, _power(weight, 2**128 - 2))
    ciphertext = start + middle.to_bytes(BLOCK, "big") + end
    return ciphertext + first.tag(associated, ciphertext).to_bytes(BLOCK, "big")


class _Key:
    """What GCM makes of a key and a 96-bit nonce (NIST SP 800-38D, 7.1)."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305  # the bare block of GCM
        counters = b"".join(nonce + count.to_bytes(4, "big") for count in range(1, 5))
        self.hash_key = int.from_bytes(block.update(bytes(BLOCK)), "big")
        blocks = block.update(counters)
        self._mask = int.from_bytes(blocks[:BLOCK], "big")
        self.stream = blocks[BLOCK:]

    def tag(self, associated: bytes, ciphertext: bytes) -> int:
        bits = (8 * len(associated)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
        content = _filled(associated) + _filled(ciphertext) + bits
        total = 0
        for at in range(0, len(content), BLOCK):
            total = _times(total ^ int.from_bytes(content[at : at + BLOCK], "big"), self.hash_key)
        return total ^ self._mask


def _times(left: int, right: int) -> int:
    """In GF(2^128) with GCM's bit order: the leftmost bit is the coefficient of 1 (NIST SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product


def _power(base: int, exponent: int) -> int:
    product = 1 << 127
    while exponent:
        if exponent & 1:
            product = _times(product, base)
        base, exponent = _times(base, base), exponent >> 1
    return product


def _filled(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
