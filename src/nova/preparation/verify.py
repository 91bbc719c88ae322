"""Whether a prepared folder is what it should be: every byte by its digest, and some clips decoded back and looked at.

A decoded clip is compared with its source, which is read again; where that is gone or has changed, it is shown alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from nova.data.latents import LatentDataset
from nova.data.manifest import intact_shards
from nova.data.samples import ShardSample
from nova.data.shards import ShardReader
from nova.errors import DataError
from nova.media import contact_sheet, write_image
from nova.preparation.encode import Models
from nova.preparation.examples import pick
from nova.preparation.fates import Fate
from nova.preparation.inspect import inspect
from nova.preparation.items import Clip, Item, Refusal
from nova.preparation.listing import Listed, write_listing
from nova.preparation.pool import Limits, pooled
from nova.preparation.report import read_report, summarize
from nova.preparation.rules import Rules
from nova.preparation.sources.names import printable

SHEET = "verify.png"
_SHOWN = 8
_COLUMNS = 6


@dataclass(frozen=True)
class Pair:
    """A clip as it was and as it comes back. psnr: decibels; None where the source is not there as it was."""

    id: str
    decoded: UInt8[np.ndarray, "f H W 3"]
    source: UInt8[np.ndarray, "f H W 3"] | None
    psnr: float | None


@dataclass(frozen=True)
class Verified:
    """samples: in shards whose every byte is as it was written.  pairs: some of them, decoded."""

    samples: int
    shards: int
    pairs: tuple[Pair, ...]


def verify(folder: Path, items: Iterable[Item | Refusal], rules: Rules, models: Models, scratch: Path) -> Verified:
    """Check the prepared `folder` and decode some of its clips; `items` are those of its source, `scratch` is empty.

    Raises DataError where shards are damaged, the report names samples that are not there, or `models` are not those
    that the folder was made with.
    """
    data = LatentDataset(folder)
    if models.autoencoder_name.sha256 != data.header.autoencoder.sha256:
        raise DataError(f"{folder}: made with other weights of {data.header.autoencoder.id!r} than those given")
    data.verify()
    summary = summarize(read_report(folder))
    if summary.ok != len(data):
        raise DataError(f"{folder}: the report has {summary.ok} clips, the shards {len(data)}; run nova prepare again")
    fates, _ = pick(read_report(folder), summary.ok)
    step = math.ceil(len(fates) / _SHOWN)
    fates = fates[::step]
    wanted = {fate.key for fate in fates}
    listed = write_listing(scratch / "items.jsonl", items, data.header)
    tickets = [(one.key, one.item) for one in listed if isinstance(one, Listed) and one.key in wanted]
    pieces = pooled(tickets, partial(inspect, rules=rules), Limits())
    sources = {piece.made.id: piece.made.frames for piece in pieces if isinstance(piece.made, Clip)}
    pairs = tuple(_pair(fate, _stored(folder, fate), sources.get(fate.id), models) for fate in fates)
    return Verified(len(data), len(intact_shards(folder)), pairs)


def write_sheet(path: Path, pairs: Iterable[Pair]) -> None:
    """A picture of every pair, source above decoded."""
    rows = []
    for pair in pairs:
        name = printable(pair.id)
        if pair.source is None or pair.psnr is None:
            rows.append((f"{name}, decoded (its source is not there as it was)", pair.decoded))
        else:
            rows += [(f"{name}, source", pair.source), (f"decoded, {pair.psnr:.1f} dB", pair.decoded)]
    write_image(path, contact_sheet(rows, _COLUMNS))


def _stored(folder: Path, fate: Fate) -> ShardSample:
    name, row = fate.place
    return ShardReader(folder / name, intact_shards(folder)[name]).read(row)


@torch.inference_mode()
def _pair(fate: Fate, sample: ShardSample, source: UInt8[np.ndarray, "f H W 3"] | None, models: Models) -> Pair:
    moments = torch.from_numpy(sample.moments)[None].to(models.device, models.dtype)
    pixels = models.autoencoder.decode(models.autoencoder.latents(moments))[0]
    decoded = pixels.add(1).mul(127.5).round().clamp(0, 255).byte().movedim(0, -1).cpu().numpy()
    if source is None or source.shape != decoded.shape:
        return Pair(fate.id, decoded, None, None)
    error = float(np.square(source.astype(np.float64) - decoded).mean())
    return Pair(fate.id, decoded, source, 10 * math.log10(255**2 / max(error, 1e-9)))
