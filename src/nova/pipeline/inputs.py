"""What callers give, checked and in the form that generation takes.

Every check names the argument, what was found and what would be right, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nova.autoencoders.adapter import Autoencoder
from nova.errors import UsageError
from nova.models.config import NovaConfig


def texts(prompt: object, name: str) -> list[str]:
    """A prompt or a list of prompts, as a list."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(one, str) for one in prompts):
        raise UsageError(f"{name}: a {type(prompt).__name__}; give a string or a list of strings")
    if not prompts:
        raise UsageError(f"{name}: an empty list; give at least one prompt")
    return list(prompts)


def labels(class_labels: object, classes: int) -> list[int]:
    """A class label or a list of them, as a list of labels in 0..classes - 1."""
    found = class_labels.tolist() if isinstance(class_labels, Tensor | np.ndarray) else class_labels
    found = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    if not found:
        raise UsageError("class_labels: an empty list; give at least one label")
    for label in found:
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < classes:
            raise UsageError(f"class_labels: {label!r}; use whole numbers from 0 to {classes - 1}")
    return found


def embeddings(rows: object, name: str, config: NovaConfig) -> list[Float[Tensor, "_ dim"]]:
    """Text features given by the caller: (b l dim), or one (l dim) per prompt."""
    found = [rows] if isinstance(rows, Tensor) and rows.ndim == 2 else rows
    found = list(found) if isinstance(found, Tensor | Sequence) else []
    if not found:
        raise UsageError(f"{name}: give a tensor (b l {config.text_dim}) or a list of tensors (l {config.text_dim})")
    for one in found:
        if not isinstance(one, Tensor) or one.ndim != 2 or one.shape[1] != config.text_dim:
            shape = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
            raise UsageError(f"{name}: an entry of shape {shape}; this model takes (l, {config.text_dim})")
        if len(one) > config.text_tokens:
            raise UsageError(f"{name}: {len(one)} rows; this model takes at most {config.text_tokens}")
    return found


def spread(values: list[Any], count: int, name: str, of: str) -> list[Any]:
    """One value for all of `count`, or exactly one for each."""
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise UsageError(f"{name}: {len(values)} given for {count} {of}; give one, or one for each")
    return values


def generators(given: object, count: int) -> torch.Generator | list[torch.Generator] | None:
    """One generator for the batch, one per output, or seeds for these: a whole number n means n, n + 1, ..."""
    if given is None or isinstance(given, torch.Generator):
        return given
    if isinstance(given, int):
        given = [given + index for index in range(count)]
    if not isinstance(given, Sequence) or len(given) != count:
        found = len(given) if isinstance(given, Sequence) else type(given).__name__
        raise UsageError(
            f"generator: {found} for {count} outputs; give one generator, or one generator or seed for each"
        )
    made = [torch.Generator().manual_seed(one) if isinstance(one, int) else one for one in given]
    for one in made:
        if not isinstance(one, torch.Generator):
            raise UsageError(f"generator: a {type(one).__name__} in the list; use torch.Generator or whole numbers")
    return made


def scalar(value: object, name: str, low: float, high: float) -> float:
    """A finite number from `low` to `high`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{name}: {value!r}; use a number from {low:g} to {high:g}")
    return float(value)


def frame_size(height: int | None, width: int | None, config: NovaConfig, autoencoder: Autoencoder) -> tuple[int, int]:
    """Height and width in pixels; the trained size where None."""
    stride = autoencoder.spatial_stride
    step = 2 * config.patch * stride
    sizes = []
    for name, value, trained in (("height", height, config.latent_height), ("width", width, config.latent_width)):
        size = trained * stride if value is None else value
        if not isinstance(size, int) or size < step or size % step:
            raise UsageError(
                f"{name}: {size} is not a multiple of {step}; the nearest valid ones are {_near(size, step)}"
            )
        sizes.append(size)
    return sizes[0], sizes[1]


def latent_frames(num_frames: int, config: NovaConfig, autoencoder: Autoencoder) -> int:
    """Latent frames of a video of `num_frames` pixel frames: 1 + stride * k of them make 1 + k."""
    stride = autoencoder.temporal_stride
    if not isinstance(num_frames, int) or isinstance(num_frames, bool) or num_frames < 1:
        raise UsageError(f"num_frames: {num_frames!r}; use a whole number of at least 1")
    if not config.is_video and num_frames > 1:
        raise UsageError(f"num_frames: {num_frames}; this is an image model, use 1")
    if (num_frames - 1) % stride:
        below = num_frames - (num_frames - 1) % stride
        raise UsageError(
            f"num_frames: {num_frames} is not {stride}k + 1; the nearest valid ones are {below} and {below + stride}"
        )
    return 1 + (num_frames - 1) // stride


def image_frames(image: object, name: str = "image") -> list[UInt8[np.ndarray, "1 h w 3"]]:
    """One image or a list of them (PIL, uint8 or float array, tensor), each as a clip of one frame."""
    if isinstance(image, Sequence) and not isinstance(image, str):
        if not image:
            raise UsageError(f"{name}: an empty list; give at least one image")
        return [_picture(one, name)[None] for one in image]
    return [_picture(image, name)[None]]


def video_frames(video: object) -> list[UInt8[np.ndarray, "f h w 3"]]:
    """One clip or a list of clips; a clip is a list of images or an array (f h w 3)."""
    if isinstance(video, Sequence) and not isinstance(video, str) and len(video) and not _is_picture(video[0]):
        return [clip for one in video for clip in video_frames(one)]
    frames = [] if video is None or isinstance(video, str) else list(video)  # type: ignore[call-overload]
    if not frames:
        raise UsageError(f"video: {type(video).__name__} without frames; give images or an array (f h w 3)")
    pictures = [_picture(frame, "video") for frame in frames]
    if len({picture.shape for picture in pictures}) > 1:
        raise UsageError("video: frames of different sizes; give frames of one size")
    return [np.stack(pictures)]


def fit(frames: UInt8[np.ndarray, "f h w 3"], height: int, width: int) -> Float[Tensor, "1 3 f H W"]:
    """Frames scaled to cover `height` x `width`, cut in the middle, in [-1, 1]; the right size is left untouched."""
    if frames.shape[1:3] != (height, width):
        frames = np.stack([_cover(PIL.Image.fromarray(frame), height, width) for frame in frames])
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float()
    return (pixels - 127.5) / 127.5


def _near(size: object, step: int) -> str:
    whole = int(size) if isinstance(size, int | float) else step
    below = max(step, whole // step * step)
    return f"{below} and {below + step}"


def _is_picture(one: object) -> bool:
    return isinstance(one, PIL.Image.Image) or (isinstance(one, np.ndarray | Tensor) and one.ndim == 3)


def _picture(one: object, name: str) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(one, PIL.Image.Image):
        return np.asarray(one.convert("RGB"))
    if isinstance(one, Tensor) and one.ndim == 3 and one.shape[0] == 3 and one.is_floating_point():
        one = one.permute(1, 2, 0).cpu().numpy()  # tensors are (3 h w) in [0, 1], as output_type="pt" gives them
    if isinstance(one, np.ndarray) and one.ndim == 3 and one.shape[2] == 3:
        if one.dtype == np.uint8:
            return one
        if np.issubdtype(one.dtype, np.floating) and one.min() >= 0 and one.max() <= 1:
            return (one * 255).round().astype(np.uint8)
    found = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, np.ndarray | Tensor) else type(one).__name__
    raise UsageError(f"{name}: {found}; give PIL images, uint8 arrays (h w 3) or float tensors (3 h w) in [0, 1]")


def _cover(image: PIL.Image.Image, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    scale = max(height / image.height, width / image.width)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    scaled = image.resize(size, PIL.Image.Resampling.LANCZOS)
    return np.asarray(scaled.crop((left, top, left + width, top + height)))
