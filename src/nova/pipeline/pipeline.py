"""`NovaPipeline`: prompts, an image or a clip become images and video.

request  what the caller asked          (request.py)
job      what it means for this model   (_prepare)
steps    latents, set by set            (nova.generation)
output   pixels                         (outputs.py)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from jaxtyping import Float
from torch import Tensor, nn

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import Components, load_components, save_components
from nova.checkpoints.locate import SHIPPED, locate
from nova.diffusion.scheduler import Scheduler
from nova.errors import ResourceError, UsageError, nearest
from nova.generation.options import GenerationOptions
from nova.generation.video import Step, generate_video
from nova.masking import set_sizes
from nova.models.nova import NovaTransformer
from nova.pipeline import inputs
from nova.pipeline.outputs import OUTPUT_TYPES, postprocess
from nova.pipeline.request import Request, from_arguments
from nova.randomness import Generators, normal
from nova.text import encode_text


@dataclasses.dataclass
class NovaPipelineOutput(BaseOutput):
    """Generated videos; an image is a video of one frame.

    `frames` holds the outputs in the order of the prompts, in the form that `output_type` asked for.
    """

    frames: Any


@dataclasses.dataclass(frozen=True)
class _Job:
    """A request, checked and encoded for this model."""

    condition: Tensor
    """Text rows (b l dim) or labels (b), one entry per output."""
    null: Tensor
    """The same for the negative prompts."""
    motion: float
    frame_rate: float
    size: tuple[int, int]
    """Latent height and width."""
    frames: int
    """Latent frames."""
    prefix: Float[Tensor, "b c t h w"] | None
    options: GenerationOptions
    generators: Generators


class NovaPipeline(DiffusionPipeline):
    """Text, class labels, images and clips to images and video.

    One object serves any number of requests, also at the same time: nothing of a request is kept on it.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012 - declared so by diffusers

    def __init__(
        self,
        transformer: NovaTransformer,
        scheduler: Scheduler,
        vae: nn.Module,
        text_encoder: nn.Module | None = None,
        tokenizer: Any | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path = SHIPPED,
        torch_dtype: torch.dtype | None = None,
        *,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> NovaPipeline:
        """Load a model in our layout or the published one, in `dtype` (alias `torch_dtype`; float32 by default).

        The model is the shipped one (`digits`), a folder, or a hub id. Only safetensors are read and no code of the
        folder is run. Raises `CheckpointError` with the file that is missing or damaged.
        """
        wanted = dtype or torch_dtype or torch.float32
        if not isinstance(wanted, torch.dtype) or not wanted.is_floating_point:
            raise UsageError(f"dtype: {wanted!r}; use torch.float32, torch.bfloat16 or torch.float16")
        parts = load_components(locate(pretrained_model_name_or_path, revision), wanted)
        return cls(**{field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)})

    def save_pretrained(self, save_directory: str | Path, layout: str = "nova") -> None:  # type: ignore[override]
        """Write the model to a folder, in our layout or in the `published` one."""
        names = [field.name for field in dataclasses.fields(Components)]
        save_components(Components(**{name: getattr(self, name) for name in names}), Path(save_directory), layout)

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder behind its common face."""
        return Autoencoder(self.vae)

    @torch.no_grad()
    def __call__(self, *args: Any, **arguments: Any) -> NovaPipelineOutput | tuple[Any]:
        """Generate images or videos. The arguments are the fields of `nova.pipeline.request.Request`.

        Raises:
            UsageError: an argument that this model cannot take, named with what would be right.
            ResourceError: the numbers overflowed in half precision.
        """
        request = from_arguments(*args, **arguments)
        job, done = self._prepare(request), 0
        finished = list(job.prefix.unbind(2)) if job.prefix is not None else []
        sets = self._sets(job)
        try:
            with self.progress_bar(total=sets) as bar:
                for step in self._steps(job):
                    if step.sets == 0:
                        continue
                    done += 1
                    bar.update()
                    if step.finished:
                        finished.append(_checked(step))
                    if request.callback_on_step_end is not None:
                        state = {"latents": step.latents}
                        if request.callback_on_step_end(self, done, step.frame, state) is False:
                            break
            frames = self._output(finished, job, request.output_type)
        finally:
            self.maybe_free_model_hooks()
        return NovaPipelineOutput(frames=frames) if request.return_dict else (frames,)

    @torch.no_grad()
    def stream(self, *args: Any, **arguments: Any) -> Iterator[Any]:
        """Yield frames as they are finished: the first is there while the rest is being made.

        Takes the arguments of `__call__`. Each item has the form of `output_type` and holds the frames of one more
        latent frame: one picture first, then as many as the autoencoder's temporal stride; all together they are
        `num_frames`. A frame is decoded from what is there, so it can differ a little from `__call__`'s, whose
        autoencoder sees whole windows; latents are the same. Stop iterating to cancel.
        """
        request = from_arguments(*args, **arguments)
        return self._stream(request, self._prepare(request))

    @torch.no_grad()
    def _stream(self, request: Request, job: _Job) -> Iterator[Any]:
        finished: list[Tensor] = []
        try:
            for step in self._steps(job):
                if step.finished:
                    finished.append(_checked(step))
                    yield self._newest(finished, request.output_type)
        finally:
            self.maybe_free_model_hooks()

    @torch.no_grad()
    def _prepare(self, request: Request) -> _Job:
        """Check everything first, then encode prompts and given frames."""
        config, autoencoder = self.transformer.shape, self.autoencoder
        if request.output_type not in OUTPUT_TYPES:
            raise UsageError(f"output_type: {request.output_type!r}{nearest(str(request.output_type), OUTPUT_TYPES)}")
        stride = autoencoder.spatial_stride
        height, width = inputs.frame_size(request.height, request.width, config, autoencoder)
        clips = self._given_clips(request)
        given = 0 if clips is None else max(len(clip) for clip in clips)
        if isinstance(request.latents, Tensor):
            given = autoencoder.frames(request.latents.shape[2]) if request.latents.ndim == 5 else 0
        frames = self._latent_frames(request.num_frames, given)
        window = request.window_frames and inputs.latent_frames(request.window_frames, config, autoencoder)
        options = request.options(window)
        self.scheduler.sampling.table(options.diffusion_steps, options.flow_shift)
        motion = inputs.scalar(request.motion_score, "motion_score", 0, 1000)
        frame_rate = inputs.scalar(request.fps, "fps", 0.1, 1000)
        copies = request.num_videos_per_prompt
        if not isinstance(copies, int) or copies < 1:
            raise UsageError(f"num_videos_per_prompt: {copies!r}; use a whole number of at least 1")
        prompts = self._count(request)
        generators = inputs.generators(request.generator, prompts * copies)
        size = (height // stride, width // stride)
        if clips is not None:
            inputs.spread(clips, prompts, "image" if request.image is not None else "video", "prompts")
        given_latents = self._given_latents(request, prompts, size, frames)

        condition, null = self._conditions(request)
        prefix = None
        if clips is not None:
            prefix = self._encode([inputs.fit(clip, height, width) for clip in clips], generators, prompts, copies)
        elif given_latents is not None:
            prefix = given_latents.repeat_interleave(copies, dim=0)
        return _Job(
            condition=condition.repeat_interleave(copies, dim=0),
            null=null.repeat_interleave(copies, dim=0),
            motion=motion,
            frame_rate=frame_rate,
            size=size,
            frames=frames,
            prefix=prefix,
            options=options,
            generators=generators,
        )

    def _count(self, request: Request) -> int:
        """Number of prompts; there must be exactly one source of them, of the model's kind."""
        config = self.transformer.shape
        sources = {name: getattr(request, name) for name in ("prompt", "prompt_embeds", "class_labels")}
        wanted = ("class_labels",) if config.text_dim is None else ("prompt", "prompt_embeds")
        found = [name for name, value in sources.items() if value is not None]
        if len(found) != 1 or found[0] not in wanted:
            kind = "class" if config.text_dim is None else "text"
            have = " and ".join(found) or "nothing"
            raise UsageError(f"{have} given; this {kind}-conditional model takes {' or '.join(wanted)}")
        if config.classes is not None:
            return len(inputs.labels(request.class_labels, config.classes))
        if request.prompt_embeds is not None:
            count = len(inputs.embeddings(request.prompt_embeds, "prompt_embeds", config))
        else:
            if self.text_encoder is None or self.tokenizer is None:
                raise UsageError("prompt: this pipeline has no text encoder; give prompt_embeds")
            count = len(inputs.texts(request.prompt, "prompt"))
        if request.negative_prompt is not None and request.negative_prompt_embeds is not None:
            raise UsageError("negative_prompt and negative_prompt_embeds: give one of the two")
        if request.negative_prompt is not None:
            inputs.spread(inputs.texts(request.negative_prompt, "negative_prompt"), count, "negative_prompt", "prompts")
        if request.negative_prompt_embeds is not None:
            rows = inputs.embeddings(request.negative_prompt_embeds, "negative_prompt_embeds", config)
            inputs.spread(rows, count, "negative_prompt_embeds", "prompts")
        return count

    def _given_clips(self, request: Request) -> list[Any] | None:
        """Given first frames, as clips whose length the autoencoder's stride divides; the end of a clip is kept."""
        named = [name for name in ("image", "video", "latents") if getattr(request, name) is not None]
        if len(named) > 1:
            raise UsageError(f"{' and '.join(named)}: give one of them")
        if named and not self.transformer.shape.is_video:
            raise UsageError(f"{named[0]}: this is an image model and cannot go on from given frames; leave it out")
        if request.image is not None:
            return inputs.image_frames(request.image)
        if request.video is None:
            return None
        clips = inputs.video_frames(request.video)
        if len({len(clip) for clip in clips}) > 1:
            raise UsageError("video: clips of different lengths; give clips of one length")
        kept = len(clips[0]) - (len(clips[0]) - 1) % self.autoencoder.temporal_stride
        return [clip[-kept:] for clip in clips]

    def _latent_frames(self, num_frames: int | None, given: int) -> int:
        """Latent frames to make, given frames included."""
        config = self.transformer.shape
        known = inputs.latent_frames(given, config, self.autoencoder) if given else 0
        if num_frames is None:
            return max(config.latent_frames, known + max(1, config.latent_frames // 2) if known > 1 else 0)
        frames = inputs.latent_frames(num_frames, config, self.autoencoder)
        if known >= frames:
            more = self.autoencoder.frames(known + 1)
            raise UsageError(f"num_frames: {num_frames}, but {given} frames are given; use at least {more}")
        return frames

    def _given_latents(
        self, request: Request, prompts: int, size: tuple[int, int], frames: int
    ) -> Float[Tensor, "b c t h w"] | None:
        latents, channels = request.latents, self.transformer.shape.channels
        if latents is None:
            return None
        shape = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        if not isinstance(shape, tuple) or len(shape) != 5 or (shape[1], *shape[3:]) != (channels, *size):
            raise UsageError(f"latents: {shape}; give a tensor (b {channels} t {size[0]} {size[1]})")
        if shape[0] not in (1, prompts) or shape[2] >= frames:
            raise UsageError(f"latents: {shape} for {prompts} prompts and {frames} latent frames; give fewer frames")
        return latents.float().expand(prompts, -1, -1, -1, -1)

    def _conditions(self, request: Request) -> tuple[Tensor, Tensor]:
        """Prompt and null condition of every prompt: text rows or labels."""
        config, model = self.transformer.shape, self.transformer
        if model.label is not None:
            labels = torch.tensor(inputs.labels(request.class_labels, config.classes))
            return labels, torch.full_like(labels, model.label.null_class)
        if request.prompt_embeds is not None:
            features = inputs.embeddings(request.prompt_embeds, "prompt_embeds", config)
        else:
            features = self._features(inputs.texts(request.prompt, "prompt"))
        if request.negative_prompt_embeds is not None:
            negative = inputs.embeddings(request.negative_prompt_embeds, "negative_prompt_embeds", config)
        elif request.negative_prompt is not None:
            negative = self._features(inputs.texts(request.negative_prompt, "negative_prompt"))
        else:
            negative = [model.text.null_rows[:0]]
        negative = inputs.spread(negative, len(features), "negative_prompt", "prompts")
        return model.text.rows(features), model.text.rows(negative)

    def _features(self, prompts: list[str]) -> list[Tensor]:
        return encode_text(self.tokenizer, self.text_encoder, prompts, self.transformer.shape.text_tokens)

    def _encode(
        self, clips: list[Float[Tensor, "1 3 f h w"]], generators: Generators, prompts: int, copies: int
    ) -> Float[Tensor, "b c t h w"]:
        """Scaled latents of the given frames of every output, one posterior sample for each generator."""
        autoencoder = self.autoencoder
        device = self._execution_device
        moments = torch.cat([autoencoder.encode(clip.to(device)) for clip in clips])
        each = inputs.spread(list(moments.split(1)), prompts, "image", "prompts")
        if isinstance(generators, Sequence):
            moments = torch.cat(each).repeat_interleave(copies, dim=0)
        shape = (len(moments), moments.shape[1] // 2, *moments.shape[2:])
        latents = autoencoder.latents(moments, normal(shape, generators, device))
        if isinstance(generators, Sequence):
            return latents
        return torch.cat(inputs.spread(list(latents.split(1)), prompts, "image", "prompts")).repeat_interleave(
            copies, dim=0
        )

    def _sets(self, job: _Job) -> int:
        """Sets of tokens to be made, for the progress bar."""
        rows, columns = (side // self.transformer.shape.patch for side in job.size)
        given = 0 if job.prefix is None else job.prefix.shape[2]
        return (job.frames - given) * len(set_sizes(rows * columns, job.options.steps))

    def _steps(self, job: _Job) -> Iterator[Step]:
        """Run the generation. On a CPU, outputs with generators of their own run one by one, in step.

        There a matrix product's last bits depend on its number of rows; a sample that has a generator of its own
        shall not depend on its batch at all.
        """
        device = self._execution_device
        _bring(self.transformer)
        count = len(job.condition)
        if isinstance(job.generators, Sequence) and device.type == "cpu" and count > 1:
            runs = [self._run(job, slice(index, index + 1), [job.generators[index]]) for index in range(count)]
            for steps in zip(*runs, strict=True):
                yield dataclasses.replace(steps[0], latents=torch.cat([step.latents for step in steps]))
        else:
            yield from self._run(job, slice(None), job.generators)

    def _run(self, job: _Job, outputs: slice, generators: Generators) -> Iterator[Step]:
        model, device, guidance = self.transformer, self._execution_device, job.options.guidance
        condition, null = (one[outputs].to(device) for one in (job.condition, job.null))
        motion = torch.full((len(condition),), job.motion, device=device)
        frame_rate = torch.full((len(condition),), job.frame_rate, device=device)
        with torch.no_grad():
            prompt = model.prompt(condition, motion, frame_rate)
            empty = prompt if guidance.branches == 1 else model.prompt(null, motion, frame_rate)
        return generate_video(
            model,
            self.scheduler.sampling,
            guidance.expand(prompt, empty),
            job.size,
            job.frames,
            job.options,
            generators,
            None if job.prefix is None else job.prefix[outputs].to(device),
        )

    def _output(self, finished: list[Float[Tensor, "b c h w"]], job: _Job, output_type: str) -> Any:
        """Decode every output by itself: memory does not grow with the batch, nor do its pixels depend on it."""
        if not finished:
            return []
        latents = torch.stack(finished, dim=2)
        if output_type == "latent":
            return latents
        return postprocess(torch.cat([self.autoencoder.decode(one) for one in latents.split(1)]), output_type)

    def _newest(self, finished: list[Float[Tensor, "b c h w"]], output_type: str) -> Any:
        """Pixels of the last finished latent frame, decoded with what its autoencoder window holds so far."""
        if output_type == "latent":
            return finished[-1].unsqueeze(2)
        autoencoder, newest = self.autoencoder, len(finished) - 1
        start = window_start(newest) if autoencoder.is_video else newest
        latents = torch.stack(finished[start:], dim=2)
        pixels = torch.cat([autoencoder.decode(one) for one in latents.split(1)])
        return postprocess(pixels[:, :, -1 if newest == start else -autoencoder.temporal_stride :], output_type)


def _bring(module: nn.Module) -> None:
    """Move a module to its device where model offload is on; our flows call its parts, not its `forward`."""
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(module)


def _checked(step: Step) -> Float[Tensor, "b c h w"]:
    """A finished frame's latents, refused when they are not numbers."""
    if not torch.isfinite(step.latents).all():
        raise ResourceError(
            f"latent frame {step.frame} came out as NaN or infinity; use dtype bfloat16 or float32 instead of float16"
        )
    return step.latents


NovaPipeline.__call__.__signature__ = inspect.signature(Request)  # type: ignore[attr-defined]
NovaPipeline.stream.__signature__ = inspect.signature(Request)  # type: ignore[attr-defined]
