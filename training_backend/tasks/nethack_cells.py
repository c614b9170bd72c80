"""Sets of map cells, and paths over them.

A set is a Python integer of 21 x 80 bits: bit ``80 * row + column`` is the cell on screen line
``row + 1``. Column 79 is never part of a map, so a shift by one cell cannot leak from one row into
the next. A union or a shift of a whole level costs about 0.1 microseconds; a step of a
breadth-first search is a handful of them.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

ROWS: Final = 21
COLUMNS: Final = 80
CELLS: Final = ROWS * COLUMNS
ALL: Final = (1 << CELLS) - 1
EDGE: Final = sum(1 << (COLUMNS * row + COLUMNS - 1) for row in range(ROWS))
"""Column 79, which no map reaches."""
MAP: Final = ALL & ~EDGE

DIRECTIONS: Final = ((-1, 0), (0, 1), (1, 0), (0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))
"""(row, column) steps N, E, S, W, NE, SE, SW, NW: the order of the first eight NLE actions."""
OFFSETS: Final = tuple(COLUMNS * row + column for row, column in DIRECTIONS)


def dilate(cells: int) -> int:
    """The cells and their eight neighbours."""
    row = cells | cells << 1 | cells >> 1
    return (row | row << COLUMNS | row >> COLUMNS) & MAP


def to_array(cells: int) -> NDArray[np.uint8]:
    """The set as zeros and ones of shape (21, 80)."""
    packed = np.frombuffer(cells.to_bytes(CELLS // 8, "little"), np.uint8)
    return np.unpackbits(packed, bitorder="little").reshape(ROWS, COLUMNS)


def from_array(cells: NDArray[np.generic]) -> int:
    """The set of the nonzero entries of an array of shape (21, 80)."""
    return int.from_bytes(np.packbits(cells != 0, bitorder="little").tobytes(), "little")


def cell(row: int, column: int) -> int:
    """The set that holds the cell on screen line ``row + 1``, counted from 0 at the top."""
    return 1 << (COLUMNS * row + column)


def cells_of(cells: int) -> Iterator[int]:
    """Each member of the set as a set of its own, in reading order."""
    while cells:
        lowest = cells & -cells
        yield lowest
        cells ^= lowest


def shift(cells: int, direction: int) -> int:
    """The set moved one cell in a direction (index into `DIRECTIONS`)."""
    offset = OFFSETS[direction]
    return (cells << offset if offset > 0 else cells >> -offset) & MAP


class Distances:
    """Cells by number of moves to a set of targets; grown only as far as somebody asks."""

    __slots__ = ("doors", "layers", "open", "reached")

    def __init__(self, targets: int, passable: int, doors: int) -> None:
        self.open = passable & ~targets
        self.doors = doors
        self.reached = targets
        self.layers = [targets]

    def grow(self) -> bool:
        front = self.layers[-1]
        straight = front << 1 | front >> 1 | front << COLUMNS | front >> COLUMNS
        front &= ~self.doors
        sideways = front << 1 | front >> 1
        diagonal = (sideways << COLUMNS | sideways >> COLUMNS) & ~self.doors
        new = (straight | diagonal) & self.open
        self.open ^= new
        self.reached |= new
        self.layers.append(new)
        return new != 0

    def compass(self, position: int) -> tuple[int, int]:
        """First moves (bit i = `DIRECTIONS[i]`) and number of moves; (0, -1) if unreachable."""
        layers = self.layers
        if self.reached & position:
            distance = next(i for i, layer in enumerate(layers) if layer & position)
        else:
            # The hero's own cell need not be passable: it may stand on a trap.
            self.open |= position
            while not self.reached & position:
                if layers[-1] == 0 or not self.grow():
                    return 0, -1
            distance = len(layers) - 1
        if distance == 0:
            return 0, 0
        return _moves(layers[distance - 1], self.doors, position), distance


def _neighbourhood_moves() -> tuple[int, ...]:
    """Table: the 3 x 3 cells around the hero as nine bits -> moves as in `DIRECTIONS`."""
    places = [3 * (row + 1) + column + 1 for row, column in DIRECTIONS]
    return tuple(
        sum(1 << i for i, place in enumerate(places) if bits >> place & 1) for bits in range(512)
    )


_MOVES: Final = _neighbourhood_moves()


def _moves(goal: int, doors: int, position: int) -> int:
    """The moves that lead from the position into `goal` at once."""
    corner = position.bit_length() - COLUMNS - 2

    def around(cells: int) -> int:
        cells = cells >> corner if corner >= 0 else cells << -corner
        return cells & 7 | (cells >> COLUMNS & 7) << 3 | (cells >> 2 * COLUMNS & 7) << 6

    moves = _MOVES[around(goal)]
    if moves >> 4 and doors:
        if position & doors:
            moves &= 15
        else:
            moves &= 15 | _MOVES[around(goal & ~doors)]
    return moves
