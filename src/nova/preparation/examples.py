"""Pictures for the report: some of the clips that are trained on, and for each reason some that are not.

They are read from the source once more, by workers: what is refused may be as bad as files get.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nova.preparation.deciding import Shop
from nova.preparation.fates import Fate
from nova.preparation.inspect import inspect
from nova.preparation.items import Clip, Item, Reason
from nova.preparation.listing import Listed, read_listing
from nova.preparation.pool import Limits, Work, pooled
from nova.preparation.rules import Autoencoder, Bucket, Captions, Rules

SAMPLES, EXAMPLES = 24, 3
_FRAMES, _HEIGHT, _WIDTH = 4, 96, 128
_ANY_CAPTION = Captions(least_characters=0)
_LENIENT = Rules(
    buckets=(Bucket(frames=_FRAMES, height=_HEIGHT, width=_WIDTH), Bucket(frames=1, height=_HEIGHT, width=_WIDTH)),
    autoencoder=Autoencoder(pixels=1, frames=1),
    fps=2.0,
    short="hold",
    upscale=True,
    captions=_ANY_CAPTION,
)
"""Whatever can be read becomes a thumbnail."""
_DEADLY = (Reason.TIMEOUT.code, Reason.WORKER_DIED.code)
_LIMITS = Limits(workers=1, seconds=10.0)


@dataclass(frozen=True)
class Example:
    """A fate, with the captions of its item and a picture as a data URL, where it has them."""

    fate: Fate
    captions: tuple[str, ...] = ()
    picture: str | None = None


def pick(fates: Iterable[Fate], ok: int) -> tuple[list[Fate], list[Fate]]:
    """Of `ok` clips that are trained on SAMPLES, evenly spread, and of the others the first EXAMPLES of each reason."""
    places = {round(place) for place in np.linspace(0, ok - 1, min(ok, SAMPLES))}
    samples: list[Fate] = []
    others: list[Fate] = []
    number, seen = 0, Counter[str]()
    for fate in fates:
        if fate.reason is None:
            if number in places:
                samples.append(fate)
            number += 1
        elif seen[fate.reason] < EXAMPLES:
            seen[fate.reason] += 1
            others.append(fate)
    return samples, others


def pictured(samples: Iterable[Fate], others: Iterable[Fate], shop: Shop) -> tuple[list[Example], list[Example]]:
    """The same fates with pictures: those that are trained on as they are, the others as far as they can be read."""
    samples, others = list(samples), list(others)
    keys = {fate.key for fate in (*samples, *others) if fate.key is not None}
    items = {
        listed.key: listed.item
        for listed in read_listing(shop.listing)
        if isinstance(listed, Listed) and listed.key in keys
    }
    rules = shop.rules.model_copy(update={"captions": _ANY_CAPTION})
    as_they_are = {clip.id: clip for clip in _clips(samples, items, partial(inspect, rules=rules))}
    readable = [fate for fate in others if fate.reason not in _DEADLY]
    glimpses = {clip.item.id: clip for clip in _clips(readable, items, partial(inspect, rules=_LENIENT))}

    def example(fate: Fate, clip: Clip | None) -> Example:
        item = items.get(fate.key or "")
        return Example(fate, () if item is None else item.captions, None if clip is None else data_url(clip.frames))

    return (
        [example(fate, as_they_are.get(fate.id)) for fate in samples],
        [example(fate, glimpses.get(items[fate.key].id) if fate.key in items else None) for fate in others],
    )


def data_url(frames: UInt8[np.ndarray, "f H W 3"]) -> str:
    """Some frames of a clip side by side, as a JPEG inside a URL."""
    shown = frames[np.rint(np.linspace(0, len(frames) - 1, min(len(frames), _FRAMES))).astype(int)]
    height, width = shown.shape[1:3]
    scale = min(1.0, _HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    strip = Image.new("RGB", (len(shown) * (size[0] + 2) - 2, size[1]), "gray")
    for place, frame in enumerate(shown):
        strip.paste(Image.fromarray(frame).resize(size, Image.Resampling.BOX), (place * (size[0] + 2), 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _clips(fates: Iterable[Fate], items: dict[str, Item], work: Work) -> Iterable[Clip]:
    """What `work` makes of the items of some fates. Captions do not matter here, so that none is missing."""
    keys = dict.fromkeys(fate.key for fate in fates if fate.key in items)
    tickets = ((key, replace(items[key], captions=("",), label=0)) for key in keys if key is not None)
    for piece in pooled(tickets, work, _LIMITS):
        if isinstance(piece.made, Clip):
            yield replace(piece.made, item=piece.item)
