"""CUDA graphs of the sets of a frame: what the GPU was told once is told again in one go.

A frame at batch 1 is thousands of small operations, and telling a GPU to start one takes longer than most of them run.
How many tokens are known and how many come next is the same in every frame, so every set of a frame has one graph,
which serves all frames, prompts and calls. It is captured when its set comes up for the second time: who makes a single
image pays nothing.

Inputs are copied into fixed places before a graph runs and its result is copied out, so that runs may take turns. Where
a set cannot be captured, sets are sampled plainly from then on, with a warning.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.diffusion.process import SolverStep
from nova.generation.frame import Chain, Sampler, sample_set
from nova.generation.guidance import Guidance
from nova.models.nova import NovaTransformer
from nova.models.spatial import Places

Replay = Callable[[], object]


@runtime_checkable
class Recorder(Protocol):
    """What makes graphs."""

    def memory(self) -> Any:
        """Working memory for graphs that never run at the same time."""

    def record(self, function: Callable[[], Tensor], memory: Any) -> tuple[Replay, Tensor]:
        """What runs `function` again on the same tensors, and where its result is once it has run.

        Raises RuntimeError where that is impossible.
        """

    def settle(self) -> None:
        """Wait until no graph runs."""


class CudaRecorder:
    """CUDA graphs of the current device."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # one for all: cuBLAS keeps its workspace by stream

    def memory(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], Tensor], memory: Any) -> tuple[Replay, Tensor]:
        self.settle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(memory, capture_error_mode="thread_local")
            try:
                result = function()
            finally:
                graph.capture_end()
        return graph.replay, result

    def settle(self) -> None:
        torch.cuda.synchronize()


@dataclass(frozen=True)
class _Graph:
    """A recorded set: where its noise goes, what runs it, and where its result is then."""

    noise: Float[Tensor, "draws b s p"]
    replay: Replay
    result: Float[Tensor, "b n p"]


@dataclass(frozen=True)
class _Frame:
    """All sets of one kind of frame. They run one after the other, so that they share inputs and working memory."""

    sample: Sampler
    """Holds on to what the graphs read besides their inputs."""
    tokens: Float[Tensor, "b n p"]
    order: Int[Tensor, "b n"]
    condition: Float[Tensor, "g b m width"]
    scale: Float[Tensor, ""]
    memory: Any
    sets: dict[tuple[int, torch.Size], _Graph | None]
    """By the number of known tokens and the shape of the noise; None for a set that came up once."""

    @classmethod
    def like(cls, sample: Sampler, tokens: Tensor, order: Tensor, condition: Tensor, memory: Any) -> _Frame:
        """A frame without graphs, with places for inputs of these shapes."""
        inputs = (tokens.clone(), order.clone(), condition.clone())
        return cls(sample, *inputs, torch.ones((), device=tokens.device), memory, {})


class SetGraphs:
    """Graphs of the `kinds` of frames used last: of one model, size, batch, diffusion table and kind of guidance."""

    def __init__(self, recorder: Recorder, kinds: int = 4) -> None:
        self._recorder = recorder
        self._limit = kinds
        self._frames: OrderedDict[object, _Frame] = OrderedDict()
        self._lock = threading.Lock()
        self._possible = True

    def sampler(self, model: NovaTransformer, chain: Chain, guidance: Guidance, places: Places) -> Sampler:
        """What samples sets as `sample_set` does with these arguments."""
        plain = functools.partial(sample_set, model, chain, guidance, places)
        kind = _kind(model, chain.table, guidance, places)

        def sample(
            tokens: Float[Tensor, "b n p"],
            order: Int[Tensor, "b n"],
            condition: Float[Tensor, "g b m width"],
            noise: Float[Tensor, "draws b s p"],
            scale: float | Float[Tensor, ""],
            *,
            done: int,
        ) -> Float[Tensor, "b n p"]:
            with self._lock:
                frame = self._frame((kind, condition.shape, condition.dtype), plain, tokens, order, condition)
                graph = self._graph(frame, noise, done)
                if graph is None:
                    return plain(tokens, order, condition, noise, scale, done=done)
                places = (frame.tokens, frame.order, frame.condition, graph.noise)
                for place, given in zip(places, (tokens, order, condition, noise), strict=True):
                    place.copy_(given)
                frame.scale.fill_(scale)
                graph.replay()
                return graph.result.clone()

        return sample

    def _frame(self, kind: object, sample: Sampler, tokens: Tensor, order: Tensor, condition: Tensor) -> _Frame:
        if kind not in self._frames:
            if len(self._frames) >= self._limit:
                self._recorder.settle()
                self._frames.popitem(last=False)
            self._frames[kind] = _Frame.like(sample, tokens, order, condition, self._recorder.memory())
        self._frames.move_to_end(kind)
        return self._frames[kind]

    def _graph(self, frame: _Frame, noise: Tensor, done: int) -> _Graph | None:
        """The graph of a set, made now if the set comes up for the second time; None for the first."""
        which = (done, noise.shape)
        if which not in frame.sets:
            frame.sets[which] = None
        elif frame.sets[which] is None and self._possible:
            place = noise.clone()
            inputs = (frame.tokens, frame.order, frame.condition, place, frame.scale)
            function = functools.partial(frame.sample, *inputs, done=done)
            try:
                frame.sets[which] = _Graph(place, *self._recorder.record(function, frame.memory))
            except RuntimeError as error:
                self._possible = False
                warnings.warn(f"CUDA graphs are off, generation is slower: {error}", stacklevel=2)
        return frame.sets[which]


def _kind(model: NovaTransformer, table: tuple[SolverStep, ...], guidance: Guidance, places: Places) -> object:
    """What a graph is built on, besides its inputs and their shapes: weights by where they lie, and options."""
    weights = tuple(weight.data_ptr() for weight in model.parameters())
    return weights, table, guidance.truncation, guidance.renorm, guidance.image_scale, places.grid
