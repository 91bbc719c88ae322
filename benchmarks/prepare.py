"""What a preparation costs beside decoding: against bare PyAV, and in memory over many items.

    python benchmarks/prepare.py [--clips 24] [--workers 2] [--rounds 3] [--json]
    python benchmarks/prepare.py --items 50000

The first makes H.264 clips of 1080p, and has the same number of processes bring them to 33 frames of 480x768 pixels:
as workers of `nova prepare` do, with checks, motion, hash and the way to the main process, but without the autoencoder;
and with nothing but PyAV's decoding and scaling. Both in turns, in one run; the ratios are of the times, and of the
processor seconds, which other work on the machine disturbs less.
The second prepares small pictures with a tiny autoencoder, and tells how memory grows: of this process and its workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch
from PIL import Image

from nova.autoencoders.adapter import Autoencoder
from nova.autoencoders.video import VideoAutoencoder
from nova.data.shards import Model
from nova.media import write_video
from nova.preparation.encode import Encoder, Models
from nova.preparation.inspect import inspect
from nova.preparation.items import Clip, FileMedia, Item
from nova.preparation.pool import Limits, pooled
from nova.preparation.prepare import Options, prepare
from nova.preparation.progress import Bar
from nova.preparation.rules import Bucket, Rules
from nova.weights import weights_digest

FRAMES, HEIGHT, WIDTH, RATE = 33, 480, 768, 12
RULES = Rules(buckets=(Bucket(frames=FRAMES, height=HEIGHT, width=WIDTH),), fps=float(RATE))
SOURCE_FRAMES, SOURCE_RATE, SOURCE_HEIGHT, SOURCE_WIDTH = 72, 24, 1080, 1920
FILES = 4
SMALL = 16


def write_clips(folder: Path, count: int) -> list[Item]:
    """Clips of drifting colours with some grain, in FILES files that take turns."""
    paths = []
    for number in range(min(count, FILES)):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8))
        wide = np.array(coarse.resize((2 * SOURCE_WIDTH, SOURCE_HEIGHT), Image.Resampling.BICUBIC))
        wide = np.clip(wide.astype(np.int16) + rng.integers(-6, 7, wide.shape), 0, 255).astype(np.uint8)
        path = folder / f"{number:05d}.mp4"
        write_video(
            path, (wide[:, 4 * frame : 4 * frame + SOURCE_WIDTH] for frame in range(SOURCE_FRAMES)), SOURCE_RATE
        )
        paths.append(path)
    return [_item(paths[number % FILES]) for number in range(count)]


def ours(items: list[Item], workers: int) -> int:
    """Clips that workers of `nova prepare` hand over."""
    pieces = pooled(enumerate(items), partial(inspect, rules=RULES), Limits(workers=workers))
    return sum(isinstance(piece.made, Clip) for piece in pieces)


def bare(items: list[Item], workers: int) -> int:
    """Clips that PyAV decodes and scales, and nothing else."""
    paths = [str(item.media.path) for item in items if isinstance(item.media, FileMedia)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return sum(pool.imap(_decoded, paths))


def _decoded(path: str) -> bool:
    every = SOURCE_RATE // RATE
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        chosen = islice(container.decode(stream), 0, every * (FRAMES - 1) + 1, every)
        frames = [frame.reformat(WIDTH, HEIGHT, "rgb24").to_ndarray() for frame in chosen]
    return np.stack(frames).shape == (FRAMES, HEIGHT, WIDTH, 3)


def throughput(clips: int, workers: int, rounds: int) -> dict[str, Any]:
    """Clips a second of both sides, and the ratios of neighbouring turns."""
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    processor: dict[str, list[float]] = {"ours": [], "bare": []}
    sides = {"ours": ours, "bare": bare}
    with tempfile.TemporaryDirectory() as folder:
        items = write_clips(Path(folder), clips)
        for side in sides.values():
            side(items[:workers], workers)
        for _ in range(rounds):
            for name in ("ours", "bare", "bare", "ours"):
                start, used = time.perf_counter(), _processor_seconds()
                made = sides[name](items, workers)
                times[name].append(time.perf_counter() - start)
                processor[name].append(_processor_seconds() - used)
                assert made == clips, f"{name}: {made} of {clips} clips"
    ratios = [theirs / own for theirs, own in zip(times["bare"], times["ours"], strict=True)]
    return {
        "clips": clips,
        "workers": workers,
        "ours_clips_per_second": clips / statistics.median(times["ours"]),
        "bare_clips_per_second": clips / statistics.median(times["bare"]),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "processor_ratio": statistics.median(
            theirs / own for theirs, own in zip(processor["bare"], processor["ours"], strict=True)
        ),
    }


def _processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


class Watch(Bar):
    """Notes the memory of this process and of its workers as items are done."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self._next = 0.0
        self.seen: list[tuple[int, float, float]] = []

    def phase(self, name: str, total: int | None) -> None:
        """Only the main phase counts."""
        super().phase(name, total)
        self._watching = name == "preparing"

    def at(self, done: int, counts: str = "") -> None:
        """Look once a second."""
        if self._watching and time.monotonic() >= self._next:
            self._next = time.monotonic() + 1
            process = psutil.Process()
            workers = [child.memory_info().rss for child in process.children()]
            self.seen.append((done, process.memory_info().rss / 1e6, max(workers, default=0) / 1e6))


def write_pictures(folder: Path, count: int) -> Iterator[Item]:
    """So many small pictures, each its own."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06d}.png"
        Image.fromarray(rng.integers(0, 256, (SMALL, SMALL, 3), np.uint8)).save(path, compress_level=1)
        yield _item(path)


def memory(count: int, workers: int) -> dict[str, Any]:
    """Growth in MB over 10,000 items, once a fifth is done."""
    rules = Rules(buckets=(Bucket(frames=1, height=SMALL, width=SMALL),))
    torch.manual_seed(0)
    vae = VideoAutoencoder(block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=2, layers_per_block=1)
    models = Models(Autoencoder(vae), Model(id="tiny", sha256=weights_digest(vae)), torch.device("cpu"))
    encoder = Encoder(models, models.header(rules))
    watch = Watch()
    with tempfile.TemporaryDirectory() as media, tempfile.TemporaryDirectory() as output:
        items: Iterable[Item] = list(write_pictures(Path(media), count))
        start = time.perf_counter()
        made = prepare(iter(items), Path(output), rules, encoder, Options(Limits(workers=workers)), bar=watch)
        seconds = time.perf_counter() - start
    late = np.array([line for line in watch.seen if line[0] >= count / 5])
    grown = [float(np.polyfit(late[:, 0], late[:, column], 1)[0]) * 10_000 for column in (1, 2)]
    return {
        "items": count,
        "ok": made.ok,
        "items_per_second": count / seconds,
        "main_mb": late[-1, 1],
        "main_mb_per_10000": grown[0],
        "worker_mb": late[-1, 2],
        "worker_mb_per_10000": grown[1],
    }


def _item(path: Path) -> Item:
    return Item(path.name, FileMedia(path, "made up"), ("made up",))


def main() -> None:
    """Measure and print, a line each or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--items", type=int, help="measure memory over so many small pictures instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.items:
        figures = memory(arguments.items, arguments.workers)
    else:
        figures = throughput(arguments.clips, arguments.workers, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<24} {value:.4g}" if isinstance(value, float) else f"{name:<24} {value}")


if __name__ == "__main__":
    main()
