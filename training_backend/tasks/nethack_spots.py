"""Where heroes look for hidden doors: `LevelMemory.search_spots`, level by level.

Few levels ask for it at a time, so sets are integers here: the words of `nethack_sets` end to end,
32 bits a column. A step up or down is a shift by one, a step aside by 32.
"""

from typing import Final, NamedTuple

from training_backend.tasks.nethack_sets import MAP, spread, to_integer

_MAP: Final = to_integer(MAP)


class Level(NamedTuple):
    """What is known of a level."""

    passable: int
    doors: int
    floor: int
    walls: int
    known: int
    visited: int
    searched: int


def find_reachable(start: int, passable: int, doors: int) -> int:
    """The cells to which paths lead from `start`, those included."""
    solid = ~doors
    free = passable & solid
    before, cells = -1, start
    while cells != before:
        before, cells = cells, spread(cells, passable, free, solid)
    return cells


def search_spots(level: Level, reachable: int) -> int:
    """Where to search, without `LevelMemory`'s second round.

    Dead ends first, then cells near ground that cannot be reached, then walls with rock behind
    them; only cells that can be reached, and searched places left out.
    """
    candidates = reachable & ~level.searched
    spots = _dead_ends(level) & candidates
    if spots:
        return spots
    candidates &= ~_dilate(level.searched)
    spots = _dilate(_dilate(level.passable & ~reachable)) & candidates
    for depth in (6, 3, 1):
        spots = spots or _beside_rock(level, depth) & candidates
    return spots


def _dead_ends(level: Level) -> int:
    """Visited cells whose passable neighbours all lie on one side: at most two adjoining."""
    passable, solid = level.passable, ~level.doors
    flat = passable & solid  # what can be crossed diagonally
    east, west = _left(flat), _right(flat)  # whose neighbour there is one
    around = (
        _down(passable),
        _down(east) & solid,
        _left(passable),
        _up(east) & solid,
        _up(passable),
        _up(west) & solid,
        _right(passable),
        _down(west) & solid,
    )
    through = 0
    for i, neighbour in enumerate(around):
        others = around[(i + 2) % 8] | around[(i + 3) % 8]
        for j in range(i + 4, i + 7):
            others |= around[j % 8]
        through |= neighbour & others
    return level.visited & passable & ~through


def _beside_rock(level: Level, depth: int) -> int:
    """Floor beside a wall, behind which `depth` cells in a row have never shown anything."""
    ground = level.floor & level.passable
    spots = 0
    for back in (_up, _down, _left, _right):
        rock = beyond = _MAP & ~level.known
        for _ in range(depth - 1):
            rock = back(rock)
            beyond &= rock
        spots |= ground & back(level.walls & back(beyond))
    return spots


def _dilate(cells: int) -> int:
    """The cells and their eight neighbours."""
    column = cells | cells << 1 | cells >> 1
    return (column | column << 32 | column >> 32) & _MAP


def _up(cells: int) -> int:
    return cells >> 1 & _MAP


def _down(cells: int) -> int:
    return cells << 1 & _MAP


def _left(cells: int) -> int:
    return cells >> 32 & _MAP


def _right(cells: int) -> int:
    return cells << 32 & _MAP
