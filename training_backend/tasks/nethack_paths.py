"""Shortest ways to sets of cells, for the heroes of many games at once.

Sets are (n, 80) arrays of words; see `nethack_sets`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import COLUMNS, DIRECTIONS
from training_backend.tasks.nethack_sets import ONE, Words, bit_of, single

UNREACHABLE: Final = -1

STRAIGHT: Final = 0b1111  # the moves N, E, S, W
_LAYERS: Final = 4
"""Layers that a search grows between two looks at who has been reached: distances are kept modulo
this number."""
_FEW: Final = 8
"""So many searches or fewer go on one by one: operations on arrays that short are all overhead."""
_ASIDE: Final = np.array((-1, 0, 1))
_BESIDE: Final = np.array((1, 8, 64))


def _move_table() -> NDArray[np.uint8]:
    """Table: nine bits of a 3 x 3 neighbourhood, by columns -> moves as in `DIRECTIONS`."""
    places = [3 * (column + 1) + row + 1 for row, column in DIRECTIONS]
    codes = np.arange(512)
    moves = [(codes >> place & 1) << i for i, place in enumerate(places)]
    return np.bitwise_or.reduce(moves).astype(np.uint8)


_MOVES: Final = _move_table()


class Heroes:
    """Where some heroes stand, and the ground of their levels."""

    def __init__(self, cell: NDArray[np.int64], passable: Words, doors: Words) -> None:
        """cell: (n,) 80 * screen line + column; passable, doors: (n, 80)."""
        line, self.column = np.divmod(cell, COLUMNS)
        self.bit = bit_of(line)
        self._line = line[:, None]
        self._rows = np.arange(len(cell))
        self._columns = (self.column[:, None] + _ASIDE) % COLUMNS  # column 79 is empty
        self.passable, self.solid = passable, ~doors
        into_door = _MOVES[self._nine(doors)]
        self.legal = np.where(self.at(doors) != 0, STRAIGHT, STRAIGHT | ~into_door)
        """Moves that doors allow."""

    def at(self, cells: Words) -> Words:
        """The heroes' own bits of the sets, (n,): 0 or not."""
        return cells[self._rows, self.column] & self.bit

    def _nine(self, cells: Words) -> NDArray[np.int64]:
        words = cells[self._rows[:, None], self._columns].astype(np.int64)
        words = (words << 2 >> self._line) & 7  # bit line - 1 to the middle of three
        return words @ _BESIDE

    def moves_into(self, cells: Words) -> NDArray[np.uint8]:
        """The moves that lead into these sets at once, doors respected."""
        return (_MOVES[self._nine(cells)] & self.legal).astype(np.uint8)


class Searches:
    """Distances to the nearest of a set of targets, in many searches, kept while they hold.

    A search grows from its targets until it meets the hero, and goes on later from where it
    stopped. New ground does not change the distances within it, unless it adjoins them.
    """

    def __init__(self, limits: NDArray[np.int64]) -> None:
        """limits: (searches,) distances that need not be found beyond."""
        self._limits = limits
        shape = len(limits), COLUMNS
        self._targets = np.zeros(shape, np.uint32)
        # What has been reached, what had been one layer earlier, and the two low bits of distance.
        self._reached = np.zeros(shape, np.uint32)
        self._inner = np.zeros(shape, np.uint32)
        self._low = np.zeros(shape, np.uint32)
        self._high = np.zeros(shape, np.uint32)
        self._depth = np.zeros(len(limits), np.int64)
        self._closed = np.ones(len(limits), bool)
        self._spoilt = np.zeros(len(limits), bool)
        self.moves = np.zeros(len(limits), np.uint8)
        """First moves of all shortest ways, bit i for `DIRECTIONS[i]`."""
        self.distance = np.full(len(limits), UNREACHABLE, np.int64)
        """Number of moves; 0 on a target, `UNREACHABLE` where there is no way."""

    def clear(self, searches: NDArray[np.int64]) -> None:
        """These searches have no targets."""
        self.moves[searches] = 0
        self.distance[searches] = UNREACHABLE
        self._spoilt[searches] = True

    def find(
        self,
        searches: NDArray[np.int64],
        targets: Words,
        heroes: Heroes,
        broken: NDArray[np.bool_],
        new: Words,
    ) -> None:
        """Bring `moves` and `distance` of these searches up to date.

        targets: (n, 80); heroes: the n heroes; broken: (n,) whether ground was lost or a hero
        jumped since the last call; new: (n, 80) ground found since then, and its surroundings.
        """
        reached, depth = self._reached[searches], self._depth[searches]
        before = self.distance[searches]
        again = broken | self._spoilt[searches]
        again |= (targets != self._targets[searches]).any(axis=1)
        again |= (new & self._inner[searches]).any(axis=1)
        again |= (before == UNREACHABLE) & (heroes.at(reached) != 0)
        # Beside a target there is nothing to search for, and exploring heroes often are.
        into = heroes.moves_into(targets)
        beside = (into != 0) & (heroes.at(targets) == 0)
        self._spoilt[searches] = again & beside | (heroes.at(heroes.passable) == 0)
        again = np.flatnonzero(again & ~beside)
        if again.size:
            fresh = searches[again]
            self._targets[fresh] = self._reached[fresh] = reached[again] = targets[again]
            self._inner[fresh] = self._low[fresh] = self._high[fresh] = 0
            self._depth[fresh] = depth[again] = 0
            self._closed[fresh] = False
        seeking = (heroes.at(reached) == 0) & ~self._closed[searches] & ~beside
        grown = rows = np.flatnonzero(seeking & (depth < self._limits[searches]))
        while rows.size > _FEW:
            rows = self._grow(searches[rows], rows, heroes)
        for row in rows.tolist():
            self._grow_one(int(searches[row]), row, heroes)
        low, high = self._low[searches], self._high[searches]
        reached = self._reached[searches]
        phase = (heroes.at(low) != 0) + 2 * (heroes.at(high) != 0).astype(np.int64)
        met = heroes.at(reached) != 0
        # One move changes a distance by one at most, so its two low bits tell the rest; a search
        # that has just met the hero did so within its last layers.
        distance = before + (phase - before + 1) % _LAYERS - 1
        last = np.concatenate((grown, again))
        deepest = self._depth[searches[last]]
        distance[last] = deepest - (deepest - phase[last]) % _LAYERS
        distance = np.where(met, distance, UNREACHABLE)
        self.distance[searches] = np.where(beside, 1, distance)
        nearer = ((phase - 1) % _LAYERS).astype(np.uint32)
        reached &= low ^ ((nearer & 1) - np.uint32(1))[:, None]
        reached &= high ^ ((nearer >> 1) - np.uint32(1))[:, None]
        moves = np.where(distance > 0, heroes.moves_into(reached), 0)
        self.moves[searches] = np.where(beside, into, moves)

    def _grow(
        self, searches: NDArray[np.int64], rows: NDArray[np.int64], heroes: Heroes
    ) -> NDArray[np.int64]:
        """Grow searches, whose heroes are in `rows`, by `_LAYERS`; the rows that must go on."""
        passable, solid = heroes.passable[rows], heroes.solid[rows]
        place = np.arange(len(rows)), heroes.column[rows]
        bit = heroes.bit[rows]
        # A hero need not stand on passable ground: it may have stepped on a trap.
        passable[place] |= bit
        free = passable & solid
        first = cells = inner = self._reached[searches]
        low, high = self._low[searches], self._high[searches]
        for layer in range(1, _LAYERS + 1):
            inner = cells
            cells = _expand(cells, passable, free, solid)
            # Searches have grown by a multiple of _LAYERS before, so these are distance's low bits.
            new = cells ^ inner
            if layer & 1:
                low |= new
            if layer & 2:
                high |= new
        self._low[searches], self._high[searches] = low, high
        self._reached[searches] = cells
        closed = (cells == first).all(axis=1)
        self._inner[searches] = np.where(closed[:, None], cells, inner)
        self._closed[searches] = closed
        depth = self._depth[searches] + _LAYERS
        self._depth[searches] = depth
        unmet = cells[place] & bit == 0
        return rows[unmet & ~closed & (depth < self._limits[searches])]

    def _grow_one(self, search: int, row: int, heroes: Heroes) -> None:
        """Grow one search until it has met its hero, or cannot: as `_grow`, on integers."""
        hero = int(heroes.bit[row]) << 32 * int(heroes.column[row])
        passable = _integer(heroes.passable[row]) | hero
        solid = _integer(heroes.solid[row])
        free = passable & solid
        cells = inner = _integer(self._reached[search])
        low, high = _integer(self._low[search]), _integer(self._high[search])
        depth, limit = int(self._depth[search]), int(self._limits[search])
        closed = False
        while not (closed or cells & hero or depth >= limit):
            first = cells
            for layer in range(1, _LAYERS + 1):
                inner = cells
                cells = _expand_integer(cells, passable, free, solid)
                if layer & 1:
                    low |= cells ^ inner
                if layer & 2:
                    high |= cells ^ inner
            depth += _LAYERS
            closed = cells == first
        self._reached[search], self._inner[search] = _words(cells), _words(inner)
        self._low[search], self._high[search] = _words(low), _words(high)
        self._depth[search], self._closed[search] = depth, closed


def flood(cell: NDArray[np.int64], passable: Words, doors: Words) -> Words:
    """The cells to which paths lead from `cell`, (n,), that one included."""
    cells = single(cell)
    reached = np.empty_like(passable)
    rows, solid = np.arange(len(cell)), ~doors
    free = passable & solid
    while rows.size > _FEW:
        before = cells
        for _ in range(_LAYERS):
            cells = _expand(cells, passable, free, solid)
        reached[rows] = cells
        on = np.flatnonzero((cells != before).any(axis=1))
        rows, cells = rows[on], cells[on]
        passable, free, solid = passable[on], free[on], solid[on]
    for row, i in enumerate(rows.tolist()):
        ground = _integer(passable[row]), _integer(free[row]), _integer(solid[row])
        before, cell_set = -1, _integer(cells[row])
        while cell_set != before:
            before, cell_set = cell_set, _expand_integer(cell_set, *ground)
        reached[i] = _words(cell_set)
    return reached


def _expand(cells: Words, passable: Words, free: Words, solid: Words) -> Words:
    """The cells and those that one move leads to from them.

    solid: no doors; free: passable and no door. Column 79 is in none of the sets, so what a flat
    shift by one word carries over a game's edge is cut off by `passable` and `free`.
    """
    straight = cells << ONE
    straight |= cells >> ONE
    inner = cells & solid
    column = inner << ONE
    column |= inner >> ONE
    diagonal = np.empty_like(cells)
    flat, near = straight.reshape(-1), cells.reshape(-1)
    flat[1:] |= near[:-1]
    flat[:-1] |= near[1:]
    flat, far = column.reshape(-1), diagonal.reshape(-1)
    np.bitwise_or(flat[2:], flat[:-2], out=far[1:-1])
    far[0], far[-1] = flat[1], flat[-2]
    straight &= passable
    diagonal &= free
    straight |= diagonal
    straight |= cells
    return straight


def _expand_integer(cells: int, passable: int, free: int, solid: int) -> int:
    """`_expand` of one set, whose words lie end to end in an integer."""
    inner = cells & solid
    column = inner << 1 | inner >> 1
    straight = cells << 1 | cells >> 1 | cells << 32 | cells >> 32
    return straight & passable | (column << 32 | column >> 32) & free | cells


def _integer(words: Words) -> int:
    return int.from_bytes(words.astype("<u4").tobytes(), "little")


def _words(cells: int) -> Words:
    return np.frombuffer(cells.to_bytes(4 * COLUMNS, "little"), "<u4")
