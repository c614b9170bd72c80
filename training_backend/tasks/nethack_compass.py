"""Where the ways lead: compasses for the heroes of many games at once."""

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import COLUMNS, ROWS
from training_backend.tasks.nethack_paths import STRAIGHT, UNREACHABLE, Heroes, Searches, flood
from training_backend.tasks.nethack_sets import Words, dilate, frontier, search_spots

TARGETS: Final = ("frontier", "stairs down", "search spot", "gold", "foe")
"""What the compasses point to: cells from which more may be seen; the way down; where to search for
hidden doors, if no frontier can be reached; gold; creatures that are neither pets nor to be left
alone, within `FOE_MOVES` moves."""
FOE_MOVES: Final = 8
_FAR: Final = ROWS * COLUMNS


class Plane(IntEnum):
    """Sets of cells that are kept of each level, as `LevelMemory` names and means them."""

    # These follow from the screen, bit by bit of what is stored of a cell: seven are remembered,
    # three show now.
    FLOOR = 0
    OPEN = 1
    CLOSED = 2
    WALL = 3
    DOWN = 4
    TRAP = 5
    KNOWN = 6
    GOLD = 7
    FOE = 8
    SHUNNED_NOW = 9
    # These are marked one by one.
    SHUNNED = 10
    TOLD_DOOR = 11
    BARRED = 12
    STATUE = 13
    VISITED = 14
    SEARCHED = 15
    PEACEFUL = 16


class Ground(NamedTuple):
    """The levels of n games, as far as ways depend on them."""

    games: NDArray[np.int64]
    """Their numbers."""
    position: NDArray[np.int64]
    """Cells 80 * screen line + column where the heroes stand."""
    passable: Words
    doors: Words
    traps: Words
    broken: NDArray[np.bool_]
    """Whether distances found before may have grown, or the hero jumped."""
    new: Words
    """Cells that have become passable, and those around them."""

    def heroes(self, rows: NDArray[np.int64], over_traps: bool = False) -> Heroes:
        passable = self.passable[rows]
        if over_traps:
            passable |= self.traps[rows]
        return Heroes(self.position[rows], passable, self.doors[rows])


class Compasses:
    """For each of `games` games, the first moves to the nearest of each of `TARGETS`."""

    def __init__(self, games: int) -> None:
        self.games = games
        limits = np.repeat([FOE_MOVES if t == "foe" else _FAR for t in TARGETS], games)
        self._searches = Searches(limits)  # number of the target * games + game
        self._searches_over_traps = Searches(limits)
        self._passable = np.zeros((games, COLUMNS), np.uint32)
        self._doors = np.zeros((games, COLUMNS), np.uint32)
        self._position = np.full(games, -1, np.int64)
        self._reachable = np.zeros((games, COLUMNS), np.uint32)
        self._spots = np.zeros((games, COLUMNS), np.uint32)
        self._spots_old = np.zeros(games, bool)
        self._spots_firm = np.zeros(games, bool)
        self.moves = np.zeros((len(TARGETS), games), np.uint8)
        """First moves of all shortest ways to each target, as `LevelMemory.compass` gives them."""
        self.distance = np.full((len(TARGETS), games), UNREACHABLE, np.int64)
        """Number of moves; 0 on a target, `UNREACHABLE` where there is no way."""
        self.exits = np.zeros(games, np.uint8)
        """Moves onto passable cells."""
        self.closed_doors = np.zeros(games, np.uint8)
        """Straight moves into closed doors."""
        self.foes = np.zeros(games, bool)
        """Whether any foe is in view."""

    def forget(self, games: NDArray[np.int64]) -> None:
        """The heroes of these games have come to levels that they do not know."""
        self._position[games] = -1
        self.moves[:, games] = self.exits[games] = self.closed_doors[games] = 0
        self.distance[:, games] = UNREACHABLE
        self.foes[games] = False
        self._spots_old[games] = True

    def update(
        self,
        games: NDArray[np.int64],
        planes: Words,
        position: NDArray[np.int64],
        changed: NDArray[np.bool_],
        ground_changed: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Point anew in some games.

        games: (n,) their numbers; planes: (len(Plane), n, 80); position: (n,) the heroes' cells;
        changed: (n,) whether any set has; ground_changed: (n,) whether another has than those of
        creatures and things that come and go.

        Returns the games in which all places have been searched: there all count as unsearched
        again.
        """
        doors = planes[Plane.OPEN] | planes[Plane.CLOSED]
        unfit = planes[Plane.SHUNNED] | planes[Plane.BARRED]
        passable = (planes[Plane.FLOOR] | doors) & ~(unfit | planes[Plane.TRAP])
        doors |= planes[Plane.TOLD_DOOR]
        ground = self._compare(games, position, passable, doors, planes[Plane.TRAP])
        heroes = Heroes(position, passable, doors)
        self.exits[games] = heroes.moves_into(passable)
        self.closed_doors[games] = heroes.moves_into(planes[Plane.CLOSED]) & STRAIGHT
        targets = np.empty((len(TARGETS), games.size, COLUMNS), np.uint32)
        targets[0] = frontier(passable, planes[Plane.KNOWN], planes[Plane.VISITED])
        targets[1] = planes[Plane.DOWN]
        targets[2] = 0
        targets[3] = planes[Plane.GOLD]
        targets[4] = planes[Plane.FOE] & ~(planes[Plane.STATUE] | planes[Plane.PEACEFUL])
        targets[4, np.arange(games.size), position % COLUMNS] &= ~heroes.bit
        self.foes[games] = targets[4].any(axis=1)
        targets &= ~unfit
        self._find((0, 1, 3, 4), targets, ground)
        # On passable ground the hero stands within the ground that was found to be reachable, which
        # then depends on the ground alone; from anywhere else it is found anew.
        self._spots_old[games] |= ground_changed | changed & ~self._spots_firm[games]
        exhausted = games[:0]
        lost = np.flatnonzero(self.distance[0, games] == UNREACHABLE)
        if lost.size:
            old = self._spots_old[games] | (heroes.at(self._reachable[games]) == 0)
            rows = lost[old[lost]]
            if rows.size:
                exhausted = self._find_spots(rows, planes[:, rows], ground)
            targets[2, lost] = self._spots[games[lost]] & ~unfit[lost]
        self._find((2,), targets, ground)
        return exhausted

    def _compare(
        self,
        games: NDArray[np.int64],
        position: NDArray[np.int64],
        passable: Words,
        doors: Words,
        traps: Words,
    ) -> Ground:
        """The ground now, and how it differs from when these games were last pointed in."""
        old, old_doors, old_position = (
            self._passable[games],
            self._doors[games],
            self._position[games],
        )
        self._passable[games], self._doors[games] = passable, doors
        self._position[games] = position
        broken = (old_position < 0) | ((old & ~passable) | (old_doors ^ doors)).any(axis=1)
        broken |= abs(position // COLUMNS - old_position // COLUMNS) > 1
        broken |= abs(position % COLUMNS - old_position % COLUMNS) > 1
        new = dilate(passable & ~old)
        return Ground(games, position, passable, doors, traps, broken, new)

    def _find(self, kinds: tuple[int, ...], targets: Words, ground: Ground) -> None:
        """Ways to some of `TARGETS`; over traps where there is no other."""
        numbers = np.array(kinds)
        searches = numbers[:, None] * self.games + ground.games
        some = targets[numbers].any(axis=2)
        self._searches.clear(searches[~some])
        self._searches_over_traps.clear(searches.reshape(-1))
        moves, distance = self.moves.reshape(-1), self.distance.reshape(-1)
        moves[searches] = 0
        distance[searches] = UNREACHABLE
        trapped = ground.traps.any(axis=1)
        wanted = some
        for paths, over_traps in ((self._searches, False), (self._searches_over_traps, True)):
            kind, row = np.nonzero(wanted)
            if not row.size:
                return
            at = searches[wanted]
            paths.find(
                at,
                targets[numbers[kind], row],
                ground.heroes(row, over_traps),
                ground.broken[row],
                ground.new[row],
            )
            moves[at], distance[at] = paths.moves[at], paths.distance[at]
            wanted = some & trapped & (distance[searches] == UNREACHABLE)

    def _find_spots(
        self, rows: NDArray[np.int64], planes: Words, ground: Ground
    ) -> NDArray[np.int64]:
        """Find search spots anew; returns the games in which all had been searched."""
        games, passable, doors = ground.games[rows], ground.passable[rows], ground.doors[rows]
        reachable = flood(ground.position[rows], passable, doors)

        def spots_where(searched: Words, some: NDArray[np.int64]) -> Words:
            return search_spots(
                passable=passable[some],
                doors=doors[some],
                reachable=reachable[some],
                floor=planes[Plane.FLOOR, some],
                walls=planes[Plane.WALL, some],
                known=planes[Plane.KNOWN, some],
                visited=planes[Plane.VISITED, some],
                searched=searched[some],
            )

        searched = planes[Plane.SEARCHED]
        spots = spots_where(searched, np.arange(len(rows)))
        again = np.flatnonzero(~spots.any(axis=1) & searched.any(axis=1))
        if again.size:
            spots[again] = spots_where(np.zeros_like(searched), again)
        self._spots[games], self._reachable[games] = spots, reachable
        self._spots_old[games] = False
        heroes = Heroes(ground.position[rows], passable, doors)
        self._spots_firm[games] = heroes.at(passable) != 0
        return games[again]
