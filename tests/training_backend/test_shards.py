"""Reading decoded demonstrations: every transition once an epoch, in lanes that carry on."""

import json

import numpy as np
import pyarrow as pa
import pytest

from scaling_analysis.errors import TrainError
from training_backend.shards import STUCK_KEYS, Shards
from training_backend.tasks import nethack


def write(folder, games, encoding=nethack.ENCODING, stuck=None):
    """A shard of games (name, steps) whose `numbers` say which game and step a row is.

    `stuck` is a slice of the rows whose player presses one key.
    """
    folder.mkdir(exist_ok=True)
    steps = sum(length for _, length in games)
    columns = {
        field.name: np.zeros((steps, *field.shape), field.dtype) for field in nethack.FIELDS
    } | {"action": np.arange(steps, dtype=np.uint8) % nethack.ACTIONS}
    if stuck is not None:
        columns["action"][stuck] = 3
    at = 0
    for name, length in games:
        rows = np.arange(length)
        columns["numbers"][at : at + length, 0] = int(name)
        columns["numbers"][at : at + length, 1] = rows % 256
        columns["numbers"][at : at + length, 2] = rows // 256
        at += length
    arrays = []
    for column in columns.values():
        flat = pa.array(column.reshape(-1))
        one = column.ndim == 1
        arrays.append(flat if one else pa.FixedSizeListArray.from_arrays(flat, column.shape[1]))
    about = {
        "encoding": encoding,
        "games": [{"name": name, "steps": length, "score": 10.0} for name, length in games],
        "skipped": [],
        "hash": f"{games}",
    }
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    schema = batch.schema.with_metadata({"about": json.dumps(about)})
    path = folder / f"{games[0][0]}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


@pytest.fixture
def shards(tmp_path):
    """Five games of uneven length in two shards."""
    write(tmp_path, [("1", 300), ("2", 7), ("3", 150)])
    write(tmp_path, [("4", 1), ("5", 342)])
    return Shards(tmp_path)


def place(chunk):
    """Game and step of every row of a chunk."""
    numbers = chunk["numbers"].astype(int)
    return numbers[..., 0], numbers[..., 1] + 256 * numbers[..., 2]


def test_counts(shards):
    assert len(shards) == 800
    assert shards.steps.tolist() == [300, 7, 150, 1, 342]
    assert shards.games == ["1", "2", "3", "4", "5"]
    assert shards.actions == 121


@pytest.mark.parametrize(("batch", "chunk"), [(1, 10), (4, 25), (8, 10), (3, 7)])
def test_an_epoch_is_every_transition_once(shards, batch, chunk):
    stream = shards.stream(batch, chunk, seed=3)
    chunks = [stream[k] for k in range(stream.steps_an_epoch)]
    game, step = (np.stack(arrays) for arrays in zip(*map(place, chunks), strict=True))
    rows = set(zip(game.ravel().tolist(), step.ravel().tolist(), strict=True))
    assert len(rows) == game.size  # nothing twice
    left_out = len(shards) - game.size
    assert left_out < batch * (chunk + 1)  # and no more left out than fills no step
    assert stream.epochs(stream.steps_an_epoch) == 1
    assert stream.unique_samples(2) == 2 * batch * chunk
    assert stream.unique_samples(10**6) == 800


def test_lanes_carry_on_and_reset_at_borders(shards):
    stream = shards.stream(4, 25, seed=1)
    last = None
    borders = 0
    for k in range(2 * stream.steps_an_epoch):
        chunk = stream[k]
        game, step = place(chunk)
        for t in range(25):
            now = game[t], step[t]
            for lane in range(4):
                carries_on = (
                    last is not None
                    and last[0][lane] == now[0][lane]
                    and last[1][lane] + 1 == now[1][lane]
                )
                epoch_begins = t == 0 and k % stream.steps_an_epoch == 0
                expected = now[1][lane] == 0 or epoch_begins
                assert chunk["reset"][t, lane] == expected
                assert carries_on or expected
                borders += now[1][lane] == 0
            last = now
    assert borders >= 2 * 4


def test_any_step_can_be_read_first(shards):
    stream = shards.stream(4, 25, seed=1)
    steps = [stream[k] for k in range(3 * stream.steps_an_epoch)]
    for k in (17, 3, 20, 0):
        for name, array in shards.stream(4, 25, seed=1)[k].items():
            np.testing.assert_array_equal(array, steps[k][name])


def test_order_follows_seed_and_epoch(shards):
    def first_games(seed, k):
        return place(shards.stream(4, 25, seed)[k])[0]

    epoch = shards.stream(4, 25, 0).steps_an_epoch
    assert (first_games(0, 0) == first_games(0, 0)).all()
    assert any((first_games(0, 0) != first_games(seed, 0)).any() for seed in (1, 2, 3))
    assert any((first_games(0, 0) != first_games(0, i * epoch)).any() for i in (1, 2, 3))


def test_chunks_are_copies_of_the_right_types(shards):
    chunk = shards.stream(2, 10, seed=0)[0]
    for field in shards.fields:
        assert chunk[field.name].shape == (10, 2, *field.shape)
        assert chunk[field.name].dtype == field.dtype
    assert chunk["action"].dtype == np.uint8
    assert chunk["reset"].dtype == bool
    chunk["cells"][:] = 9
    assert not shards.stream(2, 10, seed=0)[0]["cells"].any()


def test_held_out_frames_are_one_stretch_a_game(shards):
    held_out = shards.held_out(games=5, frames=100, warmup=20)
    game, step = place(held_out.arrays)
    assert held_out.games == ("1", "2", "3", "4", "5")
    assert held_out.counts.sum(0).tolist() == [100, 7, 100, 1, 100]
    for lane, name in enumerate(held_out.games):
        rows = np.flatnonzero(held_out.counts[:, lane])
        assert (game[rows, lane] == int(name)).all()
        assert (np.diff(step[rows, lane]) == 1).all()
        assert rows[0] in (0, min(20, step[rows[0], lane]))  # warm-up before it, where there is any
        assert (np.diff(step[: rows[-1] + 1, lane]) == 1).all()
    assert held_out.arrays["reset"].sum() == 5
    again = shards.held_out(games=5, frames=100, warmup=20)
    np.testing.assert_array_equal(held_out.arrays["numbers"], again.arrays["numbers"])


@pytest.mark.parametrize(("keys", "played"), [(STUCK_KEYS - 1, 900), (STUCK_KEYS, 500)])
def test_held_out_frames_end_where_the_player_got_stuck(tmp_path, keys, played):
    write(tmp_path, [("1", 100), ("2", 900)], stuck=slice(600, 600 + keys))
    shards = Shards(tmp_path)
    assert [shards.played_steps(game) for game in range(2)] == [100, played]
    _, step = place((held_out := shards.held_out(games=2, frames=400)).arrays)
    assert held_out.counts.sum(0).tolist() == [100, 400]
    assert step[held_out.counts[:, 1], 1].max() < played


def test_too_few_held_out_games(shards):
    with pytest.raises(TrainError, match="needs 128 games, there are 5"):
        shards.held_out()


def test_too_few_transitions(shards):
    with pytest.raises(TrainError, match="800 transitions are too few for 100 lanes of 32 steps"):
        shards.stream(100, 32, 0)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(TrainError, match=r"no decoded demonstrations.*scaling-train collect"):
        Shards(tmp_path)


def test_shards_of_another_encoding_are_refused(tmp_path):
    write(tmp_path, [("1", 10)], encoding="nethack-0")
    with pytest.raises(TrainError, match=r"encoded as nethack-0.*decode the games again"):
        Shards(tmp_path)


def test_the_fingerprint_follows_the_content(tmp_path):
    prints = []
    for i, length in enumerate((10, 10, 11)):
        write(tmp_path / f"{i}", [("1", length)])
        prints.append(Shards(tmp_path / f"{i}").fingerprint)
    assert prints[0] == prints[1] != prints[2]
