"""CUDA graphs of the sets of a frame: what the GPU was told once is told again in one go.

A frame at batch 1 is thousands of small operations, and telling a GPU to start one takes longer than most of them run.
How many tokens are known and how many come next is the same in every frame, so every set of a frame has one graph,
which serves all frames, prompts and calls. It is captured when its set comes up for the second time: who makes a single
image pays nothing.

Inputs are copied into fixed places before a graph runs and its result is copied out, so that runs may take turns.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nova.generation.frame import Chain, Sampler, sample_set
from nova.generation.guidance import Guidance
from nova.models.nova import NovaTransformer
from nova.models.spatial import Places


@dataclass(frozen=True)
class _Graph:
    """A captured set: where its noise goes, and where its result is once it has run."""

    graph: torch.cuda.CUDAGraph
    noise: Float[Tensor, "draws b s p"]
    result: Float[Tensor, "b n p"]


@dataclass(frozen=True)
class _Frame:
    """All sets of one kind of frame. They run one after the other, so that they share inputs and working memory."""

    sample: Sampler
    tokens: Float[Tensor, "b n p"]
    order: Int[Tensor, "b n"]
    condition: Float[Tensor, "g b m width"]
    scale: Float[Tensor, ""]
    pool: Any
    sets: dict[int, _Graph | None]
    """By the number of known tokens; None for a set that came up once."""


class SetGraphs:
    """Graphs of the `kinds` of frames used last: of one model, size, batch, diffusion table and kind of guidance."""

    def __init__(self, kinds: int = 4) -> None:
        self._limit = kinds
        self._frames: OrderedDict[object, _Frame] = OrderedDict()
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream()  # one for all: cuBLAS keeps its workspace by stream

    def sampler(self, model: NovaTransformer, chain: Chain, guidance: Guidance, places: Places) -> Sampler:
        """What samples sets as `sample_set` does with these arguments."""
        plain = functools.partial(sample_set, model, chain, guidance, places)
        weights = tuple(weight.data_ptr() for weight in model.parameters())
        unlike = (guidance.truncation, guidance.renorm, guidance.image_scale)  # its scale is an input
        kind = (weights, chain.table, unlike, places.grid)

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
                sets = (kind, condition.shape, noise.shape[0])
                frame = self._frame(sets, plain, tokens, order, condition)
                if done not in frame.sets:
                    frame.sets[done] = None
                    return plain(tokens, order, condition, noise, scale, done=done)
                graph = frame.sets[done] or self._capture(frame, noise, done)
                for place, given in zip(
                    (frame.tokens, frame.order, frame.condition, graph.noise),
                    (tokens, order, condition, noise),
                    strict=True,
                ):
                    place.copy_(given)
                frame.scale.fill_(scale)
                graph.graph.replay()
                return graph.result.clone()

        return sample

    def _frame(self, kind: object, sample: Sampler, tokens: Tensor, order: Tensor, condition: Tensor) -> _Frame:
        if kind not in self._frames:
            if len(self._frames) >= self._limit:
                torch.cuda.synchronize()  # nothing is taken away from a graph that runs
                self._frames.popitem(last=False)
            self._frames[kind] = _Frame(
                sample,
                torch.empty_like(tokens),
                torch.empty_like(order),
                torch.empty_like(condition),
                torch.empty((), device=tokens.device),
                torch.cuda.graph_pool_handle(),
                {},
            )
        self._frames.move_to_end(kind)
        return self._frames[kind]

    def _capture(self, frame: _Frame, noise: Tensor, done: int) -> _Graph:
        graph, noise = torch.cuda.CUDAGraph(), torch.empty_like(noise)
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(frame.pool, capture_error_mode="thread_local")
            try:
                result = frame.sample(frame.tokens, frame.order, frame.condition, noise, frame.scale, done=done)
            finally:
                graph.capture_end()
        frame.sets[done] = captured = _Graph(graph, noise, result)
        return captured
