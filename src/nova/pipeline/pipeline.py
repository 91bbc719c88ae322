"""`NovaPipeline`: prompts, an image or a clip become images and video.

request  what the caller asked          (request.py)
job      what it means for this model   (prepare.py)
steps    latents, set by set            (nova.generation)
pixels   of frames as they are finished (decoding.py)
output   in the form asked for          (outputs.py)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from jaxtyping import Float
from torch import Tensor, nn

from nova.autoencoders.adapter import Autoencoder
from nova.autoencoders.video import VideoAutoencoder
from nova.checkpoints.folder import Components, load_components, save_components
from nova.checkpoints.locate import SHIPPED, locate
from nova.checkpoints.lora import load_lora, merge_lora
from nova.diffusion.scheduler import Scheduler
from nova.errors import ResourceError, UsageError
from nova.generation.compiled import compile_model
from nova.generation.graphs import CudaRecorder, SetGraphs
from nova.generation.packed import is_packed, pack_model
from nova.generation.video import Step, generate_video
from nova.masking import set_sizes
from nova.models.conditioning import Prompts
from nova.models.nova import NovaTransformer
from nova.pipeline.decoding import CudaLane, Decoding, InLine, Lane, decode_window
from nova.pipeline.outputs import postprocess
from nova.pipeline.prepare import Job, prepare
from nova.pipeline.request import Request, from_arguments
from nova.randomness import Generators


@dataclasses.dataclass
class NovaPipelineOutput(BaseOutput):
    """Generated videos; an image is a video of one frame.

    `frames` holds the outputs in the order of the prompts, in the form that `output_type` asked for.
    """

    frames: Any


class NovaPipeline(DiffusionPipeline):
    """Text, class labels, images and clips to images and video.

    One object serves any number of requests, also at the same time: nothing of a request is kept on it. On a GPU it
    keeps the CUDA graphs and the stream for decoding that they share.
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
        self._kept: SetGraphs | None = None
        self._lane: CudaLane | None = None

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

    def load_lora(self, adapter: str | Path) -> None:
        """Fold a LoRA adapter, the folder of one as PEFT and `nova train` write it, into the transformer's weights.

        Several add up, in the order in which they are loaded. Raises `CheckpointError` for an adapter of another
        model, `UsageError` where PEFT is not installed.
        """
        self._not_after_pack("load_lora")
        merge_lora(load_lora(self.transformer, Path(adapter)))

    def compile(self) -> None:
        """Fuse operations of the transformer with `torch.compile`: for a GPU, and for many outputs.

        The first outputs take up to a minute longer. Results differ in the last bits.
        """
        self._not_after_pack("compile")
        compile_model(self.transformer)
        self._kept = None  # graphs of what is not fused

    def pack(self) -> None:
        """Lay out the transformer's weights for generation on a CPU; on other devices nothing is done.

        For when nothing else will be done with the model: afterwards it can no longer be saved, moved, compiled or
        take an adapter. Results differ in the last bits.
        """
        if self._execution_device.type == "cpu":
            pack_model(self.transformer)

    def _not_after_pack(self, method: str) -> None:
        if is_packed(self.transformer):
            raise UsageError(f"{method}: this pipeline is packed for generation; call {method} before pack()")

    def save_pretrained(self, save_directory: str | Path, layout: str = "nova") -> None:
        """Write the model to a folder, in our layout or in the `published` one."""
        self._not_after_pack("save_pretrained")
        save_components(self.parts, Path(save_directory), layout)

    def enable_model_cpu_offload(self, *args: Any, **arguments: Any) -> None:
        """Keep only the part at work on the GPU: first the text encoder, then the transformer, then the autoencoder.

        A video autoencoder then decodes frame by frame within its layers too (`enable_slicing`). The arguments are
        diffusers' own: `gpu_id`, `device`.
        """
        super().enable_model_cpu_offload(*args, **arguments)
        if isinstance(self.vae, VideoAutoencoder):
            self.vae.enable_slicing()

    @property
    def parts(self) -> Components:
        """The components as one value."""
        return Components(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Components)})

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
        job, done = prepare(self.parts, request, self._execution_device), 0
        finished: list[Tensor] = []
        lane, check = self._decoding_lane(job.device), _nothing
        decoding = Decoding(self.autoencoder, lane, early=not self._takes_turns)
        try:
            with self.progress_bar(total=self._sets(job)) as bar:
                for step in self._steps(job):
                    check()  # the frame before, one set late: while we wait for it, a GPU has that set to do
                    if step.finished:
                        check = _finite(step, lane)
                        finished.append(step.latents)
                        if request.output_type != "latent":
                            decoding.push(step.latents)
                    if step.sets == 0:
                        continue
                    done += 1
                    bar.update()
                    if request.callback_on_step_end is not None:
                        state = {"latents": step.latents}
                        if request.callback_on_step_end(self, done, step.frame, state) is False:
                            break
            check()
            frames = self._output(finished, decoding, request.output_type)
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
        return self._stream(request, prepare(self.parts, request, self._execution_device))

    @torch.no_grad()
    def _stream(self, request: Request, job: Job) -> Iterator[Any]:
        finished: list[Tensor] = []
        try:
            for step in self._steps(job):
                if step.finished:
                    _finite(step, InLine())()
                    finished.append(step.latents)
                    yield self._newest(finished, request.output_type)
                    _bring(self.transformer)  # which the autoencoder may have sent away
        finally:
            self.maybe_free_model_hooks()

    def _sets(self, job: Job) -> int:
        """Sets of tokens to be made, for the progress bar."""
        rows, columns = (side // self.transformer.shape.patch for side in job.size)
        given = 0 if job.prefix is None else job.prefix.shape[2]
        return (job.frames - given) * len(set_sizes(rows * columns, job.options.steps))

    def _steps(self, job: Job) -> Iterator[Step]:
        """Run the generation. On a CPU, outputs with generators of their own run one by one, in step.

        There a matrix product's last bits depend on its number of rows; a sample that has a generator of its own
        shall not depend on its batch at all.
        """
        _bring(self.transformer)
        count = len(job.condition)
        if isinstance(job.generators, Sequence) and job.device.type == "cpu" and count > 1:
            runs = [self._run(job, slice(index, index + 1), [job.generators[index]]) for index in range(count)]
            for steps in zip(*runs, strict=True):
                yield dataclasses.replace(steps[0], latents=torch.cat([step.latents for step in steps]))
        else:
            yield from self._run(job, slice(None), job.generators)

    def _run(self, job: Job, outputs: slice, generators: Generators) -> Iterator[Step]:
        model, device, condition = self.transformer, job.device, job.condition[outputs]
        rows = condition.rows.to(device)
        motion, frame_rate = (torch.full((len(rows),), value, device=device) for value in (job.motion, job.frame_rate))
        with torch.no_grad():
            tokens = model.prompt(rows, motion, frame_rate)
        return generate_video(
            model,
            job.process,
            Prompts(tokens, condition.index),
            job.size,
            job.frames,
            job.options,
            generators,
            None if job.prefix is None else job.prefix[outputs].to(device),
            self._graphs(device),
        )

    def _graphs(self, device: torch.device) -> SetGraphs | None:
        """What a GPU was told before; other devices are told every time, and so is one whose weights come and go."""
        if device.type != "cuda" or self._takes_turns:
            return None
        if self._kept is None:
            self._kept = SetGraphs(CudaRecorder())
        return self._kept

    @property
    def _takes_turns(self) -> bool:
        """Whether the parts take turns on the GPU, so that none can work beside another."""
        return hasattr(self.transformer, "_hf_hook")

    def _decoding_lane(self, device: torch.device) -> Lane:
        """A stream of its own on a GPU that holds all parts."""
        if device.type != "cuda" or self._takes_turns:
            return InLine()
        if self._lane is None or self._lane.device != device:
            self._lane = CudaLane(device)
        return self._lane

    def _output(self, finished: list[Float[Tensor, "b c h w"]], decoding: Decoding, output_type: str) -> Any:
        if not finished:
            return []
        if output_type == "latent":
            return torch.stack(finished, dim=2)
        return postprocess(decoding.finish(), output_type)

    def _newest(self, finished: list[Float[Tensor, "b c h w"]], output_type: str) -> Any:
        """Pixels of the last finished latent frame, decoded with what its autoencoder window holds so far."""
        if output_type == "latent":
            return finished[-1].unsqueeze(2)
        autoencoder = self.autoencoder
        window = autoencoder.preview_window(len(finished) - 1)
        pixels = [output.settled() for output in decode_window(autoencoder, finished, window)]
        return postprocess(torch.cat(pixels), output_type)


def _bring(module: nn.Module) -> None:
    """Move a module to its device where model offload is on; our flows call its parts, not its `forward`."""
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(module)


def _finite(step: Step, lane: Lane) -> Callable[[], None]:
    """What refuses a finished frame's latents when they are not numbers, once it is called."""
    finite = lane.later(torch.isfinite(step.latents).all())

    def check() -> None:
        if not finite():
            raise ResourceError(
                f"latent frame {step.frame} came out as NaN or infinity; "
                "use dtype bfloat16 or float32 instead of float16"
            )

    return check


def _nothing() -> None:
    """There is no frame to check."""


_SELF = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SIGNATURE = inspect.Signature([_SELF, *inspect.signature(Request).parameters.values()])
NovaPipeline.__call__.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
NovaPipeline.stream.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
