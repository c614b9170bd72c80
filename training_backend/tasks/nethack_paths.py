"""Shortest ways to sets of cells, for the heroes of many games at once.

Sets are (n, 80) arrays of words; see `nethack_sets`.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import COLUMNS, DIRECTIONS
from training_backend.tasks.nethack_sets import (
    ONE,
    Words,
    bit_of,
    from_integer,
    spread,
    to_integer,
)

UNREACHABLE: Final = -1

STRAIGHT: Final = 0b1111  # the moves N, E, S, W
_LAYERS: Final = 4
"""Layers that a search grows between two looks at who has been reached: distances are kept modulo
this number."""
_FEW: Final = 8
"""So many searches or fewer go on one by one: operations on arrays that short are all overhead."""
_ASIDE: Final = np.array((-1, 0, 1))
_BESIDE: Final = np.array((1, 8, 64))
_TWO, _THREE_BITS = np.uint32(2), np.uint32(7)


def _move_table() -> NDArray[np.uint8]:
    """Table: nine bits of a 3 x 3 neighbourhood, by columns -> moves as in `DIRECTIONS`."""
    places = [3 * (column + 1) + row + 1 for row, column in DIRECTIONS]
    codes = np.arange(512)
    moves = [(codes >> place & 1) << i for i, place in enumerate(places)]
    return np.bitwise_or.reduce(moves).astype(np.uint8)


_MOVES: Final = _move_table()
HERE: Final = 1 << 4
"""The hero's own cell among the nine bits around it."""


class Heroes:
    """Where the heroes of some games stand; what lies around them as numbers of nine bits."""

    def __init__(self, cell: NDArray[np.int64]) -> None:
        """cell: (n,) 80 * screen line + column."""
        line = cell // COLUMNS
        self.column = cell - COLUMNS * line
        self.bit = bit_of(line)
        self.line = line.astype(np.uint32)

    def around(self, sets: Words) -> NDArray[np.int64]:
        """The 3 x 3 cells around each hero, column by column: sets (..., n, 80) -> (..., n)."""
        places = np.arange(0, sets.size, COLUMNS).reshape(sets.shape[:-1]) + self.column
        return nine(sets, places, self.line)

    def at(self, sets: Words) -> Words:
        """The heroes' own bits of sets (n, 80): 0 or not."""
        places = np.arange(0, sets.size, COLUMNS) + self.column
        return sets.reshape(-1).take(places) & self.bit


def nine(
    sets: Words, places: NDArray[np.int64], line: NDArray[np.unsignedinteger]
) -> NDArray[np.int64]:
    """The nine cells around places in sets, as numbers; bit `HERE` is the middle one.

    places: number of the word of each middle cell, the words of all sets counted through; line:
    their screen lines, 1 to 21, in an array that broadcasts with it.
    """
    # Left of column 0 is the empty column 79 of the set before.
    words = sets.reshape(-1).take(places[..., None] + _ASIDE)
    words <<= _TWO
    words >>= line[..., None]  # bit line - 1 to the middle of three
    words &= _THREE_BITS
    return words.astype(np.int64) @ _BESIDE


def moves_to(around: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Moves, bit i for `DIRECTIONS[i]`, that lead to the cells of a 3 x 3 neighbourhood."""
    return _MOVES.take(around)


def legal_moves(doors: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Moves that doors, given as 3 x 3 neighbourhoods, allow: none is passed diagonally."""
    return np.where(doors & HERE, STRAIGHT, STRAIGHT | ~_MOVES.take(doors))


class Ground(NamedTuple):
    """The levels of all games, as far as ways depend on them, and their heroes."""

    heroes: Heroes
    legal: NDArray[np.uint8]
    """(games,) moves that doors allow."""
    passable: Words
    """(games, 80)"""
    doors: Words
    """(games, 80)"""
    standing: NDArray[np.bool_]
    """(games,) whether the hero stands on passable ground."""
    broken: NDArray[np.bool_]
    """(games,) whether distances found before may have grown, or the hero jumped."""
    new: Words
    """(games, 80) cells that have become passable, and those around them."""


class Searches:
    """Distances to the nearest of a set of targets, in many searches, kept while they hold.

    Search number k * games + g looks for targets of kind k in game g. It grows from its targets
    until it meets the hero, and goes on later from where it stopped. New ground does not change
    the distances within it, unless it adjoins them.
    """

    def __init__(self, limits: NDArray[np.int64], games: int) -> None:
        """limits: (searches,) distances that need not be found beyond."""
        self._limits, self._games = limits, games
        shape = len(limits), COLUMNS
        self._targets = np.zeros(shape, np.uint32)
        # What has been reached, the two low bits of its distance, and what had been reached one
        # layer earlier.
        self._state = np.zeros((4, *shape), np.uint32)
        self._reached, self._low, self._high, self._inner = self._state
        self._three = shape[0] * COLUMNS * np.arange(3)[:, None]
        self._depth = np.zeros(len(limits), np.int64)
        self._closed = np.ones(len(limits), bool)
        self._distance = np.full(len(limits), UNREACHABLE, np.int64)
        self.spoilt = np.ones(len(limits), bool)
        """Whether what has been found holds no longer."""

    def find(
        self,
        searches: NDArray[np.int64],
        targets: Words,
        around: NDArray[np.int64],
        ground: Ground,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """First moves of all shortest ways, and their lengths: `UNREACHABLE` where there is none.

        searches: (n,) their numbers; targets: (searches, 80) of all searches; around: (n,) the
        targets around the heroes.
        """
        game = searches % self._games
        legal = ground.legal.take(game)
        into = moves_to(around) & legal
        # Beside a target there is nothing to search for, and exploring heroes often are.
        beside = (into != 0) & (around & HERE == 0)
        again = self._fails(searches, game, targets, ground)
        self.spoilt[searches] = again & beside | ~ground.standing.take(game)
        self._distance[searches[beside]] = 1
        distance = np.ones(len(searches), np.int64)
        rest = (~beside).nonzero()[0]
        if rest.size:
            again = again.take(rest)
            into[rest], distance[rest] = self._search(
                searches.take(rest), game.take(rest), again, targets, legal.take(rest), ground
            )
        return into, distance

    def _fails(
        self,
        searches: NDArray[np.int64],
        game: NDArray[np.int64],
        targets: Words,
        ground: Ground,
    ) -> NDArray[np.bool_]:
        """Whether what has been found before is of no use now, (n,)."""
        heroes = ground.heroes
        again = ground.broken.take(game) | self.spoilt.take(searches)
        places = COLUMNS * searches + heroes.column.take(game)
        met = self._reached.reshape(-1).take(places) & heroes.bit.take(game) != 0
        again |= (self._distance.take(searches) == UNREACHABLE) & met
        held = (~again).nonzero()[0]
        if held.size:
            some = searches.take(held)
            differs = targets.take(some, axis=0)
            differs ^= self._targets.take(some, axis=0)
            inner = self._inner.take(some, axis=0)
            inner &= ground.new.take(game.take(held), axis=0)
            differs |= inner
            again[held] = differs.any(axis=1)
        return again

    def _search(
        self,
        searches: NDArray[np.int64],
        game: NDArray[np.int64],
        again: NDArray[np.bool_],
        targets: Words,
        legal: NDArray[np.uint8],
        ground: Ground,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`find` for heroes that no target is beside; again: which to start anew."""
        heroes = ground.heroes
        line = heroes.line.take(game)
        places = COLUMNS * searches + heroes.column.take(game)
        bit = heroes.bit.take(game)
        reached = self._reached.reshape(-1)
        before = self._distance.take(searches)
        depth = self._depth.take(searches)
        started = again.nonzero()[0]
        if started.size:
            fresh = searches.take(started)
            self._targets[fresh] = self._reached[fresh] = targets.take(fresh, axis=0)
            self._state[1:, fresh] = 0
            self._depth[fresh] = depth[started] = 0
            self._closed[fresh] = False
        seeking = (reached.take(places) & bit == 0) & ~self._closed.take(searches)
        seeking &= depth < self._limits.take(searches)
        grown = rows = seeking.nonzero()[0]
        if rows.size:
            while rows.size > _FEW:
                rows = rows[self._grow(searches.take(rows), game.take(rows), ground)]
            for row in rows.tolist():
                self._grow_one(int(searches[row]), int(game[row]), ground)
        near, low, high = nine(self._state, places + self._three, line)
        phase = (low >> 4 & 1) + (high >> 3 & 2)
        # One move changes a distance by one at most, so its two low bits tell the rest; a search
        # that has just met the hero did so within its last layers.
        distance = before + (phase - before + 1) % _LAYERS - 1
        last = np.concatenate((grown, started))
        if last.size:
            deepest = self._depth.take(searches.take(last))
            distance[last] = deepest - (deepest - phase.take(last)) % _LAYERS
        distance[near & HERE == 0] = UNREACHABLE
        self._distance[searches] = distance
        nearer = phase - 1
        near &= low ^ ((nearer & 1) - 1)
        near &= high ^ ((nearer >> 1 & 1) - 1)
        moves = moves_to(near) & legal
        moves[distance <= 0] = 0
        return moves, distance

    def _grow(
        self, searches: NDArray[np.int64], game: NDArray[np.int64], ground: Ground
    ) -> NDArray[np.bool_]:
        """Grow searches by `_LAYERS`; which of them must go on."""
        heroes = ground.heroes
        passable, solid = ground.passable.take(game, axis=0), ~ground.doors.take(game, axis=0)
        place = np.arange(0, passable.size, COLUMNS) + heroes.column.take(game)
        bit = heroes.bit.take(game)
        # A hero need not stand on passable ground: it may have stepped on a trap.
        passable.reshape(-1)[place] |= bit
        free = passable & solid
        first = self._reached.take(searches, axis=0)
        second = _expand(first, passable, free, solid)
        third = _expand(second, passable, free, solid)
        inner = _expand(third, passable, free, solid)
        cells = _expand(inner, passable, free, solid)
        # Searches have grown by a multiple of _LAYERS before, so these are distance's low bits.
        low, high = self._low.take(searches, axis=0), self._high.take(searches, axis=0)
        high |= second ^ inner
        low |= np.bitwise_xor(first, second, out=second)
        low |= np.bitwise_xor(third, inner, out=third)
        self._low[searches], self._high[searches] = low, high
        self._reached[searches] = cells
        self._inner[searches] = inner
        closed = ~(cells != first).any(axis=1)
        self._closed[searches] = closed
        depth = self._depth.take(searches) + _LAYERS
        self._depth[searches] = depth
        unmet = cells.reshape(-1).take(place) & bit == 0
        return unmet & ~closed & (depth < self._limits.take(searches))

    def _grow_one(self, search: int, game: int, ground: Ground) -> None:
        """Grow one search until it has met its hero, or cannot: as `_grow`, on integers."""
        heroes = ground.heroes
        hero = int(heroes.bit[game]) << 32 * int(heroes.column[game])
        passable = to_integer(ground.passable[game]) | hero
        solid = ~to_integer(ground.doors[game])
        free = passable & solid
        cells = inner = to_integer(self._reached[search])
        low, high = to_integer(self._low[search]), to_integer(self._high[search])
        depth, limit = int(self._depth[search]), int(self._limits[search])
        closed = False
        while not (closed or cells & hero or depth >= limit):
            first = cells
            second = spread(first, passable, free, solid)
            third = spread(second, passable, free, solid)
            inner = spread(third, passable, free, solid)
            cells = spread(inner, passable, free, solid)
            low |= first ^ second | third ^ inner
            high |= second ^ inner
            depth += _LAYERS
            closed = cells == first
        self._reached[search], self._inner[search] = from_integer(cells), from_integer(inner)
        self._low[search], self._high[search] = from_integer(low), from_integer(high)
        self._depth[search], self._closed[search] = depth, closed


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
