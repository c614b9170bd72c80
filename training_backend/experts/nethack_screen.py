"""What one terminal screen of NetHack says: messages, questions, the bottom line, creatures."""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import COLUMNS

_STATUS: Final = re.compile(
    rb"Dlvl:(\d+).*?HP:(-?\d+)\((\d+)\).*?(?:Xp:(\d+)|HD:\d+).*?T:(\d+)(.*)"
)
_PETS: Final = {("d", 15), ("f", 15)}


@dataclass(frozen=True, slots=True)
class Creature:
    """A creature on the map."""

    letter: str
    color: int
    """0 to 15; 8 and above are the bright colours."""
    place: int
    """Its cell, as a bitset of one member."""

    @property
    def is_gas_spore(self) -> bool:
        """Whether it explodes when it dies, for 4d6."""
        return self.letter == "e" and self.color == 7

    @property
    def is_pet(self) -> bool:
        """Whether it looks like the dog or the cat that the hero starts with."""
        return (self.letter, self.color) in _PETS


class Screen:
    """One observation, read.

    Attributes: the arrays `chars` and `colors` (24, 80) and `cursor` (row, column); `text`, the
    characters as bytes; `message`, the first line; from the bottom line `depth`, `health`,
    `max_health`, experience `level`, `turn` and the words behind them, `conditions`.
    """

    __slots__ = (
        "chars",
        "colors",
        "conditions",
        "cursor",
        "depth",
        "has_status",
        "health",
        "level",
        "max_health",
        "message",
        "text",
        "turn",
    )

    def __init__(
        self, chars: NDArray[np.uint8], colors: NDArray[np.int8], cursor: NDArray[np.uint8]
    ) -> None:
        self.chars, self.colors, self.cursor = chars, colors, cursor
        self.text = chars.tobytes()
        self.message = self.text[:COLUMNS].rstrip()
        match = _STATUS.search(self.text, 23 * COLUMNS)
        self.has_status = match is not None
        self.depth, self.health, self.max_health, self.level, self.turn = 1, 1, 1, 1, 0
        self.conditions = b""
        if match:
            depth, health, most, level, turn, self.conditions = match.groups()
            self.depth, self.health, self.max_health = int(depth), int(health), int(most)
            self.level, self.turn = int(level or 1), int(turn)

    @property
    def is_hungry(self) -> bool:
        """Whether the bottom line says Hungry, the first stage."""
        return b"Hungry" in self.conditions

    @property
    def is_weak(self) -> bool:
        """Whether the hero is weak from hunger, or worse."""
        return b"Weak" in self.conditions or b"Faint" in self.conditions

    @property
    def is_dazed(self) -> bool:
        """Whether the hero is blind, confused or stunned."""
        return any(word in self.conditions for word in (b"Blind", b"Conf", b"Stun"))

    @property
    def is_wounded(self) -> bool:
        """Whether less than 60 % of the hit points are left."""
        return self.health * 10 < self.max_health * 6

    @property
    def wants_more(self) -> bool:
        """Whether the game waits for a key before it says more."""
        return b"--More--" in self.text

    @property
    def has_corridors(self) -> bool:
        """Whether the level shows corridors: the Gnomish Mines and their town have none."""
        return bool(((self.chars[1:22] == ord("#")) & (self.colors[1:22] == 7)).any())

    @property
    def is_menu(self) -> bool:
        """Whether a menu or a list covers the map."""
        return b"(end)" in self.text or re.search(rb"\(\d+ of \d+\)", self.text) is not None

    def creature(self, place: int) -> Creature:
        """The creature that the screen shows on a cell."""
        at = place.bit_length() - 1 + COLUMNS
        return Creature(
            chr(self.text[at]), int(self.colors[at // COLUMNS, at % COLUMNS]) & 15, place
        )
