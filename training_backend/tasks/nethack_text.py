"""The lines of a NetHack screen as small numbers: message words and the bottom line.

Lines repeat, so each distinct one is read once and remembered by its bytes.
"""

import re
from math import log2
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks import nethack_map

WORDS: Final = 8
"""Words kept of a message."""
WORD_IDS: Final = 256
"""Word ids; 0 stands for no word."""
_REMEMBERED: Final = 1 << 16

_WORD: Final = re.compile(rb"[A-Za-z]+|\[\W?\w|\?")
_IDLE: Final = frozenset(b"you your the a an is are it its of to there here this that see".split())
TOLD: Final = ("", "out of a door", "statue", "shut", "into a door", "barred", "peaceful")
"""What a message can say about cells: the hero's own (the first two), the doors around it, or the
cell ahead (the last three)."""
LACKS: Final = ("food", "drink")
"""What the hero is told to have none of."""

STATUS: Final = (
    "hit points left",
    "hit points below 0.6",
    "hit points below 1/3",
    "hit points at most 1/7 or below 6",
    "hit points",
    "most hit points",
    "dungeon level",
    "experience level",
    "armour class",
    "satiated",
    "hungry",
    "weak or fainting",
    "confused, stunned or hallucinating",
    "blind",
    "ill",
    "burdened",
)
"""The numbers read off the bottom line, in order."""
STATUS_SCALE: Final = 64
"""A stored number of 64 stands for 1."""


def message_words(line: bytes) -> tuple[int, ...]:
    """Ids of the first words of a message that say something: 1 + crc32 of the word mod 255."""
    words = (word.lower() for word in _WORD.findall(line))
    ids = [1 + crc32(word) % (WORD_IDS - 1) for word in words if word not in _IDLE][:WORDS]
    return (*ids, *(0,) * (WORDS - len(ids)))


_VITALS: Final = re.compile(
    rb"(?:Dlvl:(\d+))?.*?HP:(-?\d+)\((\d+)\).*?AC:(-?\d+) +(?:Xp|Exp|HD):(\d+)"
)
_DEPTH: Final = re.compile(rb"Dlvl:(\d+)")
_CONDITIONS: Final = tuple(
    frozenset(words.split())
    for words in (
        b"Satiated",
        b"Hungry",
        b"Weak Fainting Fainted",
        b"Conf Stun Hallu",
        b"Blind",
        b"Ill FoodPois TermIll Slime Stone Strngl",
        b"Burdened Stressed Strained Overtaxed Overloaded",
    )
)


def bottom_numbers(before: bytes, after: bytes) -> tuple[int, ...] | None:
    """The numbers of `STATUS`, from the bottom line before and after the turn counter.

    None where the line is not a bottom line (a menu covers it).
    """
    found = _VITALS.search(before)
    if found is None:
        return None
    depth, points, most, armour, level = (int(text or 0) for text in found.groups())
    points, most = max(points, 0), max(most, 1)
    words = after.split()
    return (
        round(2 * STATUS_SCALE * min(points / most, 1)),
        STATUS_SCALE * (10 * points < 6 * most),
        STATUS_SCALE * (3 * points < most),
        STATUS_SCALE * (7 * points <= most or points < 6),
        min(points, 255),
        min(most, 255),
        min(16 * depth, 255),
        min(16 * level, 255),
        min(max(8 * (20 - armour), 0), 255),
        *(STATUS_SCALE * (not names.isdisjoint(words)) for names in _CONDITIONS),
    )


def turn_number(turns: int) -> int:
    """A number of turns on a logarithmic scale: 16 a doubling, at most 255."""
    return min(round(16 * log2(1 + max(turns, 0))), 255)


def _about_cell(line: bytes) -> str:
    """Which of `TOLD` a message says, as `LevelMemory` reads it."""
    if b"diagonally out of an intact" in line:
        return "out of a door"
    if b"You see here a statue" in line:
        return "statue"
    if b"You read: " in line:
        return "shut"  # mostly "Closed for inventory"
    if b"diagonally into an intact" in line:
        return "into a door"
    if b"Really attack" in line:
        return "peaceful"
    return "barred" if nethack_map.IN_THE_WAY.search(line) else ""


class Messages(NamedTuple):
    """The first lines of some screens."""

    words: NDArray[np.uint8]
    """(games, 8) word ids."""
    elsewhere: NDArray[np.bool_]
    """(games,) whether the cursor chooses a place on the map."""
    prays: NDArray[np.bool_]
    """(games,) whether the hero has just begun to pray."""
    told: NDArray[np.uint8]
    """(games,) number of what it says in `TOLD`."""
    lacks: NDArray[np.bool_]
    """(games, 2) what the hero has none of, by `LACKS`."""


class Lines:
    """Reads the first and the last line of many screens at a time."""

    def __init__(self) -> None:
        self._messages: dict[bytes, int] = {}
        self._words = np.zeros((_REMEMBERED, WORDS), np.uint8)
        self._elsewhere = np.zeros(_REMEMBERED, bool)
        self._prays = np.zeros(_REMEMBERED, bool)
        self._told = np.zeros(_REMEMBERED, np.uint8)
        self._lacks = np.zeros((_REMEMBERED, len(LACKS)), bool)
        self._bottoms: dict[tuple[bytes, bytes], int] = {}
        self._recent: dict[bytes, tuple[int, int]] = {}
        """What was read off the lines of the last call: many are the same in the next."""
        self._numbers = np.zeros((_REMEMBERED, len(STATUS)), np.uint8)
        self._depths = np.zeros(_REMEMBERED, np.int64)
        self._valid = np.zeros(_REMEMBERED, bool)

    def messages(self, lines: NDArray[np.uint8]) -> Messages:
        """Read first lines (games, 80)."""
        known = self._messages
        keys: list[bytes] = np.ascontiguousarray(lines).view("V80").ravel().tolist()
        rows = [known.get(key, -1) for key in keys]
        if -1 in rows:
            rows = [self._learn_message(key) for key in keys]
        rows = np.array(rows)
        return Messages(
            self._words.take(rows, axis=0),
            self._elsewhere.take(rows),
            self._prays.take(rows),
            self._told.take(rows),
            self._lacks.take(rows, axis=0),
        )

    def _learn_message(self, line: bytes) -> int:
        row = self._messages.get(line)
        if row is None:
            row = len(self._messages)
            self._messages[line] = row
            self._words[row] = message_words(line)
            self._elsewhere[row] = line.startswith(nethack_map.PLACE_QUESTIONS)
            self._prays[row] = line.startswith(b"You begin praying")
            self._told[row] = TOLD.index(_about_cell(line))
            self._lacks[row] = [b"anything to " + verb in line for verb in (b"eat", b"drink")]
        return row

    def bottom(
        self, lines: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """Last lines (games, 80) -> the numbers of `STATUS` (games, 16), depth of the
        level (0 where it has no number), turn (-1 where there is no bottom line)."""
        recent, self._recent = self._recent, {}
        read: list[tuple[int, int]] = []
        for line in np.ascontiguousarray(lines).view("V80").ravel().tolist():
            found = recent.get(line) or self._recent.get(line) or self._read_bottom(line)
            self._recent[line] = found
            read.append(found)
        rows, turns = np.array(read).T
        return self._numbers.take(rows, axis=0), self._depths.take(rows), turns

    def _read_bottom(self, line: bytes) -> tuple[int, int]:
        """Row of a bottom line in the tables, and its turn."""
        before, _, rest = line.partition(b" T:")
        turn, _, after = rest.partition(b" ")
        row = self._bottoms.get((before, after))
        if row is None:
            row = self._learn_bottom(before, after)
        return row, int(turn) if turn.isdigit() and self._valid[row] else -1

    def _learn_bottom(self, before: bytes, after: bytes) -> int:
        row = len(self._bottoms)
        self._bottoms[before, after] = row
        numbers = bottom_numbers(before, after)
        self._valid[row] = numbers is not None
        if numbers is not None:
            self._numbers[row] = numbers
            depth = _DEPTH.search(before)
            self._depths[row] = int(depth[1]) if depth else 0
        return row

    def forget(self) -> None:
        """Empty the memory where it is nearly full; what is read does not depend on it."""
        if max(len(self._messages), len(self._bottoms)) > _REMEMBERED - 4096:
            self._messages.clear()
            self._bottoms.clear()
            self._recent.clear()
