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


def bit_of(line: NDArray[np.int64]) -> Words:
    """Words with the one bit of a screen line, 1 to 21."""
    return np.left_shift(ONE, (line - 1).astype(np.uint32))


def single(cell: NDArray[np.int64]) -> Words:
    """Sets of one cell each, given as 80 * screen line + column, (n,); none where negative."""
    cells = np.zeros((len(cell), COLUMNS), np.uint32)
    some = np.flatnonzero(cell >= 0)
    line, column = np.divmod(cell[some], COLUMNS)
    cells[some, column] = bit_of(line)
    return cells


def up(cells: Words) -> Words:
    """The sets moved one line up."""
    return cells >> ONE


def down(cells: Words) -> Words:
    """The sets moved one line down."""
    return cells << ONE & MAP


def left(cells: Words) -> Words:
    """The sets moved one column to the left."""
    moved = np.zeros_like(cells)
    moved[:, :-2] = cells[:, 1:-1]
    return moved


def right(cells: Words) -> Words:
    """The sets moved one column to the right."""
    moved = np.zeros_like(cells)
    moved[:, 1:-1] = cells[:, :-2]
    return moved


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


def search_spots(
    *,
    passable: Words,
    doors: Words,
    reachable: Words,
    floor: Words,
    walls: Words,
    known: Words,
    visited: Words,
    searched: Words,
) -> Words:
    """`LevelMemory.search_spots`, without its second round: where to look for hidden doors.

    Dead ends first, then cells near ground that cannot be reached, then walls with rock behind
    them; only cells that can be reached, and searched places left out.
    """
    candidates = reachable & ~searched
    spots = _dead_ends(passable, doors, visited) & candidates
    candidates &= ~dilate(searched)
    rows = np.flatnonzero(~spots.any(axis=1))
    spots[rows] = dilate(dilate((passable & ~reachable)[rows])) & candidates[rows]
    for depth in (6, 3, 1):
        rows = np.flatnonzero(~spots.any(axis=1))
        if not rows.size:
            break
        ground = (floor & passable)[rows]
        spots[rows] = _beside_rock(ground, walls[rows], known[rows], depth) & candidates[rows]
    return spots


def _dead_ends(passable: Words, doors: Words, visited: Words) -> Words:
    """Visited cells whose passable neighbours all lie on one side: at most two adjoining."""
    flat = passable & ~doors  # what can be crossed diagonally
    east, west = left(flat), right(flat)  # whose neighbour there is one
    around = (
        down(passable),
        down(east) & ~doors,
        left(passable),
        up(east) & ~doors,
        up(passable),
        up(west) & ~doors,
        right(passable),
        down(west) & ~doors,
    )
    through = np.zeros_like(passable)
    for i, neighbour in enumerate(around):
        others = around[(i + 2) % 8] | around[(i + 3) % 8]
        for j in range(i + 4, i + 7):
            others |= around[j % 8]
        through |= neighbour & others
    return visited & passable & ~through


def _beside_rock(ground: Words, walls: Words, known: Words, depth: int) -> Words:
    """Ground beside a wall, behind which `depth` cells in a row have never shown anything."""
    spots = np.zeros_like(ground)
    for back in (up, down, left, right):
        rock = beyond = ~known & MAP
        for _ in range(depth - 1):
            rock = back(rock)
            beyond = beyond & rock
        spots |= ground & back(walls & back(beyond))
    return spots
