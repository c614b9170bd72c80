"""Recordings to shards: once, completely, resumable, and damaged games by name."""

import bz2
import dataclasses
import json
import struct

import numpy as np
import pyarrow as pa
import pytest
from ending_writer import write_or_end

from scaling_analysis.errors import TrainError
from training_backend import decoding, features, frames, shardfiles, ttyrecs
from training_backend.decoding import write_shards, write_splits
from training_backend.demonstrations import open_index, read_keys
from training_backend.features import encode_games
from training_backend.shardfiles import read_about
from training_backend.shards import Shards
from training_backend.tasks import nethack
from training_backend.ttyrecs import read_frames


def encode_alone(game):
    """Columns of one game by a plain loop over its frames."""
    frames = [np.concatenate(parts) for parts in zip(*read_frames(game, 97), strict=True)]
    chars, colors, cursor, keys, scores, _ = frames
    encoder = nethack.Encoder(1)
    previous = np.array([nethack.NO_ACTION], np.uint8)
    columns = {field.name: [] for field in nethack.FIELDS}
    for t in range(len(keys)):
        now = slice(t, t + 1)
        fields = encoder.encode(chars[now], colors[now], cursor[now], previous)
        for name, value in fields.items():
            columns[name].append(value[0])
        previous = nethack.ACTION_OF_KEY[keys[now]]
    stacked = {name: np.stack(values) for name, values in columns.items()}
    return stacked | {"action": nethack.ACTION_OF_KEY[keys], "score": scores}


@pytest.fixture
def broken_off(recorded_games, tmp_path):
    """A recording of which half was copied."""
    game = recorded_games[0]
    path = tmp_path / "half.ttyrec3.bz2"
    content = game.paths[0].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return dataclasses.replace(game, paths=(path,))


@pytest.fixture
def others(recorded_games, tmp_path):
    """Recordings of several blocks and of one; nobody says where the play ends, nor if whole."""
    games = []
    for game, level in zip(recorded_games[:2], (1, 9), strict=True):
        path = tmp_path / "others" / game.paths[0].name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bz2.compress(bz2.decompress(game.paths[0].read_bytes()), level))
        games.append(dataclasses.replace(game, paths=(path,), lead=0, played=None, checksum=None))
    return games


def columns_of(game, **options):
    return [np.concatenate(parts) for parts in zip(*read_frames(game, 97, **options), strict=True)]


def test_a_recording_is_checked_on_the_way_to_the_same_frames(others, monkeypatch):
    checked = [columns_of(game) for game in others]

    def refuse(path):
        raise AssertionError(f"{path} was decompressed before")

    monkeypatch.setattr(ttyrecs, "_refuse_damaged", refuse)
    for game, columns in zip(others, checked, strict=True):
        for early, late in zip(columns, columns_of(game, late=True), strict=True):
            np.testing.assert_array_equal(early, late)


def test_a_recording_that_does_not_prove_whole_is_checked_before(others, tmp_path, monkeypatch):
    def content():
        decoded = [
            write_shards(others, tmp_path / name, observation=name)
            for name in ("screen", "features")
        ]
        paths = sorted(tmp_path.glob("*/*.arrow"))
        return decoded, [path.read_bytes() for path in paths], paths

    before = content()
    for write, path in zip((features.write_features, frames.write_frames), before[2], strict=True):
        write(others, path, late=True)
    assert content() == before
    monkeypatch.setattr(ttyrecs, "_MARKED", 1)
    with pytest.raises(ttyrecs.Unproven, match="within a record"):
        list(read_frames(others[0], 64, late=True))
    monkeypatch.setattr(ttyrecs, "with_block", lambda *_: None)
    for write, path in zip((features.write_features, frames.write_frames), before[2], strict=True):
        write(others, path, late=True)
    assert content() == before


@pytest.mark.parametrize(("game", "place"), [(0, 0.3), (1, 0.98)])
def test_damage_is_found_by_processes_too(others, tmp_path, game, place):
    path = others[game].paths[0]
    data = path.read_bytes()
    at = int(place * len(data))
    path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    one, two = (write_shards(others, tmp_path / str(n), workers=n) for n in (1, 2))
    assert one == two
    assert one.games == 1
    assert "damaged" in dict(one.skipped)[others[game].name]


def test_a_recording_that_ends_within_a_record_is_left_out(others, tmp_path):
    path = others[0].paths[0]
    path.write_bytes(bz2.compress(bz2.decompress(path.read_bytes())[:-5]))
    with pytest.raises(ttyrecs.Unproven, match="within a record"):
        list(read_frames(others[0], 64, late=True))
    decoded = write_shards(others, tmp_path / "shards")
    assert decoded.games == 1
    assert "ends within a record" in dict(decoded.skipped)[others[0].name]


def test_a_recording_of_what_is_no_record_is_left_out(others, tmp_path):
    path = others[0].paths[0]
    content = bz2.decompress(path.read_bytes())
    path.write_bytes(bz2.compress(content + struct.pack("<iiiB", 1, 1, -5, 0)))
    with pytest.raises(ttyrecs.Unproven, match="no record"):
        list(read_frames(others[0], 64, late=True))
    decoded = write_shards(others, tmp_path / "shards")
    assert decoded.games == 1
    assert "what is no record" in dict(decoded.skipped)[others[0].name]


def test_where_a_process_ends_its_shards_are_written_with_more_care(
    recorded_games, tmp_path, monkeypatch
):
    monkeypatch.setattr(decoding, "GAMES_A_SHARD", 2)
    alone = write_shards(recorded_games, tmp_path / "alone")
    monkeypatch.setitem(decoding._WRITERS, "features", write_or_end)
    assert write_shards(recorded_games, tmp_path / "ended", workers=2) == alone
    one, two = (sorted((tmp_path / name).glob("*.arrow")) for name in ("alone", "ended"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_splits_are_decoded_together_as_one_by_one(recorded_games, tmp_path):
    splits = {tmp_path / "held_out": recorded_games[:1], tmp_path / "train": recorded_games[1:]}
    seen = []
    together = write_splits(splits, on_shard=lambda *now: seen.append(now))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    for folder, games in splits.items():
        alone = folder.with_suffix(".alone")
        assert write_shards(games, alone) == together[folder]
        assert [p.read_bytes() for p in alone.iterdir()] == [
            (folder / p.name).read_bytes() for p in alone.iterdir()
        ]


def test_frames_are_the_play_and_nothing_else(recorded_games):
    for game in recorded_games:
        keys = np.concatenate([block[3] for block in read_frames(game, 64)])
        recorded, _ = read_keys(game.paths[0])
        assert keys.tobytes() == recorded[game.lead : game.lead + game.played]


def test_blocks_are_full_but_the_last(recorded_games):
    lengths = [len(block[3]) for block in read_frames(recorded_games[0], 64)]
    assert set(lengths[:-1]) == {64}
    assert sum(lengths) == recorded_games[0].played


def test_games_side_by_side_are_encoded_as_alone(recorded_games, monkeypatch):
    monkeypatch.setattr(features, "_LANES", 3)  # so that one lane plays two games
    games, columns, skipped = encode_games(recorded_games)
    assert [game["name"] for game in games] == [game.name for game in recorded_games]
    assert [game["steps"] for game in games] == [game.played for game in recorded_games]
    assert [game["score"] for game in games] == [game.points for game in recorded_games]
    assert not skipped
    start = 0
    for game in recorded_games[:2]:
        for name, array in encode_alone(game).items():
            np.testing.assert_array_equal(columns[name][start : start + game.played], array)
        start += game.played


def test_shards_hold_every_transition_once(recorded_games, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "GAMES_A_SHARD", 2)
    seen = []
    decoded = write_shards(recorded_games, tmp_path, on_shard=lambda *now: seen.append(now))
    assert (decoded.games, decoded.skipped) == (4, ())
    assert decoded.transitions == sum(game.played for game in recorded_games)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    shards = Shards(tmp_path)
    assert len(shards) == decoded.transitions
    assert shards.games == sorted(game.name for game in recorded_games)
    path = sorted(tmp_path.glob("*.arrow"))[0]
    with pa.memory_map(str(path)) as source:
        assert pa.ipc.open_file(source).num_record_batches == 1


def test_shards_that_exist_are_kept_and_others_go(recorded_games, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "GAMES_A_SHARD", 2)
    write_shards(recorded_games, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.arrow")}
    fingerprint = Shards(tmp_path).fingerprint
    (tmp_path / "9999-of-before.arrow").write_bytes(b"")
    sorted(tmp_path.glob("*.arrow"))[1].unlink()
    write_shards(recorded_games, tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.arrow")}
    assert set(after) == set(before)
    assert sum(after[name] == before[name] for name in after) == 1
    assert Shards(tmp_path).fingerprint == fingerprint
    assert not list(tmp_path.glob(".*"))  # nothing half-written


def test_processes_write_the_same_shards(recorded_games, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "GAMES_A_SHARD", 2)
    for workers in (1, 2):
        write_shards(recorded_games, tmp_path / str(workers), workers=workers)
    one, two = (sorted((tmp_path / str(n)).glob("*.arrow")) for n in (1, 2))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_damaged_recording_is_named_and_left_out(recorded_games, broken_off, tmp_path):
    missing = dataclasses.replace(recorded_games[1], paths=(tmp_path / "gone.bz2",))
    decoded = write_shards([broken_off, missing, recorded_games[2]], tmp_path / "shards")
    assert decoded.games == 1
    named = dict(decoded.skipped)
    assert "breaks off" in named[broken_off.name]
    assert "half.ttyrec3.bz2" in named[broken_off.name]
    assert "no such file" in named[missing.name]
    again = write_shards([broken_off, missing, recorded_games[2]], tmp_path / "shards")
    assert again == decoded


def test_a_recording_shorter_than_its_game_is_left_out(recorded_games):
    game = dataclasses.replace(recorded_games[0], played=10_000)
    games, _, skipped = encode_games([game, recorded_games[1]])
    assert [each["name"] for each in games] == [recorded_games[1].name]
    assert skipped[0][0] == game.name
    assert "steps before its game does" in skipped[0][1]


def test_corrupt_bytes_are_noticed(recorded_games, tmp_path):
    game = recorded_games[0]
    content = bytearray(game.paths[0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "corrupt.ttyrec3.bz2"
    path.write_bytes(content)
    with pytest.raises(TrainError, match=r"corrupt\.ttyrec3\.bz2: damaged"):
        next(read_frames(dataclasses.replace(game, paths=(path,)), 64))


def test_what_was_whole_when_it_was_recorded_is_not_read_twice(
    recorded_games, tmp_path, monkeypatch
):
    game = recorded_games[0]

    def check(path):
        raise TrainError("checked")

    monkeypatch.setattr(ttyrecs, "_refuse_damaged", check)
    assert len(next(read_frames(game, 64)).keys) == 64
    content = game.paths[0].read_bytes()
    other = tmp_path / "other.ttyrec3.bz2"
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for odd in (
        dataclasses.replace(game, paths=(other,)),
        dataclasses.replace(game, checksum=None),
    ):
        with pytest.raises(TrainError, match="checked"):
            next(read_frames(odd, 64))


def test_no_games_is_an_error_that_says_what_to_do(broken_off, tmp_path):
    with pytest.raises(TrainError, match="record some with `scaling-train collect`"):
        write_shards([], tmp_path)
    with pytest.raises(TrainError, match=r"none of 1 games could be decoded.*breaks off"):
        write_shards([broken_off], tmp_path)


def test_a_full_disk_is_an_error_and_keeps_finished_shards(recorded_games, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "GAMES_A_SHARD", 2)
    write_shards(recorded_games[:2], tmp_path)
    kept = list(tmp_path.glob("*.arrow"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shardfiles.os, "fsync", full)
    with pytest.raises(TrainError, match=r"the disk is full\. Make room.*finished work is kept"):
        write_shards(recorded_games, tmp_path)
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / shardfiles.MANIFEST}


def test_a_file_that_is_no_shard_is_named(tmp_path):
    path = tmp_path / "0000-x.arrow"
    path.write_bytes(b"hello")
    with pytest.raises(TrainError, match=r"0000-x\.arrow: not a shard of demonstrations"):
        read_about(path)


def test_games_of_another_player_are_decoded_by_the_same_path(reference_data, tmp_path):
    games = open_index(reference_data / "nld_autoascend", tmp_path / "index.db")
    short = [dataclasses.replace(game, played=400) for game in games[:2]]
    decoded = write_shards(short, tmp_path / "shards")
    assert decoded.transitions == 800
    shards = Shards(tmp_path / "shards")
    assert (shards.scores == [game.points for game in short]).all()
    whole = next(read_frames(games[0], 64))
    part = next(read_frames(short[0], 64))
    assert (whole[3] == part[3]).all()
    about = read_about(next((tmp_path / "shards").glob("*.arrow")))
    assert about["fields"] == json.loads(
        json.dumps([dataclasses.asdict(field) for field in nethack.FIELDS])
    )


def test_a_recording_in_the_place_of_another_is_left_out(recorded_games, tmp_path):
    game, other = recorded_games[:2]
    swapped = dataclasses.replace(game, paths=other.paths)
    written = write_shards([swapped, *recorded_games[2:]], tmp_path)
    assert [name for name, _ in written.skipped] == [other.name]
    assert "another file than the one that was recorded" in written.skipped[0][1]
