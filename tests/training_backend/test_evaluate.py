"""Held-out loss by game, returns by protocol, and a game on show."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from scaling_analysis.errors import TrainError
from training_backend import checkpoint, evaluate, rollouts
from training_backend.evaluate import evaluate_returns, held_out_loss, load_agent, play
from training_backend.models import Agent
from training_backend.shards import HeldOut
from training_backend.tasks import nethack
from training_backend.tasks.nethack_protocol import PROTOCOLS

PROTOCOL = dataclasses.replace(PROTOCOLS["nethack-monk"], max_steps=40)


def frames(lengths, seed=0):
    """Random observations of games of the given lengths."""
    rng = np.random.default_rng(seed)
    steps, games = max(lengths), len(lengths)
    arrays = {
        field.name: rng.integers(
            0, field.vocabulary or 2, (steps, games, *field.shape), dtype=field.dtype
        )
        for field in nethack.FIELDS
    }
    arrays["action"] = rng.integers(0, nethack.ACTIONS, (steps, games), dtype=np.uint8)
    arrays["reset"] = np.zeros((steps, games), bool)
    arrays["reset"][0] = True
    counts = np.arange(steps)[:, None] < np.array(lengths)
    return HeldOut(arrays=arrays, counts=counts, games=tuple(map(str, range(games))))


@pytest.fixture
def agent():
    torch.manual_seed(1)
    agent = Agent(nethack.FIELDS, nethack.ACTIONS, width=3)
    with torch.no_grad():
        agent.head.weight.mul_(20)
    return agent.eval()


def test_a_uniform_agent_loses_the_logarithm_of_the_actions(agent):
    with torch.no_grad():
        agent.head.weight.zero_()
        agent.head.bias.zero_()
    loss, loss_se = held_out_loss(agent, frames((200, 7, 90)))
    assert loss == pytest.approx(math.log(121), rel=1e-6)
    assert loss_se == pytest.approx(0, abs=1e-7)


def test_every_game_counts_the_same(agent):
    held_out = frames((150, 5, 70, 1))
    tensors = {name: torch.from_numpy(array) for name, array in held_out.arrays.items()}
    with torch.no_grad():
        logits, _ = agent(tensors, agent.initial_state(4), tensors["reset"])
    losses = functional.cross_entropy(
        logits.flatten(0, 1), tensors["action"].flatten().long(), reduction="none"
    ).view(150, 4)
    means = [losses[:length, lane].mean().item() for lane, length in enumerate((150, 5, 70, 1))]
    loss, loss_se = held_out_loss(agent, held_out)
    assert loss == pytest.approx(np.mean(means), rel=1e-5)
    assert loss_se == pytest.approx(np.std(means, ddof=1) / 2, rel=1e-5)


def test_frames_that_do_not_count_only_fill_the_memory(agent):
    held_out = frames((100, 100))
    loss, _ = held_out_loss(agent, held_out)
    warm = held_out.counts.copy()
    warm[:50] = False
    later, _ = held_out_loss(agent, dataclasses.replace(held_out, counts=warm))
    assert later != pytest.approx(loss, rel=1e-4)
    cut = {name: array[50:] for name, array in held_out.arrays.items()}
    cold, _ = held_out_loss(agent, HeldOut(arrays=cut, counts=warm[50:], games=held_out.games))
    assert cold != pytest.approx(later, rel=1e-6)


def test_returns_are_those_of_the_protocol_s_first_games(agent, monkeypatch):
    monkeypatch.setattr(rollouts, "LANES", 4)
    table = evaluate_returns(agent, PROTOCOL, 5)
    assert table.columns.tolist() == ["episode", "seed", "return", "length", "ending"]
    assert table["seed"].tolist() == list(range(3_000_000, 3_000_005))
    assert table["episode"].tolist() == list(range(5))
    assert table["length"].between(1, 40).all()
    assert set(table["ending"]) <= {"over", "cap", "stalled"}
    first = evaluate_returns(agent, PROTOCOL, 2)
    assert first.equals(table.iloc[:2])


def test_a_game_is_shown_key_by_key(agent, monkeypatch, tmp_path):
    monkeypatch.setattr(rollouts, "LANES", 4)
    monkeypatch.setattr(evaluate, "load_agent", lambda _: (agent, None, {}))
    shown = []
    protocol = dataclasses.replace(PROTOCOL, max_steps=6)
    episode = play(tmp_path, seed=4_960_000, protocol=protocol, delay=0, show=shown.append)
    assert episode.steps == len(shown) == 6
    plain = [re.sub(r"\033\[[0-9;]*[a-zA-Z]", "", text) for text in shown]
    assert all("Dlvl:1" in text for text in plain)


def test_a_file_without_an_agent_is_an_error(tmp_path):
    with pytest.raises(TrainError, match="no such checkpoint"):
        play(tmp_path / "none.safetensors")


@pytest.mark.parametrize("about", [{}, {"config": "{}", "steps": 3}])
def test_a_checkpoint_that_is_no_agent_is_named(tmp_path, about):
    path = tmp_path / "training.safetensors"
    checkpoint.save(path, {"a": torch.zeros(2)}, about)
    with pytest.raises(
        TrainError, match=r"training\.safetensors: no agent that was kept at a budg"
    ):
        load_agent(path)
