"""What a stored sample is, and what makes one unfit to be stored or trained on."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from jaxtyping import Float16
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ShardSample:
    """One sample, as it is written and read; single numbers are kept in float32.

    moments: mean and log-variance of the autoencoder's posterior, unscaled.  captions: any number of them, none only
    beside a label.  motion: the clip's motion score.  fps: its frames a second.  text: features of each caption.
    """

    id: str
    moments: Float16[np.ndarray, "c2 t h w"]
    captions: tuple[str, ...] = ()
    label: int | None = None
    motion: float | None = None
    fps: float | None = None
    text: tuple[Float16[np.ndarray, "l dim"], ...] | None = None


@dataclass(frozen=True, eq=False)
class LatentSample:
    """One sample as it is stored; `moments` are unscaled, `text` holds the features of each caption.

    See `ShardSample` for the other fields.
    """

    id: str
    moments: Float16[Tensor, "c2 t h w"]
    captions: tuple[str, ...]
    label: int | None
    motion: float | None
    fps: float | None
    text: tuple[Float16[Tensor, "l dim"], ...] | None


def fault_of(sample: ShardSample, with_text: bool) -> str | None:
    """What is wrong with a sample: field, what was found and what was expected; None where nothing is."""
    if not isinstance(sample.id, str) or not sample.id or not _is_text(sample.id):
        return "id: expected a name of one or more characters"
    if fault := _array_fault("moments", sample.moments, 4):
        return fault
    if len(sample.moments) % 2:
        return f"moments: found {len(sample.moments)} channels, expected an even number, means and log-variances"
    if not isinstance(sample.captions, tuple):
        return f"captions: found a {type(sample.captions).__name__}, expected a tuple of texts"
    for caption in sample.captions:
        if not isinstance(caption, str) or not _is_text(caption):
            return f"captions: found {caption!r}, expected Unicode text"
    if not sample.captions and sample.label is None:
        return "captions: found none and no label, expected one or the other"
    if sample.label is not None and not (isinstance(sample.label, Integral) and 0 <= sample.label < 2**31):
        return f"label: found {sample.label!r}, expected an integer of 0 or more"
    if sample.motion is not None and not abs(sample.motion) < 1e38:
        return f"motion: found {sample.motion}, expected a finite number"
    if sample.fps is not None and not 0 < sample.fps < 1e38:
        return f"fps: found {sample.fps}, expected more than 0"
    return _text_fault(sample, with_text)


def _text_fault(sample: ShardSample, with_text: bool) -> str | None:
    if (sample.text is not None) != with_text:
        found, said = ("features", "no") if sample.text is not None else ("none", "a")
        return f"text: found {found}, but the header names {said} text encoder"
    if sample.text is None:
        return None
    if len(sample.text) != len(sample.captions):
        return f"text: found features of {len(sample.text)} captions, expected {len(sample.captions)}"
    return next(filter(None, (_array_fault("text", features, 2) for features in sample.text)), None)


def _array_fault(field: str, array: np.ndarray, axes: int) -> str | None:
    if array.dtype != np.float16 or array.ndim != axes or not array.size:
        return f"{field}: found {array.dtype} {array.shape}, expected float16 with {axes} axes"
    if not (finite := np.isfinite(array)).all():
        place = tuple(int(index) for index in np.argwhere(~finite)[0])
        return f"{field}: found {array[place]} at {place}, expected finite numbers; leave the sample out"
    return None


def _is_text(text: str) -> bool:
    """Whether `text` can be stored, as half a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
