"""How fast latents come off the disk: one random sample, and samples a second with loader workers.

    python benchmarks/latents.py [--folder FOLDER] [--workers 2] [--seconds 5] [--json]

Without a folder, shards of made-up latents of the size of 33 frames at 480x768 are written to a temporary one: they
lie in the page cache then, so the figures are those of the code and not of the disk. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nova.data.latents import LatentDataset
from nova.data.manifest import publish_manifest
from nova.data.order import Batch, BatchOrder
from nova.data.samples import ShardSample
from nova.data.shards import Header, Model, write_shard
from nova.training.loading import batches

SHAPE = (8, 9, 60, 96)
SHARDS = 4


def write_made_up(folder: Path, rows: int) -> None:
    """`SHARDS` shards of `rows` samples each."""

    def samples(first: int) -> Iterator[ShardSample]:
        rng = np.random.default_rng(first)
        for index in range(first, first + rows):
            moments = rng.standard_normal(SHAPE, np.float32).astype(np.float16)
            yield ShardSample(id=f"sample-{index}", moments=moments, captions=("made up",), motion=1.0, fps=12.0)

    header = Header(autoencoder=Model(id="made-up", sha256="0" * 64))
    for shard in range(SHARDS):
        write_shard(folder / f"{shard:05d}.parquet", samples(shard * rows), header)
    publish_manifest(folder)


def random_reads(folder: Path, seconds: float) -> dict[str, Any]:
    """Milliseconds of a random access in this process, with the files open."""
    data = LatentDataset(folder)
    rng = np.random.default_rng(0)
    count = data.counts[0]
    for index in range(0, count, max(1, count // 64)):
        data.get(0, index)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        index = int(rng.integers(count))
        start = time.perf_counter()
        data.get(0, index)
        times.append(1e3 * (time.perf_counter() - start))
    tenths = statistics.quantiles(times, n=10)
    return {"read_ms": statistics.median(times), "read_ms_p90": tenths[-1], "reads": len(times)}


def loaded(folder: Path, workers: int, batch_size: int, seconds: float) -> dict[str, Any]:
    """Samples a second of whole batches in float32, read, stacked and handed over by `workers` processes."""
    data = LatentDataset(folder)
    order = BatchOrder(data.counts, batch_size, seed=0)

    def make(batch: Batch) -> torch.Tensor:
        return torch.stack([data.get(batch.bucket, index).moments for index in batch.ids]).float()

    def keys() -> Iterator[Batch]:
        step = 0
        while True:
            yield order.batch(step)
            step += 1

    found = batches(make, keys(), workers, 60.0, lambda batch: data.where(batch.bucket, batch.ids[0]))
    for _ in range(2 * workers + 1):
        next(found)
    made, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        made += len(next(found))
    found.close()
    return {"workers": workers, "batch_size": batch_size, "samples_per_second": made / took}


def measure(folder: Path, workers: int, seconds: float) -> dict[str, Any]:
    """All figures of the first bucket of a folder of shards."""
    start = time.perf_counter()
    data = LatentDataset(folder)
    opened = time.perf_counter() - start
    return {
        "shape": "x".join(map(str, data.buckets[0])),
        "samples": len(data),
        "open_ms": 1e3 * opened,
        **random_reads(folder, seconds),
        **loaded(folder, workers, 4, seconds),
    }


def main() -> None:
    """Measure and print, a line each or as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64, help="samples in each made-up shard")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made_up:
        folder = arguments.folder or Path(made_up)
        if arguments.folder is None:
            write_made_up(folder, arguments.rows)
        figures = measure(folder, arguments.workers, arguments.seconds)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<24} {value:.4g}" if isinstance(value, float) else f"{name:<24} {value}")


if __name__ == "__main__":
    main()
