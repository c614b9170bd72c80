"""NetHack: the actions, and what an agent sees of a terminal screen.

`Encoder` turns screens into the fields of an observation. Recorded games and running environments
go through it alike, and only what both have enters: characters, colours, cursor, previous action.
"""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks import nethack_cells, nethack_map, nethack_text
from training_backend.tasks.fields import Field
from training_backend.tasks.nethack_compass import TARGETS
from training_backend.tasks.nethack_levels import LevelMaps
from training_backend.tasks.nethack_paths import UNREACHABLE

RADIUS: Final = 4
"""The crop reaches this many cells from the hero."""
CROP: Final = (2 * RADIUS + 1) ** 2
CELL_IDS: Final = 256

SCREENS: Final = ("map", "place", "more", "question", "menu", "other")
"""What the screen waits for: a command, a place on the map, a key to go on, an answer, a choice."""

FLAGS: Final = (
    *(f"{target}: {i}" for target in TARGETS for i in range(8)),
    *(f"{name}: {i}" for name in ("exit", "creature", "heading") for i in range(8)),
    *(f"{target} reachable" for target in TARGETS),
    "on stairs down",
    "on search spot",
    *(f"closed door: {i}" for i in range(4)),
    "foe in view",
    *(f"no {thing}" for thing in nethack_text.LACKS),
)
"""0 or 1. The first eight of a name are directions in the order N, E, S, W, NE, SE, SW, NW; the
heading is the last of the eight moves that was pressed."""

NUMBERS: Final = (
    *nethack_text.STATUS,
    "turn",
    "turn / 32",
    "turns since prayer / 8",
    "turns here",
    "screens without a turn",
    *(f"moves to {target}" for target in TARGETS),
)
FIRST_PRAYER: Final = -700
"""Turn of the prayer that is taken to have been before the game: one may pray from turn 300 on."""


def _keys() -> tuple[int, ...]:
    from nle import nethack

    return tuple(int(action) for action in nethack.ACTIONS)


KEYS: Final = _keys()
"""Key code of every action: `nle.nethack.ACTIONS`, in that order."""
ACTIONS: Final = len(KEYS)
"""Number of actions, 121; an action is an index into `nle.nethack.ACTIONS`."""
NO_ACTION: Final = ACTIONS
"""Stands for the previous action at the first screen of a game, and for a key outside `KEYS`."""


def _actions_of_keys() -> NDArray[np.uint8]:
    table = np.full(256, NO_ACTION, np.uint8)
    for action in reversed(range(ACTIONS)):  # a key that has two names keeps the first
        table[KEYS[action]] = action
    return table


ACTION_OF_KEY: Final = _actions_of_keys()
"""Table of 256 key codes -> action; `NO_ACTION` for a key that is none."""

FIELDS: Final = (
    Field(name="cells", shape=(CROP,), dtype="uint8", vocabulary=CELL_IDS),
    Field(
        name="message",
        shape=(nethack_text.WORDS,),
        dtype="uint8",
        vocabulary=nethack_text.WORD_IDS,
    ),
    Field(name="screen", shape=(), dtype="uint8", vocabulary=len(SCREENS)),
    Field(name="previous", shape=(), dtype="uint8", vocabulary=ACTIONS + 1),
    Field(name="flags", shape=(len(FLAGS),), dtype="uint8"),
    Field(name="numbers", shape=(len(NUMBERS),), dtype="uint8", scale=nethack_text.STATUS_SCALE),
)

_WARM: Final = frozenset((1, 3, 5, 9, 11, 13))
_COOL: Final = frozenset((2, 4, 6, 10, 12, 14))


def _cell_table() -> NDArray[np.uint8]:
    """Table of visited * 65536 + 256 * colour + character -> cell id.

    Letters come in three groups of colours, other creatures in one; ground and objects are plain or
    coloured where the colour tells them apart, and visited or not where one can stand on them.
    """
    table = np.zeros((2, 256, 256), np.uint8)
    ids: dict[tuple[str, int, int], int] = {}
    kinds = nethack_map.KINDS.reshape(256, 256)
    for code in range(33, 127):
        character = chr(code)
        for colour in range(16):
            kind = kinds[colour, code]
            place = kind & (nethack_map.FLOOR | nethack_map.OBJECT | nethack_map.OPEN)
            if character.isalpha() or character == "@":
                group = 1 if colour in _WARM else 2 if colour in _COOL else 0
            elif character in "-|+#.^_}{":
                group = int(colour not in (7, 8, 15))
            else:
                group = 0
            name = "1" if character.isdigit() and character != "0" else character
            for visited in (0, 1):
                key = name, group, visited if place else 0
                table[visited, colour, code] = ids.setdefault(key, len(ids) + 1)
    if len(ids) >= CELL_IDS:
        raise AssertionError(f"{len(ids)} cell ids do not fit into {CELL_IDS}")
    return table.reshape(-1)


def _crop_tables() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """For each screen cell: the cells of the crop around it, and whether they are on the map."""
    reach = np.arange(-RADIUS, RADIUS + 1)
    line, column = np.divmod(np.arange(24 * 80), 80)
    lines = line[:, None, None] + reach[:, None] + 0 * reach
    columns = column[:, None, None] + 0 * reach[:, None] + reach
    inside = (lines >= 1) & (lines <= nethack_cells.ROWS) & (columns >= 0) & (columns < 79)
    cells = np.where(inside, 80 * lines + columns, 0)
    return cells.reshape(-1, CROP), inside.reshape(-1, CROP).astype(np.uint8)


_CELL_OF_CODE: Final = _cell_table()
_CROP_CELLS, _CROP_INSIDE = _crop_tables()
_CREATURE_CELLS: Final = np.zeros(CELL_IDS, np.uint8)
_CREATURE_CELLS[_CELL_OF_CODE[:65536][nethack_map.KINDS & nethack_map.CREATURE != 0]] = 1
_CREATURE_CELLS[0] = 0
_AROUND: Final = np.array(
    [
        (RADIUS + row) * (2 * RADIUS + 1) + RADIUS + column
        for row, column in nethack_cells.DIRECTIONS
    ]
)
_LOG: Final = np.array([nethack_text.turn_number(i) for i in range(1 << 16)], np.uint8)
_DIRECTIONS: Final = np.arange(8)
_BEFORE: Final = np.arange(-8, 0)
_MORE: Final = np.frombuffer(b"--More--", np.uint64)[0]


def _name_of_encoding() -> str:
    digest = hashlib.sha256(repr((FIELDS, FLAGS, NUMBERS, TARGETS, KEYS)).encode())
    digest.update(repr((nethack_map.IN_THE_WAY.pattern, nethack_text.TOLD)).encode())
    for table in (nethack_map.KINDS, _CELL_OF_CODE, _LOG):
        digest.update(table.tobytes())
    return f"nethack-{_VERSION}-{digest.hexdigest()[:8]}"


_VERSION: Final = 1  # raised when the encoding changes in a way that its tables do not show
ENCODING: Final = _name_of_encoding()
"""Names what `Encoder` does; shards that another encoding made are not read."""


class Encoder:
    """What agents in `games` games side by side see, screen after screen.

    It remembers of each game what its screens showed: the map of the level with the places where
    the hero has been, and the turn of the last prayer. One game's observations do not depend on
    the others beside it.

    >>> encoder = Encoder(1)
    >>> screen = np.full((1, 24, 80), 32, np.uint8)
    >>> fields = encoder.encode(
    ...     screen, np.zeros((1, 24, 80), np.int8), np.zeros((1, 2)), np.array([NO_ACTION])
    ... )
    >>> fields["cells"].shape
    (1, 81)
    """

    fields: Final = FIELDS

    def __init__(self, games: int) -> None:
        self.games = games
        self._maps = LevelMaps(games)
        self._lines = nethack_text.Lines()
        self._turn = np.zeros(games, np.int64)
        self._prayer = np.full(games, FIRST_PRAYER, np.int64)
        self._heading = np.full(games, 8, np.int64)
        self._lacks = np.zeros((games, len(nethack_text.LACKS)), bool)
        self._still = np.zeros(games, np.int64)
        self._first = 24 * 80 * np.arange(games)

    def reset(self, game: int) -> None:
        """Game number `game` starts anew with the next screen."""
        self._maps.reset(game)
        self._turn[game] = self._still[game] = 0
        self._prayer[game] = FIRST_PRAYER
        self._heading[game] = 8
        self._lacks[game] = False

    def encode(
        self,
        chars: NDArray[np.uint8],
        colors: NDArray[np.int8],
        cursor: NDArray[np.integer],
        previous: NDArray[np.integer],
    ) -> dict[str, NDArray[np.uint8]]:
        """The observations of the next screen of every game.

        chars, colors: (games, 24, 80) as in `tty_chars` and `tty_colors`; cursor: (games, 2) line
        and column; previous: (games,) action that led here, `NO_ACTION` at a game's start.
        Returns new arrays, one a field, with the games as leading axis.
        """
        games = self.games
        chars = np.ascontiguousarray(chars).reshape(games, 24 * 80)
        ink = np.ascontiguousarray(colors).view(np.uint8).reshape(games, 24 * 80)
        line, column = cursor[:, 0].astype(np.int64), cursor[:, 1].astype(np.int64)
        cell = np.minimum(80 * line + column, 24 * 80 - 1)
        flat = chars.reshape(-1)
        self._lines.forget()
        message = self._lines.messages(chars[:, :80])
        elsewhere = message.elsewhere
        status, depth, turn = self._lines.bottom(chars[:, 23 * 80 :])

        inside = (line >= 1) & (line <= nethack_cells.ROWS) & (column < 79)
        timed = turn >= 0
        shown = inside & (flat.take(self._first + cell) > 32) & ~elsewhere & timed
        maps = self._maps
        shown = maps.update(chars, ink, cell, depth, turn, shown, message.told, previous)

        before = flat.take((self._first + cell)[:, None] + _BEFORE).view(np.uint64)[:, 0]
        screen = np.full(games, SCREENS.index("other"), np.uint8)
        screen[before >> np.uint64(56) == ord(")")] = SCREENS.index("menu")
        screen[line == 0] = SCREENS.index("question")
        screen[before == _MORE] = SCREENS.index("more")
        screen[inside & elsewhere] = SCREENS.index("place")
        screen[shown] = SCREENS.index("map")

        self._still += 1
        self._still[timed & (turn != self._turn)] = 0
        np.copyto(self._turn, turn, where=timed)
        np.copyto(self._prayer, self._turn, where=message.prays)
        self._lacks |= message.lacks
        np.copyto(self._heading, previous, where=previous < 8)

        centre = np.where(maps.position >= 0, maps.position, cell)
        at = _CROP_CELLS.take(centre, axis=0)
        at += self._first[:, None]
        code = maps.been.reshape(-1).take(at).astype(np.int64)
        code <<= 8
        code |= ink.reshape(-1).take(at)
        code <<= 8
        code |= flat.take(at)
        cells = _CELL_OF_CODE.take(code)
        cells *= _CROP_INSIDE.take(centre, axis=0)

        ways = maps.compasses
        directions = np.concatenate((ways.moves, ways.exits[None], ways.closed_doors[None]))
        bits = np.unpackbits(directions.T, axis=1, bitorder="little")
        reachable = ways.distance.T != UNREACHABLE
        flags = np.concatenate(
            (
                bits[:, : 8 * len(TARGETS) + 8],
                _CREATURE_CELLS.take(cells.take(_AROUND, axis=1)),
                self._heading[:, None] == _DIRECTIONS,
                reachable,
                ways.distance[1:3].T == 0,
                bits[:, 8 * len(TARGETS) + 8 : 8 * len(TARGETS) + 12],
                ways.foes[:, None],
                self._lacks,
            ),
            axis=1,
            dtype=np.uint8,
        )

        known = len(nethack_text.STATUS)
        numbers = np.empty((games, len(NUMBERS)), np.uint8)
        numbers[:, :known] = status
        numbers[:, known + 1] = np.minimum(self._turn >> 5, 255)
        numbers[:, known + 2] = np.minimum(self._turn - self._prayer >> 3, 255)
        counts = np.empty((games, 3 + len(TARGETS)), np.int64)
        counts[:, 0] = self._turn
        counts[:, 1] = maps.turns_here
        counts[:, 2] = self._still
        counts[:, 3:] = ways.distance.T
        np.maximum(counts, 0, out=counts)
        logs = _LOG.take(np.minimum(counts, len(_LOG) - 1, out=counts))
        numbers[:, known] = logs[:, 0]
        numbers[:, known + 3 :] = logs[:, 1:]
        return {
            "cells": cells,
            "message": message.words,
            "screen": screen,
            "previous": previous.astype(np.uint8),
            "flags": flags,
            "numbers": numbers,
        }
