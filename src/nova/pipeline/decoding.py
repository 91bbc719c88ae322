"""Pixels while latents are still being made: a window of the autoencoder is decoded as soon as its frames are there.

    for each latent frame:  push(frame)      decodes what it completes, on a GPU beside the making of later frames
    pixels = finish()                        decodes what is left

On a GPU there are two streams of work, each done in its order. Decoding has one of its own, which only the event of a
finished frame holds back; the host tells both what to do and waits for neither before `finish`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nova.autoencoders.adapter import Attempt, Autoencoder
from nova.autoencoders.windows import Window

Frame = Float[Tensor, "b c h w"]


class Lane(Protocol):
    """Where decoding takes place, seen from the lane of the caller, the main one."""

    def beside(self, given: Sequence[Tensor]) -> contextlib.AbstractContextManager[None]:
        """What is done inside is done here, after all that the main lane was told so far; it may read `given`."""

    def join(self, made: Tensor) -> None:
        """What the main lane is told from now on is done after all that is done here; it may read `made`."""

    def later(self, value: Bool[Tensor, ""]) -> Callable[[], bool]:
        """What waits for `value`, of the main lane, but not for what the main lane was told after this."""


class InLine:
    """No lane of its own: decoding is done when it is asked for."""

    def beside(self, given: Sequence[Tensor]) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def join(self, made: Tensor) -> None:
        pass

    def later(self, value: Bool[Tensor, ""]) -> Callable[[], bool]:
        return lambda: bool(value)


class CudaLane:
    """A CUDA stream. It is for many calls: memory that one stream has freed is not at hand for another.

    A tensor belongs to the stream that made it: once Python drops it, that stream may write over it. `record_stream`
    says that another one reads it too.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    @contextlib.contextmanager
    def beside(self, given: Sequence[Tensor]) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        for tensor in given:
            tensor.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            yield

    def join(self, made: Tensor) -> None:
        main = torch.cuda.current_stream(self.device)
        main.wait_stream(self._stream)
        made.record_stream(main)

    def later(self, value: Bool[Tensor, ""]) -> Callable[[], bool]:
        copy = value.to("cpu", non_blocking=True)  # to pinned memory, and there when the event is
        event = torch.cuda.current_stream(self.device).record_event()

        def wait() -> bool:
            event.synchronize()
            return bool(copy)

        return wait


class Decoding:
    """The pixels of one call. With `early` false everything is decoded at the end."""

    def __init__(self, autoencoder: Autoencoder, lane: Lane, *, early: bool) -> None:
        self._autoencoder = autoencoder
        self._lane = lane
        self._early = early
        self._frames: list[Frame] = []
        self._done = 0
        self._outputs: list[list[Attempt]] = []

    def push(self, frame: Frame) -> None:
        """Take the scaled latents of the next frame."""
        self._frames.append(frame)
        if self._early:
            self._decode(complete=False)

    def finish(self) -> Float[Tensor, "b 3 f H W"]:
        """Pixels of all frames, at least one; as `Autoencoder.decode` of each output. No frame may come after this.

        Raises:
            ResourceError: where float16 and float32 both give numbers that are not finite.
        """
        self._decode(complete=True)
        with self._lane.beside(()):
            pixels = torch.cat([_video(windows) for windows in self._outputs])
        self._lane.join(pixels)
        return pixels

    def _decode(self, *, complete: bool) -> None:
        """Decode the windows that are there."""
        while window := self._autoencoder.next_window(self._done, len(self._frames), complete=complete):
            with self._lane.beside(self._frames[window.begin : window.end]):
                parts = decode_window(self._autoencoder, self._frames, window)
            self._outputs = self._outputs or [[] for _ in parts]
            for windows, part in zip(self._outputs, parts, strict=True):
                windows.append(part)
            self._done = window.end


def decode_window(autoencoder: Autoencoder, frames: Sequence[Frame], window: Window) -> list[Attempt]:
    """A window of `frames` of every output by itself: neither do its pixels depend on the batch, nor work space."""
    latents = torch.stack(list(frames[window.begin : window.end]), dim=2)
    return [autoencoder.decode_window(one, window) for one in latents.split(1)]


def _video(windows: list[Attempt]) -> Float[Tensor, "1 3 f H W"]:
    """All windows of an output, which are let go."""
    # Only here does the host ask whether float16 overflowed: while frames are made it would wait for their decoding.
    pixels = torch.cat([window.settled() for window in windows], dim=2)
    windows.clear()
    return pixels
