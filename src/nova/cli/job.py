"""One run of `nova generate`, from a checked request to files.

    plan the files, refuse what cannot be written   (nothing is loaded yet)
    read the given image or clip, load the model
    for each sample: generate, write the media file, write the JSON beside it

Every sample is a pipeline call of its own with its own generator, so a file does not depend on the others of its run.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nova.cli.outputs import Target, check_writable, choose_suffix, named_suffix, plan_targets, sidecar_of
from nova.cli.request import Sample, Settings, in_flags
from nova.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from nova.cli.sidecar import Environment, Given, Model, Sidecar
    from nova.pipeline import NovaPipeline

    Load = Callable[[Path, Environment, bool], NovaPipeline]

SHEET_COLUMNS = 8


@dataclasses.dataclass(frozen=True)
class Job:
    """What to make, with what, and where to."""

    samples: list[Sample]
    settings: Settings
    model: str
    lora: Path | None = None
    image: Path | None = None
    video: Path | None = None
    output: Path | None = None
    sheet: Path | None = None
    overwrite: bool = False
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    offload: bool = False
    quiet: bool = False
    recorded: tuple[Path, Sidecar] | None = None
    """The sidecar that this run repeats."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was made, and how long it took."""

    outputs: list[str]
    sidecars: list[str]
    sheet: str | None
    identical: bool | None
    """Whether a repeated file equals the recorded one bit for bit; None where nothing is repeated."""
    frames: int
    load_seconds: float
    generate_seconds: float
    write_seconds: float
    total_seconds: float
    seconds_per_frame: float
    """Of generation, over all frames."""


def run(job: Job, load: Load | None = None) -> Report:
    """Make all files of `job`. `load` makes a pipeline of a model folder, an environment and whether to offload."""
    started = time.perf_counter()
    targets, folder, call = _plan(job)
    from nova.cli.devices import choose_environment, load_pipeline

    environment = choose_environment(job.device, job.dtype, job.threads, job.offload)
    call |= _inputs(job)
    record = _record(job, folder, environment)
    pipe: Any = (load or load_pipeline)(folder, environment, job.offload)  # diffusers hides its methods from checkers
    if job.lora is not None:
        pipe.load_lora(job.lora)
    shown = not job.quiet and sys.stderr.isatty()
    loaded = time.perf_counter()

    generating = writing = 0.0
    made = 0
    digests, rows = [], []
    for number, (sample, target) in enumerate(zip(job.samples, targets, strict=True), 1):
        label = f"{number}/{len(targets)} {target.media.name}"
        pipe.set_progress_bar_config(disable=not shown, desc=label, unit="set", leave=False)
        clock = time.perf_counter()
        frames = _generate(pipe, sample, call)
        generated = time.perf_counter()
        sidecar = _write(target, frames, sample, job.settings, record)
        generating += generated - clock
        writing += time.perf_counter() - generated
        made += len(frames)
        digests.append(sidecar.output.sha256)
        if job.sheet is not None:
            rows.append((_label(sample), _evenly(frames)))
    if job.sheet is not None:
        from nova.media import contact_sheet, write_image

        write_image(job.sheet, contact_sheet(rows, SHEET_COLUMNS))
    return Report(
        outputs=[str(target.media) for target in targets],
        sidecars=[str(target.sidecar) for target in targets],
        sheet=None if job.sheet is None else str(job.sheet),
        identical=None if job.recorded is None else digests == [job.recorded[1].output.sha256],
        frames=made,
        load_seconds=loaded - started,
        generate_seconds=generating,
        write_seconds=writing,
        total_seconds=time.perf_counter() - started,
        seconds_per_frame=generating / made,
    )


def _plan(job: Job) -> tuple[list[Target], Path, dict[str, Any]]:
    """Targets, model folder and the arguments that all samples share; refuses what cannot be written."""
    named = [job.output, sidecar_of(job.output)] if job.output is not None and named_suffix(job.output) else []
    sheet = [] if job.sheet is None else [job.sheet]
    if job.sheet is not None and (job.sheet.suffix.lower() != ".png" or job.sheet in named):
        raise UsageError(f"--sheet: {job.sheet}; name a .png file of its own")
    check_writable(named + sheet, job.overwrite)  # here already, since the imports below take seconds

    from nova.checkpoints.folder import read_transformer_config
    from nova.checkpoints.locate import locate

    folder = locate(job.model)
    makes_videos = read_transformer_config(folder / "transformer").is_video
    suffix = choose_suffix(job.output, job.settings.num_frames, makes_videos)
    targets = plan_targets(job.output, job.samples, suffix)
    check_writable([path for target in targets for path in (target.media, target.sidecar)], job.overwrite)
    settings = dataclasses.replace(job.settings, num_frames=1) if suffix == ".png" else job.settings
    return targets, folder, dataclasses.asdict(settings)


def _inputs(job: Job) -> dict[str, Any]:
    """The given image or clip, as the pipeline takes it."""
    from nova.media import read_image, read_video

    if job.image is not None:
        return {"image": read_image(job.image)}
    return {"video": read_video(job.video).frames} if job.video is not None else {}


def _record(job: Job, folder: Path, environment: Environment) -> dict[str, Model | Environment | Given | None]:
    """What the sidecars of all samples share; refuses a model or an input that is not the recorded one."""
    from nova.checkpoints.folder import read_index
    from nova.cli.sidecar import (
        Model,
        adapter,
        check_same_adapter,
        check_same_input,
        check_same_model,
        fingerprint,
        given,
    )

    image, video, lora = given(job.image), given(job.video), adapter(job.lora)
    model = Model(name=job.model, files=fingerprint(folder, read_index(folder)))
    if job.recorded is not None:
        source, recorded = job.recorded
        check_same_model(recorded.model, model.files, source)
        check_same_adapter(recorded.lora, lora, source)
        check_same_input(recorded.image, image, "--image", source)
        check_same_input(recorded.video, video, "--video", source)
    return {"model": model, "lora": lora, "environment": environment, "image": image, "video": video}


def _generate(pipe: Any, sample: Sample, call: dict[str, Any]) -> np.ndarray:
    """The frames (f h w 3) uint8 of one sample."""
    import torch

    prompt = {"prompt": sample.prompt, "negative_prompt": sample.negative_prompt, "class_labels": sample.class_label}
    generators = [torch.Generator().manual_seed(sample.seed)]
    try:
        return pipe(**prompt, **call, generator=generators, output_type="np").frames[0]
    except UsageError as error:
        raise UsageError(in_flags(str(error))) from error


def _write(target: Target, frames: np.ndarray, sample: Sample, settings: Settings, record: dict[str, Any]) -> Sidecar:
    """Write one sample's media file, then its sidecar."""
    from nova.cli.sidecar import Output, Sidecar, sha256, write_sidecar
    from nova.media import write_gif, write_image, write_video

    if target.media.suffix.lower() == ".png":
        write_image(target.media, frames[0])
    else:
        write = write_gif if target.media.suffix.lower() == ".gif" else write_video
        write(target.media, frames, settings.fps)
    count, height, width = frames.shape[:3]
    made = Output(file=target.media.name, sha256=sha256(target.media), frames=count, height=height, width=width)
    options = dataclasses.replace(settings, num_frames=count, height=height, width=width)
    sidecar = Sidecar(sample=sample, options=options, output=made, **record)
    write_sidecar(target.sidecar, sidecar)
    return sidecar


def _label(sample: Sample) -> str:
    return sample.prompt if sample.prompt is not None else f"class {sample.class_label}"


def _evenly(frames: np.ndarray) -> np.ndarray:
    """The frames that the sheet will show, so that not all frames of all samples are kept."""
    count = min(SHEET_COLUMNS, len(frames))
    return frames[[round(index * (len(frames) - 1) / max(1, count - 1)) for index in range(count)]]
