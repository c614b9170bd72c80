"""A block behind the others of a bzip2 file, and the files that cannot have one."""

import bz2

import numpy as np
import pytest

from training_backend.bzip2 import with_block


def compressed(seed, size):
    """Content, and the file of its blocks of 100,000 bytes."""
    content = np.random.default_rng(seed).integers(97, 105, size, dtype=np.uint8).tobytes()
    return content, bz2.compress(content, 1)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("size", [1, 50_000, 210_000])
def test_content_is_followed_by_more(seed, size):
    content, data = compressed(seed, size + 7 * seed)
    more = content[-seed - 1 :] + b"the end"
    extended = with_block(data, more)
    assert extended is not None
    assert bz2.decompress(extended) == content + more
    assert data[: len(data) - 11] == extended[: len(data) - 11]


def test_more_can_follow_twice():
    content, data = compressed(0, 1000)
    once = with_block(data, b"one")
    assert once is not None
    twice = with_block(once, b"two")
    assert twice is not None
    assert bz2.decompress(twice) == content + b"onetwo"


def test_no_block_behind_what_is_not_whole():
    _, data = compressed(0, 250_000)
    for damaged in (
        data[: len(data) // 2],
        data[:-1],
        flip(data, 11),  # the first block's checksum
        flip(data, 5),  # where it begins
        flip(data, len(data) - 3),  # the checksum of all
        data + data,  # two streams, of which some readers see the first alone
        bz2.compress(b""),
        b"Hello",
        b"",
    ):
        assert with_block(damaged, b"the end") is None


@pytest.mark.parametrize("size", [50_000, 250_000])
def test_what_follows_a_damaged_block_is_not_come_to(size):
    _, data = compressed(0, size)
    for at in (len(data) // 3, len(data) - 10_000):
        damaged = with_block(flip(data, at), b"the end")
        assert damaged is not None
        assert b"the end" not in read_until_refused(damaged)


def read_until_refused(data):
    """What libbz2 hands over of a damaged file, some bytes at a time."""
    reader, content = bz2.BZ2Decompressor(), b""
    while True:
        try:
            content += reader.decompress(data if reader.needs_input else b"", 1 << 10)
        except OSError:
            return content
        assert not reader.eof
