"""The scripted NetHack expert: score, games that get stuck, speed while recording.

    python benchmarks/nethack_expert.py [--games 200] [--first-seed 3000000] [--out FOLDER]

Records the games in one process into a temporary folder, prints the table and writes it to
FOLDER/nethack_expert.md. A game is stuck if the step cap ends it and its score has not changed over
the last 2,000 keys. Steps a second are by CPU time, starts and checks included.
"""

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np

from training_backend.demonstrations import Game, open_index, read_keys
from training_backend.recording import collect

STUCK_KEYS = 2000


def is_stuck(game: Game) -> bool:
    """Whether the step cap ended the game while its score stood still."""
    if not game.capped or game.played is None:
        return False
    _, scores = read_keys(game.paths[0])
    play = scores[game.lead : game.lead + game.played]
    return bool(play[-1] == play[-min(STUCK_KEYS, len(play))])


def depth_of(game: Game) -> int:
    """Deepest dungeon level reached, of the xlogfile."""
    line = game.paths[0].with_name(f"nle.{game.seed}.xlogfile").read_text("latin-1")
    return int(line.split("maxlvl=")[1].split("\t")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=3_000_000)
    parser.add_argument("--max-steps", type=int, default=8000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = collect(
            folder, chosen.games, chosen.first_seed, workers=1, max_steps=chosen.max_steps
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        games = open_index(folder)
        stuck = sum(is_stuck(game) for game in games)
        depth = np.mean([depth_of(game) for game in games])
    points = np.array([game.points for game in games])
    rows = (
        ("games (set aside)", f"{done.games} ({done.set_aside})"),
        ("mean score", f"{points.mean():,.0f} +- {points.std(ddof=1) / len(points) ** 0.5:,.0f}"),
        ("median score", f"{np.median(points):,.0f}"),
        ("mean deepest level", f"{depth:.2f}"),
        ("steps a game", f"{done.steps / done.games:,.0f}"),
        ("ended by the step cap", f"{done.capped / done.games:.1%}"),
        ("stuck there", f"{stuck / done.games:.1%}"),
        ("steps a CPU second, recording", f"{done.steps / (used.ru_utime + used.ru_stime):,.0f}"),
    )
    seeds = f"{chosen.first_seed} to {chosen.first_seed + chosen.games - 1}"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    text = f"Seeds {seeds}, step cap {chosen.max_steps}\n\n| what | figure |\n|---|---|\n{table}\n"
    print(text)
    if chosen.out:
        (chosen.out / "nethack_expert.md").write_text(text)


if __name__ == "__main__":
    main()
