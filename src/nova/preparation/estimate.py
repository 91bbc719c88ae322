"""What a preparation will take, from some of its items that are made first: clips, disk and time."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from nova.preparation.deciding import Shop, remake, unknown

SAMPLE = 32
_COPIES = 2
"""On the disk at the end: in parts, and in the shards that these are put together into."""


@dataclass(frozen=True)
class Estimate:
    """items: that are not made yet.  measured: of these, made to see.  clips: of all, without near-duplicates' loss.
    bytes: on the disk at the end of the work.  free: what the disk has.  seconds: for all, as measured.
    """

    items: int
    measured: int
    clips: int
    bytes: int
    free: int
    seconds: float


def estimate(shop: Shop, items: int, output: Path) -> Estimate:
    """Make up to SAMPLE of the `items` that are not known, evenly spread over the listing, and measure.

    They go into the store, so that the work is not lost.
    """
    step = max(1, items // SAMPLE)
    keys = {key for number, (key, _) in enumerate(unknown(shop)) if number % step == step // 2}
    before, start = shop.store.size, time.monotonic()
    clips = sum(fate.status == "ok" for fates in remake(shop, keys) for fate in fates)
    seconds, made = time.monotonic() - start, shop.store.size - before
    scale = items / max(1, len(keys))
    return Estimate(
        items=items,
        measured=len(keys),
        clips=round(clips * scale),
        bytes=round(_COPIES * made * scale),
        free=shutil.disk_usage(output).free,
        seconds=seconds * scale,
    )
