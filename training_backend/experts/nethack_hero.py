"""What a scripted player of NetHack knows, remembers and can decide about the next key."""

import re
from typing import Final

from training_backend.experts.nethack_screen import Creature, Screen
from training_backend.tasks.nethack_cells import cells_of, shift
from training_backend.tasks.nethack_map import LevelMemory

MOVES: Final = "kljhunby"
"""Keys of the moves N, E, S, W, NE, SE, SW, NW."""
ESCAPE: Final = "\x1b"
RETURN: Final = "\r"
KICK: Final = "\x04"
PRAY: Final = chr(ord("p") | 0x80)
_NO_PRAYER_YET: Final = -700
"""Turn of the last prayer when the game begins: the first one is safe from about turn 100 on."""
_PEACE_TURNS: Final = 10
"""Turns for which a cell is left alone after a peaceful creature was met there."""
_PET_BITES_HERO: Final = re.compile(
    rb"The (kitten|housecat|large cat|little dog|dog|large dog) (bites|misses|just misses)!"
)


class Hero:
    """State of one game as its player sees it: the level, what was learnt on it, what is carried.

    Beyond the knowledge of the level, which an agent gets too, it holds little: turns and counts
    that keep the player from doing the same thing for ever.
    """

    def __init__(self) -> None:
        self.level = LevelMemory()
        self.reset()

    def reset(self) -> None:
        """A new game begins."""
        self.level.reset()
        self.heading = -1
        """Direction of the last move key; -1 before the first."""
        self.last_prayer = _NO_PRAYER_YET
        self.feverish = False
        """Bitten by a werecreature, which prayer heals."""
        self.has_food = True
        self.has_potions = True
        self.missiles = "hgicd"
        """Inventory letters of what may be thrown: fruit, cookies, the book and the scroll."""
        self.throw_direction = ""
        """Move key of the throw that is under way."""
        self.meal: tuple[bytes, int, int] | None = None
        """The last fresh corpse that is good to eat: its name, its cell, the turn."""
        self.picks_up = True
        """Whether NetHack picks up what the hero walks over."""
        self.shop_depth = 0
        """Dungeon level on which that was last switched."""
        self.idle = 0
        """Decisions since anything changed."""
        self._before = (0, 0, 0)
        self._said = b""
        self._struck: Creature | None = None
        self._stood_on: Creature | None = None
        self._depth = 0
        self._forget_level()

    def _forget_level(self) -> None:
        self.peaceful: dict[int, int] = {}
        """Cells where a creature turned out to be peaceful, and the turn."""
        self.refused = 0
        """Cells that will not open or move."""
        self.statues = 0
        self.hidden_stairs = 0
        """Stairs down that lie under an object."""
        self.travelled = 0
        """Cells from which the travel command has been tried."""
        self.chases = 0
        """Steps towards creatures out of reach."""
        self.kicks = 0
        """Kicks at the door beside the hero."""
        self.fierce = False
        """Whether the dogs and cats of this level bite the hero."""
        self.foes: list[Creature] = []
        """Creatures in view that may be fought."""
        self.blocked = 0
        """Cells to walk around."""

    def read(self, screen: Screen, previous_action: int) -> None:
        """Take in a screen; to be called for every observation."""
        self.level.update(screen.chars, screen.colors, screen.cursor, previous_action)
        if self.level.depth != self._depth:
            self._depth = self.level.depth
            self._forget_level()
        self._said += screen.text if screen.wants_more else screen.message
        if _PET_BITES_HERO.search(screen.message):
            self.fierce = True

    def consider(self, screen: Screen) -> None:
        """Draw the conclusions that a decision needs; to be called before every decision."""
        now = (self.level.position, self.level.known, screen.turn)
        self.idle = self.idle + 1 if now == self._before else 0
        self._before = now
        if not screen.wants_more:
            self._learn_of_cell(screen)
        self._sort_creatures(screen)

    def _learn_of_cell(self, screen: Screen) -> None:
        """What was said on the way here, over all of its --More--, is about the hero's cell."""
        here = self.level.position
        if b"staircase down here" in self._said:
            self.hidden_stairs |= here
        if self._struck is not None:
            if here == self._struck.place:
                self._stood_on = self._struck  # a blow at a creature would not move the hero
            self._struck = None
        elif self._stood_on is not None and here != self._stood_on.place:
            if screen.creature(self._stood_on.place) == self._stood_on:
                self.statues |= self._stood_on.place
            self._stood_on = None
        self._said = b""

    def _sort_creatures(self, screen: Screen) -> None:
        self.foes, self.blocked = [], self.refused
        peaceful = 0
        for place, turn in self.peaceful.items():
            if screen.turn <= turn + _PEACE_TURNS:
                peaceful |= place
        self.blocked |= peaceful
        apart = self.level.shunned | peaceful | self.statues
        for place in cells_of(self.level.creatures & ~apart):
            creature = screen.creature(place)
            if creature.is_gas_spore and screen.health <= 25:
                self.blocked |= place
            elif self.fierce or not creature.is_pet:
                self.foes.append(creature)

    @property
    def stairs(self) -> int:
        """Known stairs down, also those under an object."""
        return self.level.stairs_down | self.hidden_stairs

    def ahead(self) -> int:
        """The cell in the direction of the last move; empty before the first."""
        return shift(self.level.position, self.heading) if self.heading >= 0 else 0

    def compass(self, targets: int) -> tuple[int, int]:
        """Moves and distance to the nearest target, around what is blocked."""
        return self.level.compass(targets, self.blocked)

    def choose(self, moves: int) -> str:
        """Key of one of the moves: straight on if that is among them, else the first."""
        if self.heading >= 0 and moves >> self.heading & 1:
            return MOVES[self.heading]
        return MOVES[(moves & -moves).bit_length() - 1]

    def step_towards(self, targets: int) -> str | None:
        """Key of the next step to the nearest target; None on it, or where none is reached."""
        moves, distance = self.compass(targets)
        return self.choose(moves) if distance > 0 else None

    def beside(self, targets: int) -> int:
        """Directions of the targets on the eight cells around the hero."""
        here = self.level.position
        return sum(1 << i for i in range(8) if shift(here, i) & targets)

    def strike(self, screen: Screen, moves: int) -> str:
        """Key of a blow in one of the directions."""
        key = self.choose(moves)
        self._struck = screen.creature(shift(self.level.position, MOVES.index(key)))
        return key

    def refuse(self, cells: int) -> None:
        """Try no longer to get through these cells, while the hero is on this level."""
        self.refused |= cells
        self.blocked |= cells

    def beside_cells(self, moves: int) -> int:
        """The cells in some of the eight directions."""
        cells = 0
        for i in range(8):
            if moves >> i & 1:
                cells |= shift(self.level.position, i)
        return cells
