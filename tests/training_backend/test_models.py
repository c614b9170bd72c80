"""Agents: gradients against plain PyTorch, and memory that ends where a game ends."""

import numpy as np
import pytest
import torch
from markov_source import ACTIONS, FIELDS, MarkovSource
from screens import random_screens, screen_fields
from torch import Tensor
from torch.nn import functional as F

from scaling_analysis import PlanError
from training_backend import models
from training_backend.heads import ReturnHead
from training_backend.models import Agent

SCREEN = screen_fields()


KINDS = ["lstm", "feedforward", "transformer", "screen-lstm", "screen-transformer", "lstm-returns"]
"""Every observation, core and head."""


def _chunk(batch: int = 5, steps: int = 23, step: int = 0, name: str = "lstm") -> dict[str, Tensor]:
    if name.startswith("screen"):
        resets = torch.zeros(steps, batch, dtype=torch.bool)
        resets[0] = resets[5, 0] = resets[6, 0] = resets[11, 1] = True
        return random_screens(SCREEN, steps, batch) | {"reset": resets}
    chunk = MarkovSource().stream(batch, steps, seed=3)[step]
    return {name: torch.from_numpy(column) for name, column in chunk.items()}


def _agent(name: str = "lstm", width: float = 6) -> Agent:
    torch.manual_seed(0)
    agent = Agent(SCREEN if name.startswith("screen") else FIELDS, ACTIONS, width, name).double()
    for parameter in agent.parameters():
        if not parameter.any():  # layers that start at zero do something here
            torch.nn.init.normal_(parameter, std=0.3)
    return agent


def _masked_loop(agent: Agent, chunk: dict[str, Tensor]) -> Tensor:
    """The agent written out: built-in embedding, one LSTM cell a step, the state times a mask."""
    assert isinstance(agent.core, torch.nn.LSTM)
    cells, previous, status = (chunk[f.name] for f in FIELDS)
    steps, batch = previous.shape
    ids = torch.cat([cells.flatten(2).long(), previous.long().unsqueeze(-1) + 20], -1)
    x = F.embedding(ids, agent.embedding).flatten(2) @ agent.from_ids.weight.t()
    x = x + (status.double() / 16) @ agent.from_numbers.weight.t()
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    x = (x * agent.norm.weight + agent.norm.bias).relu()
    h, c = agent.initial_state(batch)
    outputs = []
    for t in range(steps):
        keep = (~chunk["reset"][t]).double().unsqueeze(-1)
        h, c = torch.lstm_cell(x[t], (h * keep, c * keep), *agent.core.all_weights[0])
        outputs.append(agent.head(torch.cat([x[t], h], -1)))
    return torch.stack(outputs)


def test_logits_and_gradients_equal_those_of_a_plain_masked_loop() -> None:
    agent, chunk = _agent(), _chunk()
    assert chunk["reset"][1:].sum() >= 2  # games end inside the chunk
    results = []
    for logits in (
        agent(chunk, agent.initial_state(5), chunk["reset"])[0],
        _masked_loop(agent, chunk),
    ):
        agent.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), chunk["action"].flatten().long()).backward()
        results.append((logits.detach(), {k: p.grad for k, p in agent.named_parameters()}))
    (logits, grads), (expected, expected_grads) = results
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-9, atol=1e-12, msg=name)


def test_float32_kernel_agrees_with_float64() -> None:
    # float32 takes a fused kernel that float64 does not have
    agent, chunk = _agent(width=20), _chunk(batch=16)
    grads = []
    for model in (agent, _agent(width=20).float()):
        logits, _ = model(chunk, model.initial_state(16), chunk["reset"])
        F.cross_entropy(logits.flatten(0, 1), chunk["action"].flatten().long()).backward()
        grads.append({k: p.grad for k, p in model.named_parameters()})
    for name, expected in grads[0].items():
        error = (grads[1][name].double() - expected).abs().max() / expected.abs().max()
        assert error < 2e-5, name


@pytest.mark.parametrize("name", KINDS)
def test_two_games_in_one_lane_are_as_separate_games(name: str) -> None:
    agent, chunk = _agent(name), _chunk(batch=2, steps=20, name=name)
    resets = torch.zeros(20, 2, dtype=torch.bool)
    resets[8, 0] = resets[13, 1] = True
    together, _ = agent(chunk, agent.initial_state(2), resets)
    for lane, border in ((0, 8), (1, 13)):
        for part in (slice(0, border), slice(border, 20)):
            game = {f.name: chunk[f.name][part, lane : lane + 1] for f in agent.fields}
            alone, _ = agent(game, agent.initial_state(1))
            torch.testing.assert_close(together[part, lane], alone[:, 0], rtol=1e-10, atol=1e-12)


def test_no_gradient_flows_across_a_border() -> None:
    agent, chunk = _agent(), _chunk(batch=1, steps=10)
    resets = torch.zeros(10, 1, dtype=torch.bool)
    resets[6] = True
    state = tuple(s.requires_grad_() for s in agent.initial_state(1))
    logits, _ = agent(chunk, state, resets)
    before, after = (
        torch.autograd.grad(part.sum(), state[0], retain_graph=True)[0].abs().sum()
        for part in (logits[:6], logits[6:])
    )
    assert before > 0
    assert after == 0


def test_what_is_on_the_screen_reaches_the_head_without_the_core() -> None:
    # a skip past the core: with the core silenced the logits still follow the observation
    agent, chunk = _agent(), _chunk()
    assert isinstance(agent.head, torch.nn.Linear)
    with torch.no_grad():
        agent.head.weight[:, agent.dimensions.hidden :] = 0
    logits, _ = agent(chunk, agent.initial_state(5), chunk["reset"])
    later = agent({k: v[3:] for k, v in chunk.items()}, agent.initial_state(5))[0]
    torch.testing.assert_close(later, logits[3:], rtol=1e-10, atol=1e-12)
    assert logits.std(0).min() > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_state_carries_over_chunks_and_single_steps(name: str) -> None:
    agent = _agent(name)
    chunk = _chunk(batch=4, steps=24, name=name)
    whole, last = agent(chunk, agent.initial_state(4), chunk["reset"])
    state, parts = agent.initial_state(4), []
    for start in (0, 10):
        part = {name: column[start : start + 10] for name, column in chunk.items()}
        logits, state = agent(part, state, part["reset"])
        parts.append(logits)
    for t in range(20, 24):
        row = {name: column[t] for name, column in chunk.items()}
        logits, state = agent.step(row, state, row["reset"])
        parts.append(logits.unsqueeze(0))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-10, atol=1e-12)
    # what they remember is the same: what follows is
    one, other = (agent(chunk, memory)[0] for memory in (state, last))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_feedforward_core_has_no_memory() -> None:
    agent, chunk = _agent("feedforward"), _chunk(batch=3, steps=12)
    logits, state = agent(chunk, agent.initial_state(3), chunk["reset"])
    order = torch.from_numpy(np.random.default_rng(0).permutation(12))
    shuffled, _ = agent({k: v[order] for k, v in chunk.items()}, state)
    torch.testing.assert_close(shuffled, logits[order], rtol=1e-10, atol=1e-12)
    assert state == ()


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_learns_and_every_field_is_read(name: str) -> None:
    agent, chunk = _agent(name), _chunk(name=name)
    z, _ = agent.remember(chunk, agent.initial_state(5), chunk["reset"])
    if isinstance(agent.head, ReturnHead):
        outputs = agent.head.train_logits(z, torch.arange(115).view(23, 5) % 32)
    else:
        outputs = (agent.head(z),)
    torch.stack([x.log_softmax(-1).square().sum() for x in outputs]).sum().backward()
    idle = [k for k, p in agent.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
    for field in agent.fields:
        other_ids = (chunk[field.name].int() + 1) % (field.vocabulary or 12)
        changed = chunk | {field.name: other_ids.to(torch.uint8)}
        other, _ = agent.remember(changed, agent.initial_state(5), chunk["reset"])
        assert (other != z).any(-1).all(), field.name


def test_play_asks_the_head_for_high_returns_and_forward_does_not() -> None:
    agent, chunk = _agent("lstm-returns"), _chunk(steps=1)
    assert isinstance(agent.head, ReturnHead)
    agent.head.set_returns(list(range(31)), list(range(32)), kappa=5.0)
    row = {name: column[0] for name, column in chunk.items()}
    z, _ = agent.remember(chunk, agent.initial_state(5))
    forward, _ = agent(chunk, agent.initial_state(5))
    played, _ = agent.step(row, agent.initial_state(5))
    torch.testing.assert_close(forward, agent.head(z))
    torch.testing.assert_close(played, agent.head.play(z)[0])
    assert (played - forward[0]).abs().max() > 1e-3


def test_unknown_family_is_refused() -> None:
    with pytest.raises(PlanError, match="agent 'gru' is not known: choose one of lstm, feedf"):
        Agent(FIELDS, ACTIONS, 8, "gru")


def test_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width=0\.5: the dial starts at 1"):
        Agent(FIELDS, ACTIONS, 0.5)


@pytest.mark.parametrize("name", ["lstm", "screen-transformer"])
def test_fields_looked_up_one_by_one_give_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, chunk = _agent(name), _chunk(name=name)
    found = []
    for apart in (False, True):
        monkeypatch.setattr(models, "pays_apart", lambda table, apart=apart: apart)
        logits, _ = agent(chunk, agent.initial_state(5), chunk["reset"])
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
        found.append([logits, *torch.autograd.grad((weights * logits).sum(), agent.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["lstm", "feedforward", "transformer"])
def test_only_the_fused_lstm_looks_at_resets_in_the_hosts_memory(name: str) -> None:
    agent, chunk = _agent(name), {"reset": torch.zeros(3, 2, dtype=torch.bool)}
    assert agent.resets_of(chunk) is chunk["reset"]
    chunk["reset_host"] = chunk["reset"].clone()
    assert agent.resets_of(chunk) is chunk["reset_host" if name == "lstm" else "reset"]
