"""What a player of NetHack can know of the current level, from the terminal screen alone.

The scripted expert decides on this knowledge, and the encoder of the cloned agent shows it to the
network, so an agent sees what its teacher decided on: where it has been, where the map is not yet
explored, and which way leads there. Sets of cells are the integers of `nethack_cells`.
"""

import re
import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training_backend.tasks.nethack_cells import (
    CELLS,
    COLUMNS,
    MAP,
    ROWS,
    Distances,
    dilate,
    shift,
)

SEARCHED_TURNS: Final = 12
"""Turns spent on one cell after which the walls around it count as searched: a turn finds a hidden
neighbour with probability 1/7, so 12 leave 16 % unfound."""

FLOOR, OBJECT, OPEN, CLOSED, WALL, TRAP, CREATURE, SHUN = (1 << i for i in range(8))
"""Kinds of screen cell; every kind is one bit, so that one pass over the screen finds all sets."""
_RED, _GREEN, _BROWN, _BLUE, _CYAN, _YELLOW = 1, 2, 3, 4, 6, 11


def _kinds() -> NDArray[np.uint8]:
    """Table of 256 * colour + character -> kind; a blank cell has none."""
    table = np.zeros((256, 256), np.uint8)

    def put(characters: str, kind: int, *colours: int) -> None:
        for colour in colours or range(16):
            table[colour, [ord(c) for c in characters]] = kind

    put("".join(map(chr, range(33, 127))), CREATURE)
    put(r".#{_\<>", FLOOR)
    put(')[="(%!?+/$*,', OBJECT)
    put("-|`}0", WALL)  # boulders are grave accents; water and lava
    put("|-", OPEN, _BROWN)
    put("+", CLOSED, _BROWN)
    put("#", WALL, _GREEN, _CYAN)  # trees, iron bars
    put("0_", OBJECT, _CYAN)  # iron ball and chain
    put("^", TRAP)
    put("F", CREATURE | SHUN, _RED, _GREEN, _BROWN, _YELLOW)  # molds
    put("e", CREATURE | SHUN, _BLUE)  # floating eye
    put("j", CREATURE | SHUN, _BLUE, _GREEN)  # blue and spotted jelly
    return table.reshape(-1)


KINDS: Final = _kinds()
"""Kind bits of a screen cell, by 256 * colour + character."""
_LOW: Final = 0 if sys.byteorder == "little" else 1
_PLANES: Final = (1 << np.arange(8, dtype=np.uint8))[:, None]
IN_THE_WAY: Final = re.compile(
    rb"solid stone|You can't open anything|It's a wall|diagonally into an intact"
    rb"|boulder, but in vain|boulder in your way|carrying too much to get through"
    rb"|There's not enough room|A boulder blocks your path"
    rb"|Perhaps that's why you cannot move past it|some iron bars|You are carrying too much"
)
"""What the game says when the cell ahead cannot be entered."""
PLACE_QUESTIONS: Final = b"Where do you want to", b"Pick ", b"(For instructions", b"Cannot find"
"""Beginnings of the first line while the cursor chooses a place and has left the hero."""


def _places(text: bytes, character: bytes) -> int:
    """The cells that show a character which is rare on a map."""
    cells = 0
    at = text.find(character)
    while at >= 0:
        cells |= 1 << at
        at = text.find(character, at + 1)
    return cells


class LevelMemory:
    """Map of the level that the hero is on, as far as the screens since arrival show it.

    Call `update` once for every observation of a game, in order; read the attributes after it.
    All sets are bitsets (see the module). A new dungeon level on the bottom line, or a call of
    `reset`, forgets the old level.
    """

    __slots__ = (
        "_chars",
        "_colors",
        "_fields",
        "_frontier",
        "_reachable",
        "_spots",
        "_status",
        "barred",
        "boulders",
        "closed_doors",
        "creatures",
        "depth",
        "floor",
        "gold",
        "known",
        "objects",
        "open_doors",
        "position",
        "searched",
        "shunned",
        "stairs_down",
        "statues",
        "traps",
        "turn",
        "turns_here",
        "visited",
        "walls",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new game starts."""
        self.depth = 0
        """Number after `Dlvl:`; 0 before the first map and where the level has no number."""
        self.turn = 0
        """Number after `T:`."""
        self.position = 0
        """The hero's cell."""
        self._status = b""
        self._forget_level()

    def _forget_level(self) -> None:
        self._chars = b""
        self._colors = b""
        self.known = 0
        """Cells that have shown anything."""
        self.floor = 0
        """Cells that showed floor, a doorway, a corridor, stairs, furniture or an object."""
        self.open_doors = 0
        """Open doors, which cannot be crossed diagonally."""
        self.closed_doors = 0
        """Closed doors; walking into one opens it."""
        self.walls = 0
        self.boulders = 0
        """Boulders, which are walls too: a path does not count on pushing them."""
        self.gold = 0
        """Cells that show gold now."""
        self.stairs_down = 0
        self.creatures = 0
        """Cells that show a creature now, the hero's own left out."""
        self.shunned = 0
        """Cells with what hardly moves and must not be touched: floating eyes, molds, jellies."""
        self.statues = 0
        """Cells with a statue, which looks like a creature."""
        self.objects = 0
        """Cells that show an object now."""
        self.traps = 0
        self.barred = 0
        """Cells that looked passable and were not, by what the game said."""
        self.visited = 0
        """Cells where the hero has stood."""
        self.searched = 0
        """Cells around which the hero has stayed for `SEARCHED_TURNS` or more."""
        self.turns_here = 0
        """Turns since the hero last changed place."""
        self._fields: dict[tuple[int, int, int], Distances] = {}
        self._frontier = -1
        self._spots = -1
        self._reachable = 0

    def update(
        self,
        chars: NDArray[np.uint8],
        colors: NDArray[np.int8],
        cursor: NDArray[np.uint8],
        previous_action: int = -1,
    ) -> bool:
        """Take in one screen: characters (24, 80), colours (24, 80), cursor (row, column).

        The action that led to this screen, an index into `nle.nethack.ACTIONS`, tells which cell
        a message such as "It's solid stone" is about. Returns whether the screen shows the map
        with the cursor on the hero. Anything else (a menu, a question, the choice of a place on
        the map) leaves the memory as it was.
        """
        row, column = int(cursor[0]), int(cursor[1])
        if not 1 <= row <= ROWS or column >= COLUMNS - 1:
            return False
        text = chars[1 : ROWS + 1].tobytes()
        here = COLUMNS * (row - 1) + column
        if text[here] <= 32 or chars[0].tobytes().startswith(PLACE_QUESTIONS):
            return False
        if text[here - COLUMNS - 1 : here - COLUMNS + 2] == b"/-\\" and row > 1:
            return False  # the stomach of something
        status = chars[23].tobytes()
        if status != self._status and not self._read_status(status):
            return False
        ink = colors[1 : ROWS + 1].tobytes()
        self._move_to(1 << here)
        if text != self._chars or ink != self._colors:
            self._read_map(text, ink)
        self._read_message(chars[0].tobytes(), previous_action)
        return True

    def _read_status(self, status: bytes) -> bool:
        """Depth and turn from the bottom line; False where there is no bottom line."""
        at = status.find(b"T:")
        if at < 0:
            return False
        turn = int(status[at + 2 :].split(None, 1)[0])
        start = status.find(b"Dlvl:")
        depth = int(status[start + 5 :].split(None, 1)[0]) if start >= 0 else 0
        if depth != self.depth or turn < self.turn:
            self._forget_level()
            self.position = 0
            self.depth = depth
        self.turns_here += turn - self.turn
        self.turn = turn
        self._status = status
        return True

    def _read_map(self, text: bytes, ink: bytes) -> None:
        pairs = np.empty((CELLS, 2), np.uint8)
        pairs[:, _LOW] = np.frombuffer(text, np.uint8)
        pairs[:, 1 - _LOW] = np.frombuffer(ink, np.uint8)
        planes = KINDS.take(pairs.view(np.uint16)[:, 0]) & _PLANES
        packed = np.packbits(planes, bitorder="little").tobytes()
        size = CELLS // 8
        sets = [int.from_bytes(packed[i : i + size], "little") for i in range(0, 8 * size, size)]
        floor, objects, opened, closed, walls, traps, creatures, shunned = sets
        self._chars, self._colors = text, ink
        before = self.floor, self.open_doors, self.closed_doors, self.shunned, self.traps
        # Creatures and objects hide the ground: keep what was there, take new ground as floor.
        shown = floor | opened | closed | walls | traps
        self.floor = (self.floor & ~shown) | floor | (objects | creatures) & ~self.known
        self.open_doors = (self.open_doors & ~shown) | opened
        self.closed_doors = (self.closed_doors & ~shown) | closed
        self.walls = (self.walls & ~(shown | objects)) | walls
        self.traps = (self.traps & ~shown) | traps
        self.stairs_down = (self.stairs_down & ~shown) | _places(text, b">")
        self.gold = _places(text, b"$")
        self.boulders = _places(text, b"`")
        self.objects = objects
        self.creatures = creatures & ~(self.statues | self.position)
        # What never moves is remembered where the hero, a cell away, no longer sees it.
        near = dilate(self.position)
        self.shunned = (self.shunned & ~near | shunned) & ~self.statues
        known = self.known | shown | objects | creatures
        after = self.floor, self.open_doors, self.closed_doors, self.shunned, self.traps
        if known != self.known or before != after:
            self.known = known
            self._ground_changed()

    def _ground_changed(self) -> None:
        self._fields.clear()
        self._frontier = self._spots = -1
        self._reachable = 0

    def _read_message(self, message: bytes, action: int) -> None:
        """What the first line says about ground that something hides."""
        if b"diagonally out of an intact" in message:
            doors = self.position & ~self.open_doors
            if doors:
                self.open_doors |= doors
                self._ground_changed()
        elif b"You see here a statue" in message:
            self.statues |= self.position
        elif b"You read: " in message:
            # Mostly "Closed for inventory": whoever breaks that door has the shopkeeper as enemy.
            doors = dilate(self.position) & self.closed_doors & ~self.barred
            if doors:
                self.barred |= doors
                self._ground_changed()
        elif 0 <= action < 8 and IN_THE_WAY.search(message):
            ahead = shift(self.position, action)
            if b"diagonally into an intact" in message:
                self.open_doors |= ahead
            else:
                self.barred |= ahead
            self._ground_changed()

    def _move_to(self, position: int) -> None:
        if position != self.position:
            self.position = position
            self.turns_here = 0
        if not position & self.visited:
            self.visited |= position
            self._frontier = self._spots = -1
        if self.turns_here >= SEARCHED_TURNS and not position & self.searched:
            self.searched |= position
            self._spots = -1

    @property
    def passable(self) -> int:
        """Cells that a path may use, closed doors included and traps left out."""
        ground = self.floor | self.open_doors | self.closed_doors
        return ground & ~(self.shunned | self.traps | self.barred)

    @property
    def doors(self) -> int:
        """Doors that exist as such; an empty or broken doorway is floor."""
        return self.open_doors | self.closed_doors

    @property
    def frontier(self) -> int:
        """Cells from which more of the level may be seen.

        A passable cell that the hero has not stood on, next to a blank cell that no visited cell
        touches: what lies beside a visited cell would have been seen if it could be walked on.
        """
        if self._frontier < 0:
            unknown = MAP & ~self.known & ~dilate(self.visited)
            self._frontier = self.passable & ~self.visited & dilate(unknown)
        return self._frontier

    @property
    def dead_ends(self) -> int:
        """Visited cells whose passable neighbours all lie on one side: at most two adjoining."""
        ground, doors = self.passable, self.doors
        flat = ground & ~doors  # what can be crossed diagonally
        around = []  # neighbours clockwise from N
        for straight, diagonal in ((0, 4), (1, 5), (2, 6), (3, 7)):
            around += [shift(ground, straight), shift(flat, diagonal) & ~doors]
        through = 0
        for i, neighbour in enumerate(around):
            others = 0
            for j in range(i + 2, i + 7):
                others |= around[j % 8]
            through |= neighbour & others
        return self.visited & ground & ~through

    @property
    def search_spots(self) -> int:
        """Where a hidden door or passage is likeliest: dead ends first, then near ground that is
        seen and not reached, then walls with much rock behind them, then any wall. Only what can be
        reached; places searched already are left out, with the cells around them. Once all are
        searched, asking begins a new round."""
        if self._spots < 0:
            self._spots = self._unsearched_spots()
            if not self._spots and self.searched:
                self.searched = 0  # nothing was found: all places once more
                self._spots = self._unsearched_spots()
        return self._spots

    def _unsearched_spots(self) -> int:
        reachable = self.reachable
        beyond = self.passable & ~reachable
        candidates = reachable & ~self.searched
        spots = self.dead_ends & candidates
        spots = spots or dilate(dilate(beyond)) & candidates & ~dilate(self.searched)
        for depth in (6, 3, 1):
            spots = spots or self._wall_spots(depth) & candidates & ~dilate(self.searched)
        return spots

    @property
    def reachable(self) -> int:
        """Cells to which a path leads."""
        if not self._reachable & self.position:
            everywhere = Distances(self.position, self.passable, self.doors)
            while everywhere.grow():
                pass
            self._reachable = everywhere.reached
        return self._reachable

    def _wall_spots(self, depth: int) -> int:
        """Floor beside a wall, behind which `depth` cells in a row have never shown anything."""
        ground = self.floor & self.passable
        spots = 0
        for direction in range(4):
            opposite = (direction + 2) % 4
            blank = MAP & ~self.known
            beyond = blank
            for _ in range(depth - 1):
                blank = shift(blank, opposite)
                beyond &= blank
            spots |= ground & shift(self.walls & shift(beyond, opposite), opposite)
        return spots

    def compass(self, targets: int, blocked: int = 0) -> tuple[int, int]:
        """The first moves of all shortest paths from the hero to the nearest target.

        Returns (moves, distance): bit i of moves stands for `DIRECTIONS[i]`, distance counts
        moves; (0, 0) on a target and (0, -1) where none can be reached. Targets need not be
        passable, but what must not be touched is none; cells in `blocked` are walked around, and
        traps where there is another way. Doors are not crossed diagonally.
        """
        if not targets or not self.position:
            return 0, -1
        targets &= ~(self.shunned | self.barred)
        compass = self._field(targets, blocked).compass(self.position)
        if compass[1] < 0 and self.traps:
            return self._field(targets, blocked, self.traps).compass(self.position)
        return compass

    def _field(self, targets: int, blocked: int, traps: int = 0) -> Distances:
        key = targets, blocked, traps
        field = self._fields.get(key)
        if field is None:
            if len(self._fields) >= 8:
                self._fields.clear()
            field = Distances(targets, (self.passable | traps) & ~blocked, self.doors)
            self._fields[key] = field
        return field
