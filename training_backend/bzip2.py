"""A bzip2 file with one more block at its end, without decompressing what it holds.

Whoever reads such a file to its end sees every block's checksum on the way, since libbz2 compares
it before it goes on to the next: all but the last, which it hands over before. So whoever comes to
a block added behind the others knows that those were whole, at the cost of no second look at them.
"""

import bz2
from typing import Final

_BLOCK: Final = 0x314159265359
"""The 48 bits, at any bit, that each block begins with; its checksum follows."""
_END: Final = 0x177245385090
"""Those that the file ends with; the blocks' checksums combined follow."""
_HEAD: Final = 32
"""Bits before the first block."""
_WORD: Final = (1 << 32) - 1


def with_block(data: bytes, content: bytes) -> bytes | None:
    """The file of the same content and, in a block of its own, some more (less than 100,000 bytes).

    None where the file is no whole file of one stream: that it breaks off, or that a block is
    missing, is for the decompressor to say.
    """
    if data[:3] != b"BZh":
        return None
    end, combined = _find_end(data)
    starts = _find_blocks(data)
    if end < 0 or not starts or starts[0] != _HEAD:
        return None
    found = 0
    for start in starts:
        found = _combine(found, _bits(data, start + 48, 32))
    if found != combined:
        return None
    alone = bz2.compress(content)
    size = _find_end(alone)[0] - _HEAD
    block = _bits(alone, _HEAD, size)
    combined = _combine(combined, _bits(alone, _HEAD + 48, 32))
    whole = end // 8  # bytes that stay as they are
    tail = _bits(data, 8 * whole, end - 8 * whole)
    tail = ((tail << size | block) << 48 | _END) << 32 | combined
    bits = end - 8 * whole + size + 80
    return data[:whole] + (tail << -bits % 8).to_bytes(-(-bits // 8), "big")


def _combine(checksums: int, block: int) -> int:
    """The checksum of some blocks and one more."""
    return ((checksums << 1 | checksums >> 31) & _WORD) ^ block


def _find_end(data: bytes) -> tuple[int, int]:
    """Bit at which the end of the stream is marked, -1 if it is not, and the combined checksum."""
    for fill in range(8):
        at = 8 * len(data) - 80 - fill
        if at > 0 and _bits(data, at, 48) == _END:
            return at, _bits(data, at + 48, 32)
    return -1, 0


def _find_blocks(data: bytes) -> list[int]:
    """Bits at which blocks begin, in order."""
    found: list[int] = []
    for shift in range(8):
        inner = (_BLOCK >> shift & (1 << 40) - 1).to_bytes(5, "big")  # the bytes it fills whole
        at = data.find(inner, 1)
        while at >= 0:
            start = 8 * (at - 1) + shift
            if _bits(data, start, 48) == _BLOCK:
                found.append(start)
            at = data.find(inner, at + 1)
    return sorted(found)


def _bits(data: bytes, start: int, count: int) -> int:
    """`count` bits from bit `start` on, as a number; fewer where the file ends."""
    first, last = start // 8, -(-(start + count) // 8)
    return int.from_bytes(data[first:last], "big") >> 8 * last - start - count & (1 << count) - 1
