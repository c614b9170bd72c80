"""Where the ways lead: compasses for the heroes of many games at once."""

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import COLUMNS, ROWS
from training_backend.tasks.nethack_paths import (
    HERE,
    STRAIGHT,
    UNREACHABLE,
    Ground,
    Heroes,
    Searches,
    legal_moves,
    moves_to,
)
from training_backend.tasks.nethack_sets import (
    Words,
    dilate,
    from_integer,
    frontier,
    to_integer,
)
from training_backend.tasks.nethack_spots import Level, find_reachable, search_spots

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


_PASSABLE, _DOORS, _CLOSED = range(3)
_FRONTIER, _DOWN, _SPOT, _GOLD, _FOE = range(len(TARGETS))


class Compasses:
    """For each of `games` games, the first moves to the nearest of each of `TARGETS`."""

    def __init__(self, games: int) -> None:
        self.games = games
        limits = np.repeat([FOE_MOVES if t == "foe" else _FAR for t in TARGETS], games)
        self._searches = Searches(limits, games)  # number of the target * games + game
        self._searches_over_traps = Searches(limits, games)
        shape = games, COLUMNS
        # What ways depend on, and where they lead: in one array, to look around heroes at once.
        self._sets = np.zeros((3 + len(TARGETS), *shape), np.uint32)
        self._ground, self._targets = self._sets[:3], self._sets[3:]
        self._traps = np.zeros(shape, np.uint32)
        self._fit = np.zeros(shape, np.uint32)
        self._new = np.zeros(shape, np.uint32)
        self._some = np.zeros((len(TARGETS), games), bool)
        self._trapped = np.zeros(games, bool)
        self._position = np.full(games, -1, np.int64)
        self._reachable = np.zeros(shape, np.uint32)
        self._spots = np.zeros(shape, np.uint32)
        self._spots_old = np.zeros(games, bool)
        self._spots_firm = np.zeros(games, bool)
        self._spots_doors = np.zeros(shape, np.uint32)
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
        self._spots_firm[games] = False

    def update(
        self,
        stale: NDArray[np.bool_],
        planes: Words,
        position: NDArray[np.int64],
        changed: NDArray[np.bool_],
        ground_changed: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Point anew in some games.

        stale: (games,) in which; planes: (len(Plane), games, 80); position: (games,) the heroes'
        cells, -1 where there is none; changed: (games,) whether any set has; ground_changed:
        (games,) whether another has than those of creatures and things that come and go.

        Returns the games in which all places have been searched: there all count as unsearched
        again.
        """
        games = stale.nonzero()[0]
        broken = self._jumped(position)
        self._position[games] = position[games]
        self._read_ground(ground_changed.nonzero()[0], planes, broken)
        heroes = Heroes(np.maximum(position, COLUMNS))
        foes = planes[Plane.FOE] & ~(planes[Plane.STATUE] | planes[Plane.PEACEFUL])
        foes.reshape(-1)[np.arange(0, foes.size, COLUMNS) + heroes.column] &= ~heroes.bit
        self.foes[games] = foes.any(axis=1)[games]
        np.bitwise_and(foes, self._fit, out=self._targets[_FOE])
        np.bitwise_and(planes[Plane.GOLD], self._fit, out=self._targets[_GOLD])
        self._some[_GOLD:] = self._targets[_GOLD:].any(axis=2)
        around = heroes.around(self._sets)
        passable, doors, closed = around[:3]
        ground = Ground(
            heroes,
            legal_moves(doors),
            self._ground[_PASSABLE],
            self._ground[_DOORS],
            passable & HERE != 0,
            broken,
            self._new,
        )
        self.exits[games] = (moves_to(passable) & ground.legal)[games]
        self.closed_doors[games] = (moves_to(closed) & ground.legal & STRAIGHT)[games]
        self.moves[:, games] = 0
        self.distance[:, games] = UNREACHABLE
        # On passable ground the hero stands within the ground that was found to be reachable, which
        # then depends on the ground alone; from anywhere else it is found anew.
        self._spots_old |= ground_changed | changed & ~self._spots_firm
        wanted = self._some & stale
        self._find(wanted, around[3:], ground)
        exhausted = games[:0]
        lost = (stale & (self.distance[_FRONTIER] == UNREACHABLE)).nonzero()[0]
        if lost.size:
            old = self._spots_old[lost] | (heroes.at(self._reachable)[lost] == 0)
            rows = lost[old]
            if rows.size:
                exhausted = self._find_spots(rows, planes, ground)
            spots = self._targets[_SPOT]
            spots[lost] = self._spots[lost] & self._fit[lost]
            sought = np.zeros_like(wanted)
            sought[_SPOT, lost] = spots[lost].any(axis=1)
            around[3 + _SPOT] = heroes.around(spots)
            self._find(sought, around[3:], ground)
            wanted |= sought
        self._searches.spoilt.reshape(wanted.shape)[stale & ~wanted] = True
        return exhausted

    def _jumped(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where heroes have come farther than a move leads."""
        line, column = np.divmod(position, COLUMNS)
        old_line, old_column = np.divmod(self._position, COLUMNS)
        far = (abs(line - old_line) > 1) | (abs(column - old_column) > 1)
        return far | (self._position < 0)

    def _read_ground(
        self, games: NDArray[np.int64], planes: Words, broken: NDArray[np.bool_]
    ) -> None:
        """The ground now in some games, and how it differs from before; `broken` is added to."""
        self._new.fill(0)
        if not games.size:
            return
        planes = planes.take(games, axis=1)
        doors = planes[Plane.OPEN] | planes[Plane.CLOSED]
        fit = ~(planes[Plane.SHUNNED] | planes[Plane.BARRED])
        passable = (planes[Plane.FLOOR] | doors) & fit
        passable &= ~planes[Plane.TRAP]
        doors |= planes[Plane.TOLD_DOOR]
        old, old_doors, _ = self._ground.take(games, axis=1)
        lost = old & ~passable
        lost |= old_doors ^ doors
        broken[games] |= lost.any(axis=1)
        self._new[games] = dilate(passable & ~old)
        self._ground[_PASSABLE, games] = passable
        self._ground[_DOORS, games] = doors
        self._ground[_CLOSED, games] = planes[Plane.CLOSED]
        self._fit[games] = fit
        self._traps[games] = planes[Plane.TRAP]
        self._trapped[games] = planes[Plane.TRAP].any(axis=1)
        goals = frontier(passable, planes[Plane.KNOWN], planes[Plane.VISITED])
        down = planes[Plane.DOWN] & fit
        self._targets[_FRONTIER, games], self._targets[_DOWN, games] = goals, down
        self._some[_FRONTIER, games] = goals.any(axis=1)
        self._some[_DOWN, games] = down.any(axis=1)

    def _find(self, wanted: NDArray[np.bool_], around: NDArray[np.int64], ground: Ground) -> None:
        """Ways to targets where they are wanted (kinds, games); over traps for want of others.

        around: (kinds, games) the targets around the heroes.
        """
        searches = wanted.reshape(-1).nonzero()[0]
        targets, around = self._targets.reshape(-1, COLUMNS), around.reshape(-1)
        moves, distance = self.moves.reshape(-1), self.distance.reshape(-1)
        if not searches.size:
            return
        moves[searches], distance[searches] = self._searches.find(
            searches, targets, around.take(searches), ground
        )
        astray = self._trapped.take(searches % self.games)
        searches = searches[astray & (distance.take(searches) == UNREACHABLE)]
        if searches.size:
            passable = ground.passable | self._traps
            self._searches_over_traps.spoilt[searches] = True
            moves[searches], distance[searches] = self._searches_over_traps.find(
                searches, targets, around.take(searches), ground._replace(passable=passable)
            )

    def _find_spots(
        self, games: NDArray[np.int64], planes: Words, ground: Ground
    ) -> NDArray[np.int64]:
        """Find search spots anew; returns the games in which all had been searched."""
        exhausted = []
        for game in games.tolist():
            reachable = self._find_reachable(game, ground)
            level = Level(
                passable=to_integer(ground.passable[game]),
                doors=to_integer(ground.doors[game]),
                floor=to_integer(planes[Plane.FLOOR, game]),
                walls=to_integer(planes[Plane.WALL, game]),
                known=to_integer(planes[Plane.KNOWN, game]),
                visited=to_integer(planes[Plane.VISITED, game]),
                searched=to_integer(planes[Plane.SEARCHED, game]),
            )
            spots = search_spots(level, reachable)
            if not spots and level.searched:
                spots = search_spots(level._replace(searched=0), reachable)
                exhausted.append(game)
            self._spots[game] = from_integer(spots)
        self._spots_old[games] = False
        self._spots_firm[games] = ground.standing[games]
        self._spots_doors[games] = ground.doors[games]
        return np.array(exhausted, np.int64)

    def _find_reachable(self, game: int, ground: Ground) -> int:
        """Bring `_reachable` of a game up to date: what was reachable still is, most often."""
        heroes = ground.heroes
        hero = int(heroes.bit[game]) << 32 * int(heroes.column[game])
        passable, doors = to_integer(ground.passable[game]), to_integer(ground.doors[game])
        before = to_integer(self._reachable[game])
        shut = doors & ~to_integer(self._spots_doors[game])
        holds = self._spots_firm[game] and before & hero and not before & (~passable | shut)
        reachable = find_reachable(before if holds else hero, passable, doors)
        self._reachable[game] = from_integer(reachable)
        return reachable
