"""A scripted player of NetHack, the expert whose games agents are cloned from."""

import numpy as np
from numpy.typing import NDArray

from training_backend.experts.nethack_behaviours import BEHAVIOURS
from training_backend.experts.nethack_hero import MOVES, Hero
from training_backend.experts.nethack_screen import Screen


class Player:
    """Plays one game at a time: `reset()`, then `act(...)` once for every observation.

    Decisions follow from the screens alone, so the same game gives the same keys.

    Example
    -------
    Play one game::

        env, player = make_env(), Player()
        seen, done = start_game(env, seed=1), False
        while not done:
            action = player.act(seen["tty_chars"], seen["tty_colors"], seen["tty_cursor"])
            seen, _, done, _, _ = env.step(action)
    """

    def __init__(self) -> None:
        from nle import nethack

        self._actions: dict[str, int] = {}
        for index, key in enumerate(nethack.ACTIONS):
            self._actions.setdefault(chr(int(key)), index)
        self.hero = Hero()
        self.reset()

    def reset(self) -> None:
        """A new game begins."""
        self.hero.reset()
        self.behaviour = ""
        """Name of the behaviour that decided last."""
        self._action = -1
        self._keys = ""
        """Keys of the present command that are still to be pressed."""

    def act(
        self, chars: NDArray[np.uint8], colors: NDArray[np.int8], cursor: NDArray[np.uint8]
    ) -> int:
        """Index into `nle.nethack.ACTIONS` for a screen (24, 80), its colours and its cursor."""
        screen = Screen(chars, colors, cursor)
        self.hero.read(screen, self._action)
        if screen.wants_more or not self._keys:
            self._keys = self._decide(screen)
        key, self._keys = self._keys[0], self._keys[1:]
        self._action = self._actions[key]
        return self._action

    def _decide(self, screen: Screen) -> str:
        self.hero.consider(screen)
        self.behaviour, keys = "wait", "20s"
        for behaviour in BEHAVIOURS:
            found = behaviour(self.hero, screen)
            if found:
                self.behaviour, keys = behaviour.__name__, found
                break
        if keys[0] in MOVES:
            self.hero.heading = MOVES.index(keys[0])
        return keys
