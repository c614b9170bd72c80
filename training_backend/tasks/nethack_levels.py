"""`nethack_map.LevelMemory` for many games at once.

A scripted player asks about one game; an agent's observations are encoded for a hundred games at a
time, where NumPy on all of them costs a fraction of Python integers on each. Both hold the same
sets and give the same compasses; a test compares them on recorded games.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks import nethack_cells, nethack_map
from training_backend.tasks.nethack_cells import COLUMNS, ROWS
from training_backend.tasks.nethack_compass import Compasses, Plane
from training_backend.tasks.nethack_sets import bit_of, dilate, single
from training_backend.tasks.nethack_text import TOLD

PEACEFUL_TURNS: Final = 10
"""Turns for which a creature that the hero was asked not to attack is no foe."""


_REMEMBERED: Final = (1 << Plane.KNOWN + 1) - 1
"""Bits stored of a cell that tell of its ground; the others tell what shows on it now."""
_CELLS: Final = 24 * COLUMNS
_WORDS: Final = _CELLS // 8
"""Eight cells of a screen are one word."""
_OFFSETS: Final = np.array(nethack_cells.OFFSETS)
_STOMACH: Final = np.frombuffer(b"/-\\", np.uint8)


def _classes() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """What a screen cell does to the memory of it, by two tables.

    The first maps 256 * colour + character to a place in the second; that place plus the bits
    remembered of a cell is where the second has the bits stored then. Creatures and objects hide
    the ground: what was there is remembered, new ground is taken as floor.
    """
    code = np.arange(65536)
    character, colour = code % 256, code // 256
    kind = nethack_map.KINDS.astype(np.int64)
    pet = np.isin(character, [ord("d"), ord("f")]) & (colour == 15)
    traits = np.stack(
        [
            kind,
            character == ord(">"),
            character == ord("$"),
            (kind & nethack_map.CREATURE != 0) & (kind & nethack_map.SHUN == 0) & ~pet,
        ],
        axis=1,
    )
    distinct, classes = np.unique(traits, axis=0, return_inverse=True)
    before = np.arange(_REMEMBERED + 1)
    known = before >> Plane.KNOWN & 1 != 0
    rows = []
    ground = {
        Plane.FLOOR: nethack_map.FLOOR,
        Plane.OPEN: nethack_map.OPEN,
        Plane.CLOSED: nethack_map.CLOSED,
        Plane.WALL: nethack_map.WALL,
        Plane.TRAP: nethack_map.TRAP,
    }
    unseen = 1 << Plane.KNOWN | 1 << Plane.FLOOR
    for kinds, down, gold, foe in distinct.tolist():
        shown = sum(1 << plane for plane, kind in ground.items() if kinds & kind)
        if shown:
            after = np.full_like(before, shown | 1 << Plane.KNOWN | down << Plane.DOWN)
        elif kinds & nethack_map.OBJECT:
            after = np.where(known, before & ~(1 << Plane.WALL), unseen)
        elif kinds & nethack_map.CREATURE:
            after = np.where(known, before, unseen)
        else:
            after = before
        shunned = kinds & nethack_map.SHUN != 0
        rows.append(after | gold << Plane.GOLD | foe << Plane.FOE | shunned << Plane.SHUNNED_NOW)
    places = len(before) * classes.reshape(-1)
    return places.astype(np.uint16), np.array(rows, np.uint16).reshape(-1)


_PLACE_OF_CODE, _TRANSITIONS = _classes()


def _where(condition: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The games in which a condition holds; `np.flatnonzero` takes five times as long."""
    return condition.nonzero()[0]


class LevelMaps:
    """The level memories of `games` games, all updated by one call for every screen."""

    def __init__(self, games: int) -> None:
        self.games = games
        self._chars = np.zeros((games, _CELLS), np.uint8)
        self._colors = np.zeros((games, _CELLS), np.uint8)
        self._stored = np.zeros((games, _WORDS, 8), np.uint16)
        self._planes = np.zeros((len(Plane), games, COLUMNS), np.uint32)
        self._stale = np.zeros(games, bool)
        self._changed = np.zeros(games, bool)
        self._ground_changed = np.zeros(games, bool)
        self.compasses = Compasses(games)
        """Which way leads where."""
        self.depth = np.zeros(games, np.int64)
        """Number after `Dlvl:`; 0 before the first map and where the level has no number."""
        self.turn = np.zeros(games, np.int64)
        self.position = np.full(games, -1, np.int64)
        """Cell 80 * line + column on the screen where the hero stands; -1 before the first map."""
        self.turns_here = np.zeros(games, np.int64)
        """Turns since the hero last changed place."""
        self.been = np.zeros((games, _CELLS), np.uint8)
        """1 where the hero has stood on this level, by screen cell."""
        self._peaceful_until = np.zeros(games, np.int64)

    def reset(self, game: int) -> None:
        """Forget everything about one game: a new one starts there."""
        self.depth[game] = self.turn[game] = 0
        self._forget(np.array([game]))

    def _forget(self, games: NDArray[np.int64]) -> None:
        self._chars[games] = self._colors[games] = self._stored[games] = self.been[games] = 0
        self._planes[:, games] = 0
        self.turns_here[games] = 0
        self.position[games] = -1
        self._peaceful_until[games] = 0
        self.compasses.forget(games)

    def update(
        self,
        chars: NDArray[np.uint8],
        colors: NDArray[np.uint8],
        cell: NDArray[np.int64],
        depth: NDArray[np.int64],
        turn: NDArray[np.int64],
        shown: NDArray[np.bool_],
        told: NDArray[np.uint8],
        previous: NDArray[np.integer],
    ) -> NDArray[np.bool_]:
        """Take in a screen of every game.

        chars, colors: (games, 1920), contiguous; cell: (games,) cursor as 80 * line + column;
        depth, turn: (games,) numbers of the bottom line; shown: (games,) whether the screen may
        show the map with the cursor on the hero; told: (games,) what the message says about the
        ground (`nethack_text.TOLD`); previous: (games,) action that led here.

        Returns where the map is shown; the memory of other games stays as it is.
        """
        above = np.arange(0, chars.size, _CELLS) + np.maximum(cell, 81) - 81
        slash = chars.reshape(-1).take(above) == _STOMACH[0]
        if slash.any():
            stomach = (chars.reshape(-1)[above[:, None] + np.arange(3)] == _STOMACH).all(axis=1)
            shown = shown & ~(stomach & (cell >= 2 * COLUMNS))
        arrived = shown & ((depth != self.depth) | (turn < self.turn))
        if arrived.any():
            self._forget(_where(arrived))
            self.depth = np.where(arrived, depth, self.depth)
        self.turns_here += np.where(shown, turn - self.turn, 0)
        self.turn = np.where(shown, turn, self.turn)
        self._move_to(cell, shown)
        self._read_map(chars, colors, shown)
        if told.any():
            self._be_told(told, previous, shown)
        calmed = _where(shown & (self._peaceful_until > 0) & (turn > self._peaceful_until))
        if calmed.size:
            self._planes[Plane.PEACEFUL, calmed] = 0
            self._peaceful_until[calmed] = 0
            self._stale[calmed] = True
        if self._stale.any():
            exhausted = self.compasses.update(
                self._stale, self._planes, self.position, self._changed, self._ground_changed
            )
            self._planes[Plane.SEARCHED, exhausted] = 0
            self._stale[:] = self._changed[:] = self._ground_changed[:] = False
        return shown

    def _read_map(
        self, chars: NDArray[np.uint8], colors: NDArray[np.uint8], shown: NDArray[np.bool_]
    ) -> None:
        # Most of a screen is as before: compare eight cells at a time, then look at what differs.
        new_chars, old_chars = chars.view(np.uint64), self._chars.view(np.uint64)
        new_colors, old_colors = colors.view(np.uint64), self._colors.view(np.uint64)
        first, last = COLUMNS // 8, COLUMNS // 8 * (ROWS + 1)
        differs = new_chars ^ old_chars
        differs |= new_colors ^ old_colors
        differs[:, :first] = differs[:, last:] = 0
        differs[~shown] = 0
        word = differs.reshape(-1).nonzero()[0]
        if not word.size:
            return
        text, ink = new_chars.reshape(-1).take(word), new_colors.reshape(-1).take(word)
        old_chars.reshape(-1)[word], old_colors.reshape(-1)[word] = text, ink
        code = ink.view(np.uint8).astype(np.uint16) << 8
        code |= text.view(np.uint8)
        stored = self._stored.reshape(-1, 8)
        before = stored.take(word, axis=0).reshape(-1)
        after = _TRANSITIONS.take(_PLACE_OF_CODE.take(code) + (before & _REMEMBERED))
        stored[word] = after.reshape(-1, 8)
        before ^= after
        cell = before.nonzero()[0]
        changed = before.take(cell)
        game, cell = np.divmod(8 * word.take(cell >> 3) + (cell & 7), _CELLS)
        self._stale[game] = self._changed[game] = True
        self._ground_changed[game[changed & _REMEMBERED != 0]] = True
        bits = np.unpackbits(changed.view(np.uint8), bitorder="little").nonzero()[0]
        which, plane = bits >> 4, bits & 15
        line, column = np.divmod(cell, COLUMNS)
        place = (COLUMNS * game + column).take(which) + self._planes[0].size * plane
        np.bitwise_xor.at(self._planes.reshape(-1), place, bit_of(line).take(which))
        touched = np.zeros(self.games, bool)
        touched[word // _WORDS] = True
        self._shun(touched)

    def _shun(self, touched: NDArray[np.bool_]) -> None:
        """What never moves is remembered where the hero, a cell away, no longer sees it."""
        either = self._planes[Plane.SHUNNED_NOW] | self._planes[Plane.SHUNNED]
        games = (either.any(axis=1) & touched).nonzero()[0]
        if not games.size:
            return
        now, before = self._planes[Plane.SHUNNED_NOW, games], self._planes[Plane.SHUNNED, games]
        near = dilate(single(self.position[games]))
        after = (before & ~near | now) & ~self._planes[Plane.STATUE, games]
        self._planes[Plane.SHUNNED, games] = after
        differs = (after != before).any(axis=1)
        self._stale[games] |= differs
        self._changed[games] |= differs
        self._ground_changed[games] |= differs

    def _move_to(self, cell: NDArray[np.int64], shown: NDArray[np.bool_]) -> None:
        moved = _where(shown & (cell != self.position))
        if moved.size:
            self.position[moved] = cell[moved]
            self.turns_here[moved] = 0
            self.been[moved, cell[moved]] = 1
            self._mark(Plane.VISITED, moved, cell[moved])
        waited = _where(shown & (self.turns_here >= nethack_map.SEARCHED_TURNS))
        if waited.size:
            self._mark(Plane.SEARCHED, waited, self.position[waited])

    def _be_told(
        self,
        told: NDArray[np.uint8],
        previous: NDArray[np.integer],
        shown: NDArray[np.bool_],
    ) -> None:
        for name, plane in (("out of a door", Plane.TOLD_DOOR), ("statue", Plane.STATUE)):
            here = _where(shown & (told == TOLD.index(name)))
            self._mark(plane, here, self.position[here])
        shops = _where(shown & (told == TOLD.index("shut")))
        if shops.size:
            near = dilate(single(self.position[shops]))
            self._planes[Plane.BARRED, shops] |= near & self._planes[Plane.CLOSED, shops]
            self._stale[shops] = self._changed[shops] = self._ground_changed[shops] = True
        asked = told == TOLD.index("peaceful")  # a question: the map is not shown
        self._peaceful_until = np.where(asked, self.turn + PEACEFUL_TURNS, self._peaceful_until)
        for name, plane in (
            ("into a door", Plane.TOLD_DOOR),
            ("barred", Plane.BARRED),
            ("", Plane.PEACEFUL),
        ):
            games = asked if plane == Plane.PEACEFUL else shown & (told == TOLD.index(name))
            games = _where(games & (previous < 8) & (self.position >= 0))
            ahead = self.position[games] + _OFFSETS[previous[games]]
            line, column = np.divmod(ahead, COLUMNS)
            inside = (line >= 1) & (line <= ROWS) & (column < COLUMNS - 1)
            self._mark(plane, games[inside], ahead[inside])

    def _mark(self, plane: int, games: NDArray[np.int64], cell: NDArray[np.int64]) -> None:
        line, column = np.divmod(cell, COLUMNS)
        words = self._planes[plane].reshape(-1)
        place, bit = COLUMNS * games + column, bit_of(line)
        before = words.take(place)
        new = games[before & bit == 0]
        self._stale[games if plane == Plane.VISITED else new] = True
        self._changed[new] = self._ground_changed[new] = True
        words[place] = before | bit

    def sets(self, game: int) -> dict[str, int]:
        """The sets of one game, by name, as `LevelMemory` writes them."""
        words = {plane.name.lower(): self._planes[plane, game] for plane in Plane}
        rows = np.arange(ROWS, dtype=np.uint32)[:, None]
        return {name: nethack_cells.from_array(word >> rows & 1) for name, word in words.items()}
