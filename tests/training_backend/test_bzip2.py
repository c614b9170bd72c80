"""The last block of a bzip2 file, and the files of which it cannot be had."""

import bz2

import numpy as np
import pytest

from training_backend.bzip2 import last_block


def compressed(seed, size):
    """Content, and the file of its blocks of 100,000 bytes."""
    content = np.random.default_rng(seed).integers(97, 105, size, dtype=np.uint8).tobytes()
    return content, bz2.compress(content, 1)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize("seed", range(16))
def test_the_last_block_is_the_end_of_the_content(seed):
    content, data = compressed(seed, 210_000 + 7 * seed)
    end = last_block(data)
    assert end is not None
    assert 0 < len(end) < 100_000
    assert content.endswith(end)


def test_a_file_of_one_block_is_for_the_decompressor():
    assert last_block(compressed(0, 50_000)[1]) is None


def test_no_block_of_a_damaged_file():
    _, data = compressed(0, 250_000)
    assert last_block(data[: len(data) // 2]) is None
    assert last_block(data[:-1]) is None
    assert last_block(flip(data, 11)) is None  # the first block's checksum
    assert last_block(flip(data, 5)) is None  # where it begins
    assert last_block(flip(data, len(data) - 3)) is None  # the checksum of all
    assert last_block(flip(data, len(data) - 10_000)) is None
    assert last_block(b"Hello") is None
    assert last_block(b"") is None


def test_what_is_damaged_before_the_last_block_is_for_its_reader():
    content, data = compressed(0, 250_000)
    end = last_block(flip(data, len(data) // 3))
    assert end is not None
    assert content.endswith(end)
