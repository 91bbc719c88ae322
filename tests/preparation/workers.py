"""Items without media, and workers that make clips of their names or misbehave as these say."""

import faulthandler
import os
import signal
import time
from pathlib import Path

import numpy as np

from nova.preparation.items import Clip, FileMedia, Item, Reason, Refusal

SIZE = 8


def item(name, captions=("a caption",), stamp="1"):
    """An item whose name says what becomes of it."""
    return Item(id=name, media=FileMedia(Path("media") / name, stamp), captions=captions)


def clip(of, number=0, frames=1, shade=None, side=SIZE):
    """A grey clip whose shade and hash follow from the item's name."""
    seed = sum(of.id.encode()) + number
    pixels = np.full((frames, side, side, 3), seed % 256 if shade is None else shade, np.uint8)
    return Clip(
        id=of.id if number == 0 else f"{of.id}#t={number},{number + 1}",
        item=of,
        frames=pixels,
        fps=None if frames == 1 else 8.0,
        motion=None if frames == 1 else 0.5,
        start=None,
        end=None,
        source_size=(SIZE, 2 * SIZE),
        hash=seed * 0x9E3779B97F4A7C15 % 2**64,
    )


def work(of):
    """What the first word of an item's name says."""
    kind = of.id.split("-")[0]
    if kind == "refused":
        yield Refusal(of.id, str(of.media.path), Reason.DAMAGED, "found nothing")
    elif kind == "many":
        yield from (clip(of, number) for number in range(3))
    elif kind == "late":
        time.sleep(0.05)
        yield clip(of)
    elif kind == "raise":
        raise ValueError("a bug")
    elif kind == "segfault":
        yield clip(of)
        faulthandler.disable()  # the tests' own, which would print
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "hang":
        time.sleep(1e6)
    elif kind == "swell":
        yield Clip(**{**vars(clip(of)), "frames": np.zeros((1 << 34,), np.uint8)})
    elif kind == "big":
        yield from (Clip(**{**vars(clip(of, n)), "frames": np.full((16, 256, 256, 3), n, np.uint8)}) for n in range(4))
    elif kind == "wide":
        yield Clip(**{**vars(clip(of)), "frames": np.full((1, 16 * SIZE, 16 * SIZE, 3), 99, np.uint8)})
    else:
        yield clip(of)
