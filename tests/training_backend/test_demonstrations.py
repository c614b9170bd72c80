"""Recording, resuming, indexing and reading of demonstrations, on games of a few dozen keys."""

import bz2
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nle.dataset import TtyrecDataset, db, populate_db

from scaling_analysis.errors import ScalingWarning, TrainError
from training_backend.demonstrations import (
    DATABASE,
    HELD_OUT_SEEDS,
    TRAIN_SEEDS,
    open_index,
    read_game,
    read_keys,
    split_games,
)
from training_backend.experts.nethack import Player
from training_backend.files import held
from training_backend.recording import collect
from training_backend.tasks.nethack_env import make_env, start_game

FIRST = 4_900_000
GAMES = 6
CAP = 60
"""Steps; few games end before it, so that both ends of a game occur."""
_RECORD = f"""
from training_backend.recording import collect
if __name__ == "__main__":
    collect(__import__("sys").argv[1], {GAMES}, {FIRST}, workers=2, max_steps={{cap}})
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded")
    collection = collect(root, GAMES, FIRST, workers=1, max_steps=CAP)
    assert collection.recorded == GAMES
    return root


def games_of(root):
    """(seed, keys, points) of every indexed game."""
    return {(game.seed, *read_game(game)) for game in open_index(root)}


def replayed(seed, steps):
    """Keys that the expert presses in a game of this seed that nobody records."""
    env = make_env()
    player = Player()
    observation = start_game(env, seed)
    player.reset()
    keys = bytearray()
    done = False
    while not done and len(keys) < steps:
        action = player.act(*(observation[k] for k in ("tty_chars", "tty_colors", "tty_cursor")))
        keys.append(int(env.actions[action]))
        observation, _, done, _, _ = env.step(action)
    env.close()
    return bytes(keys)


def test_a_recorded_game_is_the_expert_s_own_play_cut_to_it(recorded):
    games = open_index(recorded)
    assert [game.seed for game in games] == list(range(FIRST, FIRST + GAMES))
    assert all(game.capped and game.played == CAP for game in games)
    assert all(game.death == "quit" and game.points >= 0 for game in games)
    for game in games[:2]:
        keys, points = read_game(game)
        assert keys == replayed(game.seed, CAP)
        assert points == game.points
        everything, scores = read_keys(game.paths[0])
        assert len(everything) > game.lead + CAP  # NLE's own keys that end the game
        assert len(scores) == len(everything)


def test_nle_s_own_dataset_reads_the_collection(recorded):
    from nle.dataset import TtyrecDataset

    open_index(recorded)
    data = TtyrecDataset(
        "games", 1, 32, dbfilename=str(recorded / "ttyrecs.db"), shuffle=False, gameids=[1]
    )
    game = next(g for g in open_index(recorded) if g.gameid == 1)
    keys = b"".join(
        minibatch["keypresses"][0][minibatch["gameids"][0] != 0].tobytes() for minibatch in data
    )
    assert keys[game.lead : game.lead + CAP] == read_game(game)[0]


def test_a_second_call_records_nothing_and_more_games_only_the_new_ones(recorded, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(recorded, root)
    assert collect(root, GAMES, FIRST, workers=1, max_steps=CAP).recorded == 0
    more = collect(root, GAMES + 1, FIRST, workers=1, max_steps=CAP)
    assert (more.recorded, more.games) == (1, GAMES + 1)
    assert {seed for seed, _, _ in games_of(root)} == set(range(FIRST, FIRST + GAMES + 1))


def _interrupted(root, cap, after):
    """Record, killed after some seconds (with kill -9), as often as `after` has entries."""
    script = root.parent / "record.py"
    script.write_text(_RECORD.format(cap=cap))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for seconds in after:
        process = subprocess.Popen([sys.executable, str(script), str(root)], env=environment)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_killed_recording_resumes_to_the_same_games(recorded, tmp_path):
    root = tmp_path / "killed"
    root.mkdir()
    script = tmp_path / "record.py"
    script.write_text(_RECORD.format(cap=CAP))
    process = subprocess.Popen(
        [sys.executable, str(script), str(root)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not list(root.glob("*/*.xlogfile")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(root.glob("*/*.xlogfile")))
    assert kept >= 1
    collection = collect(root, GAMES, FIRST, workers=1, max_steps=CAP)
    assert collection.recorded <= GAMES - kept
    assert games_of(root) == games_of(recorded)
    # The killed recording's own process ends when it sees that its parent is gone.
    deadline = time.monotonic() + 60
    while list(root.glob(".recording/*")) and time.monotonic() < deadline:
        collect(root, GAMES, FIRST, workers=1, max_steps=CAP)
        time.sleep(0.2)
    assert not list(root.glob(".recording/*"))
    assert games_of(root) == games_of(recorded)


@pytest.mark.slow
def test_ten_kills_at_random_moments_lose_nothing(tmp_path):
    whole = tmp_path / "whole"
    collect(whole, GAMES, FIRST, workers=2, max_steps=1500)
    root = tmp_path / "killed"
    root.mkdir()
    _interrupted(root, 1500, np.random.default_rng(0).uniform(0.5, 4, 10))
    collect(root, GAMES, FIRST, workers=2, max_steps=1500)
    assert games_of(root) == games_of(whole)


def test_two_recorders_of_one_folder_are_refused(tmp_path):
    with held(tmp_path / ".lock", ""), pytest.raises(TrainError, match="another process is rec"):
        collect(tmp_path, 1, FIRST)


@pytest.mark.parametrize("bad", [(0, FIRST, 10), (1, -1, 10), (1, FIRST, 0)])
def test_bad_counts_are_refused(tmp_path, bad):
    games, first, cap = bad
    with pytest.raises(TrainError, match="cannot record"):
        collect(tmp_path, games, first, max_steps=cap)


class _FailingPlayer(Player):
    def act(self, chars, colors, cursor):
        raise OSError(28, "No space left on device")


def test_a_full_disk_stops_with_a_clear_error_and_keeps_the_games(recorded, tmp_path):
    root = tmp_path / "full"
    shutil.copytree(recorded, root)
    with pytest.raises(TrainError, match=r"No space left.*are kept"):
        collect(root, GAMES + 1, FIRST, workers=1, max_steps=CAP, expert=_FailingPlayer)
    assert games_of(root) == games_of(recorded)


@pytest.mark.parametrize("damage", ["cut", "flipped", "not bz2", "inner cut"])
def test_a_damaged_recording_is_named_and_skipped(recorded, tmp_path, damage):
    root = tmp_path / "damaged"
    shutil.copytree(recorded, root)
    victim = open_index(root)[2].paths[0]
    raw = victim.read_bytes()
    # Halfway lie the compressed symbols, under the checksum; the tables of a bzip2 block before
    # them hold bytes that no decoder reads.
    half = len(raw) // 2
    victim.write_bytes(
        {
            "cut": raw[:half],
            "flipped": raw[:half] + bytes([raw[half] ^ 255]) + raw[half + 1 :],
            "not bz2": b"Hello",
            "inner cut": bz2.compress(bz2.decompress(raw)[:-3]),
        }[damage]
    )
    for game in open_index(root):
        if game.seed != FIRST + 2:
            read_game(game)
            continue
        with pytest.raises(TrainError, match=victim.name):
            read_game(game)


def _spoil(path):
    path.write_bytes(b"\xff\xfe" * 40)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello\tworld\n"),
        lambda path: path.write_text(path.read_text().replace("points=", "points=x")),
        _spoil,
    ],
)
def test_a_recording_without_a_readable_row_is_counted_and_named(recorded, tmp_path, damage):
    root = tmp_path / "odd"
    shutil.copytree(recorded, root)
    (root / DATABASE).unlink(missing_ok=True)
    victim = sorted(root.glob("*/*.xlogfile"))[2]
    damage(victim)
    for _ in range(2):  # the index that is made, and the same one read again
        with pytest.warns(ScalingWarning, match=rf"1 recordings are left out.*{victim.stem}"):
            games = open_index(root)
        assert len(games) == GAMES - 1
    dataset = TtyrecDataset("games", batch_size=1, seq_length=8, dbfilename=str(root / DATABASE))
    assert dataset._rootpath == str(root)


def test_a_recording_that_is_gone_keeps_no_other_from_being_indexed(recorded, tmp_path):
    root = tmp_path / "gone"
    shutil.copytree(recorded, root)
    (root / DATABASE).unlink(missing_ok=True)
    sorted(root.glob("*/*.bz2"))[0].unlink()
    assert len(open_index(root)) == GAMES - 1


def test_a_folder_of_unreadable_rows_names_the_first(recorded, tmp_path):
    root = tmp_path / "unreadable"
    shutil.copytree(recorded, root)
    (root / DATABASE).unlink(missing_ok=True)
    for path in root.glob("*/*.xlogfile"):
        _spoil(path)
    with pytest.raises(TrainError, match=r"no game in .* can be indexed: .*xlogfile is damaged"):
        open_index(root)


def test_a_row_of_ours_that_lacks_a_field_is_named(recorded, tmp_path):
    root = tmp_path / "partial"
    shutil.copytree(recorded, root)
    victim = sorted(root.glob("*/*.xlogfile"))[0]
    victim.write_text(victim.read_text().replace("\tlead=", "\tleading="))
    with pytest.raises(TrainError, match=rf"{victim.name}: damaged \(lead is no number"):
        open_index(root)


@pytest.mark.parametrize("content", [b"", b"no database" * 500, "tables"])
def test_an_index_that_is_none_is_made_again(recorded, tmp_path, content):
    root = tmp_path / "odd"
    shutil.copytree(recorded, root)
    (root / DATABASE).unlink(missing_ok=True)
    if content == "tables":
        db.create(str(root / DATABASE))
    else:
        (root / DATABASE).write_bytes(content)
    assert games_of(root) == games_of(recorded)


def test_somebody_s_own_database_is_left_as_it_is(recorded, tmp_path, capsys):
    root = tmp_path / "theirs"
    shutil.copytree(recorded, root)
    (root / DATABASE).unlink(missing_ok=True)
    db.create(str(root / DATABASE))
    populate_db.add_nledata_directory(str(root), "mine", str(root / DATABASE))
    before = (root / DATABASE).read_bytes()
    assert games_of(root) == games_of(recorded)
    assert (root / DATABASE).read_bytes() == before


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(TrainError, match=r"no recorded games.*collect"):
        open_index(tmp_path)


def test_the_split_is_by_game_and_does_not_depend_on_order(recorded):
    games = open_index(recorded)
    train, held_out = split_games(games, 2)
    assert (len(train), len(held_out)) == (GAMES - 2, 2)
    assert {g.name for g in train} | {g.name for g in held_out} == {g.name for g in games}
    again = split_games(games[::-1], 2)
    assert {g.name for g in again[1]} == {g.name for g in held_out}
    with pytest.raises(TrainError, match="cannot hold out"):
        split_games(games, GAMES)


def test_seeds_of_training_held_out_and_evaluation_are_disjoint():
    assert TRAIN_SEEDS.stop <= HELD_OUT_SEEDS.start
    assert HELD_OUT_SEEDS.stop <= 3_000_000  # where evaluation begins


def test_recordings_of_others_are_read_by_the_same_path(tmp_path):
    folder = os.environ.get("SCALING_REFERENCE_DATA")
    if not folder:
        pytest.skip("SCALING_REFERENCE_DATA is not set")
    root = Path(folder) / "nld_autoascend"
    games = open_index(root, database=tmp_path / "index.db")
    assert len(games) == 139
    # Its README gives 14,925: the score in the game, before death takes a tenth of the gold.
    assert np.mean([game.points for game in games]) == pytest.approx(14_925, rel=0.005)
    assert all(game.seed is None and game.lead == 0 and game.played is None for game in games)
    shortest = min(games, key=lambda game: game.paths[0].stat().st_size)
    keys, points = read_game(shortest)
    assert len(keys) > 1000
    assert points == shortest.points
