"""From recordings to what a run trains on and is judged by, for both observations."""

import math
import shutil

import pytest
import torch

from scaling_analysis.errors import TrainError
from training_backend.bench import HELD_OUT, TRAIN, open_bench, open_split, shards_folder
from training_backend.frames import FrameShards
from training_backend.models import Agent
from training_backend.preparing import prepare_demonstrations
from training_backend.shards import Shards


@pytest.fixture(scope="module")
def data(recorded_games, tmp_path_factory):
    """Both splits of the recorded games, taken as somebody else's, as features and as screens."""
    folder = tmp_path_factory.mktemp("bench")
    said = []
    prepare_demonstrations(
        folder,
        0,
        2,
        source=recorded_games[0].paths[0].parent.parent,
        observations=("features", "screen"),
        say=said.append,
    )
    assert "2 games to train on and 2 held out" in said[0]
    assert len(said) == 5
    assert all("2 games" in line for line in said)
    return folder


def test_each_observation_has_its_own_shards_of_the_same_games(data):
    for split in (TRAIN, HELD_OUT):
        features, screens = (open_split(data, split, o) for o in ("features", "screen"))
        assert isinstance(features, Shards)
        assert isinstance(screens, FrameShards)
        assert features.games == screens.games
        assert len(features) == len(screens)
    assert not set(open_split(data, TRAIN).games) & set(open_split(data, HELD_OUT).games)


@pytest.mark.parametrize(("family", "width"), [("lstm", 3), ("screen-lstm", 2)])
def test_agents_are_measured_on_what_they_see(data, family, width):
    bench = open_bench("nethack", data)
    observation = "screen" if family.startswith("screen") else "features"
    demonstrations = bench.open_demonstrations(observation)
    torch.manual_seed(0)
    agent = Agent(demonstrations.fields, demonstrations.actions, width, family).eval()
    with torch.no_grad():
        agent.head.weight.zero_()
        agent.head.bias.zero_()
    measured = bench.held_out_loss(agent)
    assert measured["loss"] == pytest.approx(math.log(121), rel=1e-5)
    assert measured["loss_se"] == pytest.approx(0, abs=1e-6)


def test_a_game_in_both_splits_is_refused(data, tmp_path):
    shutil.copytree(data / "shards", tmp_path / "shards")
    (train,), (held_out,) = ((tmp_path / "shards" / s).glob("*.arrow") for s in (TRAIN, HELD_OUT))
    shutil.copy(held_out, train)
    with pytest.raises(TrainError, match=r"train: holds 2 of the held-out games, .* for one"):
        open_bench("nethack", tmp_path)


def test_what_was_not_decoded_is_asked_for(data, tmp_path):
    (tmp_path / "shards").symlink_to(data / "shards")
    bench = open_bench("nethack", tmp_path)
    with pytest.raises(
        TrainError, match=r"no decoded demonstrations.*collect --observation screen"
    ):
        bench.open_demonstrations("screen")
    (tmp_path / "shards").unlink()
    (tmp_path / "frames").symlink_to(data / "frames")
    assert isinstance(open_bench("nethack", tmp_path).open_demonstrations("screen"), FrameShards)
    with pytest.raises(TrainError, match=r"shards.*no decoded demonstrations"):
        open_bench("nethack", tmp_path / "nothing")
    with pytest.raises(TrainError, match="task 'chess' is not known"):
        open_bench("chess", data)


def test_a_missing_held_out_shard_is_found_when_the_bench_is_opened(data, tmp_path):
    for split in (TRAIN, HELD_OUT):
        target = shards_folder(tmp_path, split)
        target.mkdir(parents=True)
        for path in shards_folder(data, split).iterdir():
            (target / path.name).symlink_to(path)
    open_bench("nethack", tmp_path)
    next(shards_folder(tmp_path, HELD_OUT).glob("*.arrow")).rename(tmp_path / "lost.arrow")
    with pytest.raises(TrainError, match=r"held_out: no decoded demonstrations"):
        open_bench("nethack", tmp_path)
