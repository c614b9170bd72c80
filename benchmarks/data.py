"""Decoding, reading and loading of demonstrations, as ratios to NLE's own tools in the same run.

    python benchmarks/data.py RECORDINGS [--games 32] [--rounds 5] [--seconds 20] [--parts ...]

RECORDINGS is a root of ttyrec3 games in NLE's layout. Prints

* decode: frames a CPU second of NLE's converter alone, and of decoding into frame shards and into
  feature shards, one process; and what two processes cost that one does not. Others' games are
  checked on the way, ours carry a checksum.
* codecs: size, writing and reading of blocks of frames, by codec and length of the block.
* read: frames a CPU second of `nle.dataset.TtyrecDataset`, of frame shards, in the order of axes
  that training takes (time, lanes) and in the dataset's, and of feature shards; one thread each.
* train: the share of the time that training waits for data, by family and size, on this CPU.

Each round measures all parts of a line one after another, so that a busy machine slows them alike;
medians over the rounds are printed, with the range of the ratio.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from training_backend.decoding import write_shards
from training_backend.demonstrations import DATABASE, Game, open_index
from training_backend.features import write_features
from training_backend.frames import FrameShards, write_frames
from training_backend.loading import steps_at_once
from training_backend.shards import Shards, Split
from training_backend.ttyrecs import Frames, read_frames

LANES, CHUNK = 64, 32
CODECS = ("lz4", "zstd")
BLOCKS = (64, 128, 256)
SIZES = (
    ("lstm", 4e3),
    ("lstm", 28e3),
    ("lstm", 100e3),
    ("lstm", 400e3),
    ("screen-lstm", 100e3),
    ("screen-lstm", 400e3),
)


def cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def convert(games: Sequence[Game]) -> int:
    """All frames of the games through NLE's converter, into one set of arrays; how many."""
    from nle.dataset import dataset

    block = 128
    chars, colors = np.zeros((block, 24, 80), np.uint8), np.zeros((block, 24, 80), np.int8)
    cursor, keys = np.zeros((block, 2), np.int16), np.zeros(block, np.uint8)
    times, scores = np.zeros(block, np.int64), np.zeros(block, np.int32)
    converter = dataset.converter.Converter(24, 80, 3)
    frames = 0
    for game in games:
        for part, path in enumerate(game.paths):
            converter.load_ttyrec(str(path), gameid=1, part=part)
            size = block
            while size == block:
                size = block - converter.convert(chars, colors, cursor, times, keys, scores)
                frames += size
    return frames


def measure_decoding(games: Sequence[Game], folder: Path, rounds: int) -> None:
    frames = convert(games)
    vouched = [
        replace(game, checksum=zlib.crc32(game.paths[0].read_bytes()))
        for game in games
        if len(game.paths) == 1
    ]
    unknown = [replace(game, checksum=None, lead=0, played=None) for game in games]
    ways: dict[str, Callable[[], Any]] = {
        "nle's converter alone": lambda: convert(games),
        "frame shards, others' games": lambda: write_frames(
            unknown, folder / "frames.arrow", late=True
        ),
        "feature shards, others' games": lambda: write_features(
            unknown, folder / "feat.arrow", late=True
        ),
    }
    if len(vouched) == len(games):
        ways["frame shards, our games"] = lambda: write_frames(vouched, folder / "frames.arrow")
    rates = np.array([[frames / cpu_seconds(way) for way in ways.values()] for _ in range(rounds)])
    print_rates("frames a CPU second, one process", list(ways), rates)
    halves = [list(games[::2]), list(games[1::2])]
    shares = []
    for _ in range(rounds):
        alone, beside = (decode_halves(halves, folder, workers) for workers in (1, 2))
        shares.append(alone / beside)
    print(
        "CPU time of one process over that of two side by side, same games (1: cores apart): "
        f"{np.median(shares):.2f} [{min(shares):.2f}, {max(shares):.2f}]\n"
    )


def decode_halves(halves: Sequence[Sequence[Game]], folder: Path, workers: int) -> float:
    """CPU seconds of two shards' worth of games, one after the other or side by side."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(decode_half, half, folder / f"half{i}.arrow")
            for i, half in enumerate(halves)
        ]
        return sum(job.result() for job in jobs)


def decode_half(games: Sequence[Game], path: Path) -> float:
    return cpu_seconds(partial(write_frames, games, path, late=True))


def measure_codecs(games: Sequence[Game], folder: Path, rounds: int) -> None:
    import pyarrow as pa

    from training_backend.frames import _batch, _columns
    from training_backend.shardfiles import writing

    parts = list(read_frames(games[0], 4096))
    frames = Frames(*(np.concatenate(arrays)[:20_000] for arrays in zip(*parts, strict=True)))
    count = len(frames.keys)
    print(f"{'codec':6s} {'block':>6s} {'bytes a frame':>14s} {'write us':>9s} {'read us':>8s}")
    for codec in CODECS:
        for block in BLOCKS:
            path = folder / "codec.arrow"

            def write(block: int = block, codec: str = codec, path: Path = path) -> None:
                batches = [
                    _batch(_columns(frames.part(at, at + block), 0, at, 0))
                    for at in range(0, count, block)
                ]
                with writing(path, batches[0].schema, codec) as writer:
                    for batch in batches:
                        writer.write_batch(batch)

            def read(path: Path = path) -> None:
                options = pa.ipc.IpcReadOptions(included_fields=[0, 1, 2, 3], use_threads=False)
                file = pa.ipc.open_file(pa.memory_map(str(path)), options=options)
                for i in range(file.num_record_batches):
                    file.get_batch(i)

            writes = [cpu_seconds(write) for _ in range(rounds)]
            reads = [cpu_seconds(read) for _ in range(rounds)]
            print(
                f"{codec:6s} {block:6d} {path.stat().st_size / count:14.1f} "
                f"{np.median(writes) / count * 1e6:9.2f} {np.median(reads) / count * 1e6:8.2f}"
            )
    print()


def measure_reading(games: Sequence[Game], database: Path, folder: Path, rounds: int) -> None:
    frames, features = folder / "frames", folder / "features"
    write_shards(games, frames, observation="screen")
    write_shards(games, features, observation="features")
    size = sum(path.stat().st_size for path in frames.glob("*.arrow"))
    shards = FrameShards(frames)
    print(
        f"{len(shards):,} frames; frame shards {size / len(shards):.1f} bytes a frame, feature "
        f"shards {Shards(features).nbytes / len(shards):.1f}, recordings "
        f"{sum(game.size for game in games) / len(shards):.1f}"
    )
    rates, lanes = [], min(LANES, len(games))
    for _ in range(rounds):
        rates.append(
            [
                read_dataset(games, database, lanes, len(shards)),
                read_stream(shards, lanes),
                read_stream(shards, lanes, lanes_first=True),
                read_stream(Shards(features), lanes),
            ]
        )
    names = [
        "nle.dataset.TtyrecDataset",
        "frame shards",
        "frame shards, lanes first",
        "feature shards",
    ]
    print_rates("frames a CPU second, one thread", names, np.array(rates))


def read_dataset(games: Sequence[Game], database: Path, lanes: int, wanted: int) -> float:
    """Frames a CPU second of NLE's dataset, as many as the games hold: lanes that are done begin
    again, since filling them with zeros would count against it."""
    from nle.dataset import TtyrecDataset

    data = TtyrecDataset(
        "games",
        lanes,
        CHUNK,
        dbfilename=str(database),
        shuffle=False,
        gameids=[game.gameid for game in games],
        loop_forever=True,
    )
    frames, began = 0, time.process_time()
    for _ in data:
        frames += lanes * CHUNK
        if frames >= wanted:
            break
    return frames / (time.process_time() - began)


def read_stream(split: Split, lanes: int, lanes_first: bool = False) -> float:
    """Frames a CPU second of one epoch of a split's stream, into one set of arrays, as the loader
    reads: several steps at a time, time before lanes. NLE's dataset yields lanes before time."""
    stream = split.stream(lanes, CHUNK, seed=0)
    count = steps_at_once(stream, lanes)
    arrays = {}
    for name, (shape, dtype) in stream.layout(lanes, count).items():
        steps, width, *rest = shape
        arrays[name] = (
            np.zeros((width, steps, *rest), dtype).swapaxes(0, 1)
            if lanes_first
            else np.zeros(shape, dtype)
        )
    steps = range(0, stream.steps_an_epoch - count + 1, count)
    seconds = cpu_seconds(lambda: [stream.fill(step, arrays, range(lanes)) for step in steps])
    return len(steps) * count * lanes * CHUNK / seconds


def measure_waiting(folder: Path, seconds: float, rounds: int) -> None:
    """What part of the clock a training loop stands in its loader, reading in its own process."""
    print(f"{'family':12s} {'N':>8s} {'batch':>6s} {'samples/s':>10s}  waits for data [range]")
    for family, params in SIZES:
        shares, rates, counted, batch = [], [], 0, 0
        for _ in range(rounds):
            counted, batch, rate, share = train_and_wait(family, params, folder, seconds / rounds)
            shares.append(share)
            rates.append(rate)
        print(
            f"{family:12s} {counted:8d} {batch:6d} {np.median(rates):10.0f}  "
            f"{np.median(shares):.2%} [{min(shares):.2%}, {max(shares):.2%}]"
        )


def train_and_wait(
    family: str, params: float, folder: Path, seconds: float
) -> tuple[int, int, float, float]:
    """N, batch, samples a second, and the share of the time that is waiting."""
    import torch

    from training_backend.config import CHUNK, CLIP, batch_size_for
    from training_backend.families import find_family
    from training_backend.loading import open_loader
    from training_backend.models import Agent
    from training_backend.objectives.behaviour_cloning import optimise
    from training_backend.sizing import size_for_params

    screen = find_family(family).observation == "screen"
    split = FrameShards(folder / "frames") if screen else Shards(folder / "features")
    size = size_for_params(split.fields, split.actions, params, family)
    batch = batch_size_for(size)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    agent = Agent(split.fields, split.actions, size.width, family)
    optimiser = torch.optim.Adam(agent.parameters(), lr=1e-3, fused=True)
    state, step, began, before = agent.initial_state(batch // CHUNK), 0, 0.0, 0.0
    with open_loader(split.stream(batch // CHUNK, CHUNK, seed=0)) as load:
        while step < 6 or time.perf_counter() - began < seconds:
            if step == 3:  # warm by now
                began, before = time.perf_counter(), load.waited
            chunk = load[step]
            loss, state = optimise(agent, optimiser, chunk, state, CLIP)
            float(loss)
            step += 1
        took = time.perf_counter() - began
        return size.params, batch, (step - 3) * batch / took, (load.waited - before) / took


def print_rates(title: str, names: Sequence[str], rates: np.ndarray) -> None:
    """Medians, and the ratio to the first column with its range over the rounds."""
    ratios = rates / rates[:, :1]
    print(title)
    for name, rate, ratio in zip(names, np.median(rates, 0), ratios.T, strict=True):
        print(
            f"  {name:28s} {rate:12,.0f}  ratio {np.median(ratio):6.2f} "
            f"[{ratio.min():.2f}, {ratio.max():.2f}]"
        )
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recordings", type=Path, help="root of ttyrec3 games")
    parser.add_argument("--games", type=int, default=32, help="those of middling length")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="training time of a size")
    parser.add_argument(
        "--parts", nargs="+", default=["decode", "codecs", "read", "train"], metavar="PART"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = folder / DATABASE
        found = open_index(options.recordings, database)
        middle = max(len(found) // 2 - options.games // 2, 0)
        games = sorted(found, key=lambda game: game.size)[middle : middle + options.games]
        known = "known" if all(game.checksum is not None for game in games) else "not known"
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
            f"{len(games)} games of {options.recordings.name} (checksums {known}), "
            f"{options.rounds} rounds\n"
        )
        if "decode" in options.parts:
            measure_decoding(games, folder, options.rounds)
        if "codecs" in options.parts:
            measure_codecs(games, folder, options.rounds)
        if "read" in options.parts or "train" in options.parts:
            measure_reading(games, database, folder, options.rounds)
        if "train" in options.parts:
            measure_waiting(folder, options.seconds, options.rounds)


if __name__ == "__main__":
    sys.exit(main())
