"""Outputs in the making: a maker has the model and turns samples into files' bytes, wherever it runs.

What it makes does not touch the disk: its bytes and its sidecar go back to whoever asked, to be put in place.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nova.cli.request import Sample, Settings, in_flags
from nova.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from nova.cli.sidecar import Environment, Sidecar
    from nova.cli.task import Task
    from nova.pipeline import NovaPipeline

    Load = Callable[[Path, Environment, bool], NovaPipeline]

AHEAD = 256
"""Outputs whose prompts are encoded at a time: with offload, the text encoder comes to the GPU once for them."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One output to be made: its number in the job, what it shows, and the name of its media file."""

    number: int
    sample: Sample
    name: str


@dataclasses.dataclass(frozen=True)
class Made:
    """One output."""

    number: int
    data: bytes
    """Of the media file."""
    sidecar: Sidecar
    generate_seconds: float
    """Its part of the time that its batch took."""
    encode_seconds: float


class Maker:
    """A model on its device, and what all outputs of a task share. `load` makes the pipeline."""

    def __init__(self, task: Task, folder: Path, environment: Environment, load: Load) -> None:
        from nova.cli.devices import hasten

        self.task = task
        self.environment = environment
        # diffusers hides its methods from checkers
        self._pipe: Any = load(folder, environment, task.offload)
        self._pipe.set_progress_bar_config(disable=True)
        if task.lora is not None:
            self._pipe.load_lora(task.lora)
        hasten(self._pipe, environment)
        self._texts = Texts(self._pipe)

    def ahead(self, items: Sequence[Item]) -> None:
        """Say which items will come, so that their prompts are encoded together."""
        self._texts.expect([item.sample for item in items])

    def make(
        self, items: Sequence[Item], wanted: Container[int], tell: Callable[[], object] = lambda: None
    ) -> Iterator[Made]:
        """Make `items` together and yield those whose numbers are `wanted`; `tell` is called after every set."""
        started = time.perf_counter()
        frames = self._generate([item.sample for item in items], self.task.settings, tell)
        seconds = (time.perf_counter() - started) / len(items)
        for item, video in zip(items, frames, strict=True):
            if item.number in wanted:
                yield self._finish(item, video, len(items), seconds)

    def probe(self, item: Item) -> None:
        """Make one output in the fewest steps, and throw it away: memory does not depend on their number."""
        settings = dataclasses.replace(self.task.settings, num_inference_steps=1, num_diffusion_steps=1)
        self._generate([item.sample], settings, lambda: None)

    def _generate(self, samples: Sequence[Sample], settings: Settings, tell: Callable[[], object]) -> np.ndarray:
        """Frames (b f h w 3) uint8, each sample's with a generator of its own."""
        import torch

        def after_set(*_: object) -> None:
            tell()

        try:
            return self._pipe(
                **self._texts.conditions(samples),
                **dataclasses.asdict(settings),
                **self.task.given,
                generator=[torch.Generator().manual_seed(sample.seed) for sample in samples],
                output_type="np",
                callback_on_step_end=after_set,
            ).frames
        except UsageError as error:
            raise UsageError(in_flags(str(error))) from error

    def _finish(self, item: Item, frames: np.ndarray, batch: int, seconds: float) -> Made:
        from nova.cli.sidecar import Output, Sidecar, sha256_of

        started = time.perf_counter()
        data = encoded(frames, self.task.suffix, self.task.settings.fps)
        count, height, width = frames.shape[:3]
        sources = self.task.sources
        together = batch if self.environment.device.startswith("cuda") else 1
        sidecar = Sidecar(
            sample=item.sample,
            options=dataclasses.replace(self.task.settings, num_frames=count, height=height, width=width),
            image=sources.image,
            video=sources.video,
            model=sources.model,
            lora=sources.lora,
            environment=self.environment.model_copy(update={"batch": together}),
            output=Output(file=item.name, sha256=sha256_of(data), frames=count, height=height, width=width),
        )
        return Made(item.number, data, sidecar, seconds, time.perf_counter() - started)


class Texts:
    """What samples show, as the pipeline takes it. A prompt is encoded once, as long as it is in use."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._rows: dict[str, Any] = {}

    def expect(self, samples: Sequence[Sample]) -> None:
        """Encode what is new among the prompts of `samples`, and forget what is not among them."""
        if self._pipe.text_encoder is None:
            return
        from nova.text import encode_text

        texts = dict.fromkeys(text for sample in samples for text in _texts_of(sample))
        new = [text for text in texts if text not in self._rows]
        most = self._pipe.transformer.shape.text_tokens
        found = encode_text(self._pipe.tokenizer, self._pipe.text_encoder, new, most) if new else []
        self._rows |= zip(new, found, strict=True)
        self._rows = {text: self._rows[text] for text in texts}

    def conditions(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The pipeline's arguments for these samples, which are all of prompts or all of labels."""
        if samples[0].prompt is None:
            return {"class_labels": [sample.class_label for sample in samples]}
        texts = [_texts_of(sample) for sample in samples]
        prompts, negatives = ([pair[index] for pair in texts] for index in (0, 1))
        if self._pipe.text_encoder is None:
            return {"prompt": prompts, "negative_prompt": negatives if any(negatives) else None}
        if any(text not in self._rows for pair in texts for text in pair):
            self.expect(samples)
        return {
            "prompt_embeds": [self._rows[text] for text in prompts],
            "negative_prompt_embeds": [self._rows[text] for text in negatives],
        }


def _texts_of(sample: Sample) -> tuple[str, str]:
    """Prompt and negative prompt; none is the same as an empty one."""
    return sample.prompt or "", sample.negative_prompt or ""


def encoded(frames: np.ndarray, suffix: str, fps: float) -> bytes:
    """The bytes of a media file of frames (f h w 3) uint8."""
    from nova.media import write_gif, write_image, write_video

    with tempfile.TemporaryDirectory(prefix="nova-") as folder:
        path = Path(folder) / f"output{suffix}"
        if suffix == ".png":
            write_image(path, frames[0])
        else:
            write = write_gif if suffix == ".gif" else write_video
            write(path, frames, fps)
        return path.read_bytes()
