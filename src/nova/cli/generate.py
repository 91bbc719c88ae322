"""`nova generate`: its flags, and what they ask for as a `Job`."""

from __future__ import annotations

import dataclasses
import json
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nova.cli.job import Job, Report, run
from nova.cli.request import Settings, flag_of, parse_size, plan_samples
from nova.errors import UsageError
from nova.presets import PRESETS, preset_options

_what = partial(typer.Option, rich_help_panel="What to make")
_how = partial(typer.Option, rich_help_panel="How to make it")
_where = partial(typer.Option, rich_help_panel="Where it goes")
_DEFAULTS = Settings()
_WITH_FROM = {  # flags that say where, not what
    *("source", "model", "lora", "image", "video", "device", "offload", "compiled"),
    *("batch", "executor", "workers", "output", "sheet", "overwrite", "quiet", "verbose", "as_json"),
}


class Executor(StrEnum):
    """Who makes the outputs."""

    local = "local"
    ray = "ray"


class Dtype(StrEnum):
    """Precisions of weights and activations."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def generate(
    context: typer.Context,
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to show.")] = None,
    prompts_file: Annotated[
        Path | None, _what("--prompts", metavar="FILE", help="Prompts: a line each in .txt, an object each in .jsonl.")
    ] = None,
    class_label: Annotated[list[int] | None, _what(help="For class-conditional models; may be repeated.")] = None,
    model: Annotated[str, _how(metavar="MODEL", help="A name, a folder or a hub id.")] = "digits",
    lora: Annotated[Path | None, _how(metavar="DIR", help="A LoRA adapter for the model.")] = None,
    negative_prompt: Annotated[str | None, _what(metavar="TEXT", help="What to lead away from.")] = None,
    image: Annotated[Path | None, _what(metavar="FILE", help="The first frame.")] = None,
    video: Annotated[Path | None, _what(metavar="FILE", help="A clip to go on from.")] = None,
    frames: Annotated[int | None, _what(help="Frames; 1 is an image. (default: the trained length)")] = None,
    size: Annotated[str | None, _what(metavar="HxW", help="Pixels. (default: the trained size)")] = None,
    preset: Annotated[
        str, _how(metavar="|".join(PRESETS), help="A set of the options below; those given win over it.")
    ] = "exact",
    steps: Annotated[int, _how(help="Autoregressive steps a frame.")] = _DEFAULTS.num_inference_steps,
    diffusion_steps: Annotated[int, _how(help="Denoising steps a token.")] = _DEFAULTS.num_diffusion_steps,
    diffusion_order: Annotated[
        int, _how(help="2: a solver that needs fewer denoising steps.")
    ] = _DEFAULTS.diffusion_order,
    guidance: Annotated[float, _how(help="How strongly to follow the prompt; 1: off.")] = _DEFAULTS.guidance_scale,
    min_guidance: Annotated[float | None, _how(help="Guidance at a frame's first step, rising from there.")] = None,
    guidance_trunc: Annotated[
        float, _how(help="No guidance below this diffusion time (0 to 1000).")
    ] = _DEFAULTS.guidance_trunc,
    guidance_renorm: Annotated[
        float, _how(help="Least factor by which guided predictions may shrink; 1: never.")
    ] = _DEFAULTS.guidance_renorm,
    image_guidance: Annotated[
        float, _how(help="How strongly a frame follows earlier ones.")
    ] = _DEFAULTS.image_guidance_scale,
    guidance_start: Annotated[
        float, _how(help="No guidance before this part (0 to 1) of a frame's sets.")
    ] = _DEFAULTS.guidance_start,
    guidance_end: Annotated[
        float, _how(help="No guidance after this part (0 to 1) of a frame's sets.")
    ] = _DEFAULTS.guidance_end,
    motion: Annotated[float, _what(help="Motion score: mean pixels a frame.")] = _DEFAULTS.motion_score,
    fps: Annotated[float, _what(help="Frame rate, of the model's condition and of the file.")] = _DEFAULTS.fps,
    flow_shift: Annotated[float | None, _how(help="For flow matching. (default: the model's)")] = None,
    window: Annotated[int | None, _how(help="Frames seen together in long videos. (default: all)")] = None,
    seed: Annotated[int, _what(help="Of the first output; each further one has the next.")] = 0,
    count: Annotated[int, _what(help="Outputs for each prompt.")] = 1,
    dtype: Annotated[Dtype, _how(help="Precision; auto is bfloat16 on a GPU, else float32.")] = Dtype.auto,
    device: Annotated[str, _how(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    offload: Annotated[bool, _how("--offload", help="Keep only the part at work on the GPU.")] = False,
    compiled: Annotated[
        bool, _how("--compile", help="Fuse operations first: a minute that many outputs on a GPU earn back.")
    ] = False,
    batch: Annotated[
        int | None, _how(help="Outputs made together. (default: what fills a GPU; 1 on a CPU)", min=1)
    ] = None,
    executor: Annotated[Executor, _how(help="Where: this process, or the workers of a Ray cluster.")] = Executor.local,
    workers: Annotated[
        int | None, _how(help="Workers on Ray. (default: one a GPU, or one a machine without any)", min=1)
    ] = None,
    output: Annotated[
        Path | None, _where("--output", "-o", metavar="PATH", help="A .mp4, .gif or .png file, or a folder.")
    ] = None,
    sheet: Annotated[Path | None, _where(metavar="FILE.png", help="Also a contact sheet of all outputs.")] = None,
    overwrite: Annotated[bool, _where("--overwrite", help="Replace what is there instead of going on.")] = False,
    source: Annotated[
        Path | None, _what("--from", metavar="SIDECAR.json", help="Make a file again from the JSON beside it.")
    ] = None,
    quiet: Annotated[bool, _where("--quiet", "-q", help="No progress bar and no paths.")] = False,
    verbose: Annotated[
        bool, _where("--verbose", "-v", help="Say how it was made, and how long each part took.")
    ] = False,
    as_json: Annotated[bool, _where("--json", help="Print one JSON object with outputs and timings.")] = False,
) -> None:
    """Make images and videos from text, class labels, an image or a clip.

    Beside every output stands a JSON file from which it can be made again.
    """
    if image is not None and video is not None:
        raise UsageError("--image and --video: give one of them; the clip's first frame is its image")
    files = Job(
        samples=[],
        settings=_DEFAULTS,
        model=model,
        lora=lora,
        image=image,
        video=video,
        output=output,
        sheet=sheet,
        overwrite=overwrite,
        batch=batch,
        executor=executor.value,
        workers=workers,
        dtype=dtype.value,
        device=device,
        offload=offload,
        compiled=compiled,
        quiet=quiet,
    )
    if source is not None:
        job = _repeat(context, source, files)
    else:
        height, width = (None, None) if size is None else parse_size(size)
        options = {
            "num_frames": frames,
            "height": height,
            "width": width,
            "num_inference_steps": steps,
            "num_diffusion_steps": diffusion_steps,
            "diffusion_order": diffusion_order,
            "guidance_scale": guidance,
            "min_guidance_scale": min_guidance,
            "guidance_trunc": guidance_trunc,
            "guidance_renorm": guidance_renorm,
            "image_guidance_scale": image_guidance,
            "guidance_start": guidance_start,
            "guidance_end": guidance_end,
            "motion_score": motion,
            "fps": fps,
            "flow_shift": flow_shift,
            "window_frames": window,
        }
        settings = Settings(**{**options, **_of_preset(context, preset)})
        samples = plan_samples(prompts or [], prompts_file, class_label or [], negative_prompt, seed, count)
        job = dataclasses.replace(files, samples=samples, settings=settings)
    _tell(run(job), job, quiet, verbose, as_json)


def _explicit(context: typer.Context) -> set[str]:
    """Parameters that the command line names."""
    return {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}


def _of_preset(context: typer.Context, preset: str) -> dict[str, Any]:
    """The preset's options, but for those that the command line names."""
    given = _explicit(context)
    return {
        option: value
        for option, value in preset_options(preset).items()
        if flag_of(option).removeprefix("--").replace("-", "_") not in given
    }


def _repeat(context: typer.Context, source: Path, files: Job) -> Job:
    """The job that makes the output of a sidecar again."""
    explicit = _explicit(context)
    for name in sorted(explicit - _WITH_FROM):
        flag = "PROMPT" if name == "prompts" else f"--{name.removesuffix('_file').replace('_', '-')}"
        raise UsageError(f"--from: {source} already says {flag}; leave one of the two out")
    from nova.cli.sidecar import read_sidecar

    recorded = read_sidecar(source)
    lora = None if recorded.lora is None else Path(recorded.lora.name)
    image = None if recorded.image is None else Path(recorded.image.path)
    video = None if recorded.video is None else Path(recorded.video.path)
    return dataclasses.replace(
        files,
        samples=[recorded.sample],
        settings=recorded.options,
        model=files.model if "model" in explicit else recorded.model.name,
        lora=files.lora or lora,
        image=files.image or image,
        video=files.video or video,
        device=recorded.environment.device if files.device == "auto" else files.device,
        dtype=recorded.environment.dtype,
        compiled=files.compiled or recorded.environment.compiled,
        threads=recorded.environment.threads,
        recorded=(source, recorded),
    )


def _tell(report: Report, job: Job, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Say what was made: one JSON object, or a line for each file."""
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report)))
    elif not quiet:
        for path in [*report.outputs, *([] if report.sheet is None else [report.sheet])]:
            typer.echo(path)
    if verbose:
        if report.how is not None:
            print(f"on {report.how}", file=sys.stderr)
        print(
            f"{report.frames} frames: loaded in {report.load_seconds:.1f} s, generated in "
            f"{report.generate_seconds:.1f} s ({report.seconds_per_frame:.2f} s a frame), "
            f"written in {report.write_seconds:.1f} s",
            file=sys.stderr,
        )
    if report.identical is False and job.recorded is not None:
        before = job.recorded[1].environment
        print(
            f"nova: warning: {report.outputs[0]} is not bit for bit the recorded {job.recorded[1].output.file}, made "
            f"with torch {before.torch} on {before.device_name}; other machines and versions round differently",
            file=sys.stderr,
        )
