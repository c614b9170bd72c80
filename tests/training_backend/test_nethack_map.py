"""The map knowledge on hand-drawn screens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_backend.tasks.nethack_cells import (
    COLUMNS,
    DIRECTIONS,
    MAP,
    ROWS,
    cell,
    cells_of,
    dilate,
    from_array,
    shift,
    to_array,
)
from training_backend.tasks.nethack_map import SEARCHED_TURNS, LevelMemory

N, E, S, W, NE, SE, SW, NW = (1 << i for i in range(8))
BROWN, BLUE, GREY = 3, 4, 7


def screen(drawing, turn=1, depth=1, brown=(), blue=(), message=""):
    """Screen of a drawing whose first line is map row 5, column 10; `@` is the hero."""
    chars = np.full((24, 80), ord(" "), np.uint8)
    colors = np.full((24, 80), GREY, np.int8)
    lines = drawing.strip("\n").split("\n")
    for i, line in enumerate(lines):
        chars[6 + i, 10 : 10 + len(line)] = np.frombuffer(line.encode(), np.uint8)
    bottom = f"Dlvl:{depth} $:0 HP:14(14) Pw:5(5) AC:4 Xp:1/0 T:{turn}"
    for row, text in ((0, message), (23, bottom)):
        chars[row, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    for i, j in brown:
        colors[6 + i, 10 + j] = BROWN
    for i, j in blue:
        colors[6 + i, 10 + j] = BLUE
    row = next(i for i, line in enumerate(lines) if "@" in line)
    return chars, colors, np.array((6 + row, 10 + lines[row].index("@")), np.uint8)


def at(i, j):
    """Cell of line i, character j of a drawing."""
    return cell(5 + i, 10 + j)


def seen(drawing, **kwargs):
    memory = LevelMemory()
    assert memory.update(*screen(drawing, **kwargs))
    return memory


def test_room_with_a_doorless_doorway_shows_its_frontier():
    memory = seen("""
-----
|...|
|.@..
-----
""")
    assert memory.position == at(2, 2)
    assert memory.visited == at(2, 2)
    assert memory.frontier == at(2, 4)
    assert memory.compass(memory.frontier) == (E | NE, 2)
    assert memory.compass(at(1, 3)) == (NE, 1)
    assert memory.compass(at(2, 2)) == (0, 0)


def test_every_first_move_of_every_shortest_path_is_shown():
    memory = seen("""
-------
|.....|
|@....|
|.....|
-------
""")
    assert memory.compass(at(2, 3)) == (NE | E | SE, 2)
    assert memory.compass(at(1, 3)) == (NE | E, 2)


@pytest.mark.parametrize(("colour", "expected"), [((), (SE, 1)), (((1, 2),), (E | S, 2))])
def test_open_doors_are_not_crossed_diagonally_broken_ones_are(colour, expected):
    """An open door is a brown dash; the same place without a door is plain floor."""
    door = "-" if colour else "."
    memory = seen(f"@.|\n.{door}.\n|.|", brown=[(1, 1)] if colour else ())
    assert memory.compass(at(1, 1)) == expected


def test_diagonals_through_a_closed_door():
    memory = seen("-----\n|.@.|\n|...+\n-----", brown=[(2, 4)])
    assert memory.closed_doors == at(2, 4)
    assert memory.compass(at(2, 4)) == (SE, 2)
    beside = seen("-----\n|..@|\n|...+\n-----", brown=[(2, 4)])
    assert beside.compass(at(2, 4)) == (S, 2)
    spellbook = seen("-----\n|..@|\n|...+\n-----")
    assert spellbook.closed_doors == 0
    assert spellbook.compass(at(2, 4)) == (SE, 1)


def test_a_visited_corridor_is_no_frontier_and_its_end_is_a_dead_end():
    memory = LevelMemory()
    memory.update(*screen("|.@#  "))
    assert memory.frontier == at(0, 1) | at(0, 3)
    memory.update(*screen("|..@# ", turn=2))
    memory.update(*screen("|..#@#", turn=3))
    memory.update(*screen("|..##@", turn=4))
    assert memory.frontier & ~at(0, 1) == 0
    assert memory.dead_ends == at(0, 5)
    assert memory.compass(at(0, 2)) == (W, 3)


def test_searching_is_counted_from_the_turns_that_pass_on_one_cell():
    memory = LevelMemory()
    memory.update(*screen("|.@#"))
    memory.update(*screen("|..@", turn=2))
    memory.update(*screen("|..@", turn=2 + SEARCHED_TURNS - 1))
    assert memory.turns_here == SEARCHED_TURNS - 1
    assert memory.search_spots & at(0, 3)
    memory.update(*screen("|..@", turn=2 + SEARCHED_TURNS))
    assert memory.searched == at(0, 3)
    assert not memory.search_spots & at(0, 3)


def test_ground_under_creatures_and_things_is_remembered():
    memory = LevelMemory()
    memory.update(*screen("|@.>.^.|"))
    memory.update(*screen("|@d>.d%|", turn=2))
    assert memory.creatures == at(0, 2) | at(0, 5)
    assert memory.stairs_down == at(0, 3)
    memory.update(*screen("|@.d.^%|", turn=3))
    assert memory.stairs_down == at(0, 3)
    assert memory.floor & at(0, 6)
    assert memory.traps == at(0, 5)
    assert memory.compass(at(0, 6)) == (E, 5)


def test_a_floating_eye_is_walked_around_while_it_is_there():
    memory = seen("|@e.|\n|...|", blue=[(0, 2)])
    assert memory.compass(at(0, 3)) == (SE, 2)
    memory.update(*screen("|@.e|\n|...|", turn=2, blue=[(0, 3)]))
    assert memory.compass(at(0, 2)) == (E, 1)


def test_boulders_trees_bars_and_water_are_walls():
    memory = seen("|@`}#|")
    assert memory.compass(at(0, 4)) == (0, -1)
    assert memory.walls == at(0, 0) | at(0, 2) | at(0, 3) | at(0, 5)


def test_a_new_level_and_a_new_game_forget_the_old_one():
    memory = seen("|@.>|", turn=50)
    memory.update(*screen("<@..", turn=51, depth=2))
    assert memory.depth == 2
    assert memory.stairs_down == 0
    assert memory.visited == at(0, 1)
    memory.update(*screen("|.@", turn=1, depth=2))
    assert memory.visited == at(0, 2)
    memory.reset()
    assert memory.position == memory.known == 0
    assert memory.compass(MAP) == (0, -1)


def test_screens_that_are_not_the_map_change_nothing():
    memory = seen("|@...|")
    before = memory.position, memory.known, memory.turn
    chars, colors, _ = screen("|@...|", turn=9)
    for message in ("Where do you want to travel to?", "Pick an object"):
        asked, _, _ = screen("|@...|", turn=9, message=message)
        assert not memory.update(asked, colors, np.array((6, 14), np.uint8))
    assert not memory.update(chars, colors, np.array((0, 20), np.uint8))
    menu = chars.copy()
    menu[23] = ord(" ")
    assert not memory.update(menu, colors, np.array((6, 11), np.uint8))
    assert (memory.position, memory.known, memory.turn) == before


def test_walls_with_rock_behind_them_are_searched_first():
    wide = "|" + "." * 3 + "@" + "." * 60 + "|"
    memory = seen("-" * 66 + "\n" + wide + "\n" + "-" * 66)
    spots = memory.search_spots
    assert spots & at(1, 1)
    assert not spots & at(1, 64) or spots & at(1, 30)


@st.composite
def _mazes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maze = rng.choice([ord("."), ord("|")], (ROWS, COLUMNS - 1), p=[0.7, 0.3]).astype(np.uint8)
    doors = rng.random(maze.shape) < 0.1
    return maze, doors, rng


@given(_mazes())
@settings(max_examples=25, deadline=None)
def test_compass_agrees_with_a_plain_breadth_first_search(maze_doors_rng):
    maze, doors, rng = maze_doors_rng
    chars = np.full((24, 80), ord(" "), np.uint8)
    colors = np.full((24, 80), GREY, np.int8)
    chars[1 : ROWS + 1, : COLUMNS - 1] = np.where(doors, ord("-"), maze)
    colors[1 : ROWS + 1, : COLUMNS - 1][doors] = BROWN
    chars[23, :12] = np.frombuffer(b"Dlvl:1 T:1  ", np.uint8)
    free = (maze == ord(".")) | doors
    start, goal = (tuple(int(v) for v in np.argwhere(free)[i]) for i in rng.choice(free.sum(), 2))
    chars[start[0] + 1, start[1]] = ord("@")
    doors[start] = False  # the hero hides the door on the first screen
    distance = {goal: 0}
    queue = [goal]
    for place in queue:
        for i, (down, right) in enumerate(DIRECTIONS):
            to = (place[0] + down, place[1] + right)
            inside = 0 <= to[0] < ROWS and 0 <= to[1] < COLUMNS - 1
            if not inside or not free[to] or to in distance:
                continue
            if i >= 4 and (doors[place] or doors[to]):
                continue
            distance[to] = distance[place] + 1
            queue.append(to)
    memory = LevelMemory()
    assert memory.update(chars, colors, np.array((start[0] + 1, start[1]), np.uint8))
    moves, length = memory.compass(cell(*goal))
    assert length == distance.get(start, -1)
    expected = 0
    for i, (down, right) in enumerate(DIRECTIONS):
        to = (start[0] + down, start[1] + right)
        if distance.get(to, -2) == length - 1 >= 0 and not (i >= 4 and doors[to]):
            expected |= 1 << i
    assert moves == expected


@given(st.integers(0, MAP))
def test_sets_and_arrays_are_the_same_thing(cells):
    cells &= MAP
    array = to_array(cells)
    assert from_array(array) == cells
    assert int(array.sum()) == cells.bit_count() == len(list(cells_of(cells)))
    grown = to_array(dilate(cells))
    for i, (row, column) in enumerate(DIRECTIONS):
        moved = np.zeros_like(array)
        rows = slice(max(row, 0), ROWS + min(row, 0)), slice(max(-row, 0), ROWS + min(-row, 0))
        columns = (
            slice(max(column, 0), COLUMNS - 1 + min(column, 0)),
            slice(max(-column, 0), COLUMNS - 1 + min(-column, 0)),
        )
        moved[rows[0], columns[0]] = array[rows[1], columns[1]]
        assert from_array(moved) == shift(cells, i)
        assert (grown >= moved).all()


def test_what_the_game_says_about_hidden_ground_is_learnt():
    east = 1
    memory = seen("|@.#.|")
    memory.update(*screen("|@.#.|", turn=2, message="It's solid stone."), east)
    assert memory.barred == at(0, 2)
    assert memory.compass(at(0, 3)) == (0, -1)
    memory = seen("|@%#|")
    stays = screen("|@%#|", turn=2, message="You can't move diagonally into an intact doorway.")
    memory.update(*stays, 5)
    assert memory.open_doors == at(1, 2)
    memory.update(
        *screen("|@%#|", turn=3, message="You can't move diagonally out of an intact doorway.")
    )
    assert memory.open_doors & at(0, 1)


def test_a_door_with_a_note_before_it_is_barred():
    memory = seen("|.@+|", brown=[(0, 3)])
    assert memory.compass(at(0, 3)) == (E, 1)
    note = 'You read: "Closed for inventory".'
    memory.update(*screen("|.@+|", turn=2, brown=[(0, 3)], message=note))
    assert memory.compass(at(0, 3)) == (0, -1)


def test_statues_are_told_from_creatures_by_standing_on_them():
    memory = seen("|.@x|")
    assert memory.creatures == at(0, 3)
    memory.update(*screen("|..@|", turn=2, message="You see here a statue of a grid bug."))
    memory.update(*screen("|.@x|", turn=3))
    assert memory.creatures == 0


def test_what_never_moves_is_remembered_out_of_sight_and_forgotten_when_gone():
    memory = seen("#@e##", blue=[(0, 2)])
    memory.update(*screen("@####", turn=2))
    assert memory.shunned == at(0, 2)
    assert memory.compass(at(0, 4)) == (0, -1)
    memory.update(*screen("#@###", turn=3))
    assert memory.shunned == 0
    assert memory.compass(at(0, 4)) == (E, 3)


def test_traps_are_walked_around_unless_they_are_the_only_way():
    assert seen("...\n@^.\n...").compass(at(1, 2)) == (NE | SE, 2)
    assert seen("@^.").compass(at(0, 2)) == (E, 2)


def test_the_stomach_of_an_engulfer_is_no_map():
    memory = seen("|@...|")
    known = memory.known
    assert not memory.update(*screen("/-\\\n|@|\n\\-/", turn=2))
    assert memory.known == known


def test_ground_seen_but_not_reached_is_searched_for_first():
    memory = seen("|@..| ..")
    assert memory.reachable == at(0, 1) | at(0, 2) | at(0, 3)
    memory = LevelMemory()
    for turn, line in enumerate(("|@..  .", "|.@.  .", "|..@  ."), 1):
        memory.update(*screen(line, turn=turn))
    memory.update(*screen("|..@  .", turn=20))
    assert memory.searched == at(0, 3)
    assert memory.search_spots & ~memory.dead_ends == 0


def test_all_places_are_searched_once_more_when_none_is_left():
    memory = seen("|@|")
    memory.update(*screen("|@|", turn=20))
    assert memory.searched == at(0, 1)
    assert memory.search_spots == at(0, 1)
    assert memory.searched == 0
