"""What a scripted player of NetHack does, in order of urgency.

Each behaviour looks at the screen and at what the hero knows, and returns the keys to press, or
None to leave the turn to the next one. Nothing is random: the same screens give the same keys, so
that an agent that sees the same knowledge can learn every decision.
"""

import re
from collections.abc import Callable
from typing import Final

from training_backend.experts.nethack_hero import ESCAPE, KICK, MOVES, PRAY, RETURN, Hero
from training_backend.experts.nethack_screen import Screen
from training_backend.tasks.nethack_cells import cells_of, dilate, shift

PRAYER_TURNS: Final = 800
"""Turns between prayers. A prayer sets the time to the next safe one to about 50 to 1,000 turns,
and one in trouble is heard when 200 or fewer are left."""
_SHOP_GREETING: Final = re.compile(rb"[Ww]elcome (again )?to .*'s")
_KILL: Final = re.compile(rb"You kill (?:the )?([a-zA-Z -]+)!")
WHOLESOME: Final = frozenset(
    b"newt|jackal|sewer rat|giant rat|gecko|iguana|gnome|gnome lord|gnomish wizard|gnome king"
    b"|dwarf|dwarf lord|dwarf king|hobbit|bugbear|goblin|hobgoblin|hill orc|Mordor orc|Uruk-hai"
    b"|orc shaman|rothe|lichen|fox|coyote|wolf|dingo|jaguar|lynx|panther|rock piercer"
    b"|iron piercer|woodchuck|rock mole|imp|baby crocodile|crocodile|monkey|ape|owlbear|yeti"
    b"|giant ant|fire ant|pony|horse|leocrotta|ogre|giant|stone giant|hill giant|mumak"
    b"|winter wolf cub|giant bat|raven|shrieker".split(b"|")
)
"""Creatures whose corpse, eaten fresh, does no harm."""


def answer(hero: Hero, screen: Screen) -> str | None:
    """Questions, menus and --More--."""
    message = screen.message
    if screen.wants_more:
        if b"You don't have anything to eat" in message:
            hero.has_food = False
        if b"You don't have that object" in message:
            hero.missiles = hero.missiles[1:]
        return RETURN
    if screen.is_menu or not screen.has_status:
        return ESCAPE
    if screen.cursor[0] != 0:  # a question leaves the cursor behind it
        return None
    if message.startswith(b"In what direction"):
        return hero.throw_direction or hero.choose(hero.beside(hero.level.closed_doors) & 15 or 1)
    if b"pray?" in message:
        return "y"
    if b"Really attack" in message:
        if hero.heading >= 0:
            hero.peaceful[hero.ahead()] = screen.turn
        return ESCAPE
    if b"What do you want to eat?" in message:
        first = _choices(message)[:1]
        if first.isalpha():
            return first.decode()
        hero.has_food = False
        return ESCAPE
    if b"What do you want to drink?" in message:
        if b"e" in _choices(message):  # the potions of healing that a monk starts with
            return "e"
        hero.has_potions = False
        return ESCAPE
    if b"What do you want to throw?" in message:
        return hero.missiles[:1] or ESCAPE
    if b"corpse here; eat it?" in message and hero.meal and hero.meal[0] in message:
        hero.meal = None
        return "y"
    if b"eat it?" in message or b"eat one?" in message or b"Drink from" in message:
        return "n"
    return ESCAPE


def _choices(question: bytes) -> bytes:
    """Inventory letters that a question such as "What ...? [fgh or ?*]" offers."""
    return question.split(b"[", 1)[-1].split(b" ")[0]


def unstick(hero: Hero, screen: Screen) -> str | None:
    """Nothing has changed for a while: get out of whatever it is."""
    if hero.idle < 6:
        return None
    return (ESCAPE, "s", MOVES[hero.idle // 3 % 8])[hero.idle % 3]


def mind_shop(hero: Hero, screen: Screen) -> str | None:
    """No wares shall be picked up: a shopkeeper lets nobody out who has not paid."""
    if hero.picks_up:
        switch = _SHOP_GREETING.search(screen.message) is not None
    else:
        switch = screen.depth != hero.shop_depth
    if not switch:
        return None
    hero.picks_up = not hero.picks_up
    hero.shop_depth = screen.depth
    return "@"


def pray(hero: Hero, screen: Screen) -> str | None:
    """For health, food, and against turning into stone or a beast."""
    if b"You are slowing down" in screen.message or b"Your limbs are stiffening" in screen.message:
        return PRAY
    if b"You feel feverish" in screen.message:
        hero.feverish = True
    low = screen.health < 6 or screen.health * 7 <= screen.max_health
    in_trouble = low or screen.is_weak or hero.feverish
    if in_trouble and screen.turn - hero.last_prayer > PRAYER_TURNS:
        hero.last_prayer = screen.turn
        hero.feverish = False
        return PRAY
    return None


def quaff(hero: Hero, screen: Screen) -> str | None:
    """A potion of healing, in a fight that goes badly."""
    if not (hero.has_potions and screen.health * 3 < screen.max_health and hero.foes):
        return None
    if b"don't have anything to drink" in screen.message:
        hero.has_potions = False
        return None
    return "q"


def fight(hero: Hero, screen: Screen) -> str | None:
    """Hit what stands beside the hero."""
    near = 0
    for foe in hero.foes:
        near |= foe.place
    moves = hero.beside(near)
    if b"You can't move diagonally" in screen.message and moves >> hero.heading & 1:
        # A blow would have gone through: there is a statue, and a door between.
        hero.statues |= hero.ahead()
        moves &= ~(1 << hero.heading)
    return hero.strike(screen, moves) if moves else None


def dine(hero: Hero, screen: Screen) -> str | None:
    """Eat what was just killed, when hungry."""
    killed = _KILL.search(screen.message)
    if killed and killed[1] in WHOLESOME:
        hero.meal = killed[1], hero.ahead(), screen.turn
    if b"have anything to eat" in screen.message:
        hero.meal = None
    if hero.meal is None or not (screen.is_hungry or screen.is_weak):
        return None
    _, place, turn = hero.meal
    moves, distance = hero.level.compass(place)
    if screen.turn > turn + 30 or not 0 <= distance < 8:  # too old, or too far
        hero.meal = None
        return None
    return hero.choose(moves) if distance else "e"


def eat(hero: Hero, screen: Screen) -> str | None:
    """Eat of the provisions, when hungry."""
    if not hero.has_food or not (screen.is_hungry or b"Weak" in screen.conditions):
        return None
    if b"don't have anything to eat" in screen.message:
        hero.has_food = False
        return None
    return "e"


def rest(hero: Hero, screen: Screen) -> str | None:
    """Search in place until wounds have closed and senses are back, if nothing is near."""
    if hero.foes:
        return None
    if screen.is_wounded:
        return "20s"
    return "5s" if screen.is_dazed else None


def await_approach(hero: Hero, screen: Screen) -> str | None:
    """Let a creature two steps away come near: it then loses its first blow."""
    ring = dilate(dilate(hero.level.position))
    if hero.level.turns_here < 3 and any(foe.place & ring for foe in hero.foes):
        return "s"
    return None


def kick(hero: Hero, screen: Screen) -> str | None:
    """Break a locked door beside the hero."""
    locked = b"locked" in screen.message
    doors = hero.beside(hero.level.closed_doors & hero.level.passable) & 15
    if doors and locked and _is_guarded(hero, screen):
        hero.refuse(hero.beside_cells(doors))
        return None
    if not doors or not (locked or b"WHAMM" in screen.message):
        hero.kicks = 0
        return None
    hero.kicks += 1
    if hero.kicks > 25:
        hero.refuse(hero.beside_cells(doors))
        return None
    return KICK


def _is_guarded(hero: Hero, screen: Screen) -> bool:
    """Whether this may be a town, whose watch defends its doors."""
    if any(screen.creature(place).letter == "@" for place in cells_of(hero.level.creatures)):
        return True
    return 5 <= screen.depth <= 8 and (hero.level.stairs_down != 0 or not screen.has_corridors)


def descend(hero: Hero, screen: Screen) -> str | None:
    """Down the stairs as soon as the hero is strong enough for what is there."""
    if not hero.stairs or not _is_ready(screen) or screen.is_wounded:
        return None
    return _go_down(hero, screen)


def _is_ready(screen: Screen) -> bool:
    """Strong enough for the next level, or here for so long that waiting no longer helps."""
    return screen.level >= min(screen.depth + 1, 8) or screen.turn > 800 * screen.depth


def _go_down(hero: Hero, screen: Screen) -> str | None:
    """To the stairs by the travel command, once from a place, else step by step; then down."""
    here = hero.level.position
    if here & hero.stairs:
        return ">" if _is_ready(screen) else "20s"
    moves, distance = hero.compass(hero.stairs)
    if distance < 0:
        return None
    if distance > 3 and hero.level.stairs_down and not here & hero.travelled:
        hero.travelled |= here
        return "_>."
    return hero.choose(moves)


def hunt(hero: Hero, screen: Screen) -> str | None:
    """Go to meet what can be fought, if it is near; a unicorn keeps out of reach, and kicks."""
    targets = 0
    for foe in hero.foes:
        if foe.letter != "u":
            targets |= foe.place
    moves, distance = hero.compass(targets)
    if not 0 < distance <= 6 or hero.chases >= 60:
        return None
    hero.chases += 1
    return hero.choose(moves)


def collect_gold(hero: Hero, screen: Screen) -> str | None:
    """Walk over gold, which is then picked up."""
    return hero.step_towards(hero.level.gold) if hero.picks_up else None


def explore(hero: Hero, screen: Screen) -> str | None:
    """To the nearest cell from which more of the level may be seen."""
    return hero.step_towards(hero.level.frontier & ~hero.blocked)


def leave(hero: Hero, screen: Screen) -> str | None:
    """All is explored: to the stairs, and wait there to be ready, with a way out at hand."""
    return _go_down(hero, screen)


def fight_fungi(hero: Hero, screen: Screen) -> str | None:
    """Kill a mold in the way: worth its passive damage when the hero is well."""
    if screen.health < 20 or screen.health * 10 < screen.max_health * 8:
        return None
    molds = 0
    for place in cells_of(hero.level.shunned & hero.level.creatures):
        if screen.creature(place).letter == "F":
            molds |= place
    moves = hero.beside(molds)
    return hero.choose(moves) if moves else None


def look_under(hero: Hero, screen: Screen) -> str | None:
    """No stairs in sight: they may lie under an object."""
    return None if hero.stairs else hero.step_towards(hero.level.objects & ~hero.level.visited)


def throw(hero: Hero, screen: Screen) -> str | None:
    """What blocks a way and must not be touched can be killed from a few steps away."""
    level = hero.level
    hero.throw_direction = ""
    if not hero.missiles:
        return None
    targets = level.creatures & level.shunned
    for place in cells_of(level.creatures & hero.blocked):
        if screen.creature(place).is_gas_spore:
            targets |= place
    for direction in range(8):
        flight = level.position
        for distance in range(1, 6):
            flight = shift(flight, direction)
            if flight & targets:
                if distance > 1 or flight & level.shunned:  # not a gas spore at arm's length
                    hero.throw_direction = MOVES[direction]
                    return "t"
                break
            if not flight & level.passable or flight & level.creatures:
                break
    return None


def push_boulder(hero: Hero, screen: Screen) -> str | None:
    """Through the boulders, when they bar the way to what is not yet explored."""
    if b"you cannot move it" in screen.message:
        hero.refuse(hero.ahead() & hero.level.boulders)
    return hero.step_towards((hero.level.frontier | hero.level.boulders) & ~hero.blocked)


def search(hero: Hero, screen: Screen) -> str | None:
    """For hidden doors and passages, where they are likeliest."""
    moves, distance = hero.compass(hero.level.search_spots)
    if distance == 0:
        return "s" if b"You stop searching" in screen.message else "15s"
    return hero.choose(moves) if distance > 0 else None


Behaviour = Callable[[Hero, Screen], str | None]
BEHAVIOURS: Final[tuple[Behaviour, ...]] = (
    answer,
    unstick,
    mind_shop,
    pray,
    quaff,
    fight,
    dine,
    eat,
    rest,
    await_approach,
    kick,
    descend,
    hunt,
    collect_gold,
    explore,
    leave,
    fight_fungi,
    look_under,
    throw,
    push_boulder,
    search,
)
"""In order of urgency; if none has anything to do, the player searches in place."""
