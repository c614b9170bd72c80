"""Sets of map cells of many games at once.

A set is a row of 80 words of 32 bits, one a column of the map: bit r of word c is the cell on
screen line r + 1. Vertical neighbours are a shift within a word, horizontal ones the next word.
Arrays of sets have shape (games, 80); bits above 20 and column 79 are no cells.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import COLUMNS, ROWS

Words = NDArray[np.uint32]

ONE: Final = np.uint32(1)
MAP: Final[Words] = np.where(np.arange(COLUMNS) < COLUMNS - 1, (1 << ROWS) - 1, 0).astype(np.uint32)
"""All cells."""

_BITS: Final[Words] = np.append(0, 1 << np.arange(ROWS)).astype(np.uint32)


def bit_of(line: NDArray[np.int64]) -> Words:
    """Words with the one bit of a screen line, 1 to 21."""
    return _BITS.take(line)


def single(cell: NDArray[np.int64]) -> Words:
    """Sets of one cell each, given as 80 * screen line + column, (n,); none where negative."""
    cells = np.zeros((len(cell), COLUMNS), np.uint32)
    some = np.flatnonzero(cell >= 0)
    line, column = np.divmod(cell[some], COLUMNS)
    cells[some, column] = bit_of(line)
    return cells


def dilate(cells: Words) -> Words:
    """The cells and their eight neighbours."""
    column = cells << ONE
    column |= cells >> ONE
    column |= cells
    out = column.copy()
    flat, source = out.reshape(-1), column.reshape(-1)
    flat[1:] |= source[:-1]  # column 79 is empty before, and cut off after: games stay apart
    flat[:-1] |= source[1:]
    out &= MAP
    return out


def frontier(passable: Words, known: Words, visited: Words) -> Words:
    """`LevelMemory.frontier`: where the hero has not been, next to what may yet be seen."""
    unknown = ~(known | dilate(visited)) & MAP
    return passable & ~visited & dilate(unknown)


def to_integer(cells: Words) -> int:
    """One set, (80,), as an integer: its words end to end, column 0 lowest."""
    return int.from_bytes(cells.astype("<u4", copy=False).tobytes(), "little")


def from_integer(cells: int) -> Words:
    """The words of a set that `to_integer` made an integer."""
    return np.frombuffer(cells.to_bytes(4 * COLUMNS, "little"), "<u4")


def spread(cells: int, passable: int, free: int, solid: int) -> int:
    """The cells of a set, as an integer, and those that one move leads to from them.

    solid: no doors, which are not passed diagonally; free: passable and no door.
    """
    inner = cells & solid
    column = inner << 1 | inner >> 1
    straight = cells << 1 | cells >> 1 | cells << 32 | cells >> 32
    return straight & passable | (column << 32 | column >> 32) & free | cells
