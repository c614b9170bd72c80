"""What of a bzip2 file can be checked at a fraction of the cost of decompressing it.

Whoever reads such a file to its end sees every block's checksum on the way, since libbz2 compares
it before it goes on to the next: all but the last. So it is enough to check beforehand that no
block is missing (each begins with the same 48 bits, at any bit, and its checksum; the file ends
with others, and with the blocks' checksums combined) and to decompress the last.
"""

import bz2
from typing import Final

_BLOCK: Final = 0x314159265359
_END: Final = 0x177245385090
_HEAD: Final = 32
"""Bits before the first block."""
_WORD: Final = (1 << 32) - 1


def last_block(data: bytes) -> bytes | None:
    """What the last of a file's blocks holds, its checksum compared.

    None where the file has one block or is no whole file of one stream: that it is damaged is for
    the decompressor to say.
    """
    if data[:3] != b"BZh":
        return None
    end, combined = _find_end(data)
    starts = _find_blocks(data)
    if end < 0 or len(starts) < 2 or starts[0] != _HEAD:
        return None
    found = 0
    for start in starts:
        found = ((found << 1 | found >> 31) & _WORD) ^ _bits(data, start + 48, 32)
    if found != combined:
        return None
    size = end - starts[-1]
    checksum = _bits(data, starts[-1] + 48, 32)
    alone = (_bits(data, starts[-1], size) << 48 | _END) << 32 | checksum
    fill = -(size + 80) % 8
    try:
        return bz2.decompress(data[:4] + (alone << fill).to_bytes((size + 80 + fill) // 8, "big"))
    except (OSError, ValueError):
        return None


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
