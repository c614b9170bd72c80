"""The scripted player: single decisions on hand-drawn screens, whole games by their keys."""

import numpy as np
import pytest

from training_backend.experts.nethack import Player
from training_backend.experts.nethack_behaviours import BEHAVIOURS
from training_backend.experts.nethack_screen import Screen
from training_backend.tasks.nethack_env import make_env, start_game

ACTIONS = pytest.importorskip("nle.nethack").ACTIONS
ROOM = """
-------
|.....|
|..@...
|.....|
-------
"""


def screen(
    drawing=ROOM,
    message="",
    health=(14, 14),
    turn=1,
    depth=1,
    level=1,
    conditions="",
    colours=None,
    asks=False,
):
    """A screen whose map begins at row 5, column 10; the cursor is on `@`, or behind a question."""
    chars = np.full((24, 80), ord(" "), np.uint8)
    colors = np.full((24, 80), 7, np.int8)
    lines = drawing.strip("\n").split("\n")
    for i, line in enumerate(lines):
        chars[5 + i, 10 : 10 + len(line)] = np.frombuffer(line.encode(), np.uint8)
        for j, character in enumerate(line):
            colors[5 + i, 10 + j] = (colours or {}).get(character, 7)
    bottom = (
        f"Dlvl:{depth} $:0 HP:{health[0]}({health[1]}) Pw:5(5) AC:4 Xp:{level}/0 T:{turn} "
        f"{conditions}"
    )
    for row, text in ((0, message), (23, bottom)):
        chars[row, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    row = next(i for i, line in enumerate(lines) if "@" in line)
    place = (0, len(message) + 1) if asks else (5 + row, 10 + lines[row].index("@"))
    return chars, colors, np.array(place, np.uint8)


def keys(player, *screens):
    """Keys that the player presses at the screens, one each."""
    return "".join(chr(int(ACTIONS[player.act(*one)])) for one in screens)


def decision(*screens):
    """The behaviour that decides on the last of some screens, and its key."""
    player = Player()
    pressed = keys(player, *screens)
    return player.behaviour, pressed[-1]


def test_explores_towards_the_doorway_straight_on_when_it_can():
    player = Player()
    moved = ROOM.replace("..@...", "...@..")
    assert keys(player, screen(), screen(moved, turn=2)) == "ll"
    assert player.behaviour == "explore"


def test_hits_what_stands_beside_it_and_no_pet():
    newt = ROOM.replace("..@...", ".:@...")
    assert decision(screen(newt, colours={":": 11})) == ("fight", "h")
    kitten = ROOM.replace("..@...", ".f@...")
    assert decision(screen(kitten, colours={"f": 15}))[0] != "fight"


def test_a_kitten_that_bites_is_no_pet():
    kitten = ROOM.replace("..@...", ".f@...")
    bites = screen(kitten, colours={"f": 15}, message="The kitten bites!", turn=2)
    assert decision(screen(kitten, colours={"f": 15}), bites) == ("fight", "h")


def test_never_touches_a_floating_eye_or_a_mold_when_weak():
    for letter, colour in (("e", 4), ("F", 3), ("j", 4)):
        drawing = f"-----\n|..@{letter}..\n-----"
        player = Player()
        pressed = keys(player, screen(drawing, colours={letter: colour}))
        assert pressed != "l"
        assert player.behaviour not in ("fight", "hunt", "explore")


def test_gas_spores_are_fought_only_with_hit_points_to_spare():
    spore = ROOM.replace("..@...", ".e@...")
    assert decision(screen(spore, health=(30, 30)))[0] == "fight"
    assert decision(screen(spore, health=(24, 30)))[0] != "fight"


def test_peaceful_creatures_are_left_alone_after_the_question():
    gnome = ROOM.replace("..@...", ".G@...")
    player = Player()
    question = screen(gnome, message="Really attack the gnome? [yn] (n)", asks=True)
    pressed = keys(player, screen(gnome), question, screen(gnome))
    assert pressed[:2] == "h\x1b"
    assert player.behaviour != "fight"
    assert keys(player, screen(gnome, turn=20))[0] == "h"


def test_lets_a_creature_two_steps_away_come():
    assert decision(screen("-------\n|.@.G.|\n-------")) == ("await_approach", "s")


@pytest.mark.parametrize(
    ("health", "turn", "conditions"),
    [((5, 14), 200, ""), ((10, 80), 200, ""), ((14, 14), 200, "Weak"), ((14, 14), 900, "Fainting")],
)
def test_prays_in_trouble_and_not_again_too_soon(health, turn, conditions):
    player = Player()
    now = screen(health=health, turn=turn, conditions=conditions)
    question = screen(message="Are you sure you want to pray? [yn] (n)", asks=True, turn=turn)
    assert keys(player, now, question) == chr(0xF0) + "y"
    soon = screen(health=health, turn=turn + 500, conditions=conditions)
    keys(player, soon, soon, soon)  # a rest of 20 turns takes three keys
    assert player.behaviour != "pray"
    later = screen(health=health, turn=turn + 1000, conditions=conditions)
    assert keys(player, later) == chr(0xF0)


def test_no_prayer_before_the_first_is_safe():
    assert decision(screen(health=(3, 14), turn=50))[0] != "pray"


def test_drinks_healing_when_a_fight_goes_badly_and_prayer_is_spent():
    orc = ROOM.replace("..@...", ".o@...")
    player = Player()
    keys(player, screen(orc, health=(5, 30), turn=300), screen(orc, health=(30, 30), turn=303))
    question = screen(orc, message="What do you want to drink? [ek or ?*]", asks=True, turn=310)
    assert keys(player, screen(orc, health=(8, 30), turn=310), question) == "qe"
    none = screen(orc, message="What do you want to drink? [k or ?*]", asks=True, turn=310)
    assert keys(player, none) == "\x1b"
    assert keys(player, screen(orc, health=(8, 30), turn=311)) == "h"


def test_eats_provisions_when_hungry():
    player = Player()
    question = screen(message="What do you want to eat? [fgh or ?*]", asks=True)
    assert keys(player, screen(conditions="Hungry"), question) == "ef"
    corpse = screen(message="There is a newt corpse here; eat it? [ynq] (n)", asks=True)
    assert keys(player, corpse) == "n"


def test_eats_what_it_has_just_killed():
    player = Player()
    newt = ROOM.replace("..@...", ".:@...")
    body = ROOM.replace("..@...", ".%@...")
    over = ROOM.replace("..@...", ".@....")
    corpse = screen(over, message="There is a newt corpse here; eat it? [ynq] (n)", asks=True)
    pressed = keys(
        player,
        screen(newt, turn=10, conditions="Hungry"),  # hits it
        screen(body, turn=11, message="You kill the newt!", conditions="Hungry"),  # goes there
        screen(over, turn=12, conditions="Hungry"),
        corpse,
    )
    assert pressed == "hhey"


@pytest.mark.parametrize("name", ["cockatrice", "kobold", "green slime"])
def test_does_not_eat_what_harms(name):
    player = Player()
    thing = ROOM.replace("..@...", ".c@...")
    killed = ROOM.replace("..@...", ".%@...")
    keys(
        player,
        screen(thing, turn=10),
        screen(killed, turn=11, message=f"You kill the {name}!", conditions="Hungry"),
    )
    assert player.behaviour != "dine"


def test_rests_when_wounded_and_nothing_is_near():
    player = Player()
    assert keys(player, *[screen(health=(8, 20), turn=5)] * 3) == "20s"
    assert player.behaviour == "rest"


def test_travels_to_the_stairs_when_it_is_strong_enough():
    long = "-" * 12 + "\n|@........>|\n" + "-" * 12
    player = Player()
    asks = screen(long, message="Where do you want to travel to?", level=2)
    assert keys(player, screen(long, level=2), asks, asks) == "_>."
    on = screen("-" * 12 + "\n|.........@|\n" + "-" * 12, level=2, turn=9)
    assert keys(player, on) == ">"
    assert decision(screen(long, level=1, turn=1))[0] == "leave"


def test_breaks_a_locked_door_outside_towns_only():
    door = "-----\n|..@+\n-----  #"
    colours = {"+": 3}
    locked = screen(door, message="This door is locked.", colours=colours, turn=2)
    direction = screen(door, message="In what direction?", asks=True, colours=colours, turn=2)
    player = Player()
    assert keys(player, screen(door, colours=colours), locked, direction) == "l\x04l"
    watched = screen(
        "-----\n|..@+\n-----\n@", message="This door is locked.", colours=colours, turn=2
    )
    assert decision(screen(door, colours=colours), watched)[0] != "kick"


def test_closed_shops_are_not_broken_into():
    door = "-----\n|..@+\n-----  #"
    read = screen(door, message='You read: "Closed for inventory".', colours={"+": 3})
    locked = screen(door, message="This door is locked.", colours={"+": 3}, turn=2)
    assert decision(read, locked)[0] not in ("kick", "explore")


def test_stops_picking_up_in_a_shop_and_begins_again_on_the_next_level():
    player = Player()
    greeting = "Hello, Agent!  Welcome to Upernavik's general store!"
    assert keys(player, screen(message=greeting)) == "@"
    gold = ROOM.replace("|.....|", "|..$..|", 1)
    keys(player, screen(gold, turn=2))
    assert player.behaviour != "collect_gold"
    assert keys(player, screen(gold, turn=3, depth=2)) == "@"
    keys(player, screen(gold, turn=4, depth=2))
    assert player.behaviour == "collect_gold"


def test_throws_at_a_floating_eye_in_the_only_way():
    corridor = "---------\n|@..e...#\n---------"
    player = Player()
    which = screen(corridor, message="What do you want to throw? [$ or ?*]", asks=True)
    where = screen(corridor, message="In what direction?", asks=True)
    assert keys(player, screen(corridor, colours={"e": 4}), which, where) == "thl"
    none = screen(corridor, message="You don't have that object.--More--", asks=True)
    assert keys(player, none, which) == "\rg"


def test_looks_for_stairs_under_objects_and_remembers_them():
    closed = "-------\n|..@.)|\n-------"
    player = Player()
    assert keys(player, screen(closed)) == "l"
    assert player.behaviour == "look_under"
    on = screen(
        "-------\n|....@|\n-------", message="There is a staircase down here.", turn=3, level=3
    )
    assert keys(player, on) == ">"
    beside = screen("-------\n|...@)|\n-------", turn=4, level=3)
    assert keys(player, beside) == "l"
    assert player.behaviour == "descend"


def test_searches_a_dead_end_by_a_count_and_gives_way_to_interruptions():
    end = "|.#@"
    player = Player()
    screens = [screen("|@##"), screen("|.@#", turn=2), screen(end, turn=3), screen("@.##", turn=4)]
    keys(player, *screens[:3])
    pressed = keys(player, screen(end, turn=3), screen(end, turn=3))
    assert pressed.startswith(("15", "5s"))
    assert player.behaviour == "search"


def test_menus_and_more_are_dismissed():
    assert decision(screen(message="You see here a rock.--More--", asks=True)) == ("answer", "\r")
    menu = screen("(end)\n@")
    menu[2][:] = (5, 16)
    assert decision(menu) == ("answer", "\x1b")


def test_gets_unstuck_where_nothing_changes():
    player = Player()
    wall = screen("-------\n|..@..|\n-------", level=9, message="You are stuck.")
    pressed = keys(player, *[wall] * 40)
    assert {"\x1b", "s"} <= set(pressed)
    assert set(pressed) & set("kljhunby")


def test_the_bottom_line_is_read_when_polymorphed():
    chars, colors, cursor = screen()
    line = b"Dlvl:9 $:13 HP:26(30) Pw:36(36) AC:4 HD:5 T:6912 Hungry Blind"
    chars[23] = ord(" ")
    chars[23, : len(line)] = np.frombuffer(line, np.uint8)
    seen = Screen(chars, colors, cursor)
    assert (seen.depth, seen.health, seen.max_health, seen.turn) == (9, 26, 30, 6912)
    assert seen.is_hungry
    assert seen.is_dazed
    assert not seen.is_weak


def test_every_behaviour_says_what_it_is_for():
    assert all(behaviour.__doc__ for behaviour in BEHAVIOURS)


def test_the_same_seed_gives_the_same_keys():
    env = make_env()
    player = Player()

    def play(seed, steps=400):
        seen = start_game(env, seed)
        player.reset()
        pressed, done = [], False
        while not done and len(pressed) < steps:
            action = player.act(*(seen[k] for k in ("tty_chars", "tty_colors", "tty_cursor")))
            pressed.append(action)
            seen, _, done, _, _ = env.step(action)
        return pressed

    first = play(4_900_001)
    other = play(4_900_002)
    assert play(4_900_001) == first
    assert first != other
    env.close()
